"""Stored episodes judged afterwards: bit for bit what the model would have said at the time."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.errors import EFMError, UnknownNameError
from efm_envs.rollout import rollout
from tests.conftest import REWARD_MODELS
from tests.efm_envs.fakes import POINT_MASS, Reader

TABLE = "EFM-LanguageTable4-v0"
HUMAN = functools.partial(efm_envs.make_expert, style="human")


def episodes(env_id: str, number: int = 2, **make_kwargs: Any) -> list[Episode]:
    options = {"reward_model": "none", "step_limit": 30, "terminate_on": "never", **make_kwargs}
    return sorted(rollout(HUMAN, env_id, range(number), num_envs=1, **options), key=lambda e: e.seed)


def assert_same(a: Episode, b: Episode) -> None:
    for name in ("rewards", "steps_to_go", "predicted_success", "is_success", "actions"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("relabelled_id", [POINT_MASS, TABLE, "EFM-InsertEE-v0"])
@pytest.mark.parametrize("name", REWARD_MODELS)
def test_what_a_model_says_afterwards_is_what_it_said_online(name: str, relabelled_id: str, tmp_path: Path) -> None:
    model = REWARD_MODELS[name](relabelled_id, tmp_path)
    online = episodes(relabelled_id, reward_model=model)
    for before, after in zip(online, efm_envs.relabel(episodes(relabelled_id), model), strict=True):
        assert_same(before, after)


@pytest.mark.parametrize("mode", ["pixels", "flat", "pixels_state"])
def test_it_is_so_in_every_mode(mode: str) -> None:
    for before, after in zip(
        episodes(POINT_MASS, reward_model=Reader(), obs_mode=mode),
        efm_envs.relabel(episodes(POINT_MASS, obs_mode=mode), Reader(), obs_mode=mode),
        strict=True,
    ):
        assert_same(before, after)


def test_pictures_that_were_not_stored_are_drawn_again() -> None:
    (episode,) = episodes(TABLE, 1)
    (pictured,) = episodes(TABLE, 1, obs_mode="pixels")
    name = next(name for name in pictured.observations if name.startswith("pixels/"))
    np.testing.assert_array_equal(efm_envs.replay(episode, [name])[name], pictured.observations[name])


def test_the_threshold_and_k_of_n_are_those_asked_for() -> None:
    (online,) = episodes(POINT_MASS, 1, reward_model="oracle", success_threshold=6.0, success_k_of_n=(2, 2))
    (after,) = efm_envs.relabel(episodes(POINT_MASS, 1), "oracle", success_threshold=6.0, success_k_of_n=(2, 2))
    assert_same(online, after)


def test_it_works_from_a_file(tmp_path: Path) -> None:
    save_episodes(tmp_path / "e.npz", episodes(TABLE))
    stored, _ = load_episodes(tmp_path / "e.npz")
    for before, after in zip(episodes(TABLE, reward_model="oracle"), efm_envs.relabel(stored, "oracle"), strict=True):
        assert_same(before, after)


def test_another_goal_has_its_own_truth_and_the_same_physics() -> None:
    env = gym.make(TABLE)
    (episode,) = episodes(TABLE, 1, terminate_on="true", step_limit=200)
    env.reset(seed=episode.seed)
    own = env.unwrapped.goals[0]
    env.reset(seed=5)
    other = env.unwrapped.goals[0]
    assert own.instruction != other.instruction
    seen = efm_envs.replay(episode, ["truth/is_success", "environment_state", "instruction"], goal=other)
    assert episode.is_success[-1] and not seen["truth/is_success"][-1]
    assert efm_envs.decode_instruction(seen["instruction"][0]) == other.instruction
    np.testing.assert_array_equal(seen["environment_state"], episode.observations["environment_state"])


def test_an_episode_that_was_made_otherwise_is_not_replayed() -> None:
    (episode,) = episodes(POINT_MASS, 1)
    other = dataclasses.replace(episode, actions=-episode.actions)
    with pytest.raises(EFMError, match="seed 0 of EFM-PointMass-v0 cannot be replayed: 'agent_pos' at step 30 of 30"):
        efm_envs.replay(other, ["truth/is_success"])
    with pytest.raises(EFMError, match=r"asks for 'Fly\.'"):
        list(efm_envs.relabel([dataclasses.replace(episode, instruction="Fly.")], "oracle"))


def test_what_no_env_has_cannot_be_replayed() -> None:
    (episode,) = episodes(POINT_MASS, 1)
    with pytest.raises(UnknownNameError, match="pixels/nowhere"):
        efm_envs.replay(episode, ["pixels/nowhere"])


def test_what_is_no_episode_is_named() -> None:
    with pytest.raises(EFMError, match=r"relabel\(\) takes episodes, as load_episodes"):
        list(efm_envs.relabel("episodes.npz", "oracle"))  # type: ignore[arg-type]
    with pytest.raises(EFMError, match=r"replay\(\) takes an Episode"):
        efm_envs.replay(["episode"], ["agent_pos"])  # type: ignore[arg-type]
