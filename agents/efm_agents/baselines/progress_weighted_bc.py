"""Progress-weighted behaviour cloning: clone one's own actions, those that gained more steps the more.

    w_t = min(exp(β · (d(o_t) − d(o_{t+n}) − mean)), w_max)          loss = −E[w_t · log π(a_t | o_t, g)]

Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177, eq. 8 and the clip of §5.1) with the steps gained within n control steps
in place of the advantage: d is the baseline of its own return, so no value network is trained. The mean over the data only sets the scale.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from efm_agents.baselines.common import Practice
from efm_agents.baselines.config import ProgressWeightedBCConfig
from efm_agents.inputs import take
from efm_agents.practice import Decisions
from efm_agents.run import Report, no_report
from efm_envs.data import Episode


def train(start: Path, folder: Path, config: ProgressWeightedBCConfig, report: Report = no_report) -> Path:
    """Practises and clones, weighted by progress.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run.
        config: the settings.
        report: is told about progress.

    Returns:
        The folder.
    """
    practice = Practice(start, folder, "progress_weighted_bc", config, report)
    model = practice.model
    memory: deque[list[Episode]] = deque(maxlen=config.rounds_kept)

    for episodes in practice.rounds():
        memory.append(episodes)
        everything = [episode for kept in memory for episode in kept]
        decisions = Decisions.of(everything, model, gamma=0.0)
        weights = weights_of(torch.cat([progress(episode, config.horizon, model.chunk) for episode in everything]), config)

        losses = []
        for rows in practice.minibatches(len(decisions)):
            log_prob = model.log_prob(take(decisions.inputs, rows), decisions.actions[rows])
            losses.append(practice.update(-(weights[rows] * log_prob).mean()))
        practice.log(episodes, losses, effective_share=effective_share(weights))
    return practice.finish(keep_best=True)


def progress(episode: Episode, horizon: int, chunk: int) -> Tensor:
    """Returns d(o_t) − d(o_{t+n}) in [control steps] at each decision t = 0, k, 2k, …; beyond the end, d of the last observation."""
    now = np.arange(0, len(episode), chunk)
    later = np.minimum(now + horizon, len(episode))
    return torch.from_numpy((episode.steps_to_go[now] - episode.steps_to_go[later]).astype(np.float32))


def weights_of(gained: Tensor, config: ProgressWeightedBCConfig) -> Tensor:
    """Returns w (M,) of the steps gained (M,)."""
    return (config.beta * (gained - gained.mean())).exp().clamp_max(config.largest_weight)


def effective_share(weights: Sequence[float] | Tensor) -> float:
    """Returns Kish's effective sample size as a share of the samples: 1 where all weights are the same."""
    w = torch.as_tensor(weights)
    return float(w.sum() ** 2 / (w**2).sum() / len(w))
