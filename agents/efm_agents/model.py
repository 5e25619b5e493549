"""The two networks: a policy, and a model of the steps that are left. Both are MLPs on state observations."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from efm_envs.rewards import StepsToGo


@dataclass(frozen=True)
class Inputs:
    """Which observations a network reads, and their sizes.

    Attributes:
        names: observation names, in the order in which they are joined.
        sizes: numbers in each.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def features(self, observations: Mapping[str, np.ndarray]) -> Tensor:
        """Returns (B, F) float32: the named observations, joined."""
        return torch.from_numpy(np.concatenate([observations[name] for name in self.names], axis=-1, dtype=np.float32))


class _Network(nn.Module):
    """An MLP over features."""

    def __init__(self, inputs: Inputs, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        widths = [sum(inputs.sizes), *hidden]
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(widths[0]))
        self.register_buffer("std", torch.ones(widths[0]))

    def normalise(self, features: Tensor) -> None:
        """Standardises inputs by mean and deviation of the features (M, F); without this they are read as they are."""
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, outputs) for features (B, F)."""
        out: Tensor = self.layers((features - self.mean) / self.std)
        return out


class Policy(_Network):
    """π(a | o, g): each component of the action is one of `action_bins` tokens, drawn by itself.

    Token k stands for the k-th of evenly spaced values from -1 to 1. As in the paper, actions are tokens: a return below 0 lowers a token's
    probability and can do no more, whereas it pushes the mean of a Gaussian away without end.
    """

    def __init__(self, inputs: Inputs, hidden: Sequence[int], action_size: int, action_bins: int) -> None:
        super().__init__(inputs, hidden, action_size * action_bins)
        self.config: dict[str, Any] = {
            "inputs": asdict(inputs),
            "hidden": list(hidden),
            "action_size": action_size,
            "action_bins": action_bins,
        }
        self.values = torch.linspace(-1.0, 1.0, action_bins)  # (K,) what each token stands for

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network that a checkpoint describes, with fresh weights."""
        with torch.random.fork_rng(devices=[]):  # fresh weights come from the global generator, which is not ours
            return cls(_inputs(config), config["hidden"], config["action_size"], config["action_bins"])

    def log_probs(self, features: Tensor) -> Tensor:
        """Returns (B, A, K): the log-probability of each token of each component."""
        return torch.log_softmax(self(features).unflatten(-1, (-1, len(self.values))), dim=-1)

    def token_of(self, actions: Tensor) -> Tensor:
        """Returns (B, A) int64: the token nearest to each component of actions (B, A)."""
        return ((actions.clamp(-1.0, 1.0) + 1.0) / 2.0 * (len(self.values) - 1)).round().long()

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Returns (B,): log π(a | o, g) for actions (B, A)."""
        return self.log_probs(features).gather(-1, self.token_of(actions).unsqueeze(-1)).squeeze(-1).sum(dim=-1)

    def entropy(self, features: Tensor) -> Tensor:
        """Returns (B,): the entropy of π in [nats]."""
        log_probs = self.log_probs(features)
        return -(log_probs.exp() * log_probs).sum(dim=(-2, -1))


class StepsToGoNetwork(_Network):
    """A categorical distribution over bins of steps-to-go: p(t′ − t | o, g)."""

    def __init__(self, inputs: Inputs, hidden: Sequence[int], bins: int, max_steps_to_go: float) -> None:
        super().__init__(inputs, hidden, bins)
        self.config: dict[str, Any] = {
            "inputs": asdict(inputs),
            "hidden": list(hidden),
            "bins": bins,
            "max_steps_to_go": max_steps_to_go,
        }
        self.edges = torch.linspace(0.0, max_steps_to_go, bins + 1)  # (K+1,) [control steps]
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network that a checkpoint describes, with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            return cls(_inputs(config), config["hidden"], config["bins"], config["max_steps_to_go"])

    def bin_of(self, steps: Tensor) -> Tensor:
        """Returns (B,) int64: the bin that holds each number of steps; beyond the last edge, the last bin."""
        bins = len(self.centres)
        return (steps * bins / self.edges[-1]).long().clamp_(0, bins - 1)  # exact where a whole number of steps is an edge

    def probs(self, features: Tensor) -> Tensor:
        """Returns (B, K): the probability of each bin."""
        return torch.softmax(self(features), dim=-1)

    def steps_to_go(self, features: Tensor) -> StepsToGo:
        """Returns the distribution and its expectation d (paper, eq. 1), each bin standing for its centre."""
        with torch.inference_mode():
            probs = self.probs(features).double()
            mean = probs @ self.centres.double()
        return StepsToGo(mean.numpy(), self.edges.numpy(), probs.numpy())


def _inputs(config: Mapping[str, Any]) -> Inputs:
    return Inputs(tuple(config["inputs"]["names"]), tuple(config["inputs"]["sizes"]))
