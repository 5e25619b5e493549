"""Figures against the truth: rollouts of the policy from states along its own episodes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from efm_benchmarks.audit.asking import BAND, LEVELS, NO_STEPS, NO_SUCCESS, Audit, Figure, Judged, steps_of
from efm_envs.replaying import walk
from efm_envs.rewards import HittingTimes, hitting_time, metrics
from efm_envs.seeding import Stream, generator


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
        chosen.append((judged, int(rng.integers(steps_of(judged)))))
    return chosen


def _state_at(one: Audit, episode: Any, t: int) -> Any:
    env: Any = one.env.unwrapped
    next(now for now in walk(one.env, episode) if now == t)
    return env.get_state()
