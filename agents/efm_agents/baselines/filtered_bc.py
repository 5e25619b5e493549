"""Filtered behaviour cloning: practise, keep what succeeded, clone it, repeat.

    loss = −E[log π(a_t | o_t, g)] over the demonstrations and all practice episodes so far that the detector says succeeded

The simplest way to learn from practice: it needs the success detector alone, no reward. (It is the policy improvement step of
reward-weighted regression, Peters and Schaal 2007, with a reward of 0 or 1.)
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efm_agents.baselines.common import Practice
from efm_agents.baselines.config import FilteredBCConfig
from efm_agents.dataset import Dataset, Mixed
from efm_agents.run import Report, no_report
from efm_agents.sft import policy_loss
from efm_envs.data import Episode
from efm_envs.errors import EFMError


def train(
    start: Path, folder: Path, config: FilteredBCConfig, report: Report = no_report, *, demonstrations: Sequence[Episode] = ()
) -> Path:
    """Practises and clones its successes.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run.
        config: the settings.
        report: is told about progress.
        demonstrations: those of stage 1, which successes are added to; none are needed where successes replace them.

    Returns:
        The folder.
    """
    if config.with_demonstrations and not demonstrations:
        raise EFMError("with_demonstrations=True adds successes to the demonstrations of stage 1; got none. Pass them, or set it to False.")
    practice = Practice(start, folder, "filtered_bc", config, report)
    cloned = list(demonstrations) if config.with_demonstrations else []
    kept = 0

    for episodes in practice.rounds():
        successes = kept_of(episodes, config.fastest_share)
        kept += len(successes)
        cloned += successes

        losses = []
        if cloned:
            data = Dataset.of([Mixed(cloned)], practice.model)
            rows = data.acting.all()
            for some in practice.minibatches(len(rows)):
                losses.append(practice.update(policy_loss(practice.model, data, rows[some]).mean()))
        practice.log(episodes, losses, kept=kept)
    return practice.finish(keep_best=False)  # cloning does not collapse


def kept_of(episodes: Sequence[Episode], fastest_share: float) -> list[Episode]:
    """Returns the episodes that the detector ended (predicted success, or ground truth where `terminate_on` says so), or the fastest."""
    successes = [episode for episode in episodes if episode.end_reason == "terminated"]
    limit = np.quantile([len(episode) for episode in successes], fastest_share) if successes else 0
    return [episode for episode in successes if len(episode) <= limit]
