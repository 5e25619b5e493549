"""The embodied model: one model that reads observations and an instruction, acts, and says how many steps are left.

`EmbodiedModel` is what stage 1, stage 2, the baselines and the reward model know. `HeadedModel` is a backbone with two heads; a language
model that speaks its actions is `efm_agents.backbones.hf`.
"""

import abc
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efm_agents.backbones.base import ACTION, INSTRUCTION, STEPS_TO_GO, Backbone
from efm_agents.backbones.mlp import MLPBackbone
from efm_agents.backbones.tiny import TinyBackbone
from efm_agents.config import ModelConfig
from efm_agents.heads import ACTION_HEADS, ActionDistribution, InstructionHead, StepsToGoHead
from efm_agents.inputs import WORDS, Inputs, Reads
from efm_envs.errors import CheckpointError, EFMError, one_of
from efm_envs.rewards import StepsToGo


class EmbodiedModel(nn.Module, abc.ABC):
    """π(a | o, g) and p(steps-to-go | o, g) of one model.

    Attributes:
        config: JSON-able; `build_model(config)` makes the same model, with fresh weights.
        reads: what it reads of an observation.
        chunk: k, actions that are said at once.
        action_size: A, components of an action.
        edges: (K+1,) of the bins of steps-to-go, in [control steps].
    """

    config: dict[str, Any]
    reads: Reads
    chunk: int
    action_size: int
    edges: Tensor

    def inputs(self, observations: Mapping[str, np.ndarray]) -> Inputs:
        """Returns the batch that the other methods take, for observations of which each value is (B, …).

        Raises:
            EFMError: an observation is missing, or has another shape.
        """
        return self.reads(observations)

    @abc.abstractmethod
    def actions(self, inputs: Inputs) -> ActionDistribution:
        """Returns the distribution over chunks of actions."""

    @abc.abstractmethod
    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        """Returns (B, K): one for each bin."""

    def prepare(self, inputs: Inputs) -> None:
        """Is shown the training data once, before the first step."""

    def act(self, inputs: Inputs, generator: torch.Generator | None) -> Tensor:
        """Returns chunks of actions (B, k, A), drawn with `generator`; None takes the most likely ones."""
        with torch.inference_mode():
            return self.actions(inputs).sample(generator)

    def log_prob(self, inputs: Inputs, actions: Tensor) -> Tensor:
        """Returns (B,): log π(a | o, g) of chunks of actions (B, k, A)."""
        return self.actions(inputs).log_prob(actions)

    def steps_to_go(self, inputs: Inputs) -> StepsToGo:
        """Returns the distribution and its expectation d (paper, eq. 1), each bin standing for its centre."""
        with torch.inference_mode():
            probs = torch.softmax(self.steps_to_go_logits(inputs).double(), dim=-1).cpu()
        edges = self.edges.cpu()
        centres = (edges[1:] + edges[:-1]).double() / 2
        return StepsToGo((probs @ centres).numpy(), edges.numpy(), probs.numpy())

    def bin_of(self, steps: Tensor) -> Tensor:
        """Returns (B,) int64: the bin that holds each number of steps; beyond the last edge, the last bin."""
        bins = len(self.edges) - 1
        return (steps * bins / self.edges[-1]).long().clamp_(0, bins - 1)  # exact where a whole number of steps is an edge

    def features(self, inputs: Inputs) -> Tensor:
        """Returns (B, F), perhaps with F = 0: what it has made of an observation before it tells the steps left, to regress on."""
        return torch.zeros(len(next(iter(inputs.values()))), 0)

    def instruction_log_prob(self, first: Inputs, last: Inputs) -> Tensor:
        """Returns (B,): the log-probability of the instruction, told from the first and the last observation of an episode."""
        raise EFMError(f"the model {self.config['backbone']!r} does not tell instructions: leave instruction_weight at 0.")

    def telling_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the weights that steps-to-go prediction alone uses, which may have a learning rate of their own."""
        return iter(())

    def practising_parameters(self) -> Iterator[nn.Parameter]:
        """Yields what stage 2 trains: all weights, unless the model says otherwise (the paper freezes the vision tower)."""
        return iter(self.parameters())


class HeadedModel(EmbodiedModel):
    """A backbone, and a head for each of its two questions.

    Args:
        reads: what it reads.
        backbone: name of the backbone, and
        backbone_options: its keywords.
        action_head: "bins", "autoregressive" or "gaussian".
        chunk: actions that are said at once.
        action_size: components of an action.
        action_bins: tokens of each component.
        bins: of the steps-to-go distribution.
        max_steps_to_go: upper edge of the last bin, in [control steps].
        tells_instruction: whether it has a head for the instruction.
    """

    def __init__(
        self,
        reads: Reads,
        *,
        backbone: str,
        backbone_options: Mapping[str, Any],
        action_head: str,
        chunk: int,
        action_size: int,
        action_bins: int,
        bins: int,
        max_steps_to_go: float,
        tells_instruction: bool = False,
    ) -> None:
        super().__init__()
        self.config = {
            "reads": reads.to_config(),
            "backbone": backbone,
            "backbone_options": dict(backbone_options),
            "action_head": action_head,
            "chunk": chunk,
            "action_size": action_size,
            "action_bins": action_bins,
            "bins": bins,
            "max_steps_to_go": max_steps_to_go,
            "tells_instruction": tells_instruction,
        }
        self.reads, self.chunk, self.action_size = reads, chunk, action_size
        self.backbone: Backbone = BACKBONES[backbone](reads, **backbone_options)
        self.action_head = ACTION_HEADS[action_head](self.backbone.width, chunk, action_size, action_bins)
        self.steps_to_go_head = StepsToGoHead(self.backbone.width, bins)
        self.instruction_head: InstructionHead | None = None
        if tells_instruction:
            if not reads.vocabulary or backbone == "mlp":
                raise EFMError(
                    "there is no instruction to tell: the model reads none, or it is always the same. Set instruction_weight to 0."
                )
            self.instruction_head = InstructionHead(self.backbone.width, reads.longest, 2 + len(reads.vocabulary))
        self.register_buffer("edges", torch.linspace(0.0, max_steps_to_go, bins + 1), persistent=False)

    def prepare(self, inputs: Inputs) -> None:
        """Standardises numbers by the training data's mean and deviation."""
        self.backbone.normalise(inputs)

    def read(self, inputs: Inputs, asked: str) -> Tensor:
        """Returns (B, W): what the backbone has made of a batch, for one of its questions."""
        device = self.edges.device
        read: Tensor = self.backbone({name: value.to(device) for name, value in inputs.items()}, asked)
        return read

    def features(self, inputs: Inputs) -> Tensor:
        """Returns (B, W)."""
        with torch.inference_mode():
            return self.read(inputs, STEPS_TO_GO).cpu()

    def actions(self, inputs: Inputs) -> ActionDistribution:
        """Returns the distribution over chunks of actions."""
        distribution: ActionDistribution = self.action_head(self.read(inputs, ACTION))
        return distribution

    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        """Returns (B, K): one for each bin."""
        logits: Tensor = self.steps_to_go_head(self.read(inputs, STEPS_TO_GO))
        return logits

    def instruction_log_prob(self, first: Inputs, last: Inputs) -> Tensor:
        """Returns (B,): the log-probability of the instruction, told from the first and the last observation of an episode."""
        if self.instruction_head is None:
            return super().instruction_log_prob(first, last)
        read = [self.read({k: v for k, v in inputs.items() if k != WORDS}, INSTRUCTION) for inputs in (first, last)]
        log_probs: Tensor = self.instruction_head(*read)
        return log_probs.gather(-1, first[WORDS].to(log_probs.device).unsqueeze(-1)).flatten(1).sum(dim=-1)

    def telling_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the weights that steps-to-go prediction alone uses."""
        yield from self.backbone.parameters_for(STEPS_TO_GO)
        yield from self.steps_to_go_head.parameters()


BACKBONES: dict[str, type[Backbone]] = {"mlp": MLPBackbone, "tiny": TinyBackbone}


def to_config(config: ModelConfig, reads: Reads, action_size: int, longest: int, tells_instruction: bool = False) -> dict[str, Any]:
    """Returns the config of a model for some data: what there is to read, A, and the length of the longest demonstration."""
    names = ("backbone", "action_head", "chunk", "action_bins", "bins")
    return {
        "reads": reads.to_config(),
        "backbone_options": config.backbone_options(),
        "action_size": action_size,
        "max_steps_to_go": float(longest if config.max_steps_to_go is None else config.max_steps_to_go),
        "tells_instruction": tells_instruction,
        **{name: getattr(config, name) for name in names},
    }


def build_model(config: Mapping[str, Any]) -> EmbodiedModel:
    """Returns the model that a checkpoint's config describes, with fresh weights drawn from torch's generator.

    Raises:
        CheckpointError: it describes none.
    """
    if config.get("backbone") == "hf":
        from efm_agents.backbones.hf import build_hf  # transformers takes seconds to import

        return build_hf(config)
    try:
        rest = {name: value for name, value in config.items() if name != "reads"}
        one_of("backbone", rest["backbone"], BACKBONES)
        return HeadedModel(Reads.from_config(config["reads"]), **rest)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's config describes no model ({error!r}): it was made by another version.") from error


def rebuild_model(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> EmbodiedModel:
    """Returns the model that a checkpoint holds."""
    with fresh_generator():  # fresh weights come from the global generator, which is not ours
        model = build_model(config)
    model.load_state_dict(dict(tensors))
    return model


def fresh_generator() -> AbstractContextManager[None]:
    """Leaves torch's global generator as it was."""
    return torch.random.fork_rng(devices=[])
