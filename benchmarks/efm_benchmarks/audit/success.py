"""Figures of d ≤ s as a success detector, and which one to take."""

import dataclasses

import numpy as np

from efm_benchmarks.audit.asking import Audit, Figure
from efm_envs.rewards import metrics

WINDOWS = ((1, 1), (2, 2), (2, 3), (3, 3), (3, 5), (5, 5))  # k of n, in the operating curve
THRESHOLDS = 100  # of it
DETECTED = ("policy", "demonstrations", "clean", "recoveries", "failures", "random")  # sets on which success detectors are compared


def success(one: Audit) -> Figure:
    """Judges d ≤ s as a success detector, at the model's own s and at others, and recommends one."""
    judged = [j for name, some in one.judged.items() if name in DETECTED for j in some]
    episodes = [(j.said.steps_to_go, j.episode.is_success) for j in judged]
    if not any(is_success.any() for _, is_success in episodes):
        return {"not": "no episode of the test sets succeeded."}
    curve = metrics.operating_curve(episodes, metrics.candidate_thresholds(episodes, THRESHOLDS, WINDOWS), WINDOWS)
    own = metrics.operating_curve(episodes, np.array([one.signal.success_threshold]), [one.signal.success_k_of_n])
    recommended = metrics.recommend(curve)
    d, is_success = (np.concatenate(column) for column in zip(*episodes, strict=True))
    return {
        "sets": [name for name in one.judged if name in DETECTED],
        "successes": curve.successes,
        "failures": curve.failures,
        "auroc": metrics.auroc(-d, is_success),
        "own": {
            "success_threshold": one.signal.success_threshold,
            "success_k_of_n": list(one.signal.success_k_of_n),
            "cost": own.at(0, 0),
        },
        "thresholds": curve.thresholds,
        "windows": [_window(curve, w) for w in range(len(curve.windows))],
        "recommended": None if recommended is None else dataclasses.asdict(recommended),
    }


def _window(curve: metrics.OperatingCurve, w: int) -> Figure:
    rates = {"early": curve.early[w] / max(1, curve.successes), "false_alarms": curve.false_alarms[w] / max(1, curve.failures)}
    columns = {"precision": curve.precision[w], "recall": curve.recall[w], "f1": curve.f1[w], "delay": curve.delay[w]}
    return {"success_k_of_n": list(curve.windows[w]), **columns, **rates}
