import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from efm_agents.demonstrations import collect, collect_file
from efm_agents.parallel import AHEAD, BATCH, in_order, number_of_workers
from efm_envs.data import Episode, load_episodes
from efm_envs.errors import EFMError, UnknownNameError, UnknownOptionError
from efm_envs.seeding import EpisodeSet, episode_seeds

POINT_MASS = "EFM-PointMass-v0"
LANGUAGE_TABLE = "EFM-LanguageTablePoint-v0"


def test_demonstrations_are_successful_long_enough_and_in_the_order_of_their_seeds(demonstrations: Sequence[Episode]) -> None:
    seeds = [e.seed for e in demonstrations]
    first = next(episode_seeds(EpisodeSet.DEMONSTRATIONS, 0))
    assert len(demonstrations) == 60 and seeds == sorted(set(seeds)) and first <= seeds[0] and seeds[-1] < first + 2**20
    assert all(e.is_success[-1] and not e.is_success[:-1].any() and len(e) >= 10 for e in demonstrations)


def test_more_demonstrations_begin_with_the_fewer(demonstrations: Sequence[Episode]) -> None:
    fewer = collect(POINT_MASS, 5)
    assert [e.seed for e in fewer] == [e.seed for e in demonstrations[:5]]
    np.testing.assert_array_equal(fewer[4].actions, demonstrations[4].actions)


def test_a_file_of_demonstrations_holds_what_was_returned(tmp_path: Path) -> None:
    kept = collect_file(tmp_path / "d.npz", POINT_MASS, 5, style="clean", seed=3, min_length=4)
    loaded, meta = load_episodes(tmp_path / "d.npz")
    assert meta == {"style": "clean", "knobs": {}, "seed": 3, "min_length": 4, "options": {}}
    assert [e.seed for e in loaded] == [e.seed for e in kept] and len(loaded) == 5
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(loaded, kept, strict=True))


def test_an_expert_that_fails_too_often_is_given_up_and_the_numbers_are_told() -> None:
    with pytest.raises(EFMError, match=r"only 0 of 320 episodes of expert 'human' succeeded with at least 1000 steps"):
        collect(POINT_MASS, 1, min_length=1000)


def test_an_unknown_style_is_refused_and_the_valid_ones_are_listed() -> None:
    with pytest.raises(UnknownNameError, match=r"'huamn'\. Did you mean 'human'\? Valid: 'clean'"):
        collect(POINT_MASS, 1, style="huamn")


def test_progress_is_told_up_to_the_number_wanted() -> None:
    told: list[tuple[str, int, int, str]] = []
    collect(POINT_MASS, 70, report=lambda *words: told.append(words))
    assert [(done, total) for _, done, total, _ in told][-1] == (70, 70)
    assert all(0 <= done <= 70 for _, done, _, _ in told)


# -- knobs ------------------------------------------------------------------------------------------------------------------------


def test_knobs_change_the_demonstrations_and_stand_in_the_file(tmp_path: Path) -> None:
    still = {"detours": 0, "dither_chance": 0.0, "pause_chance": 0.0, "slowest": 1.0}
    knobs = {**still, "pause_steps": (2, 2)}
    brisk = collect_file(tmp_path / "d.npz", LANGUAGE_TABLE, 5, min_length=1, knobs=knobs)
    usual = collect(LANGUAGE_TABLE, 5, min_length=1)
    assert sum(map(len, brisk)) < sum(map(len, usual))
    assert load_episodes(tmp_path / "d.npz")[1]["knobs"] == {**still, "pause_steps": [2, 2]}


def test_an_unknown_knob_lists_the_valid_ones() -> None:
    with pytest.raises(UnknownOptionError, match=r"expert 'human' of LanguageTable8: 'detour'\. Did you mean 'detours'\? .*'noise'"):
        collect(LANGUAGE_TABLE, 1, knobs={"detour": 4})
    for taken in ("style", "seed", "env", "task"):
        with pytest.raises(UnknownOptionError, match=rf"expert 'human' of PointMass: '{taken}'\. Valid: none"):
            collect(POINT_MASS, 1, knobs={taken: 4})


# -- several workers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env", "knobs"), [(POINT_MASS, {}), (LANGUAGE_TABLE, {"detours": 4})])
def test_the_number_of_workers_does_not_change_the_file(env: str, knobs: dict[str, float], tmp_path: Path) -> None:
    for workers in (1, 2):
        collect_file(tmp_path / str(workers), env, 40, knobs=knobs, workers=workers)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_giving_up_does_not_depend_on_the_number_of_workers() -> None:
    with pytest.raises(EFMError, match=r"only 0 of 320 episodes of expert 'clean' succeeded with at least 1000 steps"):
        collect(POINT_MASS, 17, style="clean", min_length=1000, workers=2)


def test_progress_is_the_same_with_several_workers() -> None:
    told: dict[int, list[object]] = {1: [], 2: []}
    for workers, words in told.items():
        collect(POINT_MASS, 20, style="clean", workers=workers, report=lambda *said, words=words: words.append(said))  # type: ignore[misc]
    assert told[1] == told[2]


def test_an_error_in_a_worker_is_the_callers_error() -> None:
    with pytest.raises(EFMError, match="slowest is more than 0"):
        collect(LANGUAGE_TABLE, 40, knobs={"slowest": 0.0}, workers=2)
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_is_an_error_that_says_so() -> None:
    with pytest.raises(EFMError, match=r"a worker process ended before its work did.*memory.*__main__.*workers=1"):
        list(in_order(os._exit, [1], 2))


def test_work_is_not_begun_long_before_it_is_asked_for() -> None:
    items = itertools.count()
    with contextlib.closing(in_order(str, items, 2)) as done:
        assert [next(done), next(done)] == ["0", "1"]
    assert next(items) == 2 * AHEAD + 2


def test_who_stops_asking_does_not_wait_for_the_rest() -> None:
    with contextlib.closing(in_order(time.sleep, [0, 600, 600], 2)) as done:
        next(done)
        began = time.monotonic()
    assert time.monotonic() - began < 60 and multiprocessing.active_children() == []


KILLED = """
import os, signal, time
from efm_agents.parallel import in_order
next(work := in_order(time.sleep, [0, 600, 600], 2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_die_with_a_parent_that_is_killed() -> None:
    """They hold its stdout, for whose end `run` waits."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_one_worker_is_this_process() -> None:
    assert list(in_order(lambda _: os.getpid(), range(2), 1)) == [os.getpid()] * 2


def test_no_more_processes_are_started_than_have_work() -> None:
    assert number_of_workers(0, 10**6) == os.cpu_count()
    assert [number_of_workers(8, episodes) for episodes in (1, BATCH, BATCH + 1)] == [1, 1, 2]
    with pytest.raises(EFMError, match=r"workers is a whole number, 0 for one per processor; got -1"):
        collect(POINT_MASS, 1, workers=-1)


def test_demonstrations_that_are_there_are_taken_and_others_are_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    first = collect_file(file, POINT_MASS, 3, style="clean", min_length=1)
    written = file.read_bytes()
    again = collect_file(file, POINT_MASS, 3, style="clean", min_length=1)
    assert [episode.seed for episode in again] == [episode.seed for episode in first]
    with pytest.raises(EFMError, match="holds 3 other demonstrations, of EFM-PointMass-v0"):
        collect_file(file, POINT_MASS, 4, style="clean", min_length=1)
    assert file.read_bytes() == written


def test_options_reach_the_env() -> None:
    kept = collect(LANGUAGE_TABLE, 2, min_length=1, options={"instructions": "held_out", "goal_vector": True})
    plain = collect(LANGUAGE_TABLE, 2, min_length=1)
    assert "goal_vector" in kept[0].observations
    assert kept[0].instruction != plain[0].instruction
