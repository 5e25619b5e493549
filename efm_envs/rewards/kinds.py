"""The one place where what a model says becomes steps-to-go.

First v = scale · output + offset, the output through a sigmoid before (a distribution through a softmax) where it is logits. Then

    steps     d = v
    seconds   d = v / control period
    progress  d = (1 − v) · H, where H is the length of the whole way, in [control steps]
    success   d = 1 − v, which counts no steps: "at least as likely as p" is d ≤ 1 − p
    change    d′ = max(0, d − v), v in [control steps], from d = H at an episode's first observation
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from efm_envs.errors import RewardModelError, one_of
from efm_envs.rewards.base import CONTROL_DT, KINDS, Kind, StepsToGo
from efm_envs.task import Array

LARGEST = sys.float_info.max  # so that neither infinity nor NaN lies in a range
SLACK = 1e-3  # what rounding in half precision may add to a probability or a progress
WITH_HORIZON = ("progress", "change")
WITH_EDGES = ("steps", "seconds", "progress")
PROBABILITIES = ("progress", "success")  # kinds whose values lie between 0 and 1


class _Range(NamedTuple):
    """Which values a kind may have, and how messages call them."""

    what: str
    low: float
    high: float
    slack: float
    expected: str


_FROM_0, _0_TO_1 = "a finite number, at least 0", "a number from 0 to 1"
_RANGES = {
    "steps": _Range("steps-to-go", 0.0, LARGEST, 0.0, _FROM_0),
    "seconds": _Range("seconds", 0.0, LARGEST, 0.0, _FROM_0),
    "progress": _Range("progress", 0.0, 1.0, SLACK, _0_TO_1),
    "success": _Range("success probability", 0.0, 1.0, SLACK, _0_TO_1),
    "change": _Range("steps of change", -LARGEST, LARGEST, 0.0, "a finite number"),
}


@dataclass(frozen=True)
class Unit:
    """What a model's output means.

    Attributes:
        kind: "steps", "seconds", "progress" (0..1), "success" (a probability) or "change" (the steps that the last action gained).
        scale, offset: v = scale · output + offset is of that kind: for another unit (percent: scale=0.01), another direction (negative
            steps: scale=-1), or levels 1..5 (scale=0.25, offset=-0.25: progress).
        logits: whether the output is logits: of the probability or the progress, or of a distribution's bins.
        edges: (K+1,) ascending, in the output's own unit: limits of the bins, where the output is a distribution (B, K); None: it is (B,).
        horizon_steps: H, the length of the whole way in [control steps], for the kinds "progress" and "change", which cannot know it.

    Raises:
        RewardModelError: these do not go together.
    """

    kind: Kind = "steps"
    scale: float = 1.0
    offset: float = 0.0
    logits: bool = False
    edges: Sequence[float] | None = None
    horizon_steps: float | None = None

    def __post_init__(self) -> None:
        if str(self.kind) == "rank":
            raise RewardModelError(
                "a score of which only the order means something is no distance: its differences have no unit, so r = d − d′ would be "
                "arbitrary. Fit it to progress or steps on demonstrations first, and declare that kind."
            )
        one_of("kind", self.kind, KINDS)
        self._check_scale()
        self._check_horizon()
        if self.logits and self.edges is None and self.kind not in PROBABILITIES:
            raise RewardModelError(f"logits are of a probability, of progress or of bins (edges); got logits=True for kind={self.kind!r}.")
        if self.edges is not None:
            edges = _edges(self.edges)
            self._check_edges(edges)
            object.__setattr__(self, "edges", tuple(edges.tolist()))  # JSON has lists, and others have arrays

    def options(self) -> dict[str, Any]:
        """Returns what differs from the defaults, JSON-able, besides the kind."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default and f.name != "kind"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def _check_scale(self) -> None:
        numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (self.scale, self.offset))
        if not numbers or self.scale == 0:
            raise RewardModelError(f"scale (not 0) and offset are finite numbers; got scale={self.scale!r}, offset={self.offset!r}.")

    def _check_horizon(self) -> None:
        horizon = self.horizon_steps
        is_length = isinstance(horizon, int | float) and 0 < horizon < math.inf
        if self.kind in WITH_HORIZON and not is_length:
            raise RewardModelError(
                f"kind={self.kind!r} says nothing about the length of the whole way: pass horizon_steps, in control steps, above 0 (for "
                f"example the median length of successful episodes); got {horizon!r}."
            )
        if self.kind not in WITH_HORIZON and horizon is not None:
            raise RewardModelError(f"horizon_steps belongs to the kinds {WITH_HORIZON}; got {horizon!r} for kind={self.kind!r}.")

    def _check_edges(self, edges: Array) -> None:
        if self.kind not in WITH_EDGES:
            raise RewardModelError(f"edges belong to the kinds {WITH_EDGES}; got them for kind={self.kind!r}.")
        if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise RewardModelError(f"edges are 2 or more finite numbers, each larger than the one before; got {self.edges!r}.")
        if not _in_range(self.scale * edges + self.offset, _RANGES[self.kind]).all():
            raise RewardModelError(
                f"edges {edges[0]:g} to {edges[-1]:g} do not lie in what {self.kind!r} can be, scale={self.scale} and "
                f"offset={self.offset} included: {_RANGES[self.kind].expected}."
            )


def to_steps(unit: Unit, output: Any, batch: int, *, control_dt_s: Array | None, who: str) -> StepsToGo:
    """Returns the steps-to-go that a model's output stands for.

    Args:
        unit: what the output means; not of the kind "change", which `after_change` adds up.
        output: (B,) or, with edges, (B, K) probabilities of the bins.
        batch: B.
        control_dt_s: (B,) control period in [s]; None where the kind needs none.
        who: names the model in messages.

    Raises:
        RewardModelError: a wrong shape, no number, or out of range; names the first env at fault.
    """
    periods = _periods(unit, control_dt_s, who)
    if unit.edges is None:
        return StepsToGo(_in_steps(unit, values(unit, output, batch, who), periods))
    return _distribution(unit, _probabilities(unit, output, batch, who), _one_period(periods, who))


def values(unit: Unit, output: Any, batch: int, who: str) -> Array:
    """Returns v (B,) float64, of the unit's kind and in its range."""
    limits = _RANGES[unit.kind]
    raw = _numbers(output, (batch,), limits.what, who)
    v = unit.scale * (_sigmoid(raw) if unit.logits else raw) + unit.offset
    is_right = _in_range(v, limits)
    if not is_right.all():
        env = int(np.argmin(is_right))
        raise RewardModelError(f"{who} returned {_said(v, raw, env)} {limits.what} for env {env}; expected {limits.expected}.")
    return v if limits.slack == 0.0 else np.minimum(np.maximum(v, limits.low), limits.high)  # np.clip takes four times as long


def after_change(unit: Unit, before: Array, gained: Array) -> Array:
    """Returns d (B,) in [control steps] after changes (B,), from the d before; where that is NaN an episode starts, and d is H."""
    return np.asarray(np.where(np.isnan(before), unit.horizon_steps, np.maximum(before - gained, 0.0)))


def _in_steps(unit: Unit, v: Array, control_dt_s: Array | None) -> Array:
    """Returns d in [control steps] for values of the unit's kind."""
    if unit.kind == "seconds":
        return np.asarray(v / control_dt_s)
    if unit.kind == "progress":
        return (1.0 - v) * (unit.horizon_steps or 0.0)
    return 1.0 - v if unit.kind == "success" else v


def _edges(edges: Any) -> Array:
    try:
        return np.array(edges, np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)  # which are too few


def _distribution(unit: Unit, probs: Array, control_dt_s: Array | None) -> StepsToGo:
    """Returns the distribution over bins in [control steps], ascending, and its expectation, each bin standing for its centre."""
    limits = _RANGES[unit.kind]
    v = np.clip(unit.scale * np.array(unit.edges) + unit.offset, limits.low, limits.high)
    edges = _in_steps(unit, v, control_dt_s)
    if edges[0] > edges[-1]:
        edges, probs = edges[::-1].copy(), np.ascontiguousarray(probs[:, ::-1])
    centres = (edges[1:] + edges[:-1]) / 2
    return StepsToGo((probs * centres).sum(axis=1), edges, probs)  # not probs @ centres, whose last bits depend on B


def _probabilities(unit: Unit, output: Any, batch: int, who: str) -> Array:
    """Returns (B, K) float64 that sum to 1."""
    assert unit.edges is not None
    raw = _numbers(output, (batch, len(unit.edges) - 1), "probabilities of bins", who)
    probs = _softmax(raw) if unit.logits else raw
    total = probs.sum(axis=1)
    is_right = (probs >= -SLACK).all(axis=1) & (np.abs(total - 1.0) <= SLACK)
    if not is_right.all():
        env = int(np.argmin(is_right))
        raise RewardModelError(
            f"{who} returned probabilities from {probs[env].min()} that sum to {total[env]} for env {env}; expected none below 0, and a "
            "sum of 1. Is the output logits? Then pass logits=True."
        )
    probs = np.maximum(probs, 0.0)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


def _numbers(output: Any, shape: tuple[int, ...], what: str, who: str) -> Array:
    try:
        array = np.asarray(output)
    except (TypeError, ValueError, RuntimeError) as error:  # a tuple of several things, a tensor on a GPU
        raise RewardModelError(f"{who} returned {what} of type {type(output).__name__}; expected an array of {shape} ({error}).") from error
    if array.dtype.kind not in "fiub":
        raise RewardModelError(f"{who} returned {what} of dtype {array.dtype}; expected numbers.")
    if array.shape != shape:
        raise RewardModelError(f"{who} returned {what} of shape {array.shape} for a batch of {shape[0]}; expected {shape}.")
    return np.ascontiguousarray(array, np.float64)


def _in_range(v: Array, limits: _Range) -> Array:
    return (v >= limits.low - limits.slack) & (v <= limits.high + limits.slack)


def _said(v: Array, raw: Array, env: int) -> str:
    return f"{v[env]}" if v[env] == raw[env] or np.isnan(raw[env]) else f"{raw[env]}, which stands for {v[env]}"


def _periods(unit: Unit, control_dt_s: Array | None, who: str) -> Array | None:
    """Returns (B,) control periods in [s] where the kind needs them."""
    if unit.kind != "seconds":
        return None
    if control_dt_s is None:
        raise RewardModelError(f"{who} speaks seconds, and was not told the control period: put {CONTROL_DT!r} among its needs.")
    if not (np.isfinite(control_dt_s) & (control_dt_s > 0)).all():
        raise RewardModelError(f"{who} speaks seconds; the control period {CONTROL_DT!r} is above 0, in seconds; got {control_dt_s!r}.")
    return control_dt_s


def _one_period(control_dt_s: Array | None, who: str) -> Array | None:
    """Returns (1,): the period that all envs of a batch have, because they share the edges of a distribution."""
    if control_dt_s is not None and (control_dt_s != control_dt_s[0]).any():
        raise RewardModelError(f"{who} gives one set of bins in seconds to envs of several control periods: {np.unique(control_dt_s)}.")
    return None if control_dt_s is None else control_dt_s[:1]


def _sigmoid(logits: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))  # which cannot overflow


def _softmax(logits: Array) -> Array:
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which is refused with the env's number
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exp / exp.sum(axis=1, keepdims=True))
