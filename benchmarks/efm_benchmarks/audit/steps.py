"""Figures of d: how far it is from the steps that were left, and whether it puts an episode in order."""

import dataclasses
from typing import NamedTuple

import numpy as np

from efm_benchmarks.audit.asking import BAND, LEVELS, NO_DISTRIBUTION, NO_STEPS, NO_SUCCESS, Audit, Figure
from efm_envs.relabelling import goal_of, judge
from efm_envs.rewards import metrics
from efm_envs.task import Array

BINS = 12  # of the calibration curve
SHORTEST = 3  # control steps of an episode whose order is asked for


class Pairs(NamedTuple):
    """The policy's observations up to success.

    Attributes:
        said: (M,) d.
        realised: (M,) steps that were left.
        edges, probs: (K+1,) and (M, K); None for a model without a distribution.
        lengths: observations of each episode.
    """

    said: Array
    realised: Array
    edges: Array | None
    probs: Array | None
    lengths: list[int]


def _pairs(one: Audit) -> Pairs | Figure:
    """Returns the observations of the policy's successful episodes, or why there is nothing to compare."""
    if one.model.kind == "success":
        return NO_STEPS
    parts = [(judged, slice(0, (judged.episode.steps_to_success or 0) + 1)) for judged in one.successes(one.main)]
    if not parts:
        return NO_SUCCESS
    said = np.concatenate([judged.said.steps_to_go[rows] for judged, rows in parts])
    realised = np.concatenate([judged.realised[rows] for judged, rows in parts])
    probs = [judged.said.probs[rows] for judged, rows in parts if judged.said.probs is not None]
    lengths = [rows.stop for _, rows in parts]
    return Pairs(said, realised, parts[0][0].said.edges, np.concatenate(probs) if probs else None, lengths)


def calibration(one: Audit) -> Figure:
    """Compares d with the steps that were left, over whole episodes and in their last third."""
    pairs = _pairs(one)
    if not isinstance(pairs, Pairs):
        return pairs
    late = metrics.in_last_part(pairs.lengths)
    return {
        "all": dataclasses.asdict(metrics.errors(pairs.said, pairs.realised)),
        "late_third": dataclasses.asdict(metrics.errors(pairs.said[late], pairs.realised[late])),
        "bins": _bins(pairs.said, pairs.realised),
    }


def _bins(said: Array, realised: Array) -> list[Figure]:
    """Returns what was left, by what was said: bins of equal numbers of observations."""
    order = np.argsort(said, kind="stable")
    return [
        {
            "said": said[group].mean(),
            "realised": realised[group].mean(),
            "low": np.quantile(realised[group], BAND[0]),
            "high": np.quantile(realised[group], BAND[1]),
            "n": len(group),
        }
        for group in np.array_split(order, BINS)
        if len(group)
    ]


def distribution(one: Audit) -> Figure:
    """Judges the distribution on the steps that were left: coverage of its intervals, and its CRPS beside that of d alone."""
    pairs = _pairs(one)
    if not isinstance(pairs, Pairs):
        return pairs
    point = metrics.crps_of_point(pairs.said, pairs.realised).mean()
    if pairs.edges is None or pairs.probs is None:
        return {**NO_DISTRIBUTION, "crps_of_d_alone": point}
    return {
        "coverage": {f"{level:g}": metrics.coverage(pairs.edges, pairs.probs, pairs.realised, level) for level in LEVELS},
        "crps": metrics.crps(pairs.edges, pairs.probs, pairs.realised).mean(),
        "crps_of_d_alone": point,
    }


def order(one: Audit) -> Figure:
    """Tells whether d falls along good episodes, and rises where they are played backwards."""
    name = "clean" if one.judged.get("clean") else one.main
    judged = [j for j in one.successes(name) if (j.episode.steps_to_success or 0) >= SHORTEST]
    if not judged:
        return NO_SUCCESS
    forward, backward = [], []
    for j in judged:
        end = j.episode.steps_to_success or 0
        forward.append(metrics.value_order_correlation(j.said.steps_to_go[: end + 1]))
        backwards = {column: values[end::-1] for column, values in one.seen(j.episode).items()}
        backward.append(metrics.value_order_correlation(judge(one.signal, end, backwards, goal_of(j.episode, one.env)).steps_to_go))
    return {"set": name, "episodes": len(judged), "forward": np.mean(forward), "backward": np.mean(backward), "lowest": min(forward)}
