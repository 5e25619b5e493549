from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from efm_agents.demonstrations import collect, collect_file
from efm_envs.data import Episode, load_episodes
from efm_envs.errors import EFMError, UnknownNameError
from efm_envs.seeding import EpisodeSet, episode_seeds

POINT_MASS = "EFM-PointMass-v0"


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
    assert meta == {"style": "clean", "seed": 3, "min_length": 4}
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
