"""What the tests share: the ids, observation modes and reward models for which a rule is checked, and a display.

A test that has `env_id`, `obs_mode` or `reward_model` among its arguments runs for every one of them.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import efm_envs
from efm_envs.observations import OBS_MODES
from tests.efm_envs import fakes

# What gym.make(..., reward_model=…) takes, by name: made from an id and from a folder to put files in.
REWARD_MODELS: dict[str, Callable[[str, Path], Any]] = {
    "oracle": lambda env_id, folder: "oracle",
    "sparse": lambda env_id, folder: {"id": "sparse"},
    "none": lambda env_id, folder: "none",
    "function": lambda env_id, folder: fakes.first_value,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, values in {
        "env_id": efm_envs.ids(),
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
