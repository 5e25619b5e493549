"""What the measurements share: the ids, envs whose episodes do not end, and what a measurement says of itself.

`benchmarks/speed.py` runs these and keeps what `extra_info` says: `what` was measured, of which `id`, and how many env steps
(or resets, pictures, …) a round has.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs

ENDLESS = {"terminate_on": "never", "step_limit": 10**9}
Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ids", nargs="+", default=[], choices=efm_envs.ids(), help="measure these ids; without it, all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "env_id" in metafunc.fixturenames:
        metafunc.parametrize("env_id", metafunc.config.getoption("--ids") or efm_envs.ids())


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Measures a function of a number of things: `measure("reset", env_id, 1, env.reset)`."""

    def call(
        what: str,
        env_id: str,
        items: int,
        function: Callable[[], Any],
        *,
        setup: Callable[[], Any] | None = None,
        rounds: int = 15,
        **facts: Any,
    ) -> None:
        def prepare() -> None:  # what a setup returns, pytest-benchmark would pass on
            if setup is not None:
                setup()

        benchmark.group = f"{env_id} {what.split(':')[0]}"
        benchmark.extra_info.update(what=what, id=env_id, items=items, **facts)
        benchmark.pedantic(function, setup=prepare, rounds=rounds, warmup_rounds=1)

    return call


@pytest.fixture
def make(env_id: str) -> Iterator[Callable[..., Any]]:
    """Makes single envs whose episodes do not end, reset to the first one."""
    made = []

    def call(**kwargs: Any) -> Any:
        env = gym.make(env_id, disable_env_checker=True, **ENDLESS, **kwargs)
        env.reset(seed=0)
        made.append(env)
        return env

    yield call
    for env in made:
        env.close()


@pytest.fixture
def make_vec(env_id: str) -> Iterator[Callable[..., Any]]:
    """Makes vector envs whose episodes do not end, reset to the first ones; `num_threads` only for ours."""
    made = []

    def call(num_envs: int, **kwargs: Any) -> Any:
        envs = gym.make_vec(env_id, num_envs=num_envs, **ENDLESS, **kwargs)
        envs.reset(seed=0)
        made.append(envs)
        return envs

    yield call
    for envs in made:
        envs.close()


def random_actions(env: Any, steps: int) -> np.ndarray:
    """Returns (steps, …) actions, uniform in the action space, float32."""
    return np.random.default_rng(0).uniform(-1.0, 1.0, (steps, *env.action_space.shape)).astype(np.float32)
