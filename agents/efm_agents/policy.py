"""A trained policy that acts, from a network or from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from efm_agents.checkpoint import find_checkpoint, load_checkpoint
from efm_agents.model import Policy
from efm_envs.errors import CheckpointError
from efm_envs.seeding import Stream, generator


class NetworkPolicy:
    """A policy network that acts: samples from π, or takes its most likely tokens.

    Args:
        network: the policy.
        generator: where sampled actions come from; None acts greedily.
    """

    def __init__(self, network: Policy, generator: torch.Generator | None) -> None:
        self.network = network
        self.generator = generator

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns actions (B, A) float32 for observations of which each value is (B, …)."""
        with torch.inference_mode():
            log_probs = self.network.log_probs(self.network.inputs.features(observations))  # (B, A, K)
            if self.generator is None:
                return self.network.values[log_probs.argmax(dim=-1)].numpy()
            tokens = torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=self.generator)
            return self.network.values[tokens.view(log_probs.shape[:-1])].numpy()


def load_policy(path: Path | str, *, task: str, seed: int = 0, greedy: bool = False, name: str = "policy") -> NetworkPolicy:
    """Returns the policy of a run.

    Args:
        path: a run's folder, or a checkpoint file.
        task: name of the task that it will act in.
        seed: of the sampled actions.
        greedy: take the most likely tokens instead of sampling.
        name: which of the run's policies.

    Raises:
        CheckpointError: there is none, or it is damaged, or made for another task.
    """
    file = find_checkpoint(path, name)
    tensors, config = load_checkpoint(file, "policy")
    if config["task"] != task:
        raise CheckpointError(f"{file} is a policy for task {config['task']!r}; the env's task is {task!r}.")
    network = Policy.from_config(config["model"]).requires_grad_(False)
    network.load_state_dict(tensors)
    return NetworkPolicy(network, None if greedy else torch_generator(seed, Stream.POLICY))


def torch_generator(seed: int, stream: Stream) -> torch.Generator:
    """Returns torch's generator for a stream and a seed."""
    made = torch.Generator()
    made.manual_seed(int(generator(stream, seed).integers(2**62)))
    return made
