"""Demonstrations as tensors, and how they are mixed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from efm_agents.inputs import Inputs, join
from efm_agents.model import EmbodiedModel
from efm_envs.data import Episode
from efm_envs.errors import EFMError


@dataclass(frozen=True)
class Mixed:
    """Demonstrations of one kind, and what they count for in a mixture.

    Attributes:
        episodes: whole episodes that reached their goals.
        policy_weight: share of the transitions from which the policy learns, relative to that of the other kinds; 0 is none.
        steps_to_go_weight: likewise for steps-to-go prediction.
    """

    episodes: Sequence[Episode]
    policy_weight: float = 1.0
    steps_to_go_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuses weights below 0."""
        if min(self.policy_weight, self.steps_to_go_weight) < 0 or self.policy_weight + self.steps_to_go_weight == 0:
            raise EFMError(
                f"weights of demonstrations are at least 0, one of them above; got {self.policy_weight} and {self.steps_to_go_weight}."
            )


@dataclass(frozen=True)
class Rows:
    """Rows that are drawn by weight: uniformly within a kind of demonstrations."""

    kinds: tuple[Tensor, ...]  # each (n,) int64
    shares: np.ndarray  # (kinds,), which sum to 1

    @classmethod
    def of(cls, kinds: Sequence[tuple[np.ndarray, float]]) -> "Rows":
        """Joins the rows of kinds with their weights."""
        used = [(torch.from_numpy(rows), weight) for rows, weight in kinds if weight > 0 and len(rows)]
        if not used:
            raise EFMError("there are no demonstrations of a weight above 0 to learn this from.")
        weights = np.array([weight for _, weight in used])
        return cls(tuple(rows for rows, _ in used), weights / weights.sum())

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        """Returns (n,) int64: rows, with replacement."""
        if len(self.kinds) == 1:
            return self.kinds[0][torch.from_numpy(rng.integers(0, len(self.kinds[0]), n))]
        counts = rng.multinomial(n, self.shares)
        return torch.cat([rows[torch.from_numpy(rng.integers(0, len(rows), k))] for rows, k in zip(self.kinds, counts, strict=True)])

    def all(self) -> Tensor:
        """Returns every row once, in order."""
        return torch.cat(self.kinds).sort().values


@dataclass(frozen=True)
class Dataset:
    """Demonstrations as tensors. A row is an observation: before each action, and at the end of each demonstration.

    Attributes:
        inputs: what the model reads, M rows.
        actions: (M, k, A), the chunk of actions that begins there; beyond the end, the last action stays.
        steps_to_go: (M,) control steps to the end.
        acting: rows from which the policy learns: those at which an action was taken.
        telling: rows from which steps-to-go is learned.
        ends: (E, 2) int64, the first and the last row of each demonstration.
    """

    inputs: Inputs
    actions: Tensor
    steps_to_go: Tensor
    acting: Rows
    telling: Rows
    ends: Tensor

    @classmethod
    def of(cls, mixture: Sequence[Mixed], model: EmbodiedModel) -> "Dataset":
        """Joins demonstrations, as the model reads them."""
        episodes = [episode for kind in mixture for episode in kind.episodes]
        lengths = np.array([len(e) for e in episodes])
        steps_to_go = np.concatenate([np.arange(length, -1, -1) for length in lengths])
        last = np.cumsum(lengths + 1) - 1
        kinds = np.repeat(np.arange(len(mixture)), [sum(len(e) + 1 for e in kind.episodes) for kind in mixture])
        rows = [np.flatnonzero(kinds == i) for i in range(len(mixture))]
        return cls(
            inputs=join([model.inputs(e.observations) for e in episodes]),
            actions=torch.from_numpy(np.concatenate([chunks(e.actions, model.chunk) for e in episodes])),
            steps_to_go=torch.from_numpy(steps_to_go),
            acting=Rows.of([(r[steps_to_go[r] > 0], kind.policy_weight) for r, kind in zip(rows, mixture, strict=True)]),
            telling=Rows.of([(r, kind.steps_to_go_weight) for r, kind in zip(rows, mixture, strict=True)]),
            ends=torch.from_numpy(np.stack([last - lengths, last], axis=1)),
        )


def chunks(actions: np.ndarray, k: int) -> np.ndarray:
    """Returns (T+1, k, A) float32: at t the actions t to t + k − 1, where the last one goes on beyond the end. The last row is not used.

    >>> chunks(np.array([[1.0], [2.0]]), 3)[..., 0].tolist()
    [[1.0, 2.0, 2.0], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    last = len(actions) - 1
    return actions[np.minimum(np.arange(last + 2)[:, None] + np.arange(k), last)].astype(np.float32)


def split(mixture: Sequence[Mixed], fraction: float, rng: np.random.Generator) -> tuple[list[Mixed], list[Mixed]]:
    """Returns a mixture in two: to learn from, and, of each kind at least one demonstration, held out."""
    parts = []
    for kind in mixture:
        order = rng.permutation(len(kind.episodes))
        held_out = max(1, round(fraction * len(order)))
        parts.append(
            [
                Mixed([kind.episodes[i] for i in some], kind.policy_weight, kind.steps_to_go_weight)
                for some in (order[held_out:], order[:held_out])
            ]
        )
    return [part[0] for part in parts], [part[1] for part in parts]


def as_mixture(demonstrations: Sequence[Episode] | Sequence[Mixed]) -> list[Mixed]:
    """Returns demonstrations as a mixture; those of one kind need not say so.

    Raises:
        EFMError: too few of a kind to hold one out; one that failed; or of several envs.
    """
    kinds = [kind for kind in demonstrations if isinstance(kind, Mixed)]
    alone = [episode for episode in demonstrations if isinstance(episode, Episode)]
    if len(kinds) + len(alone) < len(demonstrations) or (kinds and alone):
        raise EFMError(
            "demonstrations are all episodes, or all Mixed(episodes, …), of which each kind has its weights; got both, or others."
        )
    mixture = kinds or [Mixed(alone)]
    for kind in mixture:
        if len(kind.episodes) < 2:
            raise EFMError(f"SFT needs at least 2 demonstrations, one of them to hold out; got {len(kind.episodes)}.")
    episodes = [episode for kind in mixture for episode in kind.episodes]
    failed = [e.seed for e in episodes if e.end_reason != "terminated"]
    if failed:
        raise EFMError(f"SFT learns from demonstrations that reached their goal; {len(failed)} did not, the first with seed {failed[0]}.")
    names = sorted({", ".join(e.observations) for e in episodes})
    if len({e.env_id for e in episodes}) > 1 or len(names) > 1:
        raise EFMError(f"demonstrations of one run are of one env and observed alike; got {sorted({e.env_id for e in episodes})}, {names}.")
    return mixture


def describe(mixture: Sequence[Mixed]) -> str:
    """Returns their number and a hash of what is learned from, so that a run is not resumed on other ones."""
    digest = hashlib.sha256()
    for kind in mixture:
        if len(mixture) > 1:
            digest.update(repr((kind.policy_weight, kind.steps_to_go_weight)).encode())
        for episode in kind.episodes:
            for array in (*episode.observations.values(), episode.actions):
                digest.update(np.ascontiguousarray(array).tobytes())
    return f"{sum(len(kind.episodes) for kind in mixture)} ({digest.hexdigest()[:16]})"
