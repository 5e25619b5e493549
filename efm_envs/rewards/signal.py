"""The one place that turns steps-to-go into reward and success (paper, eq. 2): every env and wrapper uses it.

    r_t = d(o_t, g) − d(o_{t+1}, g)          success = 1[d(o, g) ≤ s]

The d of a step's second observation is the d of the next step's first: the model is asked once per observation, and rewards telescope:
Σ r = d(o_0) − d(o_T).
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards.base import RewardModel, StepsToGo
from efm_envs.task import Array, Goals

TerminateOn = Literal["predicted", "true", "never"]
TERMINATE_ON: tuple[str, ...] = get_args(TerminateOn)


def is_end(terminate_on: TerminateOn, predicted_success: bool, is_success: bool) -> bool:
    """Returns whether an episode is over, by what may end it: predicted success, true success, or neither."""
    return (terminate_on == "predicted" and predicted_success) or (terminate_on == "true" and is_success)


SignalState = tuple[Array, Any]


class SignalOutput(NamedTuple):
    """What the signal says of B observations.

    Attributes:
        reward: (B,) float64; 0 at the first observation of an episode.
        steps_to_go: (B,) float64 in [control steps].
        predicted_success: (B,) bool.
    """

    reward: Array
    steps_to_go: Array
    predicted_success: Array


class RewardSignal:
    """Reward and predicted success for B episodes that run side by side.

    Args:
        model: says how many steps are left.
        num_envs: B.
        success_threshold: s, in [control steps]; None takes the model's own.

    Attributes:
        calls: how often the model was asked.
    """

    def __init__(self, model: RewardModel, num_envs: int, success_threshold: float | None = None) -> None:
        self.model = model
        self.num_envs = num_envs
        self.success_threshold = _threshold(model.success_threshold if success_threshold is None else success_threshold)
        self.calls = 0
        self._steps_to_go = np.zeros(num_envs)

    def reset(self, observations: Mapping[str, Array], goals: Goals, mask: Array | None = None) -> SignalOutput:
        """Takes the first observation of the episodes in `mask` (B,) bool (None: all); the other envs' d stays as it was."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        self.model.reset(goals, mask)
        self._steps_to_go = np.where(mask, self._ask(observations, goals), self._steps_to_go)
        return self._output(np.zeros(self.num_envs))

    def step(
        self, observations: Mapping[str, Array], goals: Goals, starting: Array | None = None, lost: Array | None = None
    ) -> SignalOutput:
        """Takes the observations after a control step.

        Args:
            observations: by name, each (B, …).
            goals: of the B envs.
            starting: (B,) bool, where they are the first of an episode: worth nothing.
            lost: (B,) bool, where the simulation broke down, and they mean nothing: d stays as it was, and is no success.
        """
        if starting is not None and starting.any():
            self.model.reset(goals, starting)
        before, self._steps_to_go = self._steps_to_go, self._ask(observations, goals)
        if lost is not None:
            self._steps_to_go = np.where(lost, before, self._steps_to_go)
        reward = before - self._steps_to_go
        output = self._output(reward if starting is None else np.where(starting, 0.0, reward))
        return output if lost is None else output._replace(predicted_success=output.predicted_success & ~lost)

    def get_state(self) -> SignalState:
        """Returns the d (B,) that the next reward starts from, and the model's memory."""
        return self._steps_to_go.copy(), copy.deepcopy(self.model.get_state())

    def set_state(self, state: SignalState) -> None:
        """Goes on from what `get_state` returned."""
        self._steps_to_go = state[0].copy()
        self.model.set_state(copy.deepcopy(state[1]))

    def _output(self, reward: Array) -> SignalOutput:
        return SignalOutput(reward, self._steps_to_go, self._steps_to_go <= self.success_threshold)

    def _ask(self, observations: Mapping[str, Array], goals: Goals) -> Array:
        self.calls += 1
        return _checked_mean(self.model, self.model.steps_to_go(observations, goals), self.num_envs)


def _threshold(value: Any) -> float:
    if isinstance(value, int | float | np.number) and 0.0 <= value < np.inf:
        return float(value)
    raise EFMError(f"success_threshold is a number of control steps, at least 0; got {value!r}.")


def _checked_mean(model: RewardModel, output: StepsToGo, batch: int) -> Array:
    """Returns the d (B,) that the model said, as float64 in an array of its own, if it can be a steps-to-go.

    Raises:
        RewardModelError: not a StepsToGo, wrong shape, not finite, or negative; names the model and the first env at fault.
    """
    if not isinstance(output, StepsToGo):
        raise RewardModelError(f"{_who(model)} returned {type(output).__name__}; steps_to_go() returns a StepsToGo.")
    mean = np.asarray(output.mean)
    if mean.dtype.kind not in "fiub":
        raise RewardModelError(f"{_who(model)} returned steps-to-go of dtype {mean.dtype}; expected numbers.")
    if mean.shape != (batch,):
        raise RewardModelError(f"{_who(model)} returned steps-to-go of shape {mean.shape} for a batch of {batch}; expected ({batch},).")
    values = mean.tolist()
    for env, value in enumerate(values):
        if not 0.0 <= value < math.inf:
            raise RewardModelError(f"{_who(model)} returned {value} steps-to-go for env {env}; expected a finite number, at least 0.")
    return np.array(values, np.float64)


def _who(model: RewardModel) -> str:
    return f"reward model {model.id!r} ({type(model).__name__})"
