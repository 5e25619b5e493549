"""The trained steps-to-go model as a reward model: `gym.make(..., reward_model={"id": "checkpoint", "path": "runs/sft"})`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efm_agents.checkpoint import find_checkpoint, fingerprint, load_checkpoint
from efm_agents.model import rebuild_model
from efm_envs.errors import CheckpointError
from efm_envs.rewards import RewardModel, StepsToGo
from efm_envs.task import Array, Goals


class CheckpointRewardModel(RewardModel):
    """`checkpoint`: a frozen steps-to-go model from a checkpoint of stage 1.

    Its success threshold is the one that an audit of these weights recommended, where there was one (`efm audit` leaves its card beside the
    checkpoint), and else that which stage 1 chose on held-out demonstrations.

    Args:
        path: a run's folder, or its steps_to_go.safetensors.
        audited: whether it takes the threshold that an audit recommended, if there was one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """

    id = "checkpoint"

    def __init__(self, path: str, audited: bool = True) -> None:
        self.path, self.audited = str(path), audited
        file = find_checkpoint(path, "steps_to_go")
        tensors, config = load_checkpoint(file, "steps_to_go")
        self.model = rebuild_model(config["model"], tensors).requires_grad_(False)
        self.task = config["task"]
        self.needs = self.model.reads.observations
        self.success_threshold = config["success_threshold"]
        self._fingerprint = fingerprint(file)
        recommended = _recommended(card_beside(file), self._fingerprint) if audited else None
        if recommended is not None:
            self.success_threshold = float(recommended["success_threshold"])
            k, n = recommended["success_k_of_n"]
            self.success_k_of_n = (int(k), int(n))

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Returns the model's distribution and its expectation."""
        return self.model.steps_to_go(self.model.inputs(observations))

    @property
    def spec(self) -> dict[str, Any]:
        """The path, and that an audit's advice is not taken."""
        return {"id": self.id, "path": self.path, **({} if self.audited else {"audited": False})}

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint file: weights and config."""
        return self._fingerprint


def card_beside(checkpoint: Path) -> Path:
    """Returns where an audit leaves the card of a checkpoint."""
    return checkpoint.with_suffix(".card.json")


def _recommended(card: Path, of: str) -> dict[str, Any] | None:
    """Returns what a card recommends for the weights with fingerprint `of`; None if there is no card, or it is of other weights."""
    if not card.is_file():
        return None
    try:
        found = json.loads(card.read_text())
        recommended: dict[str, Any] | None = found["recommended"]
        return recommended if found["fingerprint"] == of else None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{card} is not a complete card ({error!r}). Delete it, or run `efm audit` again.") from error
