"""A language model as a network that reads observations as prompts, and hears and speaks tokens for numbers."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efm_agents.backbones.base import ACTION, STEPS_TO_GO
from efm_agents.backbones.hf_loading import add_adapters, dtype_of, load
from efm_agents.backbones.hf_prompts import IDS, MASK, TYPES, Prompts
from efm_agents.backbones.hf_tokens import NumberTable, number_ids
from efm_agents.inputs import NUMBERS, Inputs, Reads, size_of
from efm_agents.tokens import Spelling
from efm_envs.observations import INSTRUCTION, decode_instruction

NUMBER_TOKENS = 256  # for each number that is read (paper, Aloha: joints are tokens 0..255)
WIDEST = 3.0  # deviations from the mean, at which the first and the last of them stand; the paper doesn't say


class LanguageNetwork(nn.Module):
    """From inputs to prompts, from prompts to the logits of an answer.

    Args:
        reads: what it reads.
        spelling: of actions.
        bins: of steps-to-go.
        path: of the model, and the other settings of `HFModel`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        reads: Reads,
        spelling: Spelling,
        bins: int,
        path: str,
        init: str,
        lora_rank: int,
        action_tokens: str,
        dtype: str,
        attn: str,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.reads, self.has_adapters, self.dtype, self.checkpoints = reads, lora_rank > 0, dtype_of(dtype), gradient_checkpointing
        self.register_buffer("mean", torch.zeros(sum(reads.sizes)))
        self.register_buffer("std", torch.ones(sum(reads.sizes)))
        self.model: Any
        self.model, processor = load(path, init, self.dtype if self.has_adapters else torch.float32, attn)
        self.prompts = Prompts(processor, len(reads.cameras), reads.image_size)
        numbers = max(spelling.numbers, bins, NUMBER_TOKENS if reads.names else 0)
        ids = number_ids(self.model, processor.tokenizer, numbers + spelling.signs, action_tokens)
        signs = range(numbers, numbers + spelling.signs)
        self.answers = {ACTION: torch.tensor([*range(spelling.numbers), *signs]), STEPS_TO_GO: torch.arange(bins)}  # rows of the table
        if self.has_adapters:
            add_adapters(self.model, lora_rank)
        if gradient_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.tokens = NumberTable(self.model, ids, own=self.has_adapters)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    def normalise(self, numbers: Tensor) -> None:
        """Standardises numbers from now on by the mean and deviation of these (M, F)."""
        self.mean.copy_(numbers.mean(dim=0))
        self.std.copy_(numbers.std(dim=0).clamp_min(1e-6))

    def prompt(self, inputs: Inputs, asked: str) -> dict[str, Tensor]:
        """Returns what the network reads, on its device: ids (B, n) and so on, and pixels."""
        rows = size_of(inputs)
        sentences = [decode_instruction(row.cpu().numpy()) for row in inputs[INSTRUCTION]] if INSTRUCTION in inputs else [""] * rows
        pixels = self.prompts.pixels([inputs[camera] for camera in self.reads.cameras])
        prompt = {name: value.to(self.device) for name, value in (self.prompts.batch(asked, sentences) | pixels).items()}
        return self._extended(prompt, self.levels(inputs[NUMBERS].to(self.device)), kind=0) if self.reads.names else prompt

    def levels(self, numbers: Tensor) -> Tensor:
        """Returns (B, F) int64, 0..255: numbers in deviations from their mean, where 0 is -3 or less and 255 is 3 or more."""
        scaled = ((numbers - self.mean) / self.std).clamp(-WIDEST, WIDEST)
        return ((scaled + WIDEST) / (2 * WIDEST) * (NUMBER_TOKENS - 1)).round().long()

    def continued(self, prompt: dict[str, Tensor], said: Tensor) -> dict[str, Tensor]:
        """Returns the prompt, and the tokens (B, n) of an action that were said to it so far."""
        return self._extended(prompt, self.answers[ACTION].to(said.device)[said], kind=1)

    def _extended(self, prompt: dict[str, Tensor], rows: Tensor, kind: int) -> dict[str, Tensor]:
        """Returns the prompt with more tokens: rows (B, n) of the table. PaliGemma must know what is asked (0) and what is answered (1)."""
        ids = self.tokens.ids[rows]
        fillers = {IDS: ids, MASK: torch.ones_like(ids), TYPES: torch.full_like(ids, kind if self._is_paligemma else 0)}
        grown = {name: torch.cat([prompt[name], fillers.get(name, torch.zeros_like(ids))], dim=1) for name in prompt if _is_per_token(name)}
        return prompt | grown

    @property
    def _is_paligemma(self) -> bool:
        return bool(self.model.config.model_type == "paligemma")

    def hear(self, prompt: dict[str, Tensor], use_cache: bool = False, past: Any = None) -> Any:
        """Returns what the network without its last layer makes of a prompt: all of it, or what `past` doesn't hold yet."""
        given = dict(prompt)
        if not hasattr(self.model.base_model, "get_rope_index"):  # which finds positions by itself
            given["position_ids"] = (prompt[MASK].cumsum(dim=-1) - 1).clamp_min(0) + int(self._is_paligemma)  # it counts from 1
        if past is not None:
            new = prompt[IDS].shape[1] - past.get_seq_length()
            given = {name: given[name][:, -new:] for name in (IDS, "position_ids") if name in given}
            given |= {MASK: prompt[MASK], "past_key_values": past}
        self._checkpoint_layers(self.checkpoints and torch.is_grad_enabled())
        with self._computing():
            return self.model.base_model(**given, use_cache=use_cache, return_dict=True)

    def _checkpoint_layers(self, wanted: bool) -> None:
        """Layers do so, and refuse to remember keys and values, in what torch calls training; nothing else depends on it (no dropout)."""
        if self.model.training != wanted:
            self.model.train(wanted)

    def _computing(self) -> AbstractContextManager[Any]:
        """All weights that are trained are float32; what is computed with them need not be."""
        return torch.autocast(self.device.type, self.dtype, enabled=not self.has_adapters and self.dtype != torch.float32)

    def logits(self, heard: Tensor, asked: str) -> Tensor:
        """Returns (…, choices) float32 for what was heard (…, W)."""
        logits = F.linear(heard.float(), self.tokens.spoken(self.answers[asked].to(heard.device)).float())
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _is_per_token(name: str) -> bool:
    return name in (IDS, MASK) or name.endswith(TYPES)
