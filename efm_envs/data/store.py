"""Episodes in one file: a numpy archive without pickles, written whole or not at all."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efm_envs.data.episode import Episode
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.task import Array

FORMAT = "efm_envs.episodes/1"
_PER_STEP = ("actions", "rewards")  # (T, …)
_PER_OBSERVATION = ("steps_to_go", "is_success", "predicted_success")  # (T+1, …), and so are the observations
_PER_EPISODE = ("seed", "instruction", "end_reason", "error", "notes")


def save_episodes(path: Path | str, episodes: Sequence[Episode], meta: Mapping[str, Any] | None = None) -> None:
    """Writes episodes of one env to a `.npz` file: arrays of all episodes end to end, and a JSON header.

    Args:
        path: the file; it is replaced only once the new one is complete.
        episodes: at least one, all of the same env and with the same observations.
        meta: JSON-able facts about how they were made.

    Raises:
        EFMError: no episodes, or episodes of several envs.
    """
    env_ids = sorted({episode.env_id for episode in episodes})
    if len(env_ids) != 1:
        raise EFMError(f"a file holds at least one episode, and those of one env; got {len(episodes)} of {env_ids}.")
    first = episodes[0]
    header = {
        "format": FORMAT,
        "env_id": first.env_id,
        "lengths": [len(e) for e in episodes],
        "episodes": [{name: getattr(e, name) for name in _PER_EPISODE} for e in episodes],
        "meta": dict(meta or {}),
    }
    arrays = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in (*_PER_STEP, *_PER_OBSERVATION)}
    for name in first.observations:
        arrays[f"observations/{name}"] = np.concatenate([e.observations[name] for e in episodes])
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise EFMError(f"{name} of these episodes holds Python objects, which would need a pickle; expected numbers.")
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    _write(Path(path), arrays)


def load_episodes(path: Path | str) -> tuple[list[Episode], dict[str, Any]]:
    """Returns the episodes of a file, and its `meta`.

    Raises:
        CheckpointError: there is no such file, or it is damaged, or not one of ours.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {header['format']!r}; this version reads {FORMAT!r}.")
        return _episodes(header, arrays), header["meta"]
    except FileNotFoundError as error:
        raise CheckpointError(f"no episodes at {path}. `efm demos --out {path}` collects some.") from error
    except CheckpointError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json each have their own for a damaged file
        raise CheckpointError(f"{path} is not a complete file of episodes ({error}): collect them again with `efm demos`.") from error


def _episodes(header: dict[str, Any], arrays: dict[str, Array]) -> list[Episode]:
    lengths = np.array(header["lengths"])
    steps = np.cumsum(lengths)[:-1]
    observations = np.cumsum(lengths + 1)[:-1]
    columns = {name: np.split(a, steps if name in _PER_STEP else observations) for name, a in arrays.items()}
    names = [name for name in columns if name.startswith("observations/")]
    episodes = []
    for i, facts in enumerate(header["episodes"]):
        arrays_of_one: dict[str, Any] = {name: columns[name][i] for name in (*_PER_STEP, *_PER_OBSERVATION)}
        observed = {name.removeprefix("observations/"): columns[name][i] for name in names}
        episodes.append(Episode(env_id=header["env_id"], observations=observed, **arrays_of_one, **facts))
    return episodes


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


assert {f.name for f in dataclasses.fields(Episode)} == {"env_id", "observations", *_PER_STEP, *_PER_OBSERVATION, *_PER_EPISODE}
