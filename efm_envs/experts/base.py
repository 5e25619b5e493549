"""What a demonstrator is, and how one is bound to the env that it acts in."""

import abc
import dataclasses
import importlib
import numbers
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np

from efm_envs.errors import EFMError, UnknownNameError, unknown_name, unknown_option
from efm_envs.seeding import Stream, generator
from efm_envs.task import Array, Goals, Physics, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class NoHabits:
    """Nothing about the expert can be set."""


class Expert(abc.ABC):
    """A scripted controller of one task in one env: it may read the physics and the goal, each a batch of one.

    Args:
        task: the task.
        **knobs: fields of `habits_type` that are to differ from their defaults.

    Attributes:
        habits_type: a frozen dataclass of what can be set about the expert, each field a number or a tuple of numbers with a default.
        habits: the present one.
    """

    habits_type: ClassVar[type[Any]] = NoHabits

    def __init__(self, task: Task, **knobs: Any) -> None:
        self.task = task
        self.habits = self.habits_type(**knobs)

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:  # noqa: B027 (most have no memory)
        """Starts an episode; whatever the expert makes up comes from `rng`."""

    @abc.abstractmethod
    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A) in [-1, 1]."""

    def notes(self) -> dict[str, Any]:
        """Returns what there is to say about the present episode, JSON-able: mistakes made on purpose."""
        return {}


class BoundExpert:
    """An expert that acts in given envs, and notices by itself when one of them starts a new episode.

    What it makes up (hidden waypoints, noise) is a function of the episode's seed and of `seed`: the same episodes get the same
    demonstrations, in any order and in any number of envs.
    """

    def __init__(
        self, envs: "Sequence[gym.Env[Any, Any]]", style: str, seed: int, *, batched: bool, knobs: "Mapping[str, Any] | None" = None
    ) -> None:
        self.style = style
        self._seed = seed
        self._batched = batched
        self._envs = [_efm_env(env) for env in envs]
        self._experts = [load_expert(env.task, style, **(knobs or {})) for env in self._envs]
        self._episodes = [-1] * len(self._envs)

    def reset(self, mask: Array | None = None) -> None:
        """Does nothing: a new episode is noticed at its first action."""

    def act(self, observations: object = None) -> Array:
        """Returns the action(s) for the envs' present state: (A,) if bound to one env, else (B, A). Observations are not read."""
        actions = np.stack([self._act(i) for i in range(len(self._envs))])
        return actions if self._batched else actions[0]

    def notes(self, i: int = 0) -> dict[str, Any]:
        """Returns what there is to say about the i-th env's present episode: the expert's style, and its mistakes once it has acted."""
        has_begun = self._episodes[i] == self._envs[i].episode_count
        return {"expert": self.style, **(self._experts[i].notes() if has_begun else {})}

    def _act(self, i: int) -> Array:
        env, expert = self._envs[i], self._experts[i]
        if env.episode_count == 0:  # not begun: a place in a batch that has more envs than episodes
            return np.zeros(env.action_space.shape, np.float32)
        if self._episodes[i] != env.episode_count:
            self._episodes[i] = env.episode_count
            expert.reset(env.physics, env.goals, generator(Stream.EXPERT, *env.episode_key, self._seed))
        return expert.act(env.physics, env.goals)[0].astype(np.float32)


def make_expert(env: Any, style: str = "clean", seed: int | None = None, **knobs: Any) -> BoundExpert:
    """Returns a demonstrator bound to `env`, as a policy: `act()` gives the action for the env's present state.

    Args:
        env: an EFM env; or a sequence or a synchronous vector env of them, for which `act()` gives (B, A).
        style: one of the task's styles. `clean` goes about it as well as the task's author knew how; `human` hesitates and makes
            detours whose reason is not observed. `efm envs ID` lists them.
        seed: another seed gives other hidden choices in the same episodes; None is 0.
        **knobs: what is set about an expert of this style, for example `detours=4`. `efm envs ID` lists them with their defaults.

    Raises:
        UnknownNameError: the task has no such style.
        UnknownOptionError: an expert of this style has no such knob.
        EFMError: the env is not one of this project's, or is out of reach (in another process).
    """
    if isinstance(env, gym.Env):
        return BoundExpert([env], style, seed or 0, batched=False, knobs=knobs)
    envs = env if isinstance(env, list | tuple) else getattr(env, "envs", None)
    if envs is None:
        raise EFMError(f"make_expert takes an EFM env, a sequence of them, or a vector env that holds them in this process, not {env!r}.")
    return BoundExpert(envs, style, seed or 0, batched=True, knobs=knobs)


def _efm_env(env: "gym.Env[Any, Any]") -> Any:
    unwrapped = env.unwrapped
    if not isinstance(getattr(unwrapped, "task", None), Task):
        raise EFMError(f"make_expert needs an env of this project, whose task it can read; {unwrapped!r} has no task.")
    return unwrapped


def load_expert(task: Task, style: str, **knobs: Any) -> Expert:
    """Returns a new expert of a task, by its style.

    Raises:
        UnknownNameError: the task has no such style.
        UnknownOptionError: an expert of this style has no such knob.
        EFMError: a knob's value is of the wrong kind.
    """
    expert: Expert = _expert_class(task, style)(task, **checked_knobs(task, style, knobs))
    return expert


def expert_knobs(task: Task, style: str) -> dict[str, Any]:
    """Returns what can be set about an expert of this style: each knob's default by name."""
    return dataclasses.asdict(_expert_class(task, style).habits_type())


def checked_knobs(task: Task, style: str, knobs: "Mapping[str, Any]") -> dict[str, Any]:
    """Returns the knobs, lists (JSON's) as tuples; raises what `load_expert` would."""
    defaults, owner = expert_knobs(task, style), f"expert {style!r} of {task.name}"
    for name, value in knobs.items():
        if name not in defaults:
            raise unknown_option(owner, name, defaults)
        if not _is_like(value, defaults[name]):
            raise EFMError(f"{name} of {owner} is of the kind of its default, {defaults[name]!r}; got {value!r}.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in knobs.items()}


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and len(value) == len(default) and all(map(_is_like, value, default))
    return isinstance(value, numbers.Integral if isinstance(default, int) else numbers.Real) and not isinstance(value, bool)


def _expert_class(task: Task, style: str) -> type[Any]:
    if not task.experts:
        raise UnknownNameError(f"{task.name} has no experts; {style!r} was asked for. Act with a policy of your own, or at random.")
    if style not in task.experts:
        raise unknown_name(f"expert style of {task.name}", style, task.experts)
    module, _, name = task.experts[style].partition(":")
    expert_class: type[Any] = getattr(importlib.import_module(module), name)
    return expert_class
