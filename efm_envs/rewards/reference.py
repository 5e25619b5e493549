"""Models whose faults are known, to study what a fault of the reward does: to the audit, and to who learns from it.

Each is another model, the oracle where nobody says otherwise, with one thing wrong. What looks random is a function of the observation, the
goal and a seed: the same observation is always misjudged in the same way, online, in a batch and afterwards.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards.base import SEEN, RewardModel, StepsToGo
from efm_envs.rewards.wrapping import RememberingRewardModel, WrappedRewardModel, row_digests
from efm_envs.task import Array, Goals

BINS_PER_STD = 4  # of the distribution that goes with the noise
STDS = 5  # so far on either side it reaches


class ConstantRewardModel(RewardModel):
    """`constant`: the same d everywhere, so that the reward is always 0.

    Args:
        value: d, in [control steps].
    """

    id = "constant"
    needs = ()

    def __init__(self, value: float = 10.0) -> None:
        self.value = at_least_0("value", value)

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Returns the constant."""
        return StepsToGo(np.full(len(goals), self.value))

    @property
    def spec(self) -> dict[str, Any]:
        """The value."""
        return {"id": self.id, "value": self.value}


class NoisyRewardModel(RememberingRewardModel):
    """`noisy`: scale · d + bias + an error of the episode + an error of the observation, and at least 0.

    Errors are normal, and come from what the policy sees, the goal and the seed; that of an episode from its first observation.

    Args:
        model: as for any wrapper.
        bias: in [control steps].
        scale: a factor.
        std: standard deviation of the error of an observation, in [control steps].
        episode_std: of that of an episode.
        seed: another seed gives other errors.
        distribution: whether it also says how unsure it is: bins of std/4 that hold a normal distribution of deviation `std` around what it
            says; what would lie below 0 is added to the first. Needs std > 0.
        max_steps_to_go: the largest d that the bins reach, in [control steps]; what would lie above is added to the last.
    """

    id = "noisy"

    def __init__(
        self,
        model: Any = "oracle",
        bias: float = 0.0,
        scale: float = 1.0,
        std: float = 0.0,
        episode_std: float = 0.0,
        seed: int = 0,
        distribution: bool = False,
        max_steps_to_go: float = 500.0,
    ) -> None:
        super().__init__(model)
        self.bias, self.scale = _number("bias", bias), at_least_0("scale", scale)
        self.std, self.episode_std = at_least_0("std", std), at_least_0("episode_std", episode_std)
        self.seed, self.distribution = int(at_least_0("seed", seed)), bool(distribution)
        self.max_steps_to_go = at_least_0("max_steps_to_go", max_steps_to_go)
        if distribution and std == 0:
            raise EFMError("distribution=True says how wide the errors of the observations are: give std, above 0.")
        self.has_memory = self.model.has_memory or episode_std > 0
        self.needs = (*((SEEN,) if self.model.needs is None else self.model.needs), SEEN)
        if distribution:
            bins = max(1, math.ceil(self.max_steps_to_go * BINS_PER_STD / self.std))
            self._edges = np.linspace(0.0, self.max_steps_to_go, bins + 1)

    def options(self) -> dict[str, Any]:
        """All of them."""
        names = ("bias", "scale", "std", "episode_std", "seed", "distribution", "max_steps_to_go")
        return {name: getattr(self, name) for name in names}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model and errs."""
        d = self.scale * np.asarray(self.model.steps_to_go(observations, goals).mean, np.float64) + self.bias
        if self.std:
            d = d + self.std * standard_normal(observations, goals, f"observation {self.seed}")
        if self.episode_std:
            if self.starting.any():
                self.remember("error", self.episode_std * standard_normal(observations, goals, f"episode {self.seed}"))
                self.starting = np.zeros_like(self.starting)
            d = d + self.memory["error"]
        d = np.maximum(d, 0.0)
        return StepsToGo(d, self._edges, self._probs(d)) if self.distribution else StepsToGo(d)

    def _probs(self, d: Array) -> Array:
        """Returns (B, K): of a normal distribution around each d (B,), clipped to the edges."""
        near = np.clip((self._edges[1:-1] - d[:, None]) / self.std, -STDS, STDS)  # (B, K-1)
        below = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(near / math.sqrt(2.0)))
        ends = np.zeros((len(d), 1)), np.ones((len(d), 1))
        return np.diff(np.concatenate([ends[0], below, ends[1]], axis=1), axis=1)


class InvertedRewardModel(WrappedRewardModel):
    """`inverted`: max_steps_to_go − d, and at least 0: it praises what leads away from the goal.

    Args:
        model: as for any wrapper.
        max_steps_to_go: in [control steps].
    """

    id = "inverted"

    def __init__(self, model: Any = "oracle", max_steps_to_go: float = 200.0) -> None:
        super().__init__(model)
        self.max_steps_to_go = at_least_0("max_steps_to_go", max_steps_to_go)

    def options(self) -> dict[str, Any]:
        """What d is taken from."""
        return {"max_steps_to_go": self.max_steps_to_go}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model and turns it round."""
        return StepsToGo(np.maximum(self.max_steps_to_go - np.asarray(self.model.steps_to_go(observations, goals).mean, np.float64), 0.0))


class QuantisedRewardModel(WrappedRewardModel):
    """`quantised`: d rounded up to a multiple of `step`, as from a model with few levels: most rewards are 0. 0 stays 0.

    Args:
        model: as for any wrapper.
        step: in [control steps], above 0.
    """

    id = "quantised"

    def __init__(self, model: Any = "oracle", step: float = 10.0) -> None:
        super().__init__(model)
        if not at_least_0("step", step) > 0:
            raise EFMError(f"step is a number of control steps, above 0; got {step!r}.")
        self.step = float(step)

    def options(self) -> dict[str, Any]:
        """The step."""
        return {"step": self.step}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model and rounds."""
        return StepsToGo(np.ceil(np.asarray(self.model.steps_to_go(observations, goals).mean, np.float64) / self.step) * self.step)


class HackableRewardModel(WrappedRewardModel):
    """`hackable`: right, but in a region that reads as success and is none: there d is 0.

    The region is where one number of one observation lies between two bounds. Where nobody says otherwise that is the first number of
    `agent_pos` from 0.55 up: in PointMass the right part of the arena, in LanguageTable the far edge of the board, with the ALOHA arms a
    turned shoulder. Whoever learns from it goes there.

    Args:
        model: as for any wrapper.
        observation: its name.
        index: which of its numbers.
        low, high: the bounds; `high` None is none.
    """

    id = "hackable"

    def __init__(
        self, model: Any = "oracle", observation: str = "agent_pos", index: int = 0, low: float = 0.55, high: float | None = None
    ) -> None:
        super().__init__(model)
        self.observation, self.index, self.low = str(observation), int(index), _number("low", low)
        self.high = None if high is None else _number("high", high)
        self.needs = (*((SEEN,) if self.model.needs is None else self.model.needs), self.observation)

    def options(self) -> dict[str, Any]:
        """The region."""
        return {"observation": self.observation, "index": self.index, "low": self.low, "high": self.high}

    def is_hacked(self, observations: Mapping[str, Array]) -> Array:
        """Returns (B,) bool: which observations lie in the region."""
        seen = observations[self.observation].reshape(len(observations[self.observation]), -1)
        if not -seen.shape[1] <= self.index < seen.shape[1]:
            raise RewardModelError(f"index is that of one of {seen.shape[1]} numbers in {self.observation!r}; got {self.index}.")
        value = seen[:, self.index]
        return np.asarray((value >= self.low) & (value <= (np.inf if self.high is None else self.high)))

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model, and believes the region."""
        return StepsToGo(np.where(self.is_hacked(observations), 0.0, self.model.steps_to_go(observations, goals).mean))


def standard_normal(observations: Mapping[str, Array], goals: Goals, key: str) -> Array:
    """Returns (B,) standard normal numbers that each row's observations and goal, and `key`, decide (Box and Muller 1958)."""
    words = np.frombuffer(b"".join(row_digests(observations, goals, key.encode())), "<u8").reshape(-1, 2)
    uniform = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # (B, 2), in (0, 1)
    values = [math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v) for u, v in uniform.tolist()]
    return np.array(values)


def at_least_0(name: str, value: Any) -> float:
    """Returns an option's value as a float; raises EFMError if it is no number from 0."""
    if _number(name, value) < 0:
        raise EFMError(f"{name} is at least 0; got {value!r}.")
    return float(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise EFMError(f"{name} is a finite number; got {value!r}.")
    return float(value)
