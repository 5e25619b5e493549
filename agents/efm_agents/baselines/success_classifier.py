"""A success classifier as the reward: p(o′) − p(o), where p is the probability that the goal is reached.

    p = 1 on the last observation of each demonstration, 0 on all others          r_t = p(o_{t+1}) − p(o_t)          success = 1[p ≥ 1 − s]

The usual learned reward of robotics (for example Singh et al. 2019, arXiv 1904.07854), which tells the end from the rest and nothing about
how far it is. A classifier is a steps-to-go model of two bins, "no step left" and "some": the model, its loss and the choice of the
threshold are those of stage 1, and d = ½ + 1 − p. Half of a batch are last observations, of which each demonstration has but one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from efm_agents.baselines.common import Practice
from efm_agents.baselines.config import SuccessClassifierConfig
from efm_agents.baselines.oracle_reinforce import reinforce
from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from efm_agents.dataset import Dataset, as_mixture, describe, split
from efm_agents.model import build_model, fresh_generator
from efm_agents.reward_model import CheckpointRewardModel
from efm_agents.run import Report, Run, no_report, to_settings
from efm_agents.sft import choose_success_threshold, steps_to_go_loss
from efm_envs.data import Episode
from efm_envs.seeding import Stream, generator

HELD_OUT = 0.1  # part of the demonstrations on which the threshold is chosen


def train(
    start: Path, folder: Path, config: SuccessClassifierConfig, report: Report = no_report, *, demonstrations: Sequence[Episode]
) -> Path:
    """Trains the classifier, and practises on the change of its probability.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run; holds the classifier's as classifier/.
        config: the settings.
        report: is told about progress.
        demonstrations: those of stage 1.

    Returns:
        The folder.
    """
    classifier = train_classifier(start, Path(folder) / "classifier", config, demonstrations)
    practice = Practice(start, folder, "success_classifier", config, report, reward_model=CheckpointRewardModel(str(classifier)))
    reinforce(practice, config)
    return practice.finish(keep_best=True)


def train_classifier(start: Path, folder: Path, config: SuccessClassifierConfig, demonstrations: Sequence[Episode]) -> Path:
    """Trains a classifier, the same kind of model as the policy; returns its run's folder, with a steps-to-go checkpoint of two bins."""
    run = Run(folder, "classifier", {**to_settings(config), "demonstrations": describe(as_mixture(demonstrations))})
    facts = load_checkpoint(find_checkpoint(start, "policy"), "policy")[1]
    rng = generator(Stream.TRAINING, config.seed, 2)
    with fresh_generator():
        torch.manual_seed(int(rng.integers(2**31)))
        model = build_model({**facts["model"], "bins": 2, "max_steps_to_go": 2.0})
    training, held_out = split(as_mixture(demonstrations), HELD_OUT, rng)
    data, validation = Dataset.of(training, model), Dataset.of(held_out, model)
    model.prepare(data.inputs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.classifier_learning_rate)

    rows = data.telling.all()
    is_last = data.steps_to_go[rows] == 0
    kinds, half = (rows[is_last], rows[~is_last]), config.classifier_batch // 2
    for _ in range(config.classifier_steps):
        drawn = torch.cat([kind[torch.from_numpy(rng.integers(0, len(kind), half))] for kind in kinds])
        optimizer.zero_grad(set_to_none=True)
        steps_to_go_loss(model, data, drawn).mean().backward()
        optimizer.step()

    told = {name: facts.get(name) for name in ("task", "env_id", "options")} | {"model": model.config, "seed": config.seed}
    threshold = choose_success_threshold(model, validation)
    save_checkpoint(run.checkpoint("steps_to_go"), "steps_to_go", model.state_dict(), {**told, "success_threshold": threshold})
    return run.folder
