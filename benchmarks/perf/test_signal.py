"""What the reward signal itself costs: checks, difference and threshold, around a model that costs nothing. `make bench`."""

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.perf.conftest import Measure
from efm_envs.rewards.base import RewardModel, StepsToGo
from efm_envs.rewards.signal import RewardSignal
from efm_envs.task import Array, Goal, Goals

CALLS = 100


class Ready(RewardModel):
    """Says what it has said before."""

    def __init__(self, num_envs: int, history: int = 0) -> None:
        self.history = {"x": history} if history else {}
        self._answer = StepsToGo(np.linspace(1.0, 50.0, num_envs))

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        return self._answer


@pytest.mark.parametrize("num_envs", [1, 16, 64, 256])
@pytest.mark.parametrize("asked", ["plain", "debounced, with history"])
def test_signal(measure: Measure, num_envs: int, asked: str) -> None:
    plain = asked == "plain"
    model = Ready(num_envs, history=0 if plain else 4)
    signal = RewardSignal(model, num_envs, success_k_of_n=(1, 1) if plain else (2, 3))
    goals, seen = Goals([Goal("go")] * num_envs), {"x": np.zeros((num_envs, 16), np.float32)}
    signal.reset(seen, goals)
    starting = np.zeros(num_envs, bool) if num_envs > 1 else None

    def steps() -> None:
        for _ in range(CALLS):
            signal.step(seen, goals, starting)

    name = "signal" if plain else f"signal, {asked}"
    measure(name, "all", CALLS * num_envs, steps, rounds=30, num_envs=num_envs)
