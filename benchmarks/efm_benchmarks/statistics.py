"""Intervals for success rates and means: a few formulas on scipy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def clopper_pearson(successes: int, episodes: int, level: float = 0.95) -> Estimate:
    """Returns a success rate with its exact interval (Clopper and Pearson 1934), which covers at least `level`, also near 0 and 1.

    >>> [round(x, 3) for x in clopper_pearson(100, 100)]
    [1.0, 0.964, 1.0]
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, successes, episodes - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, episodes - successes)) if successes < episodes else 1.0
    return Estimate(successes / episodes, low, high)


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Returns the mean of one value per training seed with Student's interval; with a single value the interval is unknown (NaN).

    >>> [round(x, 2) for x in t_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def success_rate(successes: Sequence[int], episodes: Sequence[int], level: float = 0.95) -> Estimate:
    """Returns the success rate over training seeds with an interval that knows of both sources of chance.

    Seeds differ, and episodes are finite. Student's interval over the seeds' rates covers the first but shrinks to nothing when all
    seeds agree (all at 100 %, say); Clopper-Pearson's over all episodes together covers the second. The wider end of the two is
    returned on each side, within 0 and 1.

    Args:
        successes: for each training seed.
        episodes: for each training seed.
        level: coverage.
    """
    pooled = clopper_pearson(sum(successes), sum(episodes), level)
    if len(successes) < 2:
        return pooled
    seeds = t_interval([s / n for s, n in zip(successes, episodes, strict=True)], level)
    return Estimate(pooled.mean, max(0.0, min(pooled.low, seeds.low)), min(1.0, max(pooled.high, seeds.high)))
