"""The conformance kit notices: each check fails for something that breaks the law it names."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from efm_envs import testing
from efm_envs.rewards import FunctionRewardModel, StepsToGo
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS

Register = Callable[..., str]


def test_kit_notices_an_observation_outside_its_space(register: Register) -> None:
    with pytest.raises(AssertionError, match="not within the observation space"):
        testing.check_gymnasium(register(task=fakes.OutOfSpaceTask))


def test_kit_notices_a_task_that_uses_the_global_generator(register: Register) -> None:
    np.random.seed(123)
    with pytest.raises(AssertionError, match="same seed and actions gave another episode"):
        testing.check_determinism(register(task=fakes.GlobalRandomTask))


def test_kit_notices_a_reset_that_ignores_its_seed(register: Register) -> None:
    with pytest.raises(AssertionError, match="another seed gave the same episode"):
        testing.check_determinism(register(fakes.SeedDeafEnv))


def test_kit_notices_a_start_that_depends_on_the_last_episode(register: Register) -> None:
    with pytest.raises(AssertionError, match="second episode after a seed depends on what was done in the first"):
        testing.check_scenarios_are_addressed_by_index(register(fakes.StickyEnv))


def test_kit_notices_memory_that_no_state_holds(register: Register) -> None:
    with pytest.raises(AssertionError, match="restored state went on otherwise"):
        testing.check_state(register(task=fakes.HiddenMemoryTask))


@pytest.mark.parametrize("env", [fakes.TalkativeEnv, fakes.WholeNumberEnv])
def test_kit_notices_info_of_other_keys_or_types(env: type, register: Register) -> None:
    with pytest.raises(AssertionError, match=r"info has .* expected"):
        testing.check_info(register(env))


def test_kit_notices_a_time_limit_that_terminates(register: Register) -> None:
    with pytest.raises(AssertionError, match=r"a limit of 30 steps gave .*\(True, False\)"):
        testing.check_time_limit(register(fakes.TerminatedAtTheLimitEnv))


def test_kit_notices_an_array_that_two_steps_share(register: Register) -> None:
    with pytest.raises(AssertionError, match="two steps share an array"):
        testing.check_arrays_are_not_shared(register(fakes.ReusedBufferEnv))


def test_kit_notices_an_observation_that_is_the_envs_own_array(register: Register) -> None:
    with pytest.raises(AssertionError, match="writing to a returned observation changed the env"):
        testing.check_arrays_are_not_shared(register(fakes.LiveGoalEnv))


def test_kit_notices_an_env_that_its_spec_does_not_describe(register: Register) -> None:
    with pytest.raises(AssertionError, match="made from its spec's JSON is another env"):
        testing.check_spec_round_trip(register(task=fakes.NumberedTask))


def test_an_estimate_below_one_before_success_counts_as_one(register: Register) -> None:
    env_id = register(task=fakes.HalfAStepTask)
    testing.check_steps_to_go_estimate(env_id)
    _, info = gym.make(env_id, reward_model="oracle").reset(seed=0)
    assert (info["is_success"], info["steps_to_go"]) == (False, 1.0)


def test_kit_notices_an_expert_that_does_not_succeed(register: Register) -> None:
    with pytest.raises(AssertionError, match="clean expert never succeeded"):
        testing.check_steps_to_go_estimate(register(task=fakes.IdleExpertTask))


def test_kit_notices_a_reward_that_no_model_gave(register: Register) -> None:
    with pytest.raises(AssertionError, match="Σ r = "):
        testing.check_rewards_telescope("oracle", register(fakes.BonusEnv))


def test_kit_notices_a_model_that_counts_its_calls() -> None:
    with pytest.raises(AssertionError, match="same seed and actions gave another episode"):
        testing.check_reward_model(fakes.Counter(), POINT_MASS)


def test_kit_notices_a_model_that_counts_its_calls_since_it_was_made(registered_counter: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="restored state went on otherwise"):
        testing.check_reward_model(registered_counter, POINT_MASS)


def test_kit_notices_a_model_that_writes_into_observations() -> None:
    with pytest.raises(AssertionError, match="observations or is_success depend on the reward model"):
        testing.check_success_does_not_depend_on_the_reward_model(fakes.Vandal(), POINT_MASS)


def test_kit_notices_a_fingerprint_that_is_not_the_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    _register_here(monkeypatch, "nameless", fakes.Nameless)
    with pytest.raises(AssertionError, match="same spec gave two fingerprints"):
        testing.check_reward_model("nameless", POINT_MASS)


@pytest.mark.parametrize(
    ("edges", "probs", "message"),
    [
        ([0.0, 2.0, 1.0], [0.5, 0.5], "edges of a distribution of steps ascend"),
        ([-1.0, 2.0, 3.0], [0.5, 0.5], "edges of a distribution of steps ascend"),
        ([0.0, 2.0, 9.0], [0.5, 0.6], "probabilities add up to 1"),
        ([0.0, 2.0, 4.0], [0.5, 0.5], "d = 5.0 lies outside of its distribution"),
    ],
)
def test_kit_notices_a_distribution_that_is_none(edges: list[float], probs: list[float], message: str) -> None:
    said = StepsToGo(np.array([5.0]), np.array(edges), np.array([probs]))
    with pytest.raises(AssertionError, match=message):
        testing.check_reward_model(FunctionRewardModel(lambda observations: said), POINT_MASS)


def test_kit_accepts_a_function_of_the_observations() -> None:
    testing.check_reward_model(FunctionRewardModel(fakes.first_value, needs=("environment_state",)), POINT_MASS)


@pytest.fixture
def registered_counter(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    _register_here(monkeypatch, "counter", fakes.Counter)
    return {"id": "counter"}


def _register_here(monkeypatch: pytest.MonkeyPatch, name: str, factory: Any) -> None:
    from efm_envs.rewards import registry

    monkeypatch.setattr(registry, "_registered", {**registry._registered, name: factory})
