"""What a backbone is: from inputs and a question to a vector that the question's head understands."""

import abc

import torch
from torch import Tensor, nn

from efm_agents.inputs import NUMBERS, Inputs, Reads

ACTION, STEPS_TO_GO, INSTRUCTION = "action", "steps_to_go", "instruction"
ASKED = (ACTION, STEPS_TO_GO, INSTRUCTION)  # as the paper's prompt says which of them is asked


class Backbone(nn.Module, abc.ABC):
    """Reads a batch.

    Args:
        reads: what it reads.
        width: of the vectors that it returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, reads: Reads, width: int) -> None:
        super().__init__()
        self.reads, self.width = reads, width
        self.register_buffer("mean", torch.zeros(sum(reads.sizes)))
        self.register_buffer("std", torch.ones(sum(reads.sizes)))

    def normalise(self, inputs: Inputs) -> None:
        """Standardises numbers from now on by the mean and deviation of these; without this they are read as they are."""
        self.mean.copy_(inputs[NUMBERS].mean(dim=0))
        self.std.copy_(inputs[NUMBERS].std(dim=0).clamp_min(1e-6))

    def standardised(self, inputs: Inputs) -> Tensor:
        """Returns (B, F)."""
        return (inputs[NUMBERS] - self.mean) / self.std

    def parameters_for(self, asked: str) -> list[nn.Parameter]:
        """Returns the weights that one question alone uses."""
        return []

    @abc.abstractmethod
    def forward(self, inputs: Inputs, asked: str) -> Tensor:
        """Returns (B, W): what was read, for one of the questions `ASKED`."""
