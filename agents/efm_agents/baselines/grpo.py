"""GRPO, group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300, §4.1).

    A_i = (R_i − mean of the group) / standard deviation of the group
    loss = −E[min(ρ A_i, clip(ρ, 1 ± ε) A_i)] + β · E[π_SFT/π − log(π_SFT/π) − 1],          ρ = π / π at the time of practice

No value network: K episodes that start alike are each other's baseline (eq. 3, outcome supervision). The last term is an unbiased estimate
of the KL divergence to the policy that it started from (eq. 4). Every decision of an episode has the episode's advantage.
"""

from pathlib import Path

import numpy as np
from torch import Tensor

from efm_agents.baselines.common import Practice, decisions_of_each
from efm_agents.baselines.config import GRPOConfig
from efm_agents.inputs import take
from efm_agents.practice import Decisions, sparse_rewards
from efm_agents.returns import discounted_returns
from efm_agents.run import Report, no_report
from efm_agents.self_improvement import log_prob_of, reinforce_loss
from efm_envs.data import Episode

SMALLEST_DEVIATION = 1e-4  # of a group's returns; below, all are alike, and nothing is to be learned from it


def train(start: Path, folder: Path, config: GRPOConfig, report: Report = no_report) -> Path:
    """Practises in groups.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run.
        config: the settings.
        report: is told about progress.

    Returns:
        The folder.
    """
    practice = Practice(start, folder, "grpo", config, report)
    model = practice.model

    for episodes in practice.rounds(config.group):
        returns = np.array([episode_return(episode, config) for episode in episodes])
        decisions = Decisions.of(episodes, model, config.gamma, config.reward_kind)
        advantage: Tensor = decisions_of_each(normalised(returns, config.group), episodes, model.chunk)
        log_prob_then, log_prob_at_start = log_prob_of(model, decisions), log_prob_of(practice.reference, decisions)

        losses = []
        for rows in practice.minibatches(len(decisions)):
            log_prob = model.log_prob(take(decisions.inputs, rows), decisions.actions[rows])
            loss = reinforce_loss(log_prob, log_prob_then[rows], advantage[rows], config.ratio_clip)
            loss = loss + config.kl * kl_estimate(log_prob, log_prob_at_start[rows]).mean()
            losses.append(practice.update(loss))
        practice.log(episodes, losses, kl=(log_prob_then - log_prob_at_start).mean().item())
    return practice.finish(keep_best=True)


def episode_return(episode: Episode, config: GRPOConfig) -> float:
    """Returns an episode's return: Σ γ^t r_t."""
    rewards = sparse_rewards(episode) if config.reward_kind == "sparse" else episode.rewards
    return float(discounted_returns(rewards, config.gamma)[0])


def normalised(returns: np.ndarray, group: int) -> np.ndarray:
    """Returns each return (N,) standardised within its group; groups of K follow one another.

    >>> normalised(np.array([1.0, 0.0, 2.0, 2.0]), group=2)
    array([ 1., -1.,  0.,  0.])
    """
    groups = returns.reshape(-1, group)
    deviations = groups.std(axis=1, keepdims=True)
    return ((groups - groups.mean(axis=1, keepdims=True)) / np.where(deviations < SMALLEST_DEVIATION, np.inf, deviations)).ravel()


def kl_estimate(log_prob: Tensor, log_prob_at_start: Tensor) -> Tensor:
    """Returns (B,): π_SFT/π − log(π_SFT/π) − 1 of the actions that were taken, at least 0 (eq. 4)."""
    log_ratio = log_prob_at_start - log_prob
    return log_ratio.exp() - log_ratio - 1.0
