"""Episodes on disk: bit for bit, whole or not at all, and never a pickle."""

import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import efm_envs
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.rollout import rollout
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return list(rollout(efm_envs.make_expert, POINT_MASS, range(3)))


@pytest.fixture
def file(episodes: list[Episode], tmp_path: Path) -> Path:
    save_episodes(tmp_path / "demos.npz", episodes, meta={"style": "clean", "nested": {"n": [1, 2.5, None]}})
    return tmp_path / "demos.npz"


def assert_same(a: Episode, b: Episode) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        pairs = [(value, other)] if name != "observations" else [(value[k], other[k]) for k in {*value, *other}]
        for x, y in pairs:
            assert type(x) is type(y), name
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
            else:
                assert x == y


def test_what_is_loaded_is_what_was_saved(file: Path, episodes: list[Episode]) -> None:
    loaded, meta = load_episodes(file)
    assert meta == {"style": "clean", "nested": {"n": [1, 2.5, None]}}
    assert len(loaded) == len(episodes)
    for a, b in zip(episodes, loaded, strict=True):
        assert_same(a, b)


def test_the_same_episodes_give_the_same_bytes(file: Path, episodes: list[Episode]) -> None:
    save_episodes(file.with_name("again.npz"), *load_episodes(file))
    assert file.with_name("again.npz").read_bytes() == file.read_bytes()
    with zipfile.ZipFile(file) as archive:  # whose members could bear the date of the day
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_pictures_and_flat_observations_and_failed_episodes_survive(tmp_path: Path, register) -> None:
    pixels = list(rollout(fakes.constant_policy(np.zeros(2)), POINT_MASS, [0], obs_mode="pixels", step_limit=2, image_size=(8, 8)))
    flat = list(rollout(efm_envs.make_expert, POINT_MASS, [0], obs_mode="flat"))
    failed = list(rollout(fakes.constant_policy(np.zeros(2)), register(fakes.FailingEnv), [1, 2, 3]))
    assert [episode.error is None for episode in failed] == [False, True, False]
    for i, saved in enumerate((pixels, flat, failed)):
        save_episodes(tmp_path / f"{i}.npz", saved)
        for a, b in zip(saved, load_episodes(tmp_path / f"{i}.npz")[0], strict=True):
            assert_same(a, b)


def test_an_episode_that_broke_at_its_first_step_survives(tmp_path: Path, episodes: list[Episode]) -> None:
    whole = episodes[0]
    empty = Episode(
        env_id=whole.env_id,
        seed=1,
        observations={name: value[:1] for name, value in whole.observations.items()},
        actions=whole.actions[:0],
        rewards=whole.rewards[:0],
        steps_to_go=whole.steps_to_go[:1],
        is_success=whole.is_success[:1],
        predicted_success=whole.predicted_success[:1],
        end_reason="error",
        error="it broke",
    )
    save_episodes(tmp_path / "e.npz", [empty, whole, empty])
    for a, b in zip([empty, whole, empty], load_episodes(tmp_path / "e.npz")[0], strict=True):
        assert_same(a, b)


def test_no_damage_goes_by_as_anything_but_damage(file: Path, episodes: list[Episode]) -> None:
    """Whatever byte is wrong: either the error that says so, or (in the archive's own bookkeeping) the same episodes."""
    raw = file.read_bytes()
    for position in range(0, len(raw), 11):
        damaged = bytearray(raw)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        try:
            loaded, _ = load_episodes(file)
        except CheckpointError:
            continue
        np.testing.assert_array_equal(loaded[0].actions, episodes[0].actions)


def test_a_truncated_file_is_refused(file: Path) -> None:
    raw = file.read_bytes()
    for length in range(0, len(raw), 53):
        file.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"demos.npz is not a complete file of episodes .*collect them again"):
            load_episodes(file)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no episodes at .*none\.npz\. `efm demos --out .*none\.npz` collects some"):
        load_episodes(tmp_path / "none.npz")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "list.npz", header=np.frombuffer(b"[1]", np.uint8))
    np.savez(tmp_path / "short.npz", header=np.frombuffer(b'{"format": "efm_envs.episodes/1"}', np.uint8))
    (tmp_path / "text.npz").write_text("hello")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CheckpointError, match=f"{path.name} is not a complete file of episodes"):
            load_episodes(path)


def test_another_format_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", header=np.frombuffer(b'{"format": "efm_envs.episodes/9"}', np.uint8))
    with pytest.raises(CheckpointError, match=r"has format 'efm_envs.episodes/9'; this version reads 'efm_envs.episodes/1'"):
        load_episodes(tmp_path / "new.npz")


class Bomb:
    def __reduce__(self):
        return open, (os.environ["EFM_BOMB"], "x")


def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFM_BOMB", str(tmp_path / "went off"))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "inside.npz", header=np.array([Bomb()], dtype=object))
    for name in ("plain.npz", "inside.npz"):
        with pytest.raises(CheckpointError):
            load_episodes(tmp_path / name)
    assert not (tmp_path / "went off").exists()


KILLED = """
import os, signal, sys
from efm_envs.data import load_episodes, save_episodes
episodes, _ = load_episodes(sys.argv[1])
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)  # between the last byte and the rename
save_episodes(sys.argv[1], episodes[:1], meta={"new": True})
"""


def test_a_kill_before_the_rename_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    process = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert file.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(file: Path, episodes: list[Episode]) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_episodes(file, episodes, meta={"not JSON": object()})
    bad = Episode(**{**vars(episodes[0]), "rewards": np.array([object()])})
    with pytest.raises(EFMError, match="rewards of these episodes holds Python objects"):
        save_episodes(file, [bad])
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_new_file_has_the_rights_that_the_umask_gives(file: Path) -> None:
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


def test_folders_are_made_on_the_way(tmp_path: Path, episodes: list[Episode]) -> None:
    save_episodes(tmp_path / "a" / "b" / "demos.npz", episodes)
    assert len(load_episodes(str(tmp_path / "a" / "b" / "demos.npz"))[0]) == 3


def test_a_file_is_of_one_env_and_of_at_least_one_episode(tmp_path: Path, episodes: list[Episode]) -> None:
    with pytest.raises(EFMError, match=r"at least one episode.* got 0 of \[\]"):
        save_episodes(tmp_path / "e.npz", [])
    other = Episode(**{**vars(episodes[0]), "env_id": "EFM-Other-v0"})
    with pytest.raises(EFMError, match=r"of one env; got 4 of \['EFM-Other-v0', 'EFM-PointMass-v0'\]"):
        save_episodes(tmp_path / "e.npz", [*episodes, other])
