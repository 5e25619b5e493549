"""Models around a model: what all of them share, and three that change when it is asked rather than what it says."""

import copy
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards.base import RewardModel, StepsToGo
from efm_envs.rewards.registry import make_reward_model
from efm_envs.task import Array, Goals

Memory = dict[str, Array]
MOST_KEPT = 100_000  # answers of a cache
INNER = "model/"  # before the names of what the model in a wrapper remembers


class WrappedRewardModel(RewardModel):
    """Around another model, whose needs, kind and threshold it takes over.

    Args:
        model: a name, a dict, or a RewardModel, as in `gym.make(..., reward_model=…)`.

    Attributes:
        model: the model itself.
    """

    def __init__(self, model: Any) -> None:
        self.model = make_reward_model(model)
        inner = self.model
        self.needs, self.history, self.kind, self.task = inner.needs, inner.history, inner.kind, inner.task
        self.success_threshold, self.success_k_of_n = inner.success_threshold, inner.success_k_of_n
        self.has_memory, self.latency_s = inner.has_memory, inner.latency_s

    def options(self) -> dict[str, Any]:
        """Returns what was passed besides the model, JSON-able."""
        return {}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model."""
        return self.model.steps_to_go(observations, goals)

    def reset(self, goals: Goals, mask: Array) -> None:
        """Tells the model."""
        self.model.reset(goals, mask)

    def get_state(self) -> Memory | None:
        """Returns the model's memory."""
        return self.model.get_state()

    def set_state(self, state: Memory) -> None:
        """Gives the model its memory back."""
        self.model.set_state(state)

    @property
    def spec(self) -> dict[str, Any]:
        """The model's own spec, and the options."""
        return {"id": self.id, "model": self.model.spec, **self.options()}

    @property
    def fingerprint(self) -> str:
        """Hash of the model's fingerprint and the options."""
        return hashlib.sha256(json.dumps([self.id, self.model.fingerprint, self.options()]).encode()).hexdigest()[:16]


class RememberingRewardModel(WrappedRewardModel):
    """A wrapper with a memory of its own, beside that of its model: a row for each env.

    Attributes:
        memory: arrays (B, …) by name; empty until the first reset.
        starting: (B,) bool, where the next observation is the first of an episode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.has_memory = True
        self.memory: Memory = {}
        self.starting = np.zeros(0, bool)

    def reset(self, goals: Goals, mask: Array) -> None:
        """Notes which episodes start."""
        super().reset(goals, mask)
        self.starting = (self.starting | mask) if len(self.starting) == len(mask) else mask.copy()

    def remember(self, name: str, first: Array, later: Array | None = None) -> Array:
        """Keeps `first` (B, …) where an episode starts, and elsewhere `later` (None: what is there); returns what is kept now."""
        there = self.memory.get(name, first) if later is None else later
        self.memory[name] = np.where(self.starting.reshape(-1, *[1] * (first.ndim - 1)), first, there)
        return self.memory[name]

    def get_state(self) -> Memory | None:
        """Returns its own memory and the model's."""
        inner = {INNER + name: values for name, values in (self.model.get_state() or {}).items()}
        return {**self.memory, "starting": self.starting, **inner}

    def set_state(self, state: Memory) -> None:
        """Gives both their memory back."""
        self.memory = {name: values for name, values in state.items() if not name.startswith(INNER)}
        self.starting = self.memory.pop("starting")
        self.model.set_state({name.removeprefix(INNER): values for name, values in state.items() if name.startswith(INNER)})


class DelayedRewardModel(RememberingRewardModel):
    """`delayed`: what a model said some steps ago, as from a checker that runs beside the robot and is late by so much.

    At the beginning of an episode that is what it said of the first observation. It says d only, without the distribution.

    Args:
        model: as for any wrapper.
        delay: m, in [control steps].
    """

    id = "delayed"

    def __init__(self, model: Any = "oracle", delay: int = 5) -> None:
        super().__init__(model)
        if type(delay) is not int or delay < 0:
            raise EFMError(f"delay is a whole number of control steps, 0 or more; got {delay!r}.")
        self.delay = delay

    def options(self) -> dict[str, Any]:
        """The delay."""
        return {"delay": self.delay}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model, keeps the answer, and gives that of m steps ago."""
        now = np.asarray(self.model.steps_to_go(observations, goals).mean, np.float64)[:, None]
        first = np.repeat(now, self.delay + 1, axis=1)
        said = self.remember("said", first, np.concatenate([self.memory.get("said", first)[:, 1:], now], axis=1))
        self.starting = np.zeros_like(self.starting)
        return StepsToGo(said[:, 0].copy())


class CachedRewardModel(WrappedRewardModel):
    """`cached`: asks a model about each observation once, and gives the same answer when it comes again.

    Worth it for a slow model where the same starts or stored episodes come back. A model with a memory cannot be cached.

    Args:
        model: as for any wrapper.
        size: answers kept; the one that was not asked for longest goes first.

    Attributes:
        hits, misses: rows answered from memory, and rows that the model was asked about.
    """

    id = "cached"

    def __init__(self, model: Any = "oracle", size: int = MOST_KEPT) -> None:
        super().__init__(model)
        if self.model.has_memory:
            raise RewardModelError(f"reward model {self.model.id!r} remembers what it was shown: its answers cannot be cached.")
        if type(size) is not int or size < 1:
            raise EFMError(f"size is a whole number of answers, at least 1; got {size!r}.")
        self.size = size
        self.hits = self.misses = 0
        self._answers: OrderedDict[bytes, tuple[float, Array | None]] = OrderedDict()
        self._edges: Array | None = None

    def options(self) -> dict[str, Any]:
        """The size."""
        return {"size": self.size}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model about the rows that are new."""
        keys = row_digests(observations, goals)
        new = {key: row for row, key in enumerate(keys) if key not in self._answers}  # each once
        answers = {key: self._answers[key] for key in keys if key in self._answers}
        if new:
            answers |= self._ask(observations, goals, new)
        self.hits, self.misses = self.hits + len(keys) - len(new), self.misses + len(new)
        for key in keys:
            self._answers[key] = answers[key]
            self._answers.move_to_end(key)
        while len(self._answers) > self.size:
            self._answers.popitem(last=False)
        probs = [answers[key][1] for key in keys]
        with_distribution = None if any(row is None for row in probs) else np.array(probs)
        return StepsToGo(np.array([answers[key][0] for key in keys]), self._edges, with_distribution)

    def _ask(self, observations: Mapping[str, Array], goals: Goals, new: Mapping[bytes, int]) -> dict[bytes, tuple[float, Array | None]]:
        rows = list(new.values())
        said = self.model.steps_to_go({name: values[rows] for name, values in observations.items()}, goals.of(rows))
        self._edges = said.edges
        probs = [None] * len(rows) if said.probs is None else list(said.probs)
        means = np.asarray(said.mean)
        if means.shape != (len(rows),):
            raise RewardModelError(
                f"reward model {self.model.id!r} returned steps-to-go of shape {means.shape} for a batch of {len(rows)}."
            )
        return {key: (float(mean), row) for key, mean, row in zip(new, means, probs, strict=True)}


class SlowRewardModel(WrappedRewardModel):
    """`slow`: a call takes at least so long, to try out on a real robot what a large model would do to it.

    Simulated time does not wait for a model, so simulated envs refuse it: there, take `delayed`.

    Args:
        model: as for any wrapper.
        latency_s: what a call takes, in [s].
        clock, sleep: seconds from now on, and waiting for some; others are for tests.
    """

    id = "slow"

    def __init__(
        self,
        model: Any = "oracle",
        latency_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(model)
        if not isinstance(latency_s, int | float) or not 0 <= latency_s < float("inf"):
            raise EFMError(f"latency_s is a number of seconds, 0 or more; got {latency_s!r}.")
        self.latency_s = float(latency_s)
        self._clock, self._sleep = clock, sleep

    def options(self) -> dict[str, Any]:
        """The latency."""
        return {"latency_s": self.latency_s}

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model, and waits until the time is over."""
        begin = self._clock()
        answer = self.model.steps_to_go(observations, goals)
        self._sleep(max(0.0, (self.latency_s or 0.0) - (self._clock() - begin)))
        return answer

    def __deepcopy__(self, memo: dict[int, Any]) -> "SlowRewardModel":
        return SlowRewardModel(copy.deepcopy(self.model, memo), self.latency_s or 0.0, self._clock, self._sleep)


def row_digests(observations: Mapping[str, Array], goals: Goals, key: bytes = b"") -> list[bytes]:
    """Returns, for each of B rows, 16 bytes that its observations, its goal and `key` decide: BLAKE2b of what they hold."""
    begun = hashlib.blake2b(key, digest_size=16)
    digests = []
    columns = [np.ascontiguousarray(observations[name]) for name in sorted(observations)]
    for row, instruction in enumerate(goals.instructions):
        digest = begun.copy()
        for column in columns:
            digest.update(column[row].tobytes())
        digest.update(instruction.encode())
        digest.update(goals.states[row].tobytes())
        digests.append(digest.digest())
    return digests
