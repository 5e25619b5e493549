"""What one env costs, beside the bare physics of the same scene: `make bench`.

Read the minima, and only as ratios within one run: machines differ, and shared ones are noisy.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_envs

ACTIONS = 100  # control steps a round


@pytest.fixture(params=efm_envs.ids())
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def env(env_id: str) -> Iterator[Any]:
    made = gym.make(env_id, disable_env_checker=True, terminate_on="never", step_limit=10**9)
    made.reset(seed=0)
    yield made
    made.close()


@pytest.mark.benchmark(group="control step")
def test_bare_physics(benchmark: Any, env: Any) -> None:
    """The baseline: `mj_step` with the same substeps, and nothing else."""
    task, data = env.unwrapped.task, env.unwrapped.data

    def steps() -> None:
        for _ in range(ACTIONS):
            mujoco.mj_step(task.model, data, task.substeps)

    benchmark(steps)


@pytest.mark.benchmark(group="control step")
@pytest.mark.parametrize("reward_model", ["none", "oracle", "sparse"])
def test_step(benchmark: Any, env_id: str, reward_model: str) -> None:
    made = gym.make(env_id, disable_env_checker=True, terminate_on="never", step_limit=10**9, reward_model=reward_model)
    made.reset(seed=0)
    action = np.zeros(made.action_space.shape, np.float32)

    def steps() -> None:
        for _ in range(ACTIONS):
            made.step(action)

    benchmark(steps)
    made.close()


@pytest.mark.benchmark(group="control step with one 96×96 camera")
def test_step_with_pixels(benchmark: Any, env_id: str) -> None:
    made = gym.make(env_id, disable_env_checker=True, terminate_on="never", step_limit=10**9, obs_mode="pixels")
    made.reset(seed=0)
    benchmark(made.step, np.zeros(made.action_space.shape, np.float32))
    made.close()


@pytest.mark.benchmark(group="control step with one 96×96 camera")
def test_bare_renderer(benchmark: Any, env: Any) -> None:
    """The baseline: MuJoCo's own renderer, at the same size."""
    env.unwrapped._draw(env.unwrapped.task.cameras[0])  # makes the GL context
    renderer, data = env.unwrapped._observation_camera._renderer, env.unwrapped.data

    def render() -> None:
        renderer.update_scene(data, camera=env.unwrapped.task.cameras[0])
        renderer.render()

    benchmark(render)


@pytest.mark.benchmark(group="reset")
def test_reset(benchmark: Any, env: Any) -> None:
    benchmark(env.reset)


@pytest.mark.benchmark(group="make")
def test_make(benchmark: Any, env_id: str) -> None:
    benchmark(lambda: gym.make(env_id).close())
