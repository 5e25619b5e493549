"""`hf`: any image-text-to-text model of transformers, which speaks its actions and its steps-to-go as tokens (RT-2, arXiv 2307.15818).

A prompt is the cameras' images, one of two questions with the instruction, and a token 0..255 for each number that is read. One set of
tokens stands for all numbers: those in the prompt, those of actions and those of steps-to-go; the question says which are asked for
(paper, App. A). Only these tokens' logits are computed, so the size of the vocabulary costs nothing, and what is drawn and what is
scored are the same distribution.

Where to begin, for 2 cameras at 224 × 224 (estimates from the number of weights; `explain_out_of_memory` says what to do if they fail):

| GPU   | model          | lora_rank       | batch | micro_batch | gradient_checkpointing |
|-------|----------------|-----------------|-------|-------------|------------------------|
| 24 GB | SmolVLM2, 500M | 16              | 128   | 16          | False                  |
| 24 GB | PaliGemma, 3B  | 16              | 64    | 4           | True                   |
| 80 GB | PaliGemma, 3B  | 16              | 128   | 16          | False                  |
| 80 GB | PaliGemma, 3B  | 0 (all weights) | 128   | 4           | True                   |

Importing this module imports transformers: `build_model` does so when a config asks for it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from efm_agents.backbones.base import ACTION, STEPS_TO_GO
from efm_agents.backbones.hf_loading import vision_tower
from efm_agents.backbones.hf_network import LanguageNetwork
from efm_agents.backbones.hf_prompts import IDS
from efm_agents.heads import draw
from efm_agents.inputs import NUMBERS, Inputs, Reads, size_of, take
from efm_agents.model import EmbodiedModel
from efm_agents.tokens import Spelling
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.observations import INSTRUCTION


class HFModel(EmbodiedModel):
    """A language model with eyes.

    Inputs may be anywhere: only the rows at work come to the model's device. Results are there.

    Args:
        reads: what it reads; of the instruction whether it is read at all, since it has words of its own.
        path: name on the model hub, or a folder with configuration, tokenizer and processor.
        chunk: k, actions that are said at once.
        action_size: A, components of an action.
        action_bins: values of a component.
        bins: of the steps-to-go distribution, a token each.
        max_steps_to_go: upper edge of the last bin, in [control steps].
        init: "pretrained" or "scratch", which is the same model with random weights.
        lora_rank: rank of the adapters that are trained in place of all weights; 0 trains all.
        action_tokens: "extend" the vocabulary by tokens for numbers, or overwrite its "least-used" ones.
        sign_magnitude: a component of an action is two tokens, a sign and a number (see `efm_agents.tokens.PRESETS`).
        dtype: that activations are computed in, "float32", "bfloat16" or "auto": bfloat16 where there is a GPU. Weights that are trained
            are float32.
        attn: implementation of attention.
        gradient_checkpointing: compute activations again in the backward pass, layer by layer, in place of keeping them.
        micro_batch: rows in memory at a time, 0 is all; results are the same. Where gradients are wanted, each part is computed twice.

    Raises:
        EFMError: no such model, settings that cannot work, or nothing to see.
    """

    def __init__(
        self,
        reads: Reads,
        *,
        path: str,
        chunk: int,
        action_size: int,
        action_bins: int,
        bins: int,
        max_steps_to_go: float,
        init: str = "pretrained",
        lora_rank: int = 16,
        action_tokens: str = "extend",
        sign_magnitude: bool = False,
        dtype: str = "auto",
        attn: str = "sdpa",
        gradient_checkpointing: bool = False,
        micro_batch: int = 0,
    ) -> None:
        super().__init__()
        if not reads.cameras:
            raise EFMError(
                f"the model 'hf' reads images; the demonstrations hold {', '.join(reads.observations)}. Collect them with cameras."
            )
        options = {"path": path, "init": init, "lora_rank": lora_rank, "action_tokens": action_tokens, "sign_magnitude": sign_magnitude}
        options |= {"dtype": dtype, "attn": attn, "gradient_checkpointing": gradient_checkpointing, "micro_batch": micro_batch}
        sizes = {"chunk": chunk, "action_size": action_size, "action_bins": action_bins, "bins": bins, "max_steps_to_go": max_steps_to_go}
        self.config = {"reads": reads.to_config(), "backbone": "hf", "backbone_options": options, **sizes}
        self.reads, self.chunk, self.action_size, self.micro_batch = reads, chunk, action_size, micro_batch
        self.spelling = Spelling(chunk, action_size, action_bins, sign_magnitude)
        self.network = LanguageNetwork(
            reads, self.spelling, bins, path, init, lora_rank, action_tokens, dtype, attn, gradient_checkpointing
        )
        self.register_buffer("edges", torch.linspace(0.0, max_steps_to_go, bins + 1), persistent=False)
        self._trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def inputs(self, observations: Mapping[str, np.ndarray]) -> Inputs:
        """Returns `numbers` (B, F) float32, `instruction` (B, bytes) uint8, each camera (B, H, W, 3) uint8; what isn't read is left out.

        Raises:
            EFMError: an observation is missing, or has another shape.
        """
        self.reads.check(observations)
        names = (*self.reads.cameras, *((INSTRUCTION,) if self.reads.vocabulary else ()))
        batch = {name: torch.from_numpy(np.ascontiguousarray(observations[name])) for name in names}
        if self.reads.names:
            joined = np.concatenate([observations[name] for name in self.reads.names], axis=-1, dtype=np.float32)
            batch[NUMBERS] = torch.from_numpy(joined)
        return batch

    def prepare(self, inputs: Inputs) -> None:
        """Standardises numbers by the training data's mean and deviation."""
        if self.reads.names:
            self.network.normalise(inputs[NUMBERS])

    def features(self, inputs: Inputs) -> Tensor:
        """Returns (B, W): what the last layer hears before it tells the steps left."""
        with torch.inference_mode():
            return self._in_parts(lambda prompt: self.network.hear(prompt).last_hidden_state[:, -1].float(), inputs, STEPS_TO_GO).cpu()

    def actions(self, inputs: Inputs) -> "Spoken":
        """Returns the distribution over chunks of actions; nothing is computed until it is asked something."""
        return Spoken(self, inputs)

    def steps_to_go_logits(self, inputs: Inputs) -> Tensor:
        """Returns (B, K): one for each bin."""

        def logits(prompt: dict[str, Tensor]) -> Tensor:
            return self.network.logits(self.network.hear(prompt).last_hidden_state[:, -1], STEPS_TO_GO)

        return self._in_parts(logits, inputs, STEPS_TO_GO)

    def spoken_log_probs(self, inputs: Inputs, said: Tensor) -> Tensor:
        """Returns (B, L, choices): of all tokens that could stand at each of the L places, given those of `said` (B, L) before it."""

        def log_probs(prompt: dict[str, Tensor], said: Tensor) -> Tensor:
            heard = self.network.hear(self.network.continued(prompt, said[:, :-1])).last_hidden_state[:, -said.shape[1] :]
            return self.spelling.log_probs(self.network.logits(heard, ACTION), said)

        return self._in_parts(log_probs, inputs, ACTION, said)

    def speak(self, inputs: Inputs, generator: torch.Generator | None) -> Tensor:
        """Returns (B, L) tokens, drawn one after another with `generator`; None takes the most likely of each."""

        def speak(prompt: dict[str, Tensor]) -> Tensor:
            said = torch.empty_like(prompt[IDS][:, :0])
            heard = self.network.hear(prompt, use_cache=True)
            while True:
                logits = self.network.logits(heard.last_hidden_state[:, -1:], ACTION).expand(-1, said.shape[1] + 1, -1)
                log_probs = self.spelling.log_probs(logits, said)[:, -1]
                drawn = draw(log_probs if generator is None else log_probs.to(generator.device), generator)
                said = torch.cat([said, drawn.unsqueeze(-1).to(said.device)], dim=1)
                if said.shape[1] == self.spelling.length:
                    return said
                prompt = self.network.continued(prompt, said[:, -1:])
                heard = self.network.hear(prompt, use_cache=True, past=heard.past_key_values)

        with torch.no_grad():
            return self._in_parts(speak, inputs, ACTION)

    def practising_parameters(self) -> Iterator[nn.Parameter]:
        """Yields what stage 1 trains (all weights; or adapters and the tokens' rows), without the vision tower (paper, App. B)."""
        tower = vision_tower(self.network.model)
        frozen = set() if tower is None else {id(parameter) for parameter in tower.parameters()}
        parameters = dict(self.named_parameters())
        yield from (parameters[name] for name in self._trained if id(parameters[name]) not in frozen)

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds, shared with the model: the weights that are trained, and the numbers' mean and deviation.

        Pretrained weights that stay as they are come from `path` again. A weight with two names is there once.
        """
        is_whole = not self.network.has_adapters or self.config["backbone_options"]["init"] == "scratch"
        names = [name for name, _ in self.named_parameters()] if is_whole else self._trained
        state = super().state_dict()
        return {name: state[name] for name in (*names, *(name for name, _ in self.named_buffers() if name in state))}

    def load_checkpoint_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes what `checkpoint_tensors` gave.

        Raises:
            CheckpointError: these are another model's.
        """
        mine = self.checkpoint_tensors()
        wrong = set(mine.keys() ^ tensors.keys())
        wrong |= {name for name in mine.keys() & tensors.keys() if mine[name].shape != tensors[name].shape}
        if wrong:
            raise CheckpointError(
                f"the checkpoint's {len(tensors)} tensors are not the {len(mine)} of {self.config['backbone_options']['path']}: "
                f"{len(wrong)} do not match, the first is {min(wrong)}. Was another model, or another version of it, put at that path?"
            )
        super().load_state_dict(dict(tensors), strict=False)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Returns `checkpoint_tensors`: whoever copies, averages or saves the model's state need not carry gigabytes that never change."""
        return self.checkpoint_tensors()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes what `state_dict` gave."""
        return self.load_checkpoint_tensors(state_dict)

    def _in_parts(self, function: Callable[..., Tensor], inputs: Inputs, asked: str, said: Tensor | None = None) -> Tensor:
        """Returns what the function returns for prompts and the tokens said to them, computed for `micro_batch` rows at a time.

        Parts whose gradient is wanted are computed again in the backward pass, so that one of them at a time is in memory.
        """
        whole, results = size_of(inputs), []
        size = self.micro_batch or max(whole, 1)
        for start in range(0, max(whole, 1), size):
            rows = slice(start, start + size)
            given = (self.network.prompt(take(inputs, rows), asked), *(() if said is None else (said[rows],)))
            if torch.is_grad_enabled() and size < whole:
                results.append(checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False))
            else:
                results.append(function(*given))
        return torch.cat(results)


class Spoken:
    """Actions said token by token, each knowing those before it."""

    def __init__(self, model: HFModel, inputs: Inputs) -> None:
        self.model, self.inputs = model, inputs

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Returns (B, k, A); the likeliest are found greedily, token by token."""
        said = self.model.speak(self.inputs, generator)
        return self.model.spelling.actions(said)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns (B,)."""
        said = self.model.spelling.of(actions).to(self.model.edges.device)
        log_probs = self.model.spoken_log_probs(self.inputs, said)
        return log_probs.gather(-1, said.unsqueeze(-1)).flatten(1).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Returns (B,): an estimate, exact given the likeliest tokens before each; the whole sum has K to the power of k · A terms."""
        log_probs = self.model.spoken_log_probs(self.inputs, self.model.speak(self.inputs, None))
        return -(log_probs.exp() * log_probs).flatten(1).sum(dim=-1)


def build_hf(config: Mapping[str, Any]) -> HFModel:
    """Returns the model that `HFModel.config` describes: pretrained weights from its path, fresh ones for all else.

    Raises:
        CheckpointError: it describes none.
    """
    if config.get("tells_instruction"):
        raise EFMError("the model 'hf' does not tell instructions: leave instruction_weight at 0.")
    names = ("chunk", "action_size", "action_bins", "bins", "max_steps_to_go")
    try:
        return HFModel(Reads.from_config(config["reads"]), **config["backbone_options"], **{name: config[name] for name in names})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the config describes no model 'hf' ({error!r}): it was made by another version.") from error
