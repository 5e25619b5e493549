"""Small real objects: reward models with one habit each, and tasks and envs that break one law each."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch

from efm_envs.env import EFMEnv
from efm_envs.experts.base import Expert
from efm_envs.rewards import RewardModel, StepsToGo
from efm_envs.task import Array, Goal, Goals, Physics, Scenario
from efm_envs.tasks.point_mass import PointMass

POINT_MASS = "EFM-PointMass-v0"


# -- reward models ----------------------------------------------------------------------------------------------------------------


def first_value(observations: Mapping[str, Array]) -> Array:
    """A steps-to-go function that works in every env and every obs_mode: 1 + mean |the first observation|."""
    first = next(iter(observations.values())).astype(np.float64)
    return 1.0 + np.abs(first.reshape(len(first), -1)).mean(axis=1)


class Reader(RewardModel):
    """Reads what a signal can serve in every env: histories, the last action, the control period, the goal's numbers."""

    id = "reader"
    needs = ("*", "action", "control_dt_s", "goal/state", "agent_pos")
    history: ClassVar = {"agent_pos": 3, "action": 2}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        now = [np.abs(observations[name].reshape(len(goals), -1)).sum(axis=1) for name in self.needs[1:]]
        return StepsToGo(1.0 + np.sum(now, axis=0))


def clip_progress(frames: Array, instructions: list[str]) -> Array:
    """How bright each of the last frames is, (B, T)."""
    return np.asarray(frames.mean(axis=(2, 3, 4)) / 255.0)


def chance(position: Array) -> Array:
    """The logit of a success probability."""
    return -np.abs(position[:, 0].astype(np.float64))


def gain(state: Array, action: Array, next_state: Array, done: Array) -> Array:
    """A reward of transitions."""
    return np.asarray((next_state - state).astype(np.float64).sum(axis=1) - 0.01 * np.abs(action).sum(axis=1))


def picture_gain(before: Array, after: Array, instructions: list[str]) -> Array:
    """How much brighter it has become."""
    return np.asarray((after.mean(axis=(1, 2, 3)) - before.mean(axis=(1, 2, 3))) / 255.0)


class Head(torch.nn.Module):
    """Seconds left, from positions."""

    def forward(self, position: torch.Tensor) -> torch.Tensor:
        return position.double().abs().sum(dim=1)


class Brightness(torch.nn.Module):
    """A model with LeRobot's interface."""

    def compute_reward(self, batch: dict[str, Any]) -> torch.Tensor:
        return torch.as_tensor(batch["observation.images.top"]).mean(dim=(1, 2, 3))


class Scripted(RewardModel):
    """Says what it was given: one (B,) array, or anything else, a call."""

    id = "scripted"
    needs = ()

    def __init__(self, *outputs: Any) -> None:
        self._outputs = iter(outputs)
        self.resets: list[list[bool]] = []

    def reset(self, goals: Goals, mask: Array) -> None:
        self.resets.append(mask.tolist())

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        output = next(self._outputs)
        return output if isinstance(output, StepsToGo | str) or output is None else StepsToGo(np.asarray(output))


class Spy(RewardModel):
    """Keeps what it is shown."""

    id = "spy"

    def __init__(self, needs: tuple[str, ...] | None) -> None:
        self.needs = needs
        self.seen: list[dict[str, Array]] = []

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        self.seen.append(dict(observations))
        return StepsToGo(np.ones(len(goals)))


class Counter(RewardModel):
    """Breaks determinism and restored states: its d is the number of its calls."""

    id = "counter"
    needs = ()
    calls = 0

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        self.calls += 1
        return StepsToGo(np.full(len(goals), float(self.calls)))


class Vandal(RewardModel):
    """Writes into the observations that the policy gets."""

    id = "vandal"

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        for array in observations.values():
            array[...] = 0
        return StepsToGo(np.ones(len(goals)))


class Nameless(RewardModel):
    """Has another fingerprint whenever it is made."""

    id = "nameless"
    needs = ()

    def __init__(self) -> None:
        self._number = next(_numbers)

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        return StepsToGo(np.ones(len(goals)))

    @property
    def fingerprint(self) -> str:
        return str(self._number)


_numbers = itertools.count()


# -- tasks that break one law each ------------------------------------------------------------------------------------------------


class GlobalRandomTask(PointMass):
    """Draws its scenarios from numpy's global generator."""

    def sample(self, rng: np.random.Generator) -> Scenario:
        return super().sample(np.random.default_rng(np.random.randint(2**31)))


class HiddenMemoryTask(PointMass):
    """Its actions get stronger with every call, and that is in no saved state."""

    strength = 0.5

    def apply(self, physics: Physics, actions: Array) -> None:
        self.strength += 0.01
        super().apply(physics, self.strength * actions)


class NumberedTask(PointMass):
    """Every instance is another task."""

    instances: ClassVar = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self.instances)

    def sample(self, rng: np.random.Generator) -> Scenario:
        return super().sample(np.random.default_rng(self.number))


class HalfAStepTask(PointMass):
    """Says that half a step is left where there is no success."""

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        return np.where(self.is_success(physics, goals), 0.0, 0.5)


class IdleExpertTask(PointMass):
    """Its expert does nothing."""

    experts: Mapping[str, str] = {"clean": f"{__name__}:IdleExpert"}


class IdleExpert(Expert):
    def act(self, physics: Physics, goals: Goals) -> Array:
        return np.zeros((1, 2))


class OutOfSpaceTask(PointMass):
    """Its observations have another dtype than its spaces say."""

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        return {name: value.astype(np.float64) for name, value in super().observe(physics, goals).items()}


class LongNameTask(PointMass):
    """Has a sentence that an observation cannot hold."""

    def sample(self, rng: np.random.Generator) -> Scenario:
        scenario = super().sample(rng)
        return Scenario(scenario.physics, Goal("go " * 100, scenario.goal.state))


class UnwalledTask(PointMass):
    """Another task of the same size, for states that do not belong here."""

    name = "Unwalled"


# -- envs that break one law each -------------------------------------------------------------------------------------------------


class SeedDeafEnv(EFMEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=0, options=options)


class StickyEnv(EFMEnv):
    """How an episode starts depends on how long the last one was."""

    def _next_key(self, seed: int | None) -> tuple[int, int]:
        key = super()._next_key(seed)
        return key if seed is not None else (key[0], self.elapsed_steps)


class TalkativeEnv(EFMEnv):
    def _info(self, *args: Any) -> dict[str, Any]:
        return {**super()._info(*args), "number": 1}


class WholeNumberEnv(EFMEnv):
    def _info(self, *args: Any) -> dict[str, Any]:
        info = super()._info(*args)
        return {**info, "steps_to_go": int(info["steps_to_go"])}


class ReusedBufferEnv(EFMEnv):
    """Returns the same array at every step."""

    _buffer: Array | None = None

    def _policy_observation(self, observations: dict[str, Array]) -> Any:
        named = super()._policy_observation(observations)
        self._buffer = named["agent_pos"] if self._buffer is None else self._buffer
        self._buffer[:] = named["agent_pos"]
        return {**named, "agent_pos": self._buffer}


class LiveGoalEnv(EFMEnv):
    """Returns the array that it keeps the goal in."""

    _goal: Array | None = None

    def _policy_observation(self, observations: dict[str, Array]) -> Any:
        named = super()._policy_observation(observations)
        self._goal = named["environment_state"] if self._goal is None else self._goal
        return {**named, "environment_state": self._goal}


class TerminatedAtTheLimitEnv(EFMEnv):
    def step(self, action: Array) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, False, info


class BonusEnv(EFMEnv):
    """Adds a reward that no reward model gave."""

    def step(self, action: Array) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        return observation, reward + 0.1, *rest  # type: ignore[return-value]


class FailingEnv(EFMEnv):
    """Breaks at the third step of odd seeds."""

    def step(self, action: Array) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.episode_key[0] % 2 and self.elapsed_steps == 2:
            raise RuntimeError("the gripper came off")
        return super().step(action)


# -- other people's envs ----------------------------------------------------------------------------------------------------------


class CounterEnv(gym.Env[Any, Any]):
    """Counts down from 3; a Dict observation; reports its success under the name it is given, at reset too if asked."""

    def __init__(self, success_key: str | None = "success", at_reset: bool = True) -> None:
        self.observation_space = gym.spaces.Dict({"left": gym.spaces.Box(0, 3, (1,), np.float32)})
        self.action_space = gym.spaces.Discrete(2)
        self._success_key, self._at_reset = success_key, at_reset
        self._left = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 3
        return self._observation(), self._info() if self._at_reset else {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left = max(0, self._left - int(action))
        return self._observation(), 7.0, False, False, self._info()

    def _observation(self) -> dict[str, Array]:
        return {"left": np.array([self._left], np.float32)}

    def _info(self) -> dict[str, Any]:
        return {self._success_key: self._left == 0} if self._success_key else {}


# -- policies ---------------------------------------------------------------------------------------------------------------------


class GoStraight:
    """A policy that reads observations: it pushes towards the goal, the same in any batch."""

    def act(self, observations: Mapping[str, Array]) -> Array:
        position, velocity = np.split(observations["agent_pos"], 2, axis=1)  # [m], [m per 0.01 s]
        return np.clip((2.0 * (observations["environment_state"] - position) - 125.0 * velocity) / 5.0, -1.0, 1.0)


class Recorder:
    """A policy that goes straight and remembers what `reset` told it."""

    def __init__(self) -> None:
        self.masks: list[list[bool]] = []

    def reset(self, mask: Array) -> None:
        self.masks.append(mask.tolist())

    def act(self, observations: Mapping[str, Array]) -> Array:
        return GoStraight().act(observations)


def constant_policy(action: Array) -> Any:
    """Returns a policy that always does the same."""

    class Constant:
        def act(self, observations: Mapping[str, Array]) -> Array:
            return np.tile(action, (len(next(iter(observations.values()))), 1))

    return Constant()


Factory = Callable[..., RewardModel]
