"""Hitting times: what really was left, against what is known in closed form and against rollouts one by one."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import EFMError, InvalidStateError
from efm_envs.rewards import hitting_time
from tests.efm_envs.fakes import POINT_MASS

DIRECT = functools.partial(efm_envs.make_expert, style="clean")
HUMAN = functools.partial(efm_envs.make_expert, style="human")


def states_along(env_id: str, steps: tuple[int, ...], seed: int, **make_kwargs: Any) -> tuple[Any, list[Any], list[float]]:
    """Returns an env, its states after so many steps of its clean expert, and the task's own estimate there."""
    env = gym.make(env_id, terminate_on="never", **make_kwargs)
    expert = efm_envs.make_expert(env)
    _, info = env.reset(seed=seed)
    states, left = [], []
    for t in range(max(steps) + 1):
        if t in steps:
            states.append(env.unwrapped.get_state())
            left.append(info["steps_to_go"])
        info = env.step(expert.act())[4]
    return env, states, left


@pytest.mark.parametrize("seed", range(5))
def test_that_of_point_masss_straight_controller_is_its_closed_form(seed: int) -> None:
    env, states, closed_form = states_along(POINT_MASS, (0, 2, 5), seed)
    found = hitting_time(env, DIRECT, states, n=1)
    assert [times.mean for times in found] == closed_form


def test_many_rollouts_are_what_single_envs_would_do() -> None:
    env, (state,), _ = states_along("EFM-LanguageTable4-v0", (3,), 0)
    times = hitting_time(env, functools.partial(efm_envs.make_expert, style="human", seed=1), state, n=3)
    single = gym.make("EFM-LanguageTable4-v0", terminate_on="true")
    single.reset(seed=0)
    expert = efm_envs.make_expert(single, "human", seed=1)
    for number, expected in enumerate(times.steps):
        single.unwrapped.set_state(state)
        single.unwrapped.episode_key = (state.episode_key[0], number)
        steps = 1
        while not single.step(expert.act())[2]:
            steps += 1
        assert steps == expected


def test_a_policy_with_chance_gives_a_distribution_and_one_without_a_number() -> None:
    env, (state,), _ = states_along(POINT_MASS, (0,), 1)
    assert np.ptp(hitting_time(env, HUMAN, state, n=20).steps) > 0
    assert np.ptp(hitting_time(env, DIRECT, state, n=20).steps) == 0


def test_more_rollouts_than_envs_give_each_its_own() -> None:
    env, states, _ = states_along(POINT_MASS, (0, 4), 1)
    envs = gym.make_vec(POINT_MASS, 3, autoreset_mode="Disabled", terminate_on="true", reward_model="none")
    few = hitting_time(envs, HUMAN, states, n=4)
    many = hitting_time(env, HUMAN, states, n=4)
    assert [list(times.steps) for times in few] == [list(times.steps) for times in many]
    envs.close()


def test_what_does_not_arrive_is_infinite_and_counts_with_the_limit() -> None:
    class Still:
        def act(self, observations: Any) -> np.ndarray:
            return np.zeros((len(observations["agent_pos"]), 2), np.float32)

    env, (state,), _ = states_along(POINT_MASS, (0,), 0)
    times = hitting_time(env, Still(), state, n=2, limit=9)
    assert np.isinf(times.steps).all() and (times.reached, times.mean, times.limit) == (0.0, 9.0, 9)


def test_where_the_goal_is_reached_nothing_is_left() -> None:
    env = gym.make(POINT_MASS)
    env.reset(seed=0)
    env.unwrapped.data.qpos[:] = env.unwrapped.goals.states[0]
    assert hitting_time(env, HUMAN, n=2).steps.tolist() == [0.0, 0.0]


def test_nonsense_is_refused() -> None:
    env, (state,), _ = states_along(POINT_MASS, (0,), 0)
    with pytest.raises(EFMError, match="at least 1; got 0"):
        hitting_time(env, DIRECT, state, n=0)
    other = gym.make("EFM-LanguageTable4-v0")
    other.reset(seed=0)
    with pytest.raises(InvalidStateError, match="states of task"):
        hitting_time(other, DIRECT, state, n=1)


def test_what_cannot_be_rolled_out_is_refused() -> None:
    env, (state,), _ = states_along(POINT_MASS, (0,), 0)
    with pytest.raises(EFMError, match="needs an env of this project"):
        hitting_time(gym.make("CartPole-v1"), DIRECT)
    for policy in (None, lambda envs: np.zeros(2)):
        with pytest.raises(EFMError, match=r"a policy has act\(observations\)"):
            hitting_time(env, policy, state, n=1)
    envs = gym.make_vec(POINT_MASS, 2)
    with pytest.raises(EFMError, match='autoreset_mode="Disabled" and terminate_on="true"'):
        hitting_time(envs, DIRECT, state, n=1)
    envs.close()
