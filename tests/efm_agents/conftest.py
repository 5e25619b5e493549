"""Small demonstrations and a small stage-1 run, made once for all tests that only read them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from efm_agents import demonstrations as program
from efm_agents import sft
from efm_agents.config import ModelConfig, SFTConfig
from efm_envs.data import Episode

POINT_MASS = "EFM-PointMass-v0"
LANGUAGE_TABLE = "EFM-LanguageTable4-v0"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums of floats depend on how many threads share them."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demonstrations() -> Sequence[Episode]:
    return tuple(program.collect(POINT_MASS, 60))


@pytest.fixture(scope="session")
def spoken_demonstrations() -> Sequence[Episode]:
    """Demonstrations whose instructions differ."""
    return tuple(program.collect(LANGUAGE_TABLE, 6))


@pytest.fixture(scope="session")
def sft_run(demonstrations: Sequence[Episode], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stage-1 run."""
    model = ModelConfig(backbone="mlp", hidden=(32, 32), normalise_steps_to_go=True, max_steps_to_go=140.0)
    config = SFTConfig(steps=300, model=model, learning_rate=3e-3, warmup=0)
    return sft.train(demonstrations, tmp_path_factory.mktemp("agents") / "sft", config, task="PointMass")
