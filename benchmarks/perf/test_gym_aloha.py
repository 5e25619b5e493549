"""What a control step costs here and in gym-aloha, side by side in one process.

gym-aloha is no dependency, so this needs an environment of its own; without gym-aloha, it is skipped:

    python3.11 -m venv ../peers
    ../peers/bin/pip install -c constraints.txt -r benchmarks/perf/requirements-peers.txt -e .
    MUJOCO_GL=egl ../peers/bin/python -m pytest benchmarks/perf/test_gym_aloha.py --benchmark-only

Read the minima, and only as ratios: the table gives them in brackets, up to 1000. A round is `STEPS` control steps of 20 ms after a reset,
with the same numbers for actions, drawn from [-1, 1], which both declare. What gym-aloha is told to observe makes no difference to what a
step of it costs: it always draws three cameras at 640 × 480.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from efm_envs.interop import gym_aloha

pytest.importorskip("gym_aloha", reason="needs an environment of its own, see this file's first lines")

STEPS = 20  # control steps a round
GROUP = f"{STEPS} random control steps of a bimanual insertion"
ID = "gym_aloha/AlohaInsertion-v0"


def measure(benchmark: Any, env: gym.Env[Any, Any], rounds: int) -> None:
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (STEPS, 14)).astype(np.float32)

    def reset() -> None:
        env.reset(seed=0)

    def steps() -> None:
        for action in actions:
            env.step(action)

    reset()
    env.step(actions[0])  # what is made at the first picture is no part of it
    benchmark.pedantic(steps, setup=reset, rounds=rounds)
    env.close()


@pytest.mark.benchmark(group=GROUP)
def test_ours_in_state_mode(benchmark: Any) -> None:
    measure(benchmark, gym.make("EFM-Insert-v0", disable_env_checker=True), rounds=200)


@pytest.mark.benchmark(group=GROUP)
def test_ours_with_one_picture(benchmark: Any) -> None:
    env = gym.make("EFM-Insert-v0", obs_mode="pixels", cameras=["top"], image_size=(224, 224), disable_env_checker=True)
    measure(benchmark, env, rounds=20)


@pytest.mark.benchmark(group=GROUP)
def test_ours_as_gym_aloha_shows_it(benchmark: Any) -> None:
    """Through its interface, with its picture of 640 × 480."""
    measure(benchmark, gym_aloha.make(ID, "pixels_agent_pos", disable_env_checker=True), rounds=10)


@pytest.mark.benchmark(group=GROUP)
def test_gym_aloha(benchmark: Any) -> None:
    measure(benchmark, gym.make(ID, obs_type="pixels_agent_pos", disable_env_checker=True), rounds=3)
