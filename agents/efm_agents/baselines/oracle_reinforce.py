"""REINFORCE on the task's own steps-to-go: what stage 2 would come to with a reward model that is never wrong.

The update is the one of self_improvement, R_t · ∇ log π with Monte-Carlo returns of r = d(o) − d(o′). Only d is the simulator's: an upper
limit to hold a learned reward model against, not something that a robot could do.
"""

from pathlib import Path

from efm_agents.baselines.common import Practice
from efm_agents.baselines.config import ReinforceConfig
from efm_agents.inputs import take
from efm_agents.practice import Decisions
from efm_agents.run import Report, no_report
from efm_agents.self_improvement import log_prob_of, reinforce_loss


def train(start: Path, folder: Path, config: ReinforceConfig, report: Report = no_report) -> Path:
    """Practises on the oracle's reward.

    Args:
        start: folder of the stage-1 run, of which the policy alone is used.
        folder: of the new run.
        config: the settings.
        report: is told about progress.

    Returns:
        The folder.
    """
    practice = Practice(start, folder, "oracle_reinforce", config, report, reward_model="oracle")
    reinforce(practice, config)
    return practice.finish(keep_best=True)


def reinforce(practice: Practice, config: ReinforceConfig) -> None:
    """Spends the budget on rounds of REINFORCE with the reward of the practice envs."""
    model = practice.model
    for episodes in practice.rounds():
        decisions = Decisions.of(episodes, model, config.gamma)
        log_prob_then = log_prob_of(model, decisions)
        losses = []
        for rows in practice.minibatches(len(decisions)):
            log_prob = model.log_prob(take(decisions.inputs, rows), decisions.actions[rows])
            loss = reinforce_loss(log_prob, log_prob_then[rows], decisions.returns[rows], config.ratio_clip)
            losses.append(practice.update(config.loss_scale * loss))
        practice.log(episodes, losses, **{"return": decisions.returns.mean().item()})
