"""What a control step costs here and in the envs of other projects, side by side in one process.

They are no dependencies, and need environments of their own; whichever of them is not there is skipped. gym-aloha runs on our MuJoCo:

    python3.11 -m venv ../aloha
    ../aloha/bin/pip install -c constraints.txt -r benchmarks/perf/requirements-gym-aloha.txt -e .
    MUJOCO_GL=egl ../aloha/bin/python benchmarks/speed.py peers

Gymnasium-Robotics and Meta-World need an older one, with which ours do not run; theirs are measured beside their own bare physics:

    python3.11 -m venv ../peers
    ../peers/bin/pip install -r benchmarks/perf/requirements-peers.txt
    ../peers/bin/pip install --no-deps -e .
    MUJOCO_GL=egl ../peers/bin/python benchmarks/speed.py peers

Read the minima, and only as ratios within one run. A round is `STEPS` random control steps after a reset; *bare* is `mj_step` of the same
model with as many substeps, from the same start, with no control. What gym-aloha is told to observe makes no difference to what a
step of it costs: it always draws three cameras at 640 × 480.
"""

import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from benchmarks.perf.conftest import Measure, random_actions

STEPS = 20
ALOHA = "gym_aloha/AlohaInsertion-v0"
OURS = ("EFM-Insert-v0", "EFM-InsertEE-v0", "EFM-LanguageTable-v0", "EFM-PointMass-v0")


def measure_steps(measure: Measure, name: str, env: Any, rounds: int) -> None:
    def reset() -> None:
        env.reset(seed=0)

    actions = random_actions(env, STEPS)

    def steps() -> None:
        for action in actions:
            env.step(action)

    reset()
    env.step(actions[0])  # what is made at the first picture is no part of it
    measure("peer:steps", name, STEPS, steps, setup=reset, rounds=rounds)
    env.close()


def measure_bare(measure: Measure, name: str, model: mujoco.MjModel, data: mujoco.MjData, substeps: int) -> None:
    """The baseline of a peer: its physics from the present state on."""
    start = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, start, mujoco.mjtState.mjSTATE_INTEGRATION)

    def reset() -> None:
        mujoco.mj_setState(model, data, start, mujoco.mjtState.mjSTATE_INTEGRATION)

    def steps() -> None:
        for _ in range(STEPS):
            mujoco.mj_step(model, data, substeps)

    measure("peer:bare", name, STEPS, steps, setup=reset, rounds=30)


@pytest.fixture
def recent_mujoco() -> None:
    pytest.importorskip("mujoco.batch", reason="our envs need mujoco 3.17")


@pytest.mark.usefixtures("recent_mujoco")
@pytest.mark.parametrize("ours", OURS)
def test_ours_in_state_mode(measure: Measure, ours: str) -> None:
    measure_steps(measure, ours, gym.make(ours, disable_env_checker=True), rounds=100)


@pytest.mark.usefixtures("recent_mujoco")
@pytest.mark.parametrize("ours", OURS)
def test_ours_bare(measure: Measure, ours: str) -> None:
    env = gym.make(ours).unwrapped
    env.reset(seed=0)
    measure_bare(measure, ours, env.task.model, env.data, env.task.substeps)


@pytest.mark.usefixtures("recent_mujoco")
@pytest.mark.parametrize("size", [(224, 224), (480, 640)])
def test_ours_with_one_picture(measure: Measure, size: tuple[int, int]) -> None:
    env = gym.make("EFM-Insert-v0", obs_mode="pixels", cameras=["top"], image_size=size, disable_env_checker=True)
    measure_steps(measure, f"EFM-Insert-v0, a picture of {size[1]} × {size[0]}", env, rounds=10)


def test_gym_aloha(measure: Measure) -> None:
    pytest.importorskip("gym_aloha")
    measure_steps(measure, ALOHA, gym.make(ALOHA, obs_type="pixels_agent_pos", disable_env_checker=True), rounds=3)


def test_gym_aloha_bare(measure: Measure) -> None:
    pytest.importorskip("gym_aloha")
    env = gym.make(ALOHA, obs_type="pixels_agent_pos", disable_env_checker=True)
    env.reset(seed=0)
    physics = env.unwrapped._env.physics
    measure_bare(measure, ALOHA, physics.model.ptr, physics.data.ptr, 10)
    env.close()


def fetch(env_id: str) -> Any:
    gym.register_envs(pytest.importorskip("gymnasium_robotics"))
    return gym.make(env_id, disable_env_checker=True)


def meta_world(task: str) -> Any:
    pytest.importorskip("metaworld")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gym.make("Meta-World/MT1", env_name=task, disable_env_checker=True)


PEERS = {
    "FetchPush-v4": (fetch, "n_substeps"),
    "FetchPickAndPlace-v4": (fetch, "n_substeps"),
    "peg-insert-side-v3": (meta_world, "frame_skip"),
    "push-v3": (meta_world, "frame_skip"),
}


@pytest.mark.parametrize("peer", PEERS)
def test_peer(measure: Measure, peer: str) -> None:
    """In state mode, the only one that they have without pictures."""
    measure_steps(measure, peer, PEERS[peer][0](peer), rounds=30)


@pytest.mark.parametrize("peer", PEERS)
def test_peer_bare(measure: Measure, peer: str) -> None:
    make, substeps = PEERS[peer]
    env = make(peer)
    env.reset(seed=0)
    unwrapped = env.unwrapped
    measure_bare(measure, peer, unwrapped.model, unwrapped.data, getattr(unwrapped, substeps))
    env.close()
