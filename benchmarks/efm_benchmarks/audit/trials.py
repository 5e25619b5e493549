"""Figures of what happens when something goes wrong, when another goal is given, and when the model sees badly."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from efm_benchmarks.audit.asking import Audit, Figure, Judged, share
from efm_envs.observations import FLAT, GOAL_VECTOR, INSTRUCTION, PIXELS
from efm_envs.relabelling import goal_of
from efm_envs.replaying import replay
from efm_envs.rewards import metrics
from efm_envs.rewards.base import ACTION, CONTROL_DT, GOAL_STATE, TRUTH
from efm_envs.seeding import Stream, generator
from efm_envs.task import Array, Goal, Goals

SEVERITIES = (0.02, 0.05, 0.1, 0.2)  # of noise, as a part of each number's spread, or of a picture's range


def reaction(one: Audit) -> Figure:
    """Compares what d does around a slip with what the oracle's does."""
    slips = [(j, j.episode.notes["error_begins"], j.episode.notes["error_ends"]) for j in one.judged.get("recoveries", [])]
    slips = [(j, begin, end) for j, begin, end in slips if end < len(j.episode) and not j.episode.is_success[: end + 1].any()]
    if not slips:
        return {"not": "nothing could be made to slip: the task has no expert, or it is done before."}
    said = np.array([j.said.steps_to_go[end] - j.said.steps_to_go[begin] for j, begin, end in slips])
    true = np.array([j.episode.steps_to_go[end] - j.episode.steps_to_go[begin] for j, begin, end in slips])
    length = max(end - begin for _, begin, end in slips)
    offsets = np.arange(-length, 4 * length + 1)
    return {
        "slips": len(slips),
        "slip_steps": length,
        "said_change": said.mean(),
        "true_change": true.mean(),
        "correlation": metrics.spearman(said, true),
        "noticed": share(said[true > 0] > 0),
        "recovery_noticed": share([_falls(j, end) for j, _, end in slips if j.episode.is_success[end:].any()]),
        "offsets": offsets,
        "said": _aligned([(j.said.steps_to_go, begin) for j, begin, _ in slips], offsets),
        "true": _aligned([(j.episode.steps_to_go, begin) for j, begin, _ in slips], offsets),
    }


def _falls(judged: Judged, begin: int) -> bool:
    """Whether d is lower at the success that follows than where a slip ended."""
    success = begin + int(np.argmax(judged.episode.is_success[begin:]))
    return bool(judged.said.steps_to_go[success] < judged.said.steps_to_go[begin])


def _aligned(curves: Sequence[tuple[Array, int]], offsets: Array) -> list[float]:
    """Returns the mean of curves at offsets from a time in each, relative to what they are there."""
    rows = np.full((len(curves), len(offsets)), np.nan)
    for row, (d, zero) in zip(rows, curves, strict=True):
        there = (zero + offsets >= 0) & (zero + offsets < len(d))
        row[there] = d[zero + offsets[there]] - d[zero]
    known = np.isfinite(rows).sum(axis=0)
    return np.where(known > 0, np.nansum(rows, axis=0) / np.maximum(known, 1), np.nan).tolist()


def counterfactual(one: Audit) -> Figure:
    """Asks the model about successes as if another goal had been given. It must see that they are none."""
    successes = one.successes("clean")
    goals = [goal_of(judged.episode, one.env)[0] for judged in successes]
    if len({(goal.instruction, goal.state.tobytes()) for goal in goals}) < 2:
        return {"not": "all episodes of this env have the same goal."}
    pairs = []
    for i, judged in enumerate(successes):
        other = _another(one, judged, goals[i + 1 :] + goals[:i])
        if other is not None:
            pairs.append((judged, _with_goal(one, judged, *other)))
    if not pairs:
        return {"not": "no other goal could be put to these episodes."}
    ends = [judged.episode.steps_to_success or 0 for judged, _ in pairs]
    s = one.signal.success_threshold
    own = np.array([judged.said.steps_to_go[end] for (judged, _), end in zip(pairs, ends, strict=True)])
    others = np.array([other.said.steps_to_go[end] for (_, other), end in zip(pairs, ends, strict=True)])
    reads = [not np.array_equal(judged.said.steps_to_go, other.said.steps_to_go) for judged, other in pairs]
    return {
        "episodes": len(pairs),
        "threshold": s,
        "own_d": own.mean(),
        "other_d": others.mean(),
        "own_success": share(own <= s),
        "other_success": share(others <= s),
        "reads_the_goal": share(reads),
        "larger": share(others > own),
        "own": own,
        "other": others,
    }


def _another(one: Audit, judged: Judged, goals: Sequence[Goal]) -> tuple[Goal, dict[str, Array]] | None:
    """Returns the first other goal that is not reached in an episode, and what the model sees of the episode with it."""
    own = goal_of(judged.episode, one.env)[0]
    depends = [
        name for name in one.needed if name in (INSTRUCTION, GOAL_VECTOR, FLAT, GOAL_STATE, "environment_state") or name.startswith(TRUTH)
    ]
    for goal in goals:
        if goal.instruction == own.instruction and np.array_equal(goal.state, own.state):
            continue
        seen = replay(judged.episode, ["truth/is_success", *depends], env=one.env, goal=goal)
        if not seen["truth/is_success"].any():
            return goal, {name: seen[name] for name in depends}
    return None


def _with_goal(one: Audit, judged: Judged, goal: Goal, seen: Mapping[str, Array]) -> Judged:
    return one.ask(judged.episode, {**one.seen(judged.episode), **seen}, Goals([goal]))


def robustness(one: Audit) -> Figure:
    """Asks the model about the same episodes seen through noise, and what is left of its judgement."""
    episodes = one.judged[one.main][: max(4, one.config.episodes // 4)]
    seen = [one.seen(judged.episode) for judged in episodes]
    pictures = [name for name in one.needed if name.startswith(PIXELS)]
    exact = (ACTION, CONTROL_DT, GOAL_STATE, INSTRUCTION, GOAL_VECTOR)
    numbers = [n for n in one.needed if n not in (*pictures, *exact) and not n.startswith((TRUTH, "goal/"))]
    if not pictures and not numbers:
        return {"not": "the model reads nothing through a sensor."}
    spread = {name: np.std(np.concatenate([columns[name] for columns in seen]), axis=0) for name in numbers}
    kinds: dict[str, Callable[[dict[str, Array], float, np.random.Generator], dict[str, Array]]] = {}
    if numbers:
        kinds["noise on the numbers"] = lambda columns, severity, rng: {
            n: _noisy_numbers(columns[n], severity * spread[n], rng) for n in numbers
        }
    if pictures:
        kinds["noise on the pictures"] = lambda columns, severity, rng: {n: _noisy_picture(columns[n], severity, rng) for n in pictures}
        kinds["brightness"] = lambda columns, severity, rng: {n: _brighter(columns[n], severity) for n in pictures}
        kinds["a grey square"] = lambda columns, severity, rng: {n: _occluded(columns[n], severity, rng) for n in pictures}
    return {
        "severities": list(SEVERITIES),
        "kinds": {kind: [_under(one, episodes, seen, change, severity) for severity in SEVERITIES] for kind, change in kinds.items()},
    }


def _under(
    one: Audit,
    episodes: Sequence[Judged],
    seen: Sequence[dict[str, Array]],
    change: Callable[[dict[str, Array], float, np.random.Generator], dict[str, Array]],
    severity: float,
) -> Figure:
    """Returns how far d moves, and how often the decision about success changes."""
    rng = generator(Stream.POLICY, one.config.seed, round(1000 * severity))
    moved, switched = [], []
    for judged, columns in zip(episodes, seen, strict=True):
        again = one.ask(judged.episode, {**columns, **change(columns, severity, rng)})
        moved.append(np.abs(again.said.steps_to_go - judged.said.steps_to_go))
        switched.append(again.said.predicted_success != judged.said.predicted_success)
    return {"moved": np.concatenate(moved).mean(), "switched": np.concatenate(switched).mean()}


def _noisy_numbers(values: Array, std: Array, rng: np.random.Generator) -> Array:
    return (values + std * rng.standard_normal(values.shape)).astype(values.dtype)


def _noisy_picture(pictures: Array, severity: float, rng: np.random.Generator) -> Array:
    return np.clip(pictures + 255 * severity * rng.standard_normal(pictures.shape), 0, 255).astype(np.uint8)


def _brighter(pictures: Array, severity: float) -> Array:
    return np.clip(pictures * (1.0 + 2.0 * severity), 0, 255).astype(np.uint8)


def _occluded(pictures: Array, severity: float, rng: np.random.Generator) -> Array:
    height, width = pictures.shape[1:3]
    side_h, side_w = (max(1, round(length * severity**0.5)) for length in (height, width))
    top, left = rng.integers(height - side_h + 1), rng.integers(width - side_w + 1)
    covered = pictures.copy()
    covered[:, top : top + side_h, left : left + side_w] = 127
    return covered
