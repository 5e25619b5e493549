"""The figures on a reward model's card: each a function of an audit that returns JSON-able data, or {"not": why it does not apply}."""

import copy
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from efm_benchmarks.audit import Audit, Judged
from efm_benchmarks.audit_sets import MIXES
from efm_envs.observations import FLAT, GOAL_VECTOR, INSTRUCTION, PIXELS
from efm_envs.relabelling import goal_of, judge
from efm_envs.replaying import replay
from efm_envs.rewards import HittingTimes, hitting_time, metrics
from efm_envs.rewards.base import ACTION, CONTROL_DT, GOAL_STATE, TRUTH
from efm_envs.seeding import Stream, generator
from efm_envs.task import Array, Goal, Goals

Figure = dict[str, Any]

WINDOWS = ((1, 1), (2, 2), (2, 3), (3, 3), (3, 5), (5, 5))  # k of n, in the operating curve
THRESHOLDS = 100  # of it
SEVERITIES = (0.02, 0.05, 0.1, 0.2)  # of noise, as a part of each number's spread, or of a picture's range
OCCLUDED = (0.02, 0.05, 0.1, 0.2)  # part of a picture that a grey square covers
LATENCY_BATCHES = (1, 64)
LATENCY_CALLS, LATENCY_S = 200, 2.0  # calls that are timed, and when it is enough
FRAMES, FRAME_HEIGHT = 8, 144  # above each strip, in [pixels]
STRIP_SETS = ("policy", "clean", "recoveries", "failures")  # of which an episode is shown
BINS = 12  # of the calibration curve
SHORTEST = 3  # control steps of an episode whose order is asked for
LEVELS = (0.5, 0.8, 0.9)  # of the central intervals whose coverage is measured
DETECTED = ("policy", "clean", "recoveries", "failures", "random")  # sets on which success detectors are compared
BAND = (0.1, 0.9)  # quantiles between which bands lie


# -- predicted against realised steps ------------------------------------------------------------------------------------------------


NO_SUCCESS = {"not": "the policy succeeded in none of its episodes, so that nothing is known of the steps that were left."}
NO_STEPS = {"not": "the model tells success, and counts no steps."}
NO_DISTRIBUTION = {"not": "the model gives a number, and no distribution."}


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


def _pairs(one: Audit) -> Pairs | None:
    """Returns the observations of the policy's successful episodes; None if there are none."""
    parts = [(judged, slice(0, (judged.episode.steps_to_success or 0) + 1)) for judged in one.successes(one.main)]
    if not parts:
        return None
    said = np.concatenate([judged.said.steps_to_go[rows] for judged, rows in parts])
    realised = np.concatenate([judged.realised[rows] for judged, rows in parts])
    probs = [judged.said.probs[rows] for judged, rows in parts if judged.said.probs is not None]
    lengths = [rows.stop for _, rows in parts]
    return Pairs(said, realised, parts[0][0].said.edges, np.concatenate(probs) if probs else None, lengths)


def calibration(one: Audit) -> Figure:
    """Compares d with the steps that were left, over whole episodes and in their last third."""
    if one.model.kind == "success":
        return NO_STEPS
    pairs = _pairs(one)
    if pairs is None:
        return NO_SUCCESS
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
    if one.model.kind == "success":
        return NO_STEPS
    pairs = _pairs(one)
    if pairs is None:
        return NO_SUCCESS
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


# -- what happens when something goes wrong ------------------------------------------------------------------------------------------


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
        "noticed": _share(said[true > 0] > 0),
        "recovery_noticed": _share([_falls(j, end) for j, _, end in slips if j.episode.is_success[end:].any()]),
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


# -- another goal, and worse eyes ----------------------------------------------------------------------------------------------------


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
        "own_success": _share(own <= s),
        "other_success": _share(others <= s),
        "reads_the_goal": _share(reads),
        "larger": _share(others > own),
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


# -- whole policies ------------------------------------------------------------------------------------------------------------------


def ranking(one: Audit) -> Figure:
    """Ranks policies by what the model makes of their episodes, and by the truth."""
    names = [n for n in ("clean", "policy", *(f"mixed-{round(100 * part)}" for part in MIXES), "random") if one.judged.get(n)]
    if len(names) < 3:
        return {"not": "there are fewer than three policies to rank: the task has no experts."}
    rows = []
    for name in names:
        judged = one.judged[name]
        rows.append(
            {
                "policy": name,
                "success": _share([j.episode.is_success.any() for j in judged]),
                "predicted_success": _share([j.said.predicted_success.any() for j in judged]),
                "progress": np.mean([j.said.steps_to_go[0] - j.said.steps_to_go[-1] for j in judged]),
                "final_d": np.mean([j.said.steps_to_go[-1] for j in judged]),
                "steps": np.mean([_steps(j) for j in judged]),
            }
        )
    true = [-row["steps"] for row in rows]
    return {
        "policies": rows,
        "tau_by_final_d": metrics.kendall_tau(np.array([-row["final_d"] for row in rows]), np.array(true)),
        "tau_by_predicted_success": metrics.kendall_tau(np.array([row["predicted_success"] for row in rows]), np.array(true)),
    }


def _steps(judged: Judged) -> int:
    """Returns the steps to success; an episode without any counts as whole."""
    found = judged.episode.steps_to_success
    return len(judged.episode) if found is None else found


def hacking(one: Audit) -> Figure:
    """Counts, in each test set, the episodes in which the model saw a success before there was one."""
    rows = []
    for name, judged in one.judged.items():
        fooled = [_is_fooled(j) for j in judged]
        rows.append(
            {
                "set": name,
                "episodes": len(judged),
                "success": _share([j.episode.is_success.any() for j in judged]),
                "predicted_success": _share([j.said.predicted_success.any() for j in judged]),
                "fooled": _share([f and not j.episode.is_success.any() for f, j in zip(fooled, judged, strict=True)]),
                "early": _share([f and j.episode.is_success.any() for f, j in zip(fooled, judged, strict=True)]),
            }
        )
    without = [j for judged in one.judged.values() for j in judged if not j.episode.is_success.any()]
    return {"sets": rows, "rate": _share([_is_fooled(j) for j in without]), "episodes_without_success": len(without)}


def _is_fooled(judged: Judged) -> bool:
    """Whether success was predicted before it was true."""
    if not judged.said.predicted_success.any():
        return False
    first = int(np.argmax(judged.said.predicted_success))
    return not judged.episode.is_success[: first + 1].any()


# -- the true distribution -----------------------------------------------------------------------------------------------------------


def hitting_times(one: Audit) -> Figure:
    """Compares d, and its distribution, with rollouts of the policy from states along its own episodes."""
    if one.policy is None or not one.config.states:
        return {"not": "nobody was asked to act." if one.policy is None else "--states 0 leaves it out."}
    if one.model.kind == "success":
        return NO_STEPS
    places = _places(one)
    if not places:
        return NO_SUCCESS
    states = [_state_at(one, judged.episode, t) for judged, t in places]
    limit = one.step_limit
    one.report("rollouts", 0, len(states), "")
    options = {**one.config.options, "reward_model": "none", "terminate_on": "true"}
    envs = gym.make_vec(one.config.env, 64, autoreset_mode="Disabled", **options)
    try:
        times = []
        for done, state in enumerate(states):
            times.append(hitting_time(envs, one.policy, state, one.config.rollouts, limit=limit))
            one.report("rollouts", done + 1, len(states), "")
    finally:
        envs.close()
    return _against(one, places, times)


def _against(one: Audit, places: Sequence[tuple[Judged, int]], times: Sequence[HittingTimes]) -> Figure:
    rows = [_place(judged, t, found) for (judged, t), found in zip(places, times, strict=True)]
    said, means = (np.array([row[name] for row in rows]) for name in ("said", "mean"))
    limit, samples = times[0].limit, np.array([found.steps for found in times])
    result: Figure = {
        "states": rows,
        "rollouts": one.config.rollouts,
        "limit": limit,
        "reached": np.mean([found.reached for found in times]),
        "errors": dataclasses.asdict(metrics.errors(said, means)),
        "correlation": metrics.spearman(said, means),
        "standard_error": np.mean([found.standard_error for found in times]),
        "crps_of_d_alone": metrics.crps_of_point(said, samples, limit).mean(),
        "crps_of_truth": metrics.crps_of_truth(samples, limit).mean(),
    }
    probs = [judged.said.probs[t] for judged, t in places if judged.said.probs is not None]
    if probs:
        edges = np.asarray(places[0][0].said.edges)
        result["coverage"] = {f"{level:g}": metrics.coverage(edges, np.array(probs), samples, level, limit) for level in LEVELS}
        result["crps"] = metrics.crps(edges, np.array(probs), samples, limit).mean()
    return result


def _place(judged: Judged, t: int, found: HittingTimes) -> Figure:
    """Returns what is said, and what is true, of one state."""
    clipped = np.minimum(found.steps, found.limit)
    row: Figure = {"seed": judged.episode.seed, "t": t, "said": float(judged.said.steps_to_go[t]), "mean": found.mean}
    row |= {"low": np.quantile(clipped, BAND[0]), "high": np.quantile(clipped, BAND[1]), "reached": found.reached}
    if judged.said.probs is not None and judged.said.edges is not None:
        low, high = metrics.quantiles(judged.said.edges, judged.said.probs[t : t + 1], BAND)[:, 0]
        row |= {"said_low": low, "said_high": high}
    return row


def _places(one: Audit) -> list[tuple[Judged, int]]:
    """Returns where the policy is rolled out from: a random time before success in one episode after another."""
    rng = generator(Stream.POLICY, one.config.seed, 7)
    episodes = [j for j in one.judged[one.main] if not j.episode.is_success[0]]
    chosen = []
    for number in range(one.config.states if episodes else 0):
        judged = episodes[number % len(episodes)]
        chosen.append((judged, int(rng.integers(_steps(judged)))))
    return chosen


def _state_at(one: Audit, episode: Any, t: int) -> Any:
    env: Any = one.env.unwrapped
    env.reset(seed=episode.seed)
    for action in episode.actions[:t]:
        env.advance(action)
    return env.get_state()


# -- what it costs -------------------------------------------------------------------------------------------------------------------


def cost(one: Audit) -> Figure:
    """Times the model alone, at batch 1 and 64, and says what its numbers take."""
    judged = one.judged[one.main][0]
    seen, goal = one.seen(judged.episode), goal_of(judged.episode, one.env)[0]
    found: Figure = {}
    for batch in LATENCY_BATCHES:
        rows = np.arange(batch) % (len(judged.episode) + 1)
        observations = {name: _with_history(one, name, values[rows]) for name, values in seen.items()}
        found[f"latency_ms_{batch}"] = 1e3 * _median_time(one, observations, Goals([goal] * batch))
    found["memory_mib"] = _memory_mib(one.model.spec)
    return found


def _with_history(one: Audit, name: str, values: Array) -> Array:
    k = one.model.history.get(name)
    return values if k is None else np.repeat(values[:, None], k, axis=1)


def _median_time(one: Audit, observations: Mapping[str, Array], goals: Goals) -> float:
    model = copy.deepcopy(one.model) if one.model.has_memory else one.model
    model.reset(goals, np.ones(len(goals), bool))
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < LATENCY_CALLS and time.perf_counter() - begin < LATENCY_S:
        start = time.perf_counter()
        model.steps_to_go(observations, goals)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)


MEASURE = """
import json, sys
import mujoco, efm_envs.env
from efm_envs.rewards import make_reward_model
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
model = make_reward_model(json.loads(sys.argv[1]))
print(resident() - before)
"""


def _memory_mib(spec: Mapping[str, Any]) -> float | None:
    """Returns what making the model adds to a process that has the envs, libraries included; None where its spec cannot make it."""
    try:
        done = subprocess.run([sys.executable, "-c", MEASURE, json.dumps(spec)], capture_output=True, text=True, check=True, timeout=120)
        return int(done.stdout) / 2**20
    except (subprocess.SubprocessError, ValueError, TypeError, OSError):
        return None


def _share(flags: Any) -> float:
    """Returns the part that is True; NaN of nothing."""
    values = np.asarray(flags, bool)
    return float(values.mean()) if len(values) else float("nan")


# -- pictures ------------------------------------------------------------------------------------------------------------------------


class Strip(NamedTuple):
    """An episode to look at.

    Attributes:
        title: what it is.
        judged: what is said along it.
        low, high: (T+1,) the band of the distribution; None for a model without one.
        times: (F,) control steps at which
        frames: (F, H, W, 3) uint8 were drawn.
    """

    title: str
    judged: Judged
    low: Array | None
    high: Array | None
    times: Array
    frames: Array


def strips(one: Audit) -> list[Strip]:
    """Returns an episode of each of some test sets, with pictures."""
    found = []
    for name in STRIP_SETS:
        judged = max(one.judged.get(name, [])[:10], key=_length, default=None)
        if judged is not None:
            words = next(s.words for s in one.sets if s.name == name)
            found.append(_strip(one, f"{name}: {words}", judged))
    return found


def _length(judged: Judged) -> int:
    return len(judged.episode)


def _strip(one: Audit, title: str, judged: Judged) -> Strip:
    said, last = judged.said, len(judged.episode)
    low, high = (None, None) if said.probs is None or said.edges is None else metrics.quantiles(said.edges, said.probs, BAND)
    times = np.unique(np.linspace(0, last, FRAMES).round().astype(int))
    return Strip(title, judged, low, high, times, _frames(one, judged, times))


def _frames(one: Audit, judged: Judged, times: Array) -> Array:
    """Returns pictures (F, H, W, 3) of an episode at some times."""
    height, width = one.task.render_size
    size = (FRAME_HEIGHT, round(FRAME_HEIGHT * width / height))
    drawn = {"reward_model": "none", "render_mode": "rgb_array", "render_size": size}
    env = gym.make(one.config.env, disable_env_checker=True, **{**one.config.options, **drawn})
    seen: Any = env.unwrapped
    frames = []
    try:
        seen.reset(seed=judged.episode.seed)
        for t in range(len(judged.episode) + 1):
            if t:
                seen.advance(judged.episode.actions[t - 1])
            if t in times:
                frames.append(seen.render())
    finally:
        env.close()
    return np.array(frames)


FIGURES: dict[str, Callable[[Audit], Figure]] = {
    "calibration": calibration,
    "distribution": distribution,
    "hitting_times": hitting_times,
    "order": order,
    "success": success,
    "reaction": reaction,
    "counterfactual": counterfactual,
    "robustness": robustness,
    "ranking": ranking,
    "hacking": hacking,
    "cost": cost,
}
