"""A run is a folder: its settings, versions, metrics, episodes and checkpoints. Whoever finds it later can tell what was done."""

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from efm_agents.checkpoint import SUFFIX, write_atomically
from efm_agents.loggers import LOGGERS, Logger, figures, make_loggers
from efm_envs.errors import EFMError, one_of

FIGURES = ("metrics", "monitoring")  # the logs whose rows are figures over time
VERSIONED = ("efm-envs", "gymnasium", "mujoco", "numpy", "torch", "safetensors")

Report = Callable[[str, int, int, str], None]  # stage, done, total, a few words


def no_report(stage: str, done: int, total: int, words: str) -> None:
    """Reports progress to nobody."""


class Run:
    """The folder of one run, new or to be resumed.

    Args:
        folder: made if it does not exist.
        program: what runs in it ("sft", "improve", …).
        settings: JSON-able; a folder that holds a run with other settings is refused.
        loggers: where figures go besides, "tensorboard", "trackio" or "wandb"; no setting: a run may be resumed with others.

    Raises:
        EFMError: the folder holds another run.
    """

    def __init__(self, folder: Path | str, program: str, settings: dict[str, Any], loggers: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        self._wanted = tuple(one_of("logger", name, LOGGERS) for name in loggers)
        self._loggers: list[Logger] | None = None  # made when there is something to show
        self._config = config = json.loads(json.dumps({"program": program, **settings}))
        path = self.folder / "config.json"
        if path.is_file():
            _refuse_other_settings(self.folder, json.loads(path.read_text()), config)
        else:
            write_atomically(path, _json(config))
        write_atomically(self.folder / "versions.json", _json(versions()))

    def checkpoint(self, name: str) -> Path:
        """Returns the path of the checkpoint called `name`."""
        return self.folder / "checkpoints" / f"{name}{SUFFIX}"

    def append(self, log: str, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows to `LOG.jsonl`, and shows the loggers those of them that are figures over time."""
        rows = list(rows)
        with (self.folder / f"{log}.jsonl").open("a") as file:
            file.writelines(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows)
        for row in rows if self._wanted and log in FIGURES else ():
            step = int(row["step"] if "step" in row else row["iteration"])
            if self._loggers is None:
                self._loggers = make_loggers(self._wanted, self.folder, self._config, step - 1)
            for logger in self._loggers:
                logger.log(figures(row, log), step)

    def close(self) -> None:
        """Ends what the loggers have begun."""
        for logger in self._loggers or ():
            logger.close()

    def forget_after(self, log: str, key: str, last: int) -> None:
        """Drops the rows whose `key` is beyond `last`: a killed run wrote them after its last checkpoint, and will write them again."""
        path = self.folder / f"{log}.jsonl"
        if path.is_file():
            kept = [row for row in read_log(path) if row[key] <= last]
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Returns the rows of a `.jsonl` file; a last line that a kill cut short is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def versions() -> dict[str, str]:
    """Returns what results depend on: the interpreter, the machine, and the libraries' versions."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def to_settings(config: Any) -> dict[str, Any]:
    """Returns a config's fields as JSON-able values."""
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return settings


def _refuse_other_settings(folder: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    other = [f"{k}: {there.get(k)!r} there, {wanted.get(k)!r} wanted" for k in sorted({*there, *wanted}) if there.get(k) != wanted.get(k)]
    if other:
        raise EFMError(f"{folder} holds a run with other settings ({'; '.join(other)}). Choose another folder, or delete that one.")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with null in place of numbers that are not finite, for which JSON has no word."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
