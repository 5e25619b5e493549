"""Streams never meet."""

import itertools

import numpy as np
import pytest

from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator


def test_no_two_streams_or_keys_share_their_numbers() -> None:
    numbers = (0, 1, 256, 2**32 - 1, 2**32, 2**40 + 7, 2**53)
    keys = [key for size in (1, 2, 3) for key in itertools.product(numbers, repeat=size)]
    draws = [int(generator(stream, *key).integers(2**63)) for stream in Stream for key in keys]
    assert len(set(draws)) == len(draws)


def test_the_next_episode_of_a_seed_is_no_other_seeds_episode() -> None:
    """Demonstration 7 of seed 0 was, once, episode 256 of reset seed 7."""
    seed = next(episode_seeds(EpisodeSet.DEMONSTRATIONS, 0, start=7))
    assert generator(Stream.SCENARIO, seed, 0).random() != generator(Stream.SCENARIO, 7, 256).random()


def test_a_key_always_gives_the_same_numbers() -> None:
    np.testing.assert_array_equal(generator(Stream.EXPERT, 3, 1).random(5), generator(Stream.EXPERT, 3, 1).random(5))


def test_seeds_of_two_sets_or_two_numbers_never_coincide() -> None:
    first_last = []
    for episode_set in EpisodeSet:
        for seed in (0, 1, 2**20 - 1):
            seeds = episode_seeds(episode_set, seed)
            (last,) = episode_seeds(episode_set, seed, start=2**20 - 1)
            first_last.append((next(seeds), last))
    ordered = sorted(first_last)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(ordered))
    assert ordered[-1][1] < 2**53, "JSON's numbers hold no more"


def test_a_set_may_be_continued() -> None:
    whole = list(itertools.islice(episode_seeds(EpisodeSet.PRACTICE, 3), 10))
    assert whole[4:] == list(itertools.islice(episode_seeds(EpisodeSet.PRACTICE, 3, start=4), 6))


@pytest.mark.parametrize("seed", [-1, 2**20])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"a seed is a whole number from 0 to 1048575; got {seed}"):
        next(episode_seeds(EpisodeSet.EVALUATION, seed))
