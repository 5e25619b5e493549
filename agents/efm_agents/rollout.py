"""Rollouts on a vector env: whole episodes, addressed by seed, of which a round of practice or an evaluation is made."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from efm_envs.data import Episode
from efm_envs.data.episode import EndReason
from efm_envs.rollout import Policy
from efm_envs.vector import EFMVectorEnv

INFOS = ("steps_to_go", "is_success", "predicted_success")

Array = np.ndarray


def make_vector_env(env_id: str, num_envs: int, **make_kwargs: Any) -> EFMVectorEnv:
    """Returns a vector env for `rollout`: an env whose episode has ended waits, at no cost, until it is reset."""
    made: Any = gym.make_vec(env_id, num_envs=num_envs, autoreset_mode=AutoresetMode.DISABLED, **make_kwargs)
    envs: EFMVectorEnv = made.unwrapped
    return envs


def rollout(policy: Policy, envs: EFMVectorEnv, seeds: Iterable[int], *, min_steps: int | None = None) -> Iterator[Episode]:
    """Yields one whole episode for every seed, as each ends: those that `efm_envs.rollout.rollout` would yield in single envs.

    Args:
        policy: acts on a batch of observations: on all `num_envs` rows if it has `reset(mask)`, and so remembers; else on those of the envs
            that are in an episode.
        envs: what `make_vector_env` made; stays open.
        seeds: reset seeds, read one at a time as an env falls free.
        min_steps: once this many control steps were run, no more episodes are started; those under way are finished, so that
            short and long episodes have the same chance to be seen.
    """
    remaining, remembers = iter(seeds), hasattr(policy, "reset")
    log = _Log(envs)
    actions = np.zeros(envs.action_space.shape or (), np.float32)
    steps = 0
    while True:
        free = np.flatnonzero(~log.is_running).tolist() if min_steps is None or steps < min_steps else []
        started: dict[int, int] = dict(zip(free, islice(remaining, len(free)), strict=False))
        if started:
            log.start(started)
            if remembers:
                policy.reset(np.isin(np.arange(envs.num_envs), list(started)))  # type: ignore[attr-defined]
        if not log.is_running.any():
            return
        if remembers:
            actions = np.array(policy.act(log.observations))
        else:
            actions = actions.copy()
            actions[log.is_running] = policy.act({name: value[log.is_running] for name, value in log.observations.items()})
        steps += int(log.is_running.sum())
        for row, episode in log.step(actions):
            yield dataclasses.replace(episode, notes=policy.notes(row)) if hasattr(policy, "notes") else episode


class _Log:
    """What happened in each env since its episode began."""

    def __init__(self, envs: EFMVectorEnv) -> None:
        self.envs = envs
        self.is_running = np.zeros(envs.num_envs, bool)
        self.observations: dict[str, Array] = {}
        self._seeds = [0] * envs.num_envs
        self._first = np.zeros(envs.num_envs, np.int64)  # the row of the lists below at which each began
        self._seen: list[dict[str, Array]] = []
        self._kept = 0  # the first row that is still needed
        self._infos: list[Mapping[str, Any]] = []
        self._actions: list[Array] = []
        self._rewards: list[Array] = []

    def start(self, seeds: Mapping[int, int]) -> None:
        """Starts episodes in some envs."""
        rows = range(self.envs.num_envs)
        mask = np.isin(rows, list(seeds))
        if self.envs.scenarios:
            observations, infos = self.envs.reset(seed=[seeds.get(row) for row in rows], options={"reset_mask": mask})
        else:  # the first reset is of all envs: those for which there is no seed run along, and nobody looks
            any_seed = next(iter(seeds.values()))
            observations, infos = self.envs.reset(seed=[seeds.get(row, any_seed) for row in rows])
        observations = _named(observations)
        if self._seen:  # the last row of the others stays
            self._seen[-1] = {name: _where(mask, value, self._seen[-1][name]) for name, value in observations.items()}
            self._infos[-1] = {name: _where(mask, infos[name], self._infos[-1][name]) for name in (*INFOS, "instruction")}
        else:
            self._seen.append(observations)
            self._infos.append(infos)
        self.observations = self._seen[-1]
        self.is_running |= mask
        self._first[mask] = len(self._actions)
        for row, seed in seeds.items():
            self._seeds[row] = int(seed)

    def step(self, actions: Array) -> list[tuple[int, Episode]]:
        """Runs one control step; returns the episodes that ended, with their envs."""
        seen, rewards, terminated, truncated, infos = self.envs.step(actions)
        observations = _named(seen)
        self._seen.append(observations)
        self._infos.append(infos)
        self._actions.append(actions)
        self._rewards.append(rewards)
        self.observations = self._seen[-1]
        since = int(self._first[self.is_running].min())
        for t in range(self._kept, since):  # what no episode under way has seen takes room for nothing
            self._seen[t] = {}
        self._kept = max(self._kept, since)
        ended = np.flatnonzero(self.is_running & (terminated | truncated)).tolist()
        self.is_running[ended] = False
        errors = infos.get("error", [None] * self.envs.num_envs)
        return [(row, self._episode(row, "terminated" if terminated[row] else "truncated", errors[row])) for row in ended]

    def _episode(self, row: int, reason: EndReason, error: str | None) -> Episode:
        since = slice(self._first[row], None)
        seen, infos = self._seen[since], self._infos[since]
        found: dict[str, Any] = {name: np.array([info[name][row] for info in infos]) for name in INFOS}
        return Episode(
            env_id=str(self.envs.spec.id if self.envs.spec else ""),
            seed=self._seeds[row],
            observations={name: np.stack([o[name][row] for o in seen]) for name in seen[0]},
            actions=np.stack([a[row] for a in self._actions[since]]),
            rewards=np.array([r[row] for r in self._rewards[since]]),
            instruction=str(infos[0]["instruction"][row]),
            end_reason="error" if error else reason,
            error=error or None,
            **found,
        )


def _named(observations: Any) -> dict[str, Array]:
    """Returns observations by name; a Box has the name that `efm_envs.rollout` gives it."""
    return dict(observations) if isinstance(observations, Mapping) else {"observation": observations}


def _where(mask: Array, new: Array, old: Array) -> Array:
    return np.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)
