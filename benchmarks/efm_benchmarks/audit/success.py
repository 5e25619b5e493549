"""Figures of d ≤ s as a success detector, and which one to take."""

from collections.abc import Sequence

import numpy as np

from efm_benchmarks.audit.asking import Audit, Figure, Judged
from efm_envs.rewards import metrics
from efm_envs.task import Array

WINDOWS = ((1, 1), (2, 2), (2, 3), (3, 3), (3, 5), (5, 5))  # k of n, in the operating curve
THRESHOLDS = 100  # of it
DETECTED = ("policy", "demonstrations", "clean", "recoveries", "failures", "random")  # sets on which success detectors are compared


Episodes = list[tuple[Array, Array]]  # of each, d (T+1,) and ground truth (T+1,) bool


def success(one: Audit) -> Figure:
    """Judges d ≤ s as a success detector, at the model's own s and at others, and recommends one.

    Every other episode of each set chooses what is recommended; the rest say what it costs, and what the model's own s does.
    """
    sets = [some for name, some in one.judged.items() if name in DETECTED]
    choosing, judging = (_episodes([j for some in sets for j in some[half::2]]) for half in range(2))
    if not all(any(is_success.any() for _, is_success in half) for half in (choosing, judging)):
        return {"not": "too few episodes of the test sets succeeded."}
    curve = metrics.operating_curve(choosing, metrics.candidate_thresholds(choosing, THRESHOLDS, WINDOWS), WINDOWS)
    recommended = metrics.recommend(curve)
    d, is_success = (np.concatenate(column) for column in zip(*choosing, *judging, strict=True))
    return {
        "sets": [name for name in one.judged if name in DETECTED],
        "successes": curve.successes,
        "failures": curve.failures,
        "judged_on": len(judging),
        "auroc": metrics.auroc(-d, is_success),
        "own": _detector(judging, one.signal.success_threshold, one.signal.success_k_of_n),
        "thresholds": curve.thresholds,
        "windows": [_window(curve, w) for w in range(len(curve.windows))],
        "recommended": None
        if recommended is None
        else {
            **_detector(judging, recommended.success_threshold, recommended.success_k_of_n),
            "reason": recommended.reason,
        },
    }


def _episodes(judged: Sequence[Judged]) -> Episodes:
    return [(j.said.steps_to_go, j.episode.is_success) for j in judged]


def _detector(episodes: Episodes, threshold: float, window: tuple[int, int]) -> Figure:
    """Returns a detector, and what it costs on some episodes."""
    cost = metrics.operating_curve(episodes, np.array([threshold]), [window]).at(0, 0)
    return {"success_threshold": threshold, "success_k_of_n": list(window), "cost": cost}


def _window(curve: metrics.OperatingCurve, w: int) -> Figure:
    rates = {"early": curve.early[w] / max(1, curve.successes), "false_alarms": curve.false_alarms[w] / max(1, curve.failures)}
    columns = {"precision": curve.precision[w], "recall": curve.recall[w], "f1": curve.f1[w], "delay": curve.delay[w]}
    return {"success_k_of_n": list(curve.windows[w]), **columns, **rates}
