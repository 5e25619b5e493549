"""Heads: from what a backbone returns to a distribution over actions, or over steps-to-go.

An action is a chunk of k actions of A components, (B, k, A). Each head's `forward` returns a distribution, which can be sampled, scored and
made to name its most likely action.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

LOWEST_STD, HIGHEST_STD = 0.05, 1.0  # of the Gaussian: narrower ones make a log-probability jump


class ActionDistribution(Protocol):
    """π(a | o, g) for each row of a batch."""

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Returns (B, k, A) actions drawn with `generator`; None takes the most likely ones."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns (B,): log π(a | o, g) of actions (B, k, A)."""

    def entropy(self) -> Tensor:
        """Returns (B,): the entropy in [nats]."""


def draw(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Returns (…,) int64: one of the last axis' K entries each, drawn; or the likeliest, where there is no generator."""
    if generator is None:
        return log_probs.argmax(dim=-1)
    rows = log_probs.exp().flatten(0, -2).to(generator.device)
    return torch.multinomial(rows, 1, generator=generator).view(log_probs.shape[:-1]).to(log_probs.device)


class Tokens(nn.Module):
    """Which token stands for which value: K evenly spaced values from -1 to 1."""

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.linspace(-1.0, 1.0, levels), persistent=False)

    def of(self, actions: Tensor) -> Tensor:
        """Returns int64: the token nearest to each component."""
        return ((actions.clamp(-1.0, 1.0) + 1.0) / 2.0 * (len(self.values) - 1)).round().long()


class Independent:
    """Each component is one of K tokens, drawn by itself.

    As in the paper, actions are tokens: a return below 0 lowers a token's probability and can do no more, whereas it pushes the mean of a
    Gaussian away without end.
    """

    def __init__(self, log_probs: Tensor, tokens: Tokens) -> None:
        self.log_probs, self.tokens = log_probs, tokens  # (B, k, A, K)

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Returns (B, k, A)."""
        return self.tokens.values[draw(self.log_probs, generator)]

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns (B,)."""
        return self.log_probs.gather(-1, self.tokens.of(actions.to(self.log_probs.device)).unsqueeze(-1)).flatten(1).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Returns (B,)."""
        return -(self.log_probs.exp() * self.log_probs).flatten(1).sum(dim=-1)


class BinsHead(nn.Module):
    """Independent tokens."""

    def __init__(self, width: int, chunk: int, action_size: int, levels: int) -> None:
        super().__init__()
        self.tokens = Tokens(levels)
        self.linear = nn.Linear(width, chunk * action_size * levels)
        self.shape = (chunk, action_size, levels)

    def forward(self, read: Tensor) -> Independent:
        """Returns the distribution for what was read (B, W)."""
        return Independent(torch.log_softmax(self.linear(read).unflatten(-1, self.shape), dim=-1), self.tokens)


class OneByOne:
    """Tokens that are drawn one after another, each knowing those before it."""

    def __init__(self, read: Tensor, head: "AutoregressiveHead") -> None:
        self.read, self.head = read, head

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Returns (B, k, A); the likeliest are found greedily, token by token."""
        state, said = self.head.start(self.read), []
        for i in range(self.head.length):
            said.append(draw(self.head.log_probs(state), generator))
            state = self.head.hear(state, said[-1], i)
        return self.head.tokens.values[torch.stack(said, dim=-1)].unflatten(-1, self.head.shape)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns (B,)."""
        said = self.head.tokens.of(actions.to(self.read.device)).flatten(1)
        log_probs = self._log_probs(said)
        return log_probs.gather(-1, said.unsqueeze(-1)).flatten(1).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Returns (B,): an estimate, exact given the likeliest tokens before each; the whole sum has K to the power of k · A terms."""
        log_probs = self._log_probs(self.head.tokens.of(self.sample(None)).flatten(1))
        return -(log_probs.exp() * log_probs).flatten(1).sum(dim=-1)

    def _log_probs(self, said: Tensor) -> Tensor:
        """Returns (B, k · A, K)."""
        state, found = self.head.start(self.read), []
        for i in range(self.head.length):
            found.append(self.head.log_probs(state))
            state = self.head.hear(state, said[:, i], i)
        return torch.stack(found, dim=1)


class AutoregressiveHead(nn.Module):
    """Tokens one after another: a gated recurrent unit hears each before the next is drawn."""

    def __init__(self, width: int, chunk: int, action_size: int, levels: int) -> None:
        super().__init__()
        self.tokens = Tokens(levels)
        self.shape, self.length = (chunk, action_size), chunk * action_size
        self.heard = nn.Embedding(self.length * levels, width)
        self.cell = nn.GRUCell(width, width)
        self.linear = nn.Linear(width, levels)

    def forward(self, read: Tensor) -> OneByOne:
        """Returns the distribution for what was read (B, W)."""
        return OneByOne(read, self)

    def start(self, read: Tensor) -> Tensor:
        """Returns the state (B, W) before the first token."""
        return read

    def hear(self, state: Tensor, token: Tensor, place: int) -> Tensor:
        """Returns the state after `token` (B,) at `place`."""
        new: Tensor = self.cell(self.heard(token + place * len(self.tokens.values)), state)
        return new

    def log_probs(self, state: Tensor) -> Tensor:
        """Returns (B, K)."""
        return torch.log_softmax(self.linear(state), dim=-1)


class Gaussian:
    """A diagonal Gaussian whose mean stays within the actions' bounds; what is drawn beyond them is clipped by the env."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.normal = mean, torch.distributions.Normal(mean, log_std.exp(), validate_args=False)

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Returns (B, k, A)."""
        if generator is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=generator.device).to(self.mean.device)
        return self.mean + self.normal.stddev * noise

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns (B,)."""
        return self.normal.log_prob(actions.to(self.mean.device)).flatten(1).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Returns (B,)."""
        return self.normal.entropy().flatten(1).sum(dim=-1)


class GaussianHead(nn.Module):
    """A diagonal Gaussian, mean and deviation from the observation."""

    def __init__(self, width: int, chunk: int, action_size: int, levels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * chunk * action_size)
        self.shape = (2, chunk, action_size)

    def forward(self, read: Tensor) -> Gaussian:
        """Returns the distribution for what was read (B, W)."""
        mean, spread = self.linear(read).unflatten(-1, self.shape).unbind(dim=1)
        low, high = (torch.tensor(std).log() for std in (LOWEST_STD, HIGHEST_STD))
        return Gaussian(mean.tanh(), low + (high - low) * spread.sigmoid())


ACTION_HEADS = {"bins": BinsHead, "autoregressive": AutoregressiveHead, "gaussian": GaussianHead}


class StepsToGoHead(nn.Module):
    """A categorical distribution over bins of steps-to-go: p(t′ − t | o, g)."""

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, bins)

    def forward(self, read: Tensor) -> Tensor:
        """Returns logits (B, K) for what was read (B, W)."""
        logits: Tensor = self.linear(read)
        return logits


class InstructionHead(nn.Module):
    """Words of the instruction, each place by itself, from what was read of a first and a last observation."""

    def __init__(self, width: int, longest: int, words: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, longest * words)
        self.shape = (longest, words)

    def forward(self, first: Tensor, last: Tensor) -> Tensor:
        """Returns log-probabilities (B, L, V) for what was read (B, W) of each."""
        logits: Tensor = self.linear(torch.cat([first, last], dim=-1)).unflatten(-1, self.shape)
        return torch.log_softmax(logits, dim=-1)
