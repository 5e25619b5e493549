"""How a language model spells actions: one token a component, or a sign and a number, one token after another."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from efm_agents.heads import Tokens
from efm_envs.errors import EFMError

IMPOSSIBLE = -1e30  # the logit of a token that cannot stand here; finite, so that 0 · log 0 is 0

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "language-table": {"chunk": 1, "action_bins": 21, "sign_magnitude": True, "bins": 50, "max_steps_to_go": 100.0},
    "aloha": {"chunk": 5, "action_bins": 256, "sign_magnitude": False, "bins": 301, "max_steps_to_go": 301.0},
}
"""The paper's two spellings (arXiv 2509.15155), as keywords of the model.

`language-table`: Δx and Δy are 4 tokens (sign, 0..10, sign, 0..10); steps-to-go 0..100 in 50 bins.
`aloha`: 14 joint targets, 5 control steps at once, are 70 tokens 0..255; steps-to-go have a token for each whole number 0..300 and count
chunks, as does `max_steps_to_go` (its bins are [0, 1), [1, 2), …, so the expectation, which takes centres, is half a chunk more).
The paper doesn't say which value a token stands for: ours are evenly spaced from -1 to 1.
"""


class Spelling(nn.Module):
    """Which tokens a chunk of actions (k, A) is spelt in. Tokens are told apart by their number among all `choices`.

    Args:
        chunk: k, actions that are said at once.
        action_size: A, components of an action.
        levels: values of a component, evenly spaced from -1 to 1.
        sign_magnitude: a component is two tokens, its sign and its distance from 0. There is one zero: "+ 0".
    """

    def __init__(self, chunk: int, action_size: int, levels: int, sign_magnitude: bool = False) -> None:
        super().__init__()
        if sign_magnitude and levels % 2 == 0:
            raise EFMError(f"sign_magnitude=True has a value 0 in the middle, so action_bins must be odd; got {levels}.")
        self.shape, self.sign_magnitude = (chunk, action_size), sign_magnitude
        self.values = Tokens(levels)
        self.middle = levels // 2
        self.numbers = self.middle + 1 if sign_magnitude else levels
        self.signs = 2 if sign_magnitude else 0  # they follow the numbers: first plus, then minus
        self.plus, self.minus = self.numbers, self.numbers + 1
        self.length = chunk * action_size * (2 if sign_magnitude else 1)

    @property
    def choices(self) -> int:
        """Different tokens that there are."""
        return self.numbers + self.signs

    def of(self, actions: Tensor) -> Tensor:
        """Returns (B, L) int64: the tokens of actions (B, k, A), each component rounded to the nearest value."""
        level = self.values.of(actions).flatten(1)
        if not self.sign_magnitude:
            return level
        offset = level - self.middle
        sign = torch.where(offset < 0, self.minus, self.plus)
        return torch.stack([sign, offset.abs()], dim=-1).flatten(1)

    def actions(self, said: Tensor) -> Tensor:
        """Returns (B, k, A) of tokens (B, L)."""
        if self.sign_magnitude:
            sign, distance = said.unflatten(-1, (-1, 2)).unbind(dim=-1)
            said = self.middle + torch.where(sign == self.minus, -distance, distance)
        return self.values.values[said].unflatten(-1, self.shape)

    def log_probs(self, logits: Tensor, said: Tensor) -> Tensor:
        """Returns (B, n, choices) for logits of the same shape at the first n places, of tokens that may stand there.

        Args:
            logits: (B, n, choices).
            said: (B, n - 1) or longer; the token before each place but the first.
        """
        if self.sign_magnitude:
            logits = logits.masked_fill(self._is_impossible(said[:, : logits.shape[1] - 1], logits.device), IMPOSSIBLE)
        return torch.log_softmax(logits.float(), dim=-1)

    def _is_impossible(self, before: Tensor, device: torch.device) -> Tensor:
        """Returns (B, n, choices) for the tokens before places 1 to n - 1: a sign where a number is due, and the other way; "- 0"."""
        places = torch.arange(before.shape[1] + 1, device=device)
        is_sign = torch.arange(self.choices, device=device) >= self.numbers
        impossible = (is_sign == (places % 2 == 1).unsqueeze(-1)).repeat(len(before), 1, 1)
        impossible[:, 1:, 0] |= before.to(device) == self.minus
        return impossible
