"""`mlp`: two networks on joined numbers, one for acting and one for steps-to-go. Reads no instruction and no image."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from efm_agents.backbones.base import ACTION, STEPS_TO_GO, Backbone
from efm_agents.inputs import NUMBERS, Inputs, Reads
from efm_envs.errors import EFMError


class MLPBackbone(Backbone):
    """Two MLPs that share nothing: what one learns cannot spoil the other.

    Args:
        reads: what it reads.
        hidden: widths of the layers.
        normalise_steps_to_go: standardise what the steps-to-go network reads; what the acting one reads always is.
    """

    def __init__(self, reads: Reads, hidden: Sequence[int] = (256, 256, 256), normalise_steps_to_go: bool = False) -> None:
        super().__init__(reads, width=hidden[-1])
        if reads.cameras or not reads.names:
            raise EFMError(f"the backbone 'mlp' reads numbers; the demonstrations hold {', '.join(reads.observations)}. Take 'tiny'.")
        self.normalises = {ACTION: True, STEPS_TO_GO: normalise_steps_to_go}
        widths = [sum(reads.sizes), *hidden]
        layers = {
            asked: nn.Sequential(*(layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))
            for asked in self.normalises
        }
        self.layers = nn.ModuleDict(layers)

    def parameters_for(self, asked: str) -> list[nn.Parameter]:
        """Returns the weights that one question alone uses."""
        return list(self.layers[asked].parameters())

    def forward(self, inputs: Inputs, asked: str) -> Tensor:
        """Returns (B, W)."""
        numbers = self.standardised(inputs) if self.normalises[asked] else inputs[NUMBERS]
        read: Tensor = self.layers[asked](numbers)
        return read
