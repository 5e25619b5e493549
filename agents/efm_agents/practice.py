"""What a round of practice is made into: decisions with their returns, and figures about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from efm_agents.inputs import Inputs, join
from efm_agents.model import EmbodiedModel
from efm_agents.returns import discounted_returns
from efm_envs.data import Episode

SCORE_DISCOUNT = 0.99  # a success after 70 steps is worth half


@dataclass(frozen=True)
class Decisions:
    """A round's decisions: where an action, or a chunk of k of them, was chosen.

    Attributes:
        inputs: what the model read, M rows.
        actions: (M, k, A).
        returns: (M,).
        d: (M,) what the reward model said there.
    """

    inputs: Inputs
    actions: Tensor
    returns: Tensor
    d: Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode], model: EmbodiedModel, gamma: float, reward: str = "dense") -> "Decisions":
        """Joins episodes; a chunk is one decision, whose reward is the sum of its steps'."""
        k = model.chunk
        parts = []
        for episode in episodes:
            places = np.arange(0, len(episode), k)
            rewards = np.add.reduceat(sparse_rewards(episode) if reward == "sparse" else episode.rewards, places)
            inputs = model.inputs({name: value[places] for name, value in episode.observations.items()})
            actions = episode.actions[:, None] if k == 1 else np.array(episode.notes["chunks"])
            parts.append((inputs, actions, discounted_returns(rewards, gamma), episode.steps_to_go[places]))
        inputs, actions, returns, d = zip(*parts, strict=True)
        arrays = (torch.from_numpy(np.concatenate(part).astype(np.float32)) for part in (actions, returns, d))
        return cls(join(inputs), *arrays)

    def __len__(self) -> int:
        """Returns M."""
        return len(self.returns)


def sparse_rewards(episode: Episode) -> np.ndarray:
    """Returns (T,): 1 where the detector, or whatever else `terminate_on` names, ended the episode; 0 elsewhere."""
    rewards = np.zeros(len(episode))
    rewards[-1] = float(episode.end_reason == "terminated")
    return rewards


def practice_score(episodes: Sequence[Episode]) -> float:
    """Returns how well practice went, 0 to 1, by the detector that ends its episodes.

    It is the mean over episodes of 0.99^steps where the detector saw success, and of 0 elsewhere: more successes are better, and among
    equals faster ones.
    """
    return float(np.mean([SCORE_DISCOUNT ** len(e) * (e.end_reason == "terminated") for e in episodes]))


def has_collapsed(scores: Sequence[float], window: int, ratio: float) -> bool:
    """Whether the mean of the last `window` scores is below `ratio` times the best such mean so far."""
    if len(scores) < 2 * window:
        return False
    means = moving_means(scores, window)
    return bool(means[-1] < ratio * means.max())


def has_levelled_off(scores: Sequence[float], window: int, rounds: int) -> bool:
    """Whether the best mean of `window` scores is `rounds` rounds old."""
    if not rounds or len(scores) < window + rounds:
        return False
    means = moving_means(scores, window)
    return len(means) - 1 - int(np.argmax(means)) >= rounds


def moving_means(scores: Sequence[float], window: int) -> np.ndarray:
    """Returns the means of each `window` scores in a row."""
    return np.convolve(scores, np.ones(window), mode="valid") / window


def practice_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Returns what practice looked like; `success` is ground truth, which training does not see."""
    return {
        "success": float(np.mean([e.is_success.any() for e in episodes])),
        "predicted_success": float(np.mean([e.predicted_success[-1] for e in episodes])),
        "steps": float(np.mean([len(e) for e in episodes])),
        "reward": float(np.mean([e.rewards.sum() for e in episodes])),
    }
