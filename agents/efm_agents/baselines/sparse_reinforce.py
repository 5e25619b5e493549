"""REINFORCE on success alone: plain, or with a leave-one-out baseline (RLOO).

    rloo     R_i = γ^(T_i − 1) · 1[episode i succeeded]      A_t = R_i − mean of the group's other R_j
    plain    A_t = γ^(T_i − 1 − t) · 1[episode i succeeded], the return that follows the decision (Williams 1992)
    loss     −E[A_t · log π(a_t | o_t, g)]

K episodes start alike, so what the others of the group got is a baseline that no network has to learn (Kool et al. 2019; Ahmadian et al.
2024, arXiv 2402.14740, §2.2). It is one of the whole episode, all of whose decisions have the same advantage.
"""

from pathlib import Path

import numpy as np

from efm_agents.baselines.common import Practice, decisions_of_each
from efm_agents.baselines.config import SparseReinforceConfig
from efm_agents.inputs import take
from efm_agents.practice import Decisions, sparse_rewards
from efm_agents.returns import discounted_returns
from efm_agents.run import Report, no_report
from efm_agents.self_improvement import log_prob_of, reinforce_loss


def train(start: Path, folder: Path, config: SparseReinforceConfig, report: Report = no_report) -> Path:
    """Practises on the sparse reward.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run.
        config: the settings.
        report: is told about progress.

    Returns:
        The folder.
    """
    practice = Practice(start, folder, "sparse_reinforce", config, report)
    model = practice.model

    for episodes in practice.rounds(config.group):
        decisions = Decisions.of(episodes, model, config.gamma, "sparse")
        advantages = decisions.returns
        if config.method == "rloo":
            returns = np.array([discounted_returns(sparse_rewards(episode), config.gamma)[0] for episode in episodes])
            advantages = decisions_of_each(leave_one_out(returns, config.group), episodes, model.chunk)
        log_prob_then = log_prob_of(model, decisions)

        losses = []
        for rows in practice.minibatches(len(decisions)):
            log_prob = model.log_prob(take(decisions.inputs, rows), decisions.actions[rows])
            losses.append(practice.update(reinforce_loss(log_prob, log_prob_then[rows], advantages[rows], config.ratio_clip)))
        practice.log(episodes, losses)
    return practice.finish(keep_best=True)


def leave_one_out(returns: np.ndarray, group: int) -> np.ndarray:
    """Returns each return (N,) less the mean of the other K − 1 of its group; groups of K follow one another.

    >>> leave_one_out(np.array([1.0, 0.0, 0.0, 5.0, 5.0, 5.0]), group=3)
    array([ 1. , -0.5, -0.5,  0. ,  0. ,  0. ])
    """
    groups = returns.reshape(-1, group)
    others = (groups.sum(axis=1, keepdims=True) - groups) / (group - 1)
    return (groups - others).ravel()
