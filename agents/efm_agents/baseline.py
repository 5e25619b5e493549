"""A baseline of the return that depends on the state: a ridge regression on what the frozen model makes of an observation, d and d²."""

import numpy as np
import torch
from torch import Tensor

RIDGE = 1e-2  # of the squared norm of the weights of standardised features, for each row


class Baseline:
    """Expects a return from an observation, by the rounds of practice that it was last shown.

    It is a function of the state alone: the mean return of a round is not subtracted as such. Near the goal returns are small for want of
    steps, and minus a mean over all states they would be punished.

    Args:
        rounds: how many it remembers.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.memory: list[tuple[Tensor, Tensor]] = []

    def expected(self, features: Tensor, d: Tensor, returns: Tensor) -> Tensor:
        """Shows it a round: features (M, F), d (M,) and returns (M,); returns (M,), what it expected there, this round included."""
        x = torch.cat([features.double(), d.double()[:, None], d.double()[:, None] ** 2], dim=1)
        self.memory = [*self.memory, (x, returns.double())][-self.rounds :]
        rows, values = (torch.cat(part) for part in zip(*self.memory, strict=True))
        mean, std = rows.mean(dim=0), rows.std(dim=0).clamp_min(1e-6)
        design, centre = (rows - mean) / std, values.mean()
        gram = design.T @ design + RIDGE * len(rows) * torch.eye(design.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, design.T @ (values - centre))
        return ((x - mean) / std @ weights + centre).float()

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns what it remembers."""
        return {f"{i}/{name}": value for i, pair in enumerate(self.memory) for name, value in zip(("x", "returns"), pair, strict=True)}

    def from_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Remembers what `to_tensors` returned."""
        self.memory = [(tensors[f"{i}/x"], tensors[f"{i}/returns"]) for i in range(len(tensors) // 2)]


def explained(returns: Tensor, expected: Tensor) -> float:
    """Returns the share of the returns' variance that was expected, 1 at most."""
    variance = returns.var().item()
    return float(1.0 - (returns - expected).var().item() / variance) if variance > 0 else float(np.nan)
