"""What a reward model is: something that says how many steps are left."""

import abc
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from efm_envs.task import Array, Goals

TRUTH = "truth/"
TRUE_STEPS_TO_GO = "truth/steps_to_go"  # (B,) float64, the task's privileged estimate
TRUE_SUCCESS = "truth/is_success"  # (B,) bool, ground truth


@dataclass(slots=True)  # not frozen: that would take longer to make
class StepsToGo:
    """How many control steps are left until the goal, for a batch of B.

    Attributes:
        mean: (B,) float64 in [control steps], at least 0: d(o, g), the expectation (paper, eq. 1).
        edges: (K+1,) in [control steps], ascending: limits of the K bins of the distribution, or None.
        probs: (B, K): probability of each bin, or None.
    """

    mean: Array
    edges: Array | None = None
    probs: Array | None = None


class RewardModel(abc.ABC):
    """Says how many steps are left. Subclass it, or pass a function of the observations.

    Attributes:
        id: the name under which `make_reward_model` finds it.
        needs: names of the observations it reads; None means whatever the policy sees. `truth/…` names are privileged: only a
            simulator has them, and a model that asks for them says so here, where everybody can see it.
        task: name of the task it was made for; None means any. An env of another task refuses it.
        success_threshold: s in success 1[d ≤ s], in [control steps], where `gym.make` is not told another.
    """

    id: ClassVar[str] = "custom"
    needs: tuple[str, ...] | None = None
    task: str | None = None
    success_threshold: float = 0.5

    @abc.abstractmethod
    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Returns the steps left from each of B observations, each value (B, …), to its goal."""

    def reset(self, goals: Goals, mask: Array) -> None:  # noqa: B027 (most models have no memory)
        """Told before the first observation of the episodes in `mask` (B,) bool."""

    def get_state(self) -> Any:
        """Returns whatever memory the model has, to be given back to `set_state`; None if it has none."""
        return None

    def set_state(self, state: Any) -> None:  # noqa: B027 (most models have no memory)
        """Goes on from what `get_state` returned."""

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able description from which `make_reward_model` rebuilds this model."""
        return {"id": self.id}

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model returns: settings, and weights where there are any."""
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_privileged(self) -> bool:
        """Whether the model reads what only a simulator knows."""
        return any(name.startswith(TRUTH) for name in self.needs or ())
