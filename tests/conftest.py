"""What the tests share: the ids, observation modes and reward models for which a rule is checked, and a display.

A test that has `env_id`, `obs_mode` or `reward_model` among its arguments runs for every one of them; with `solved_id`, for every id that
has experts.
"""

import functools
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import efm_envs
from efm_agents.checkpoint import save_checkpoint
from efm_agents.config import ModelConfig
from efm_agents.inputs import Reads
from efm_agents.model import build_model, to_config
from efm_agents.reward_adapters import LeRobotRewardModel, TorchRewardModel
from efm_envs.env import load_task
from efm_envs.observations import OBS_MODES
from efm_envs.registration import registration
from efm_envs.rewards import make_reward_model
from efm_envs.rewards.adapters import ClassifierRewardModel, PairRewardModel, ProgressRewardModel, TransitionRewardModel
from efm_envs.rewards.server import RewardServer
from tests.efm_envs import fakes


def untrained_checkpoint(env_id: str, folder: Path) -> dict[str, str]:
    """Writes a model with random weights, and returns it as a reward model."""
    env = gym.make(env_id)
    space, task = env.observation_space, env.unwrapped.task
    env.close()
    names = tuple(name for name in ("agent_pos", "environment_state") if name in space.spaces)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reads = Reads(names, tuple(space[name].shape[0] for name in names))
        model = build_model(to_config(ModelConfig(backbone="mlp", hidden=(16,), bins=8), reads, env.action_space.shape[0], 40))
    path = folder / "steps_to_go.safetensors"
    config = {"model": model.config, "task": task.name, "env_id": env_id, "success_threshold": 1.0}
    save_checkpoint(path, "steps_to_go", model.state_dict(), config)
    return {"id": "checkpoint", "path": str(path)}


# What gym.make(..., reward_model=…) takes, by name: made from an id and from a folder to put files in.
REWARD_MODELS: dict[str, Callable[[str, Path], Any]] = {
    "oracle": lambda env_id, folder: "oracle",
    "sparse": lambda env_id, folder: {"id": "sparse"},
    "none": lambda env_id, folder: "none",
    "function": lambda env_id, folder: fakes.first_value,
    "checkpoint": untrained_checkpoint,
    "constant": lambda env_id, folder: "constant",
    "noisy": lambda env_id, folder: {"id": "noisy", "bias": 2.0, "scale": 1.1, "std": 3.0, "episode_std": 2.0, "distribution": True},
    "inverted": lambda env_id, folder: "inverted",
    "quantised": lambda env_id, folder: "quantised",
    "hackable": lambda env_id, folder: "hackable",
    "delayed": lambda env_id, folder: {"id": "delayed", "model": {"id": "noisy", "episode_std": 2.0}, "delay": 3},
    "cached": lambda env_id, folder: {"id": "cached", "model": "noisy", "size": 30},
    "reader": lambda env_id, folder: fakes.Reader(),
    "http": lambda env_id, folder: {"id": "http", "url": served_oracle().url},
    "progress": lambda env_id, folder: ProgressRewardModel(fakes.clip_progress, 50.0, first_camera(env_id), frames=3),
    "classifier": lambda env_id, folder: ClassifierRewardModel(fakes.chance, ("agent_pos",), logits=True),
    "transition": lambda env_id, folder: TransitionRewardModel(fakes.gain, "agent_pos", 60.0),
    "pair": lambda env_id, folder: PairRewardModel(fakes.picture_gain, 60.0, first_camera(env_id)),
    "torch": lambda env_id, folder: TorchRewardModel(fakes.Head(), ("agent_pos",), kind="seconds"),
    "lerobot": lambda env_id, folder: LeRobotRewardModel(
        fakes.Brightness(), {first_camera(env_id): "observation.images.top"}, kind="success"
    ),
}
REFUSED = {"slow"}  # in simulated time


@functools.cache
def served_oracle() -> RewardServer:
    """A server that lasts as long as the tests do."""
    return RewardServer(make_reward_model("oracle")).start()


@functools.cache
def first_camera(env_id: str) -> str:
    """The observation that holds the pictures of an id's first camera."""
    row = registration(env_id)
    return f"pixels/{load_task(row.task, row.task_options).cameras[0]}"


@functools.cache
def experts_of(env_id: str) -> list[str]:
    """Returns the styles of an id's experts, without making the env."""
    module, _, name = registration(env_id).task.partition(":")
    return list(getattr(importlib.import_module(module), name).experts)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, values in {
        "env_id": efm_envs.ids(),
        "solved_id": [env_id for env_id in efm_envs.ids() if experts_of(env_id)],
        "obs_mode": OBS_MODES,
        "reward_model_name": list(REWARD_MODELS),
    }.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, values)


@pytest.fixture
def reward_model(reward_model_name: str, env_id: str, tmp_path: Path) -> Any:
    return REWARD_MODELS[reward_model_name](env_id, tmp_path)


@pytest.fixture(scope="session")
def xvfb() -> Iterator[str]:
    """The name of a display that nobody sees."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb: apt-get install xvfb")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    if not number:
        server.wait()
        pytest.skip("Xvfb does not start here")
    yield f":{number}"
    server.terminate()
    server.wait()
