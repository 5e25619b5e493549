"""The one place that turns steps-to-go into reward and success (paper, eq. 2): every env and wrapper uses it.

    r_t = d(o_t, g) − d(o_{t+1}, g)          success = 1[d(o, g) ≤ s], in k of the last n observations where that is asked

The d of a step's second observation is the d of the next step's first: the model is asked once per observation, and rewards telescope:
Σ r = d(o_0) − d(o_T).
"""

import copy
import math
from collections.abc import Mapping, Sequence
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


class SignalState(NamedTuple):
    """Everything that decides how a signal goes on; every array (B, …).

    Attributes:
        steps_to_go: the d that the next reward starts from.
        past: of each observation that the model reads with its history, the last k.
        hits: whether d ≤ s at each of the last n observations.
        memory: the model's own; None if it has none.
    """

    steps_to_go: Array
    past: dict[str, Array]
    hits: Array
    memory: dict[str, Array] | None


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
        model: says how many steps are left. One that has a memory is copied.
        num_envs: B.
        success_threshold: s, in [control steps]; None takes the model's own.
        success_k_of_n: (k, n): success is predicted where d ≤ s in k of the last n observations of the episode; None takes the model's own.

    Attributes:
        calls: how often the model was asked.
        prediction: what it said last, with the distribution if it has one.
    """

    def __init__(
        self,
        model: RewardModel,
        num_envs: int,
        success_threshold: float | None = None,
        success_k_of_n: Sequence[int] | None = None,
    ) -> None:
        self.model = copy.deepcopy(model) if model.has_memory else model  # who remembers one env's episodes must not be shown another's
        self.num_envs = num_envs
        self.success_threshold = _threshold(model.success_threshold if success_threshold is None else success_threshold)
        self.success_k_of_n = _k_of_n(model.success_k_of_n if success_k_of_n is None else success_k_of_n)
        self.calls = 0
        self.prediction: StepsToGo | None = None
        self._steps_to_go = np.zeros(num_envs)
        self._past: dict[str, Array] = {}
        self._hits = np.zeros((num_envs, self.success_k_of_n[1]), bool)

    def reset(self, observations: Mapping[str, Array], goals: Goals, mask: Array | None = None) -> SignalOutput:
        """Takes the first observation of the episodes in `mask` (B,) bool (None: all); the other envs stay as they were."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        self._take(observations, goals, mask, None if mask.all() else ~mask)
        return self._output(np.zeros(self.num_envs))

    def step(
        self,
        observations: Mapping[str, Array],
        goals: Goals,
        starting: Array | None = None,
        idle: Array | None = None,
        lost: Array | None = None,
    ) -> SignalOutput:
        """Takes the observations after a control step.

        Args:
            observations: by name, each (B, …).
            goals: of the B envs.
            starting: (B,) bool, where they are the first of an episode: worth nothing.
            idle: (B,) bool, where nothing has happened since the last ones: all stays as it was.
            lost: (B,) bool, where the simulation broke down, and they mean nothing: the same, and no success.
        """
        before = self._steps_to_go
        self._take(observations, goals, starting, idle if lost is None else lost if idle is None else lost | idle)
        reward = before - self._steps_to_go
        output = self._output(reward if starting is None else np.where(starting, 0.0, reward))
        return output if lost is None else output._replace(predicted_success=output.predicted_success & ~lost)

    def get_state(self) -> SignalState:
        """Returns everything that decides how this signal goes on."""
        past = {name: values.copy() for name, values in self._past.items()}
        return SignalState(self._steps_to_go.copy(), past, self._hits.copy(), copy.deepcopy(self.model.get_state()))

    def set_state(self, state: SignalState) -> None:
        """Goes on from what `get_state` returned."""
        self._steps_to_go, self._hits = state.steps_to_go.copy(), state.hits.copy()
        self._past = {name: values.copy() for name, values in state.past.items()}
        if state.memory is not None:
            self.model.set_state(copy.deepcopy(state.memory))

    def _output(self, reward: Array) -> SignalOutput:
        k, n = self.success_k_of_n
        predicted = self._steps_to_go <= self.success_threshold if n == 1 else self._hits.sum(axis=1) >= k
        return SignalOutput(reward, self._steps_to_go, predicted)

    def _take(self, observations: Mapping[str, Array], goals: Goals, starting: Array | None, held: Array | None) -> None:
        """Asks the model about new observations, some of them the first of an episode; where `held`, all stays as it was."""
        if starting is not None and starting.any():
            self.model.reset(goals, starting)
        if held is not None and not held.any():
            held = None
        if self.model.history:
            observations = self._with_history(observations, starting, held)
        steps_to_go = self._ask(observations, goals, held)
        self._steps_to_go = steps_to_go if held is None else np.where(held, self._steps_to_go, steps_to_go)
        if self.success_k_of_n[1] > 1:
            self._count_hits(starting, held)

    def _ask(self, observations: Mapping[str, Array], goals: Goals, held: Array | None) -> Array:
        memory = copy.deepcopy(self._memory()) if self.model.has_memory and held is not None else None
        self.calls += 1
        self.prediction = self.model.steps_to_go(observations, goals)
        if memory is not None and held is not None:
            after = self._memory()
            self.model.set_state({name: _rows_where(held, memory.get(name, values), values) for name, values in after.items()})
        return checked_mean(self.model, self.prediction, self.num_envs)

    def _memory(self) -> dict[str, Array]:
        memory = self.model.get_state()
        if isinstance(memory, dict) and all(np.shape(values)[:1] == (self.num_envs,) for values in memory.values()):
            return memory
        raise RewardModelError(
            f"{who(self.model)} has a memory, so get_state() returns its arrays by name, each with a row for each of {self.num_envs} envs; "
            f"got {memory!r}."
        )

    def _with_history(self, observations: Mapping[str, Array], starting: Array | None, held: Array | None) -> dict[str, Array]:
        for name, k in self.model.history.items():
            now = observations[name][:, None]  # (B, 1, …)
            first = np.repeat(now, k, axis=1)
            past = self._past.get(name, first)
            pushed = np.concatenate([past[:, 1:], now], axis=1)
            if starting is not None:
                pushed = _rows_where(starting, first, pushed)
            self._past[name] = pushed if held is None else _rows_where(held, past, pushed)
        return {**observations, **self._past}

    def _count_hits(self, starting: Array | None, held: Array | None) -> None:
        before = self._hits if starting is None else self._hits & ~starting[:, None]
        hits = np.column_stack([before[:, 1:], self._steps_to_go <= self.success_threshold])
        self._hits = hits if held is None else _rows_where(held, self._hits, hits)


def _rows_where(mask: Array, yes: Array, no: Array) -> Array:
    """Returns (B, …): the rows of `yes` where the mask (B,) is True, else those of `no`."""
    return np.where(mask.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def _threshold(value: Any) -> float:
    if isinstance(value, int | float | np.number) and 0.0 <= value < np.inf:
        return float(value)
    raise EFMError(f"success_threshold is a number of control steps, at least 0; got {value!r}.")


def _k_of_n(value: Any) -> tuple[int, int]:
    if isinstance(value, Sequence) and len(value) == 2 and all(type(number) is int for number in value) and 1 <= value[0] <= value[1]:
        return value[0], value[1]
    raise EFMError(f"success_k_of_n is two whole numbers (k, n), 1 ≤ k ≤ n: d ≤ s in k of the last n observations; got {value!r}.")


def checked_mean(model: RewardModel, output: StepsToGo, batch: int) -> Array:
    """Returns the d (B,) that the model said, as float64 in an array of its own, if it can be a steps-to-go.

    Raises:
        RewardModelError: not a StepsToGo, wrong shape, not finite, or negative; names the model and the first env at fault.
    """
    if not isinstance(output, StepsToGo):
        raise RewardModelError(f"{who(model)} returned {type(output).__name__}; steps_to_go() returns a StepsToGo.")
    mean = np.asarray(output.mean)
    if mean.dtype.kind not in "fiub":
        raise RewardModelError(f"{who(model)} returned steps-to-go of dtype {mean.dtype}; expected numbers.")
    if mean.shape != (batch,):
        raise RewardModelError(f"{who(model)} returned steps-to-go of shape {mean.shape} for a batch of {batch}; expected ({batch},).")
    values = mean.tolist()
    for env, value in enumerate(values):
        if not 0.0 <= value < math.inf:
            raise RewardModelError(f"{who(model)} returned {value} steps-to-go for env {env}; expected a finite number, at least 0.")
    if output.probs is not None:
        _check_distribution(model, output, batch)
    return np.array(values, np.float64)


def _check_distribution(model: RewardModel, output: StepsToGo, batch: int) -> None:
    edges, probs = (() if array is None else np.shape(array) for array in (output.edges, output.probs))
    if len(edges) != 1 or probs != (batch, edges[0] - 1):
        raise RewardModelError(
            f"{who(model)} returned a distribution of edges {edges} and probabilities {probs} for a batch of {batch}; "
            f"expected (K+1,) and ({batch}, K)."
        )


def who(model: RewardModel) -> str:
    """Returns how messages name a model."""
    return f"reward model {model.id!r} ({type(model).__name__})"
