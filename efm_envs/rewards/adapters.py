"""Other people's steps-to-go, as reward models."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from efm_envs.rewards.base import RewardModel, StepsToGo
from efm_envs.task import Array, Goals


class FunctionRewardModel(RewardModel):
    """A plain function of the observations, as a reward model.

    Args:
        function: takes the observations, each value (B, …), and returns (B,) steps-to-go in [control steps] or a `StepsToGo`.
        needs: names of the observations it reads; None means whatever the policy sees.
        success_threshold: s in success 1[d ≤ s], in [control steps].

    >>> model = FunctionRewardModel(lambda observations: np.abs(observations["observation"][:, 0]))
    >>> model.steps_to_go({"observation": np.array([[-3.0, 1.0]])}, Goals([])).mean
    array([3.])
    """

    id = "function"

    def __init__(
        self,
        function: Callable[[Mapping[str, Array]], Any],
        needs: tuple[str, ...] | None = None,
        success_threshold: float = 0.5,
    ) -> None:
        self.function = function
        self.needs = needs
        self.success_threshold = success_threshold

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Calls the function."""
        output = self.function(observations)
        return output if isinstance(output, StepsToGo) else StepsToGo(np.asarray(output))

    @property
    def spec(self) -> dict[str, Any]:
        """Names the function, but cannot rebuild it: register a model class for that."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"id": self.id, "function": f"{getattr(self.function, '__module__', '?')}:{name}"}
