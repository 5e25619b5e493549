"""What a demonstrator is, and how one is bound to the env that it acts in."""

import abc
import importlib
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from efm_envs.errors import EFMError, unknown_name
from efm_envs.seeding import Stream, generator
from efm_envs.task import Array, Goals, Physics, Task

if TYPE_CHECKING:
    from collections.abc import Sequence


class Expert(abc.ABC):
    """A scripted controller of one task in one env: it may read the physics and the goal, each a batch of one."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:  # noqa: B027 (most have no memory)
        """Starts an episode; whatever the expert makes up comes from `rng`."""

    @abc.abstractmethod
    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A) in [-1, 1]."""


class BoundExpert:
    """An expert that acts in given envs, and notices by itself when one of them starts a new episode.

    What it makes up (hidden waypoints, noise) is a function of the episode's seed and of `seed`: the same episodes get the same
    demonstrations, in any order and in any number of envs.
    """

    def __init__(self, envs: "Sequence[gym.Env[Any, Any]]", style: str, seed: int, *, batched: bool) -> None:
        self.style = style
        self._seed = seed
        self._batched = batched
        self._envs = [_efm_env(env) for env in envs]
        self._experts = [_make(env.task, style) for env in self._envs]
        self._episodes = [-1] * len(self._envs)

    def reset(self, mask: Array | None = None) -> None:
        """Does nothing: a new episode is noticed at its first action."""

    def act(self, observations: object = None) -> Array:
        """Returns the action(s) for the envs' present state: (A,) if bound to one env, else (B, A). Observations are not read."""
        actions = np.stack([self._act(i) for i in range(len(self._envs))])
        return actions if self._batched else actions[0]

    def _act(self, i: int) -> Array:
        env, expert = self._envs[i], self._experts[i]
        if env.episode_count == 0:  # not begun: a place in a batch that has more envs than episodes
            return np.zeros(env.action_space.shape, np.float32)
        if self._episodes[i] != env.episode_count:
            self._episodes[i] = env.episode_count
            expert.reset(env.physics, env.goals, generator(Stream.EXPERT, *env.episode_key, self._seed))
        return expert.act(env.physics, env.goals)[0].astype(np.float32)


def make_expert(env: Any, style: str = "clean", seed: int | None = None) -> BoundExpert:
    """Returns a demonstrator bound to `env`, as a policy: `act()` gives the action for the env's present state.

    Args:
        env: an EFM env; or a sequence or a synchronous vector env of them, for which `act()` gives (B, A).
        style: one of the task's styles. `clean` goes about it as well as the task's author knew how; `human` hesitates and makes
            detours whose reason is not observed. `efm envs ID` lists them.
        seed: another seed gives other hidden choices in the same episodes; None is 0.

    Raises:
        UnknownNameError: the task has no such style.
        EFMError: the env is not one of this project's, or is out of reach (in another process).
    """
    if isinstance(env, gym.Env):
        return BoundExpert([env], style, seed or 0, batched=False)
    envs = env if isinstance(env, list | tuple) else getattr(env, "envs", None)
    if envs is None:
        raise EFMError(f"make_expert takes an EFM env, a sequence of them, or a vector env that holds them in this process, not {env!r}.")
    return BoundExpert(envs, style, seed or 0, batched=True)


def _efm_env(env: "gym.Env[Any, Any]") -> Any:
    unwrapped = env.unwrapped
    if not isinstance(getattr(unwrapped, "task", None), Task):
        raise EFMError(f"make_expert needs an env of this project, whose task it can read; {unwrapped!r} has no task.")
    return unwrapped


def _make(task: Task, style: str) -> Expert:
    if style not in task.experts:
        raise unknown_name(f"expert style of {task.name}", style, task.experts)
    module, _, name = task.experts[style].partition(":")
    expert: Expert = getattr(importlib.import_module(module), name)(task)
    return expert
