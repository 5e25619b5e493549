"""Every id keeps every law, in every observation mode and under every reward model."""

import warnings
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import efm_envs
from efm_envs import testing
from tests.conftest import REFUSED, REWARD_MODELS


def test_every_env_keeps_every_law(env_id: str, obs_mode: str) -> None:
    testing.check_task(env_id, obs_mode=obs_mode)


def test_every_registered_reward_model_is_among_those_that_are_checked() -> None:
    assert set(efm_envs.reward_models()) <= {*REWARD_MODELS, *REFUSED}


def test_every_reward_model_keeps_every_law(env_id: str, reward_model: Any) -> None:
    testing.check_reward_model(reward_model, env_id, image_size=(32, 32))


def test_reward_models_keep_the_laws_in_every_obs_mode(env_id: str, obs_mode: str) -> None:
    testing.check_rewards_telescope("oracle", env_id, obs_mode=obs_mode)
    testing.check_success_does_not_depend_on_the_reward_model("oracle", env_id, obs_mode=obs_mode)


@pytest.mark.parametrize("terminate_on", ["predicted", "true", "never"])
def test_every_env_keeps_every_law_however_episodes_end(env_id: str, terminate_on: str) -> None:
    testing.check_task(env_id, terminate_on=terminate_on)


def test_gymnasiums_checker_has_nothing_to_say(env_id: str, obs_mode: str) -> None:
    env = gym.make(env_id, obs_mode=obs_mode, render_mode="rgb_array", render_size=(64, 64)).unwrapped
    env.metadata = {**env.metadata, "render_modes": ["rgb_array"]}  # "human" opens a window: see test_window.py
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    env.close()


def test_stable_baselines_checker_has_nothing_to_say(env_id: str, obs_mode: str) -> None:
    env_checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gym.make(env_id, obs_mode=obs_mode, render_mode="rgb_array").unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env_checker.check_env(env)
    env.close()
