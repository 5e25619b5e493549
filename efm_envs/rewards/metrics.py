"""What is counted when a reward model is judged: arrays in, numbers out.

Three questions, in this order: how far d is from the steps that were left (errors, distributions), whether it puts observations in the
right order (rank correlations), and how well 1[d ≤ s] tells success (operating curve, recommended threshold). Steps are control steps.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efm_envs.task import Array

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
TIED_F1 = 0.005  # thresholds whose F1 differs by less are equally good
THRESHOLDS = 200  # at most, on a curve

# -- predicted and true steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """How far predictions are from the truth, in [control steps].

    Attributes:
        observations: how many there are.
        mae: mean |predicted − true|.
        rmse: root of the mean (predicted − true)².
        bias: mean predicted − true.
        slope: of the least-squares line true = slope · predicted + intercept: ideally 1. NaN where all predictions are the same.
        intercept: of that line: ideally 0.
        mae_of_constant: mae of the best constant, the median of the truth: what knowing nothing of the observation gives.
    """

    observations: int
    mae: float
    rmse: float
    bias: float
    slope: float
    intercept: float
    mae_of_constant: float


def errors(predicted: Array, true: Array) -> Errors:
    """Returns the errors of predictions (M,) against the truth (M,); where that is NaN, as after success, nothing is counted."""
    known = np.isfinite(true)
    predicted, true = predicted[known], true[known]
    if not len(true):
        return Errors(0, *[float("nan")] * 6)
    off = predicted - true
    slope, intercept = calibration_line(predicted, true)
    mae, rmse = float(np.abs(off).mean()), float(np.sqrt((off**2).mean()))
    return Errors(len(true), mae, rmse, float(off.mean()), slope, intercept, mae_of_constant(true))


def calibration_line(predicted: Array, true: Array) -> tuple[float, float]:
    """Returns slope and intercept of the least-squares line of true (M,) on predicted (M,); NaN where all predictions are the same."""
    if not len(predicted) or np.ptp(predicted) == 0:
        return float("nan"), float("nan")
    centred = predicted - predicted.mean()
    slope = float(centred @ true / (centred @ centred))
    return slope, float(true.mean() - slope * predicted.mean())


def mae_of_constant(true: Array) -> float:
    """Returns the mean absolute error of predicting the median of the truth (M,) everywhere."""
    return float(np.abs(true - np.median(true)).mean())


def in_last_part(lengths: Sequence[int], part: float = 1 / 3) -> Array:
    """Returns (M,) bool: which observations are in the last part of their episode, for episodes of so many observations, one after another.

    >>> in_last_part([3, 4]).astype(int)
    array([0, 0, 1, 0, 0, 1, 1])
    """
    return np.concatenate([np.arange(n) >= np.floor((1 - part) * n + 1e-9) for n in lengths])


# -- distributions: probabilities of bins, uniform within each ------------------------------------------------------------------------
# A last bin that is open (its upper edge is infinite) counts as lying wholly at its lower edge.


def quantiles(edges: Array, probs: Array, levels: Sequence[float]) -> Array:
    """Returns (L, M): quantiles of M distributions.

    Args:
        edges: (K+1,) of the bins, ascending.
        probs: (M, K) of the bins.
        levels: L numbers between 0 and 1.
    """
    return np.array([np.interp(levels, row, _closed(edges)) for row in _cumulative(probs)]).reshape(-1, len(levels)).T


def coverage(edges: Array, probs: Array, samples: Array, level: float, limit: float = np.inf) -> float:
    """Returns the part of the samples in the central interval of their distribution that should hold `level` of them.

    Args:
        edges: (K+1,) of the bins.
        probs: (M, K) of the bins.
        samples: (M,) or (M, n): of each distribution, one or several.
        level: for example 0.8: between the 10 % and the 90 % quantile.
        limit: beyond which samples are only known to lie (infinite ones are such): samples and intervals are clipped there.
    """
    low, high = np.minimum(quantiles(edges, probs, ((1 - level) / 2, (1 + level) / 2)), limit)[:, :, None]
    clipped = np.minimum(_columns(samples), limit)
    return float(((low <= clipped) & (clipped <= high)).mean())


def pit(edges: Array, probs: Array, samples: Array) -> Array:
    """Returns the shape of the samples, (M,) or (M, n): F(sample), the probability integral transform; uniform on 0..1 where F is right.

    Source: Gneiting, Balabdaoui, Raftery 2007, section 3.1.
    """
    bins, part = _places(_closed(edges), _columns(samples))
    rows, cumulative = np.arange(len(probs))[:, None], _cumulative(probs)
    found = cumulative[rows, bins] + part * (cumulative[rows, bins + 1] - cumulative[rows, bins])
    return np.where(_columns(samples) < edges[0], 0.0, found).reshape(np.shape(samples))


def crps(edges: Array, probs: Array, samples: Array, limit: float = np.inf) -> Array:
    """Returns (M,) in [control steps]: the continuous ranked probability score ∫ (F(z) − 1[z ≥ y])² dz, mean over a row's samples y.

    It is the mean absolute error of a distribution: of one that is sure, it is |prediction − y|. Least in expectation where F is the
    distribution that the samples come from; then it is `crps_of_truth`. Exact for bins.

    Args:
        edges: (K+1,) of the bins.
        probs: (M, K) of the bins.
        samples: (M,) or (M, n).
        limit: L, beyond which samples are only known to lie (infinite ones are such): the integral ends there, which is the score of F
            and y both clipped at L.

    Source: Gneiting and Raftery 2007, eq. 20; threshold weights 1[z < L]: Gneiting and Ranjan 2011, eq. 14.
    """
    edges, y = _closed(edges), np.minimum(_columns(samples), limit)
    below, above = _cumulative(probs), 1.0 - _cumulative(probs)
    right_of = _squares_until(edges, above, np.full((len(probs), 1), limit)) - _squares_until(edges, above, y)
    outside = np.maximum(y - edges[-1], 0.0) + np.maximum(min(edges[0], limit) - y, 0.0)
    return (_squares_until(edges, below, y) + right_of + outside).mean(axis=1)


def crps_of_point(predicted: Array, samples: Array, limit: float = np.inf) -> Array:
    """Returns (M,): the score of a model without a distribution, |d − y|, mean over a row's samples; all clipped at the limit."""
    return np.abs(np.minimum(_columns(predicted), limit) - np.minimum(_columns(samples), limit)).mean(axis=1)


def crps_of_truth(samples: Array, limit: float = np.inf) -> Array:
    """Returns (M,): the score of the distribution that the samples (M, n) come from, ½ E|y − y′|: on average, none has a smaller one."""
    n = samples.shape[1]
    ordered = np.sort(np.minimum(samples, limit), axis=1)
    return ordered @ (2.0 * np.arange(1, n + 1) - n - 1) / (n * (n - 1))


def _closed(edges: Array) -> Array:
    edges = np.asarray(edges, np.float64)
    return edges if np.isfinite(edges[-1]) else np.append(edges[:-1], edges[-2])


def _cumulative(probs: Array) -> Array:
    sums = np.concatenate([np.zeros((len(probs), 1)), np.cumsum(probs, axis=1, dtype=np.float64)], axis=1)
    return sums / sums[:, -1:]


def _columns(samples: Array) -> Array:
    return np.asarray(samples, np.float64).reshape(len(samples), -1)


def _places(edges: Array, y: Array) -> tuple[Array, Array]:
    """Returns the bin of each y, and which part of the bin is below it; beyond the ends, the first bin's start or the last one's end."""
    bins = np.clip(np.searchsorted(edges, y, "right") - 1, 0, len(edges) - 2)
    width = edges[bins + 1] - edges[bins]
    part = np.clip((y - edges[bins]) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    return bins, np.where(y >= edges[-1], 1.0, part)


def _squares_until(edges: Array, heights: Array, y: Array) -> Array:
    """Returns (M, n): the integral, from the first edge to y, of the square of a line through the heights (M, K+1) at the edges."""
    left, right, width = heights[:, :-1], heights[:, 1:], np.diff(edges)
    whole = np.cumsum(np.column_stack([np.zeros(len(heights)), _square(left, right, width)]), axis=1)
    bins, part = _places(edges, y)
    rows = np.arange(len(heights))[:, None]
    start = left[rows, bins]
    return whole[rows, bins] + _square(start, start + part * (right[rows, bins] - start), part * width[bins])


def _square(left: Array, right: Array, width: Array) -> Array:
    return width * (left**2 + left * right + right**2) / 3.0


# -- order ----------------------------------------------------------------------------------------------------------------------------
# Whatever is the same everywhere puts nothing in order: its rank correlation is 0.


def ranks(values: Array) -> Array:
    """Returns (M,) float64: ranks from 1; equal values share the average of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[places]


def spearman(a: Array, b: Array) -> float:
    """Returns Spearman's ρ, the correlation of the ranks of a (M,) and b (M,), within −1..1; 0 where one of them is constant."""
    x, y = (values - values.mean() for values in (ranks(a), ranks(b)))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else 0.0


def value_order_correlation(steps_to_go: Array) -> float:
    """Returns Spearman's ρ of −d (T+1,) and time, within −1..1: 1 where d falls at every step; 0 where it is constant.

    Of an episode played backwards, it should be −1; of one that goes nowhere, no more than chance. Source: GVL (arXiv 2411.04549).
    """
    return spearman(-steps_to_go, np.arange(len(steps_to_go)))


def kendall_tau(a: Array, b: Array) -> float:
    """Returns Kendall's τ-b of a (M,) and b (M,), within −1..1: pairs in the same order less those in the other; 0 for a constant."""
    x, y = (np.sign(values[:, None] - values[None, :]) for values in (np.asarray(a), np.asarray(b)))
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0


# -- success ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """A part of `of` trials, with Wilson's 95 % interval (Wilson 1927); without trials it is NaN, and the interval 0..1."""

    rate: float
    low: float
    high: float
    of: int


def wilson(count: int, of: int) -> Rate:
    """Returns how often something happened, with an interval that covers 95 % on average.

    >>> wilson(20, 20)
    Rate(rate=1.0, low=0.8388748419471806, high=1.0, of=20)
    """
    if not of:
        return Rate(float("nan"), 0.0, 1.0, 0)
    rate, z2 = count / of, Z_95**2 / of
    centre, half = rate + z2 / 2, Z_95 * np.sqrt(rate * (1 - rate) / of + z2 / (4 * of))
    return Rate(rate, max(0.0, float(centre - half) / (1 + z2)), min(1.0, float(centre + half) / (1 + z2)), int(of))


def auroc(scores: Array, positive: Array) -> float:
    """Returns how often a positive's score is above a negative's, ties counting half (Mann–Whitney); NaN where one kind is missing.

    Args:
        scores: (M,), for success detection −d.
        positive: (M,) bool.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks(scores)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def first_firing(steps_to_go: Array, threshold: float, k: int = 1, n: int = 1) -> int | None:
    """Returns the first observation at which d ≤ s in k of the last n of the episode's (T+1,), as the reward signal has it; None: never.

    >>> first_firing(np.array([5.0, 1.0, 4.0, 1.0]), 1.5, k=2, n=3)
    3
    """
    first = first_firings(steps_to_go, np.array([threshold]), k, n)[0]
    return int(first) if np.isfinite(first) else None


def first_firings(steps_to_go: Array, thresholds: Array, k: int = 1, n: int = 1) -> Array:
    """Returns (S,) float64: the same for every threshold; infinite where it never fires."""
    lowest = np.minimum.accumulate(_needed(steps_to_go, k, n))
    first = np.searchsorted(-lowest, -np.asarray(thresholds))  # -lowest never falls
    return np.where(first < len(lowest), first, np.inf)


def _needed(steps_to_go: Array, k: int, n: int) -> Array:
    """Returns (T+1,): the least s at which d ≤ s in k of the last n, which is the k-th smallest of them."""
    padded = np.concatenate([np.full(n - 1, np.inf), steps_to_go])
    return np.partition(np.lib.stride_tricks.sliding_window_view(padded, n), k - 1, axis=1)[:, k - 1]


Episodes = Sequence[tuple[Array, Array]]  # of each, d (T+1,) and ground truth (T+1,) bool


def candidate_thresholds(episodes: Episodes, at_most: int = THRESHOLDS, windows: Sequence[tuple[int, int]] = ((1, 1),)) -> Array:
    """Returns (S,) ascending thresholds worth trying: half-way between the neighbours among those at which an episode turns out otherwise.

    An episode turns early at the lowest d before its first success, and is no longer missed at the lowest from there on; one without
    success becomes a false alarm at its lowest. Above the highest of all these, nothing changes any more. Where there are more than
    `at_most`, every so many of them are returned.
    """
    lows = np.unique([low for d, is_success in episodes for window in windows for low in _decisive(_needed(d, *window), is_success)])
    lows = lows[np.isfinite(lows)]
    thresholds = np.append((lows[1:] + lows[:-1]) / 2, lows[-1])
    return thresholds[np.unique(np.linspace(0, len(thresholds) - 1, at_most).round().astype(int))]


def _decisive(needed: Array, is_success: Array) -> list[float]:
    first = int(np.argmax(is_success)) if is_success.any() else len(needed)
    return [float(part.min()) for part in (needed[:first], needed[first:]) if len(part)]


@dataclass(frozen=True)
class OperatingCurve:
    """What each threshold s and each window (k, n) does to whole episodes.

    An episode with success is detected (fired at its first true success, or later), early (before it: an error), or missed; one without
    success is a false alarm where anything fired. F1 is 2 · detected / (firings + successes): an early firing counts against precision and
    against recall. What fires late has a delay.

    Attributes:
        thresholds: (S,) s, in [control steps].
        windows: W pairs (k, n).
        successes: episodes with success.
        failures: episodes without.
        detected: (W, S) episodes.
        early: (W, S) episodes.
        false_alarms: (W, S) episodes.
        delay: (W, S) mean over the detected of control steps from success to firing; NaN where there are none.
    """

    thresholds: Array
    windows: tuple[tuple[int, int], ...]
    successes: int
    failures: int
    detected: Array
    early: Array
    false_alarms: Array
    delay: Array

    @property
    def fired(self) -> Array:
        """(W, S) episodes in which anything fired."""
        return self.detected + self.early + self.false_alarms

    @property
    def precision(self) -> Array:
        """(W, S) part of the firings that were right; NaN without any."""
        return _divided(self.detected, self.fired)

    @property
    def recall(self) -> Array:
        """(W, S) part of the successes that were detected, and not early."""
        return _divided(self.detected, self.successes)

    @property
    def f1(self) -> Array:
        """(W, S) harmonic mean of precision and recall; 0 where nothing is detected."""
        return _divided(2 * self.detected, self.fired + self.successes)

    def at(self, window: int, threshold: int) -> dict[str, Any]:
        """Returns what one window and one threshold, by their numbers, cost: rates with their 95 % intervals, F1, and the delay."""
        here = (window, threshold)
        detected, fired = int(self.detected[here]), int(self.fired[here])
        return {
            "precision": asdict(wilson(detected, fired)),
            "recall": asdict(wilson(detected, self.successes)),
            "early": asdict(wilson(int(self.early[here]), self.successes)),
            "missed": asdict(wilson(self.successes - detected - int(self.early[here]), self.successes)),
            "false_alarms": asdict(wilson(int(self.false_alarms[here]), self.failures)),
            "f1": float(self.f1[here]),
            "delay": float(self.delay[here]),
        }


def operating_curve(episodes: Episodes, thresholds: Array, windows: Sequence[tuple[int, int]] = ((1, 1),)) -> OperatingCurve:
    """Returns what each threshold and each window would have made of the episodes.

    Args:
        episodes: of each, d (T+1,) and ground truth (T+1,) bool.
        thresholds: (S,) ascending.
        windows: pairs (k, n), 1 ≤ k ≤ n.
    """
    truth = np.array([np.argmax(is_success) if is_success.any() else np.inf for _, is_success in episodes])[:, None]  # (E, 1)
    rows = []
    for k, n in windows:
        fired = np.array([first_firings(d, thresholds, k, n) for d, _ in episodes])  # (E, S)
        known, there = np.isfinite(truth), np.isfinite(fired)
        detected = known & there & (fired >= truth)
        delay = _divided(np.where(detected, fired, 0.0).sum(axis=0) - np.where(detected, truth, 0.0).sum(axis=0), detected.sum(axis=0))
        rows.append((detected.sum(axis=0), (known & (fired < truth)).sum(axis=0), (~known & there).sum(axis=0), delay))
    successes = int(np.isfinite(truth).sum())
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return OperatingCurve(np.asarray(thresholds), tuple(windows), successes, len(episodes) - successes, *columns)


@dataclass(frozen=True)
class Recommendation:
    """A threshold and a window, why these, and their cost as `OperatingCurve.at` gives it."""

    success_threshold: float
    success_k_of_n: tuple[int, int]
    reason: str
    cost: dict[str, Any]


def recommend(curve: OperatingCurve) -> Recommendation | None:
    """Returns the best threshold and window; None where no threshold detects any success.

    The highest F1 wins. Ties (within 0.005) go to the smaller mean delay, in whole steps; then to the smaller n, and k; then to the widest
    range of s without a gap, of which the middle is taken.
    """
    best = float(np.nan_to_num(curve.f1).max())
    if best == 0.0:
        return None
    tied = curve.f1 >= best - TIED_F1
    delay = np.where(tied, np.round(curve.delay), np.inf)
    tied &= delay == delay.min()
    window = min(np.flatnonzero(tied.any(axis=1)), key=lambda w: curve.windows[w][::-1])
    first, last = _widest_run(tied[window], curve.thresholds)
    middle = (curve.thresholds[first] + curve.thresholds[last]) / 2
    chosen = first + int(np.argmin(np.abs(curve.thresholds[first : last + 1] - middle)))
    s, (k, n) = float(curve.thresholds[chosen]), curve.windows[window]
    reason = (
        f"s = {s:.3g}, {k} of {n}: highest F1 of {curve.f1.size} detectors ({best:.2f}); of those within {TIED_F1} of it, least delay "
        f"({delay.min():.0f} steps), shortest window, and the middle of the range of s that does as well, {curve.thresholds[first]:.3g} "
        f"to {curve.thresholds[last]:.3g}."
    )
    return Recommendation(s, (k, n), reason, curve.at(int(window), chosen))


def _widest_run(flags: Array, x: Array) -> tuple[int, int]:
    """Returns the first and the last place of the run of True that is longest in x."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    runs = list(zip(changes[::2].tolist(), (changes[1::2] - 1).tolist(), strict=True))
    return max(runs, key=lambda run: x[run[1]] - x[run[0]])


def _divided(count: Any, of: Any) -> Array:
    """Returns count / of, NaN where that is 0 / 0."""
    return np.divide(count, of, out=np.full(np.broadcast_shapes(np.shape(count), np.shape(of)), np.nan), where=np.asarray(of) > 0)
