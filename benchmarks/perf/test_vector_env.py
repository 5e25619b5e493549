"""What a step of many envs costs, beside the bare `Batch.step` of the same motion and beside Gymnasium's own vector env: `make bench`.

Read the minima, and only as ratios within one run. A round is `STEPS` steps of all envs.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

IDS = ("EFM-PointMass-v0", "EFM-LanguageTable-v0", "EFM-Insert-v0", "EFM-InsertEE-v0")
STEPS = 20
ENDLESS = {"terminate_on": "never", "step_limit": 10**9}


def random_actions(envs: Any) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (STEPS, *envs.action_space.shape)).astype(np.float32)


def batch(env_id: str, num_envs: int, num_threads: int, **kwargs: Any) -> Any:
    envs = gym.make_vec(env_id, num_envs=num_envs, num_threads=num_threads, **ENDLESS, **kwargs).unwrapped
    envs.reset(seed=0)
    return envs


def replay(envs: Any) -> Callable[[], None]:
    """Returns a function that runs random actions from the envs' first episodes."""
    start, actions = envs.get_state(), random_actions(envs)

    def steps() -> None:
        envs.set_state(start)
        for action in actions:
            envs.step(action)

    return steps


def replay_bare(envs: Any) -> Callable[[], None]:
    """Returns a function that moves the bare batch in the same way: commands are recorded beforehand, nothing else is done."""
    start, commands = envs.get_state(), []
    for action in random_actions(envs):
        envs.step(action)
        commands.append(envs.physics.ctrl.copy())

    def steps() -> None:
        envs.batch.state[:] = start.physics
        for command in commands:
            envs.physics.ctrl[:] = command
            envs.batch.step(nstep=envs.task.substeps)

    return steps


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("num_envs", [1, 16, 64])
@pytest.mark.parametrize("made_id", IDS)
@pytest.mark.benchmark(group="vector: random steps")
def test_bare_batch(benchmark: Any, made_id: str, num_envs: int, num_threads: int) -> None:
    """The baseline."""
    benchmark(replay_bare(batch(made_id, num_envs, num_threads)))


@pytest.mark.parametrize("reward_model", ["none", "oracle"])
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("num_envs", [1, 16, 64])
@pytest.mark.parametrize("made_id", IDS)
@pytest.mark.benchmark(group="vector: random steps")
def test_batch(benchmark: Any, made_id: str, num_envs: int, num_threads: int, reward_model: str) -> None:
    benchmark(replay(batch(made_id, num_envs, num_threads, reward_model=reward_model)))


@pytest.mark.parametrize("num_envs", [1, 16, 64])
@pytest.mark.parametrize("made_id", IDS)
@pytest.mark.benchmark(group="vector: random steps")
def test_sync_vector_env(benchmark: Any, made_id: str, num_envs: int) -> None:
    """What users have without it."""
    envs = gym.make_vec(made_id, num_envs=num_envs, vectorization_mode="sync", **ENDLESS)
    envs.reset(seed=0)
    actions = random_actions(envs)

    def steps() -> None:
        for action in actions:
            envs.step(action)

    benchmark(steps)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("made_id", ["EFM-LanguageTable-v0", "EFM-InsertEE-v0"])
@pytest.mark.benchmark(group="vector: 16 pictures of 128 × 128")
def test_pictures(benchmark: Any, made_id: str, num_threads: int) -> None:
    envs = batch(made_id, 16, num_threads, obs_mode="pixels", image_size=(128, 128))
    benchmark(envs._observation_cameras.render, [envs.task.cameras[0]] * 16)
    envs.close()
