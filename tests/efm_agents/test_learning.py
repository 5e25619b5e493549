"""A learning run whose answer is known: after Self-Improvement the point takes the straight way, which no demonstration showed."""

from pathlib import Path

import numpy as np

from efm_agents import demonstrations, self_improvement, sft
from efm_agents.config import ImproveConfig, ModelConfig, SFTConfig
from efm_agents.policy import load_policy
from efm_envs.evaluation import EpisodeRecord, evaluate

POINT_MASS = "EFM-PointMass-v0"


def score(run: Path) -> list[EpisodeRecord]:
    policy = load_policy(run, task="PointMass")
    return evaluate(policy, POINT_MASS, 60, reward_model="none", terminate_on="true")


def test_self_improvement_makes_the_policy_much_faster(tmp_path: Path) -> None:
    """Measured with seeds 0, 10 and 11: 94 to 109 steps and .50 to .58 success, then 20 to 33 steps and .98 to 1.00."""
    shown = demonstrations.collect(POINT_MASS, 800, seed=11)
    model = ModelConfig(backbone="mlp", hidden=(128, 128), max_steps_to_go=140.0)
    sft_config = SFTConfig(seed=11, steps=800, model=model, learning_rate=1e-3, steps_to_go_learning_rate=2e-3, warmup=0)
    before = score(sft.train(shown, tmp_path / "sft", sft_config, task="PointMass"))
    improve_config = ImproveConfig(seed=11, iterations=32, learning_rate=1e-3, terminate_on="true", monitor_every=0)
    after = score(self_improvement.train(tmp_path / "sft", tmp_path / "improve", improve_config))

    steps = {name: np.mean([record.steps for record in records]) for name, records in (("before", before), ("after", after))}
    success = {name: np.mean([record.success_once for record in records]) for name, records in (("before", before), ("after", after))}
    assert 50 < steps["before"] < 125 and 0.3 < success["before"] < 0.95, (steps, success)
    assert steps["after"] < 0.6 * steps["before"] and success["after"] > success["before"] + 0.1, (steps, success)
    assert steps["after"] < 0.7 * np.mean([len(episode) for episode in shown]), "no faster than what was shown"
