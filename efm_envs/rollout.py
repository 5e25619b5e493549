"""Running a policy: the one loop that demonstrations, practice and evaluation share."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from efm_envs.data.episode import EndReason, Episode
from efm_envs.errors import EFMError
from efm_envs.task import Array


class Policy(Protocol):
    """Anything that acts.

    It may also have `reset(mask)`, told (B,) bool of the episodes that start, and `notes(i)`, asked at the end of the i-th env's episode
    for what is to stand in `Episode.notes`.
    """

    def act(self, observations: Any) -> Array:
        """Returns actions (B, A) for observations of which each value is (B, …)."""


PolicyOrFactory = Policy | Callable[[Sequence[gym.Env[Any, Any]]], Policy]


def rollout(
    policy: PolicyOrFactory,
    env_id: str,
    seeds: Iterable[int],
    *,
    num_envs: int = 1,
    min_steps: int | None = None,
    envs: Sequence[gym.Env[Any, Any]] | None = None,
    **make_kwargs: Any,
) -> Iterator[Episode]:
    """Yields one whole episode for every seed, as each ends.

    Args:
        policy: acts on a batch of `num_envs` observations; or a function that makes such a policy from the list of envs.
        env_id: a registered id.
        seeds: reset seeds, read one at a time as an env falls free.
        num_envs: episodes that run side by side. What happens in them does not depend on it, if the policy's action for one
            observation does not depend on the others of the batch.
        min_steps: once this many control steps were run, no more episodes are started; those under way are finished, so that
            short and long episodes have the same chance to be seen.
        envs: what `make_envs` made, for who calls this often; they stay open. None makes new ones and closes them.
        **make_kwargs: for `gym.make`.

    Raises:
        EFMError: bad actions, or a bad reward model. Any other error that a step raises ends its episode only, and stands in
            `Episode.error`, and so does what an env says in `info["error"]`.
    """
    running = list(envs) if envs is not None else make_envs(env_id, num_envs, **make_kwargs)
    try:
        yield from _run(policy if hasattr(policy, "act") else policy(running), running, env_id, iter(seeds), min_steps)
    finally:
        if envs is None:
            for env in running:
                env.close()


def make_envs(env_id: str, num_envs: int, **make_kwargs: Any) -> list[gym.Env[Any, Any]]:
    """Returns envs for `rollout`, whose episodes can run side by side."""
    return [gym.make(env_id, disable_env_checker=True, **make_kwargs) for _ in range(num_envs)]


def _run(policy: Policy, envs: list[gym.Env[Any, Any]], env_id: str, seeds: Iterator[int], min_steps: int | None) -> Iterator[Episode]:
    slots = [_Slot(env, env_id) for env in envs]
    steps = 0
    while True:
        started = np.array([slot.start(seeds) if slot.idle and (min_steps is None or steps < min_steps) else False for slot in slots])
        busy = [i for i, slot in enumerate(slots) if not slot.idle]
        if not busy:
            return
        if started.any() and hasattr(policy, "reset"):
            policy.reset(started)
        actions = policy.act(_stack([slot.observation or slots[busy[0]].observation for slot in slots]))
        for i in busy:
            episode = slots[i].step(actions[i])
            steps += 1
            if episode is not None:
                yield dataclasses.replace(episode, notes=policy.notes(i)) if hasattr(policy, "notes") else episode


class _Slot:
    """One env and the episode under way in it."""

    def __init__(self, env: gym.Env[Any, Any], env_id: str) -> None:
        self.idle = True
        self.observation: dict[str, Array] | None = None
        self._env, self._env_id = env, env_id
        self._no_actions = np.empty((0, *(env.action_space.shape or ())), env.action_space.dtype)

    def start(self, seeds: Iterator[int]) -> bool:
        """Starts the next seed's episode, if there is one."""
        seed = next(seeds, None)
        if seed is None:
            return False
        self.idle, self._seed = False, int(seed)
        observation, info = self._env.reset(seed=self._seed)
        self._observations, self._infos = [self._named(observation)], [info]
        self._actions: list[Array] = []
        self._rewards: list[float] = []
        self.observation = self._observations[-1]
        return True

    def step(self, action: Array) -> Episode | None:
        """Runs one control step; returns the episode if that ended it."""
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
        except EFMError:
            raise
        except Exception as error:  # counted as a failure, and shown
            return self._end("error", f"{type(error).__name__}: {error}")
        self.observation = self._named(observation)
        self._observations.append(self.observation)
        self._infos.append(info)
        self._actions.append(np.array(action))
        self._rewards.append(float(reward))
        if "error" in info:
            return self._end("error", info["error"])
        if terminated:
            return self._end("terminated")
        return self._end("truncated") if truncated else None

    def _end(self, reason: EndReason, error: str | None = None) -> Episode:
        self.idle = True
        return Episode(
            env_id=self._env_id,
            seed=self._seed,
            observations=_stack(self._observations),
            actions=np.array(self._actions) if self._actions else self._no_actions,
            rewards=np.array(self._rewards),
            steps_to_go=np.array([info.get("steps_to_go", np.nan) for info in self._infos]),
            is_success=np.array([info.get("is_success", False) for info in self._infos]),
            predicted_success=np.array([info.get("predicted_success", False) for info in self._infos]),
            instruction=self._infos[0].get("instruction", ""),
            end_reason=reason,
            error=error,
        )

    def _named(self, observation: Any) -> dict[str, Array]:
        return dict(observation) if isinstance(observation, Mapping) else {"observation": observation}


def _stack(observations: Sequence[Mapping[str, Array] | None]) -> dict[str, Array]:
    present = [o for o in observations if o is not None]
    return {name: np.stack([o[name] for o in present]) for name in present[0]}
