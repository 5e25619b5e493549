"""What a step of many envs costs, beside the bare `Batch.step` of the same motion and beside Gymnasium's own vector envs: `make bench`.

Read the minima, and only as ratios within one run. A round is about `ENV_STEPS` env steps.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.perf.conftest import Measure, random_actions

ENV_STEPS = 1280
ASYNC_SIZES = (2, 16)  # a process each
THREADS = (1, 2)


def steps_of(num_envs: int) -> int:
    return max(ENV_STEPS // num_envs, 10)


def run(envs: Any, actions: np.ndarray) -> Callable[[], None]:
    def steps() -> None:
        for action in actions:
            envs.step(action)

    return steps


@pytest.mark.parametrize("num_threads", THREADS)
@pytest.mark.parametrize("num_envs", [1, 16, 64, 256])
def test_bare_batch(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_envs: int, num_threads: int) -> None:
    """The baseline: the same motion, from commands that were recorded beforehand, and nothing else."""
    envs = make_vec(num_envs, num_threads=num_threads).unwrapped
    start, commands = envs.get_state(), []
    for action in random_actions(envs, steps_of(num_envs)):
        envs.step(action)
        commands.append(envs.physics.ctrl.copy())

    def restore() -> None:
        envs.set_state(start)

    def steps() -> None:
        for command in commands:
            envs.physics.ctrl[:] = command
            envs.batch.step(nstep=envs.task.substeps)

    facts = {"num_envs": num_envs, "num_threads": num_threads}
    measure("vector:bare", env_id, num_envs * len(commands), steps, setup=restore, **facts)


@pytest.mark.parametrize("reward_model", ["oracle", "none"])
@pytest.mark.parametrize("num_threads", THREADS)
@pytest.mark.parametrize("num_envs", [1, 16, 64, 256])
def test_batch(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_envs: int, num_threads: int, reward_model: str) -> None:
    envs = make_vec(num_envs, num_threads=num_threads, reward_model=reward_model).unwrapped
    start, actions = envs.get_state(), random_actions(envs, steps_of(num_envs))
    facts = {"num_envs": num_envs, "num_threads": num_threads, "setup": lambda: envs.set_state(start)}
    measure(f"vector:{reward_model}", env_id, num_envs * len(actions), run(envs, actions), **facts)


@pytest.mark.parametrize("num_envs", [1, 16, 64])
def test_sync_vector_env(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_envs: int) -> None:
    """What users have without it, in one process."""
    envs = make_vec(num_envs, vectorization_mode="sync")
    actions = random_actions(envs, steps_of(num_envs))
    measure("vector:sync", env_id, num_envs * len(actions), run(envs, actions), num_envs=num_envs)


@pytest.mark.parametrize("num_envs", ASYNC_SIZES)
def test_async_vector_env(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_envs: int) -> None:
    """What users have without it, in a process for each env."""
    envs = make_vec(num_envs, vectorization_mode="async", vector_kwargs={"context": "spawn"})
    actions = random_actions(envs, steps_of(num_envs))
    measure("vector:async", env_id, num_envs * len(actions), run(envs, actions), num_envs=num_envs)


@pytest.mark.parametrize("num_envs", [1, 64])
def test_reset(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_envs: int) -> None:
    """New episodes in all envs."""
    measure("reset:vector", env_id, num_envs, make_vec(num_envs).reset, num_envs=num_envs)


def test_partial_reset(measure: Measure, env_id: str, make_vec: Callable[..., Any]) -> None:
    """A new episode in one of 64 envs."""
    envs, mask = make_vec(64, autoreset_mode="Disabled"), np.arange(64) == 7
    measure("reset:one of 64", env_id, 1, lambda: envs.reset(options={"reset_mask": mask}), num_envs=64)


def test_make(measure: Measure, env_id: str) -> None:
    measure("make:vector", env_id, 1, lambda: gym.make_vec(env_id, num_envs=64).close(), num_envs=64)
