"""The trained steps-to-go model as a reward model: `gym.make(..., reward_model={"id": "checkpoint", "path": "runs/sft"})`."""

from collections.abc import Mapping
from typing import Any

from efm_agents.checkpoint import find_checkpoint, fingerprint, load_checkpoint
from efm_agents.model import StepsToGoNetwork
from efm_envs.rewards import RewardModel, StepsToGo
from efm_envs.task import Array, Goals


class CheckpointRewardModel(RewardModel):
    """`checkpoint`: a frozen steps-to-go model from a checkpoint of stage 1.

    Args:
        path: a run's folder, or its steps_to_go.safetensors.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """

    id = "checkpoint"

    def __init__(self, path: str) -> None:
        self.path = str(path)
        file = find_checkpoint(path, "steps_to_go")
        tensors, config = load_checkpoint(file, "steps_to_go")
        self.network = StepsToGoNetwork.from_config(config["model"]).requires_grad_(False)
        self.network.load_state_dict(tensors)
        self.task = config["task"]
        self.needs = self.network.inputs.names
        self.success_threshold = config["success_threshold"]
        self._fingerprint = fingerprint(file)

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Returns the network's distribution and its expectation."""
        return self.network.steps_to_go(self.network.inputs.features(observations))

    @property
    def spec(self) -> dict[str, Any]:
        """The path."""
        return {"id": self.id, "path": self.path}

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint file: weights and config."""
        return self._fingerprint
