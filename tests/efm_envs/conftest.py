"""Ids that live as long as one test."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest

from tests.efm_envs import fakes


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Registers an env class of `fakes`, or EFMEnv with a task class of `fakes`, and returns its id."""
    made: list[str] = []

    def make(env: type | None = None, task: type = fakes.PointMass, step_limit: int = 30) -> str:
        env_id = f"EFM-Test{len(made)}-v0"
        entry_point = f"{env.__module__}:{env.__name__}" if env else "efm_envs.env:EFMEnv"
        kwargs: dict[str, Any] = {"task": f"{task.__module__}:{task.__name__}", "step_limit": step_limit}
        gym.register(env_id, entry_point=entry_point, kwargs=kwargs)
        made.append(env_id)
        return env_id

    yield make
    for env_id in made:
        del gym.registry[env_id]
