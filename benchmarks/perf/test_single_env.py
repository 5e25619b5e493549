"""What one env costs, beside the bare physics of the same motion: `make bench`.

Read the minima, and only as ratios within one run: machines differ, and shared ones are noisy.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_envs
from benchmarks.perf.conftest import Measure, random_actions
from efm_envs.env import EnvState
from efm_envs.registration import registration
from efm_envs.task import Array

STEPS = 100  # control steps a round
PUSHING_STEPS = 12  # of one expert's episode
ROUNDS = 30
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def expert_actions(env: Any) -> tuple[EnvState, Array]:
    """Returns the state from which, and the actions with which, the expert pushes: the last steps of its first long enough episode."""
    if "clean" not in env.unwrapped.task.experts:
        pytest.skip("has no expert")
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


def replay_bare(env: Any, start: EnvState, actions: Array) -> dict[str, Callable[[], None]]:
    """Returns what moves the bare physics as these actions do: the controls are recorded beforehand, nothing else is done."""
    unwrapped = env.unwrapped
    model, data, substeps = unwrapped.task.model, unwrapped.data, unwrapped.task.substeps
    unwrapped.set_state(start)
    controls = []
    for action in actions:
        env.step(action)
        controls.append(data.ctrl.copy())

    def steps() -> None:
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, substeps)

    return {"setup": lambda: mujoco.mj_setState(model, data, start.physics, STATE), "function": steps}


def replay(env: Any, start: EnvState, actions: Array) -> dict[str, Callable[[], None]]:
    """Returns what runs the actions through the env."""

    def steps() -> None:
        for action in actions:
            env.step(action)

    return {"setup": lambda: env.unwrapped.set_state(start), "function": steps}


def test_random_bare_physics(measure: Measure, env_id: str, make: Callable[..., Any]) -> None:
    """The baseline: `mj_step` with the same substeps along the same motion, and nothing else."""
    env = make()
    measure("single:bare", env_id, STEPS, **replay_bare(env, env.unwrapped.get_state(), random_actions(env, STEPS)), rounds=ROUNDS)


@pytest.mark.parametrize("reward_model", ["none", "oracle", "sparse"])
def test_random_steps(measure: Measure, env_id: str, make: Callable[..., Any], reward_model: str) -> None:
    env = make(reward_model=reward_model)
    start, actions = env.unwrapped.get_state(), random_actions(env, STEPS)
    measure(f"single:{reward_model}", env_id, STEPS, **replay(env, start, actions), rounds=ROUNDS)


def test_expert_bare_physics(measure: Measure, env_id: str, make: Callable[..., Any]) -> None:
    env = make()
    measure("single expert:bare", env_id, PUSHING_STEPS, **replay_bare(env, *expert_actions(env)), rounds=ROUNDS)


@pytest.mark.parametrize("reward_model", ["none", "oracle"])
def test_expert_steps(measure: Measure, env_id: str, make: Callable[..., Any], reward_model: str) -> None:
    env = make(reward_model=reward_model)
    measure(f"single expert:{reward_model}", env_id, PUSHING_STEPS, **replay(env, *expert_actions(env)), rounds=ROUNDS)


@pytest.mark.parametrize("style", ["clean", "human"])
def test_expert_act(measure: Measure, env_id: str, make: Callable[..., Any], style: str) -> None:
    env = make()
    if style not in env.unwrapped.task.experts:
        pytest.skip("has no such expert")
    measure(f"act:{style}", env_id, 1, efm_envs.make_expert(env, style).act, rounds=ROUNDS)


def test_reset(measure: Measure, env_id: str, make: Callable[..., Any]) -> None:
    measure("reset:single", env_id, 1, make().reset, rounds=ROUNDS)


def test_make(measure: Measure, env_id: str) -> None:
    assert registration(env_id)
    measure("make:single", env_id, 1, lambda: gym.make(env_id).close())
