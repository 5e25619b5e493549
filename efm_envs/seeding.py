"""Which random numbers are for what: streams that never meet, so that no use of one can change, or leak into, another."""

import enum
from collections.abc import Iterator

import numpy as np

_PER_SEED = 2**20  # episodes a seed, and seeds a set; reset seeds stay below 2^53, so that JSON keeps them


class Stream(enum.IntEnum):
    """What a generator is for."""

    SCENARIO = 1
    EXPERT = 2
    POLICY = 3
    TRAINING = 4


class EpisodeSet(enum.IntEnum):
    """What episodes are for: the reset seeds of two sets never coincide."""

    EVALUATION = 1  # not 0: seeds 0, 1, 2, … are what people type, and so train on
    DEMONSTRATIONS = 2
    PRACTICE = 3
    MONITORING = 4  # looks at a policy while it trains
    AUDIT = 5  # judging a reward model


def generator(stream: Stream, *key: int) -> np.random.Generator:
    """Returns the generator of a stream that `key`, whole numbers below 2^64, names: another for every stream and key.

    `SeedSequence` writes numbers as one or more 32-bit words and fills up with zeros, so that (s, k) would be (s, k, 0), and
    (s, k) the same as (s + k · 2^32, 0). Here every number takes two words, and the key says how many it has.
    """
    words = [half for number in key for half in divmod(number, 2**32)]
    return np.random.default_rng(np.random.SeedSequence([int(stream), len(key), *words]))


def episode_seeds(episode_set: EpisodeSet, seed: int, start: int = 0) -> Iterator[int]:
    """Yields the reset seeds of a set's episodes number `start`, `start` + 1, … for `seed` (0 to 2^20 − 1)."""
    if not 0 <= seed < _PER_SEED:
        raise ValueError(f"a seed is a whole number from 0 to {_PER_SEED - 1}; got {seed!r}.")
    first = (int(episode_set) * _PER_SEED + seed) * _PER_SEED
    yield from range(first + start, first + _PER_SEED)
