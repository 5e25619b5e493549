"""Episode: what happened, from a reset to the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from efm_envs.task import Array

EndReason = Literal["terminated", "truncated", "error"]


@dataclass(frozen=True)
class Episode:
    """One episode of T control steps, as it happened: nothing in it is computed afterwards.

    Attributes:
        env_id: the registered id.
        seed: `env.reset(seed=seed)` starts the same episode again.
        observations: by name, each (T+1, …): before each action, and the last. An env with a Box has the one name "observation".
        actions: (T, A) as the policy gave them.
        rewards: (T,) float64.
        steps_to_go: (T+1,) float64, the reward model's d in [control steps] (NaN where the env reports none).
        is_success: (T+1,) bool, ground truth.
        predicted_success: (T+1,) bool.
        instruction: what was asked for.
        end_reason: "terminated" (success, by whatever `terminate_on` names), "truncated" (the step limit) or "error".
        error: what went wrong, if that ended it.
        notes: what the policy says about it, JSON-able: an expert its style, and the mistakes it made on purpose.
    """

    env_id: str
    seed: int
    observations: Mapping[str, Array]
    actions: Array
    rewards: Array
    steps_to_go: Array
    is_success: Array
    predicted_success: Array
    instruction: str = ""
    end_reason: EndReason = "truncated"
    error: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Returns T."""
        return len(self.actions)

    @property
    def steps_to_success(self) -> int | None:
        """Control steps until ground truth first said success, or None."""
        return int(np.argmax(self.is_success)) if self.is_success.any() else None
