"""A model may be shown where the goal is reached: a picture for each start, drawn once."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import RewardModelError
from efm_envs.rewards import RewardModel
from tests.efm_envs.fakes import POINT_MASS, Spy

GOAL, NOW = "goal/pixels/top", "pixels/top"


def test_the_picture_shows_the_end_of_the_clean_experts_episode() -> None:
    spy = Spy((GOAL, NOW))
    env = gym.make(POINT_MASS, reward_model=spy, terminate_on="true", image_size=(32, 32))
    expert = efm_envs.make_expert(env)
    env.reset(seed=1)
    while not env.step(expert.act())[2]:
        pass
    np.testing.assert_array_equal(spy.seen[0][GOAL], spy.seen[-1][NOW])
    np.testing.assert_array_equal(spy.seen[0][GOAL], spy.seen[-1][GOAL])
    env.close()


def test_it_is_drawn_once_an_episode() -> None:
    env = gym.make(POINT_MASS, reward_model=Spy((GOAL,)), image_size=(16, 16))
    for seed in range(2):
        env.reset(seed=seed)
        for _ in range(3):
            env.step(np.zeros(2))
    assert env.unwrapped.counts["renders"] == 2
    env.close()


def test_a_batch_shows_each_env_its_own() -> None:
    options: dict[str, Any] = {"image_size": (16, 16), "autoreset_mode": "Disabled"}
    spies = [Spy((GOAL,)), Spy((GOAL,))]
    envs = gym.make_vec(POINT_MASS, 2, reward_model=spies[0], **options)
    envs.reset(seed=4)
    envs.step(np.zeros((2, 2), np.float32))
    for row in range(2):
        single = gym.make(POINT_MASS, reward_model=spies[1], image_size=(16, 16))
        single.reset(seed=4 + row)
        np.testing.assert_array_equal(spies[0].seen[-1][GOAL][row], spies[1].seen[-1][GOAL][0])
        single.close()
    envs.close()


def test_a_task_without_an_expert_says_so() -> None:
    model: RewardModel = Spy(("goal/pixels/cam0",))
    with pytest.raises(RewardModelError, match="has no experts: a reward model that needs a goal picture cannot be used"):
        gym.make("EFM-DMC-BallInCupCatch-v0", reward_model=model)
