"""What one env costs, beside the bare physics of the same motion: `make bench`.

Read the minima, and only as ratios within one run: machines differ, and shared ones are noisy. A round is `STEPS` control steps.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_envs
from efm_envs.env import EnvState
from efm_envs.task import Array

STEPS = 100  # control steps a round
PUSHING_STEPS = 12  # of one expert's episode
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@pytest.fixture(params=efm_envs.ids())
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(env_id: str) -> Iterator[Callable[..., Any]]:
    """Makes the env without an end to its episodes, reset to its first one."""
    made = []

    def call(**kwargs: Any) -> Any:
        env = gym.make(env_id, disable_env_checker=True, terminate_on="never", step_limit=10**9, **kwargs)
        env.reset(seed=0)
        made.append(env)
        return env

    yield call
    for env in made:
        env.close()


def random_actions(env: Any) -> Array:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (STEPS, *env.action_space.shape)).astype(np.float32)


def expert_actions(env: Any) -> tuple[EnvState, Array]:
    """Returns the state from which, and the actions with which, the expert pushes: the last steps of its first long enough episode."""
    expert = efm_envs.make_expert(env)
    for seed in range(100):
        _, info = env.reset(seed=seed)
        states, actions = [], []
        while not info["is_success"]:
            states.append(env.unwrapped.get_state())
            actions.append(expert.act())
            *_, info = env.step(actions[-1])
        if len(actions) >= PUSHING_STEPS:
            return states[-PUSHING_STEPS], np.array(actions[-PUSHING_STEPS:])
    raise AssertionError("no episode is that long")


def replay_bare(env: Any, start: EnvState, actions: Array) -> Callable[[], None]:
    """Returns a function that moves the bare physics as these actions do: the controls are recorded beforehand, nothing else is done."""
    unwrapped = env.unwrapped
    model, data, substeps = unwrapped.task.model, unwrapped.data, unwrapped.task.substeps
    unwrapped.set_state(start)
    controls = []
    for action in actions:
        env.step(action)
        controls.append(data.ctrl.copy())

    def steps() -> None:
        mujoco.mj_setState(model, data, start.physics, STATE)
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, substeps)

    return steps


def replay(env: Any, start: EnvState, actions: Array) -> Callable[[], None]:
    """Returns a function that runs the actions through the env."""

    def steps() -> None:
        env.unwrapped.set_state(start)
        for action in actions:
            env.step(action)

    return steps


@pytest.mark.benchmark(group=f"{STEPS} random control steps")
def test_random_bare_physics(benchmark: Any, make: Callable[..., Any]) -> None:
    """The baseline: `mj_step` with the same substeps along the same motion, and nothing else."""
    env = make()
    benchmark(replay_bare(env, env.unwrapped.get_state(), random_actions(env)))


@pytest.mark.benchmark(group=f"{STEPS} random control steps")
@pytest.mark.parametrize("reward_model", ["none", "oracle", "sparse"])
def test_random_steps(benchmark: Any, make: Callable[..., Any], reward_model: str) -> None:
    env = make(reward_model=reward_model)
    benchmark(replay(env, env.unwrapped.get_state(), random_actions(env)))


@pytest.mark.benchmark(group=f"{PUSHING_STEPS} control steps of the clean expert")
def test_expert_bare_physics(benchmark: Any, make: Callable[..., Any]) -> None:
    env = make()
    benchmark(replay_bare(env, *expert_actions(env)))


@pytest.mark.benchmark(group=f"{PUSHING_STEPS} control steps of the clean expert")
@pytest.mark.parametrize("reward_model", ["none", "oracle"])
def test_expert_steps(benchmark: Any, make: Callable[..., Any], reward_model: str) -> None:
    env = make(reward_model=reward_model)
    benchmark(replay(env, *expert_actions(env)))


@pytest.mark.benchmark(group="one act() of an expert")
@pytest.mark.parametrize("style", ["clean", "human"])
def test_expert_act(benchmark: Any, make: Callable[..., Any], style: str) -> None:
    benchmark(efm_envs.make_expert(make(), style).act)


@pytest.mark.benchmark(group="one control step with one picture of the default size")
def test_step_with_pixels(benchmark: Any, make: Callable[..., Any]) -> None:
    env = make(obs_mode="pixels")
    benchmark(env.step, np.zeros(env.action_space.shape, np.float32))


@pytest.mark.benchmark(group="one control step with one picture of the default size")
def test_bare_renderer(benchmark: Any, make: Callable[..., Any]) -> None:
    """The baseline: MuJoCo's own renderer, at the same size."""
    env = make(obs_mode="pixels").unwrapped
    renderer, data, camera = env._observation_camera._renderer, env._scene.data, env.task.cameras[0]

    def render() -> None:
        renderer.update_scene(data, camera=camera)
        renderer.render()

    benchmark(render)


@pytest.mark.benchmark(group="reset")
def test_reset(benchmark: Any, make: Callable[..., Any]) -> None:
    benchmark(make().reset)


@pytest.mark.benchmark(group="make")
def test_make(benchmark: Any, env_id: str) -> None:
    benchmark(lambda: gym.make(env_id).close())
