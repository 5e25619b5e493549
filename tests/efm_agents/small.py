"""Small models and small episodes, of which tests can say what comes out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.heads import ActionDistribution
from efm_agents.inputs import NUMBERS, Inputs, Reads
from efm_agents.model import EmbodiedModel, HeadedModel
from efm_envs.data import Episode
from efm_envs.observations import encode_instruction

POINT_MASS = "EFM-PointMass-v0"
ONE_NUMBER = Reads(("x",), (1,))
MLP = ModelConfig(backbone="mlp", hidden=(8,), bins=5)
TINY_MODEL = ModelConfig(width=16, blocks=1, heads=2, patch=16, bins=5, action_bins=5)
TINY_SFT = SFTConfig(steps=20, validate_every=10, batch=8, warmup=0, model=MLP)


def headed(reads: Reads, seed: int = 0, **changes: Any) -> HeadedModel:
    """A model with random weights, an MLP of one layer where nothing else is said; torch's generator stays as it is."""
    settings: dict[str, Any] = {"backbone": "mlp", "action_head": "bins", "chunk": 1, "action_size": 2, "action_bins": 7, "bins": 5}
    settings |= {"max_steps_to_go": 10.0, **changes}
    hidden = {"hidden": (8,)} if settings["backbone"] == "mlp" else {"width": 16, "blocks": 2, "heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HeadedModel(reads, **{**settings, "backbone_options": {**hidden, **settings.get("backbone_options", {})}})


def of_numbers(*rows: Sequence[float] | np.ndarray | torch.Tensor) -> Inputs:
    """A batch of numbers alone."""
    return {NUMBERS: torch.stack([torch.as_tensor(row, dtype=torch.float32) for row in rows])}


def random_numbers(size: int, seed: int = 0, batch: int = 16) -> Inputs:
    return of_numbers(*np.random.default_rng(seed).normal(size=(batch, size)))


def weights_of(model: EmbodiedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def episode(
    length: int,
    seed: int = 0,
    observations: Mapping[str, np.ndarray] | None = None,
    *,
    env_id: str = POINT_MASS,
    instruction: str | None = None,
    **facts: Any,
) -> Episode:
    """A demonstration whose observations and actions are all different: 100 · seed + t, and half a step more."""
    t = 100.0 * seed + np.arange(length + 1)
    said = {} if instruction is None else {"instruction": np.stack([encode_instruction(instruction)] * (length + 1))}
    seen = {"x": t[:, None].astype(np.float32)} if observations is None else dict(observations)
    made: dict[str, Any] = {
        "env_id": env_id,
        "seed": seed,
        "observations": seen | said,
        "actions": (t[:-1, None] + 0.5).astype(np.float32),
        "rewards": np.zeros(length),
        "steps_to_go": np.full(length + 1, np.nan),
        "is_success": np.arange(length + 1) == length,
        "predicted_success": np.zeros(length + 1, bool),
        "instruction": instruction or "",
        "end_reason": "terminated",
    }
    return Episode(**{**made, **facts})


class Says(EmbodiedModel):
    """Of an observation x it says the chunk x + 0.01, x + 0.02, …: what it said, and when, can be read off an action."""

    def __init__(self, chunk: int = 1, reads: Reads = ONE_NUMBER) -> None:
        super().__init__()
        self.config, self.reads, self.chunk, self.action_size = {"backbone": "says"}, reads, chunk, 1
        self.edges = torch.linspace(0, 10, 6)
        self.looks: list[list[float]] = []

    def act(self, inputs: Inputs, generator: torch.Generator | None) -> Tensor:
        self.looks.append(inputs[NUMBERS][:, 0].tolist())
        return inputs[NUMBERS][:, :1, None] + 0.01 * torch.arange(1, self.chunk + 1)[:, None]

    def actions(self, inputs: Inputs) -> ActionDistribution:
        raise NotImplementedError

    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        raise NotImplementedError
