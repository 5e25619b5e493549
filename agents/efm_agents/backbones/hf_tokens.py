"""The tokens that stand for numbers: which ids of the vocabulary they are, and the rows they are read and spoken with."""

from typing import Any

import torch
from torch import Tensor, nn

from efm_envs.errors import EFMError, one_of

ENOUGH = 10_000  # rows of a table to know their mean and deviation by


def number_ids(model: Any, tokenizer: Any, count: int, how: str) -> Tensor:
    """Returns (count,) int64: the ids that stand for numbers from now on.

    Args:
        model: gets rows for new ids.
        tokenizer: gets new tokens.
        count: of numbers and signs.
        how: "extend" adds tokens to the vocabulary; "least-used" takes over those that a text needs least, as RT-2 does
            (arXiv 2307.15818, §3.2): tokenizers number their tokens by falling frequency, so these are the last ones.

    Raises:
        EFMError: the vocabulary cannot be extended, or is too small.
    """
    one_of("action_tokens", how, ("extend", "least-used"))
    return _new_ids(model, tokenizer, count) if how == "extend" else _least_used_ids(model, tokenizer, count)


def _new_ids(model: Any, tokenizer: Any, count: int) -> Tensor:
    names = [f"<number_{i}>" for i in range(count)]
    if tokenizer.add_tokens(names, special_tokens=True) != count:
        raise EFMError(f"the tokenizer {type(tokenizer).__name__} did not take {count} new tokens. Take action_tokens='least-used'.")
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(names))
    rows = len(model.get_input_embeddings().weight)
    if ids.max() >= rows:
        model.resize_token_embeddings(int(ids.max()) + 1, mean_resizing=False)
    for weight in _tables(model):
        first = int(ids.min())
        known = weight.detach()[: first : 1 + first // ENOUGH].float()
        drawn = known.mean(dim=0) + known.std(dim=0) * torch.randn(count, known.shape[1])
        weight.data[ids] = drawn.to(weight.dtype)  # as if they were words
    return ids


def _least_used_ids(model: Any, tokenizer: Any, count: int) -> Tensor:
    rows, reserved = len(model.get_input_embeddings().weight), set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    free = [i for i in sorted(tokenizer.get_vocab().values()) if i < rows and i not in reserved]
    if len(free) <= count:
        raise EFMError(
            f"{count} tokens for numbers are needed, and the vocabulary has {len(free)}, from which words are made, too. "
            "Take action_tokens='extend', or fewer action_bins and bins."
        )
    return torch.tensor(free[-count:])


def is_tied(model: Any) -> bool:
    """Whether the model reads and speaks with the same table."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _tables(model: Any) -> list[nn.Parameter]:
    """Returns the tables (V, W) that tokens are read and spoken with."""
    read = model.get_input_embeddings().weight
    return [read] if is_tied(model) else [read, model.get_output_embeddings().weight]


class NumberTable(nn.Module):
    """The rows that tokens for numbers are read and spoken with.

    Args:
        network: the model.
        ids: (N,) int64, of the tokens.
        own: train rows of its own in place of the network's, whose table then stays as it is.
    """

    ids: Tensor
    row_of: Tensor

    def __init__(self, network: Any, ids: Tensor, own: bool) -> None:
        super().__init__()
        self._network = [network]  # in a list, or its weights would be this module's too
        self.register_buffer("ids", ids, persistent=False)
        self.read: nn.Parameter | None = None
        self.said: nn.Parameter | None = None
        if own:
            embedding = network.get_input_embeddings()
            row_of = torch.full((len(embedding.weight),), -1)
            row_of[ids] = torch.arange(len(ids))
            self.register_buffer("row_of", row_of, persistent=False)
            self.read = nn.Parameter(embedding.weight.detach()[ids].float())
            self.said = None if is_tied(network) else nn.Parameter(network.get_output_embeddings().weight.detach()[ids].float())
            embedding.register_forward_hook(self._replace)

    def spoken(self, rows: Tensor) -> Tensor:
        """Returns (n, W) of the layer that speaks."""
        if self.read is None:
            weight: Tensor = self._network[0].get_output_embeddings().weight
            return weight[self.ids[rows]]
        return (self.read if self.said is None else self.said)[rows]

    def _replace(self, embedding: nn.Module, given: tuple[Tensor], embedded: Tensor) -> Tensor:
        assert self.read is not None
        row = self.row_of[given[0]].unsqueeze(-1)  # (B, n, 1)
        own = self.read[row.squeeze(-1).clamp_min(0)] * getattr(embedding, "embed_scale", 1.0)
        return torch.where(row >= 0, own.to(embedded.dtype), embedded)
