"""Our envs in Gymnasium's vector envs: every autoreset mode, shared memory, and the usual wrappers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.efm_envs.fakes import POINT_MASS

NUM_ENVS, LIMIT = 3, 5
INFO_DTYPES = {"is_success": bool, "predicted_success": bool, "steps_to_go": np.float64, "instruction": object}


def make(vectorization: str, mode: AutoresetMode, context: str | None = None, **kwargs: Any) -> gym.vector.VectorEnv:
    options = {"shared_memory": True, "context": context} if vectorization == "async" else {}
    return gym.make_vec(
        kwargs.pop("env_id", POINT_MASS),
        num_envs=NUM_ENVS,
        vectorization_mode=vectorization,
        vector_kwargs={"autoreset_mode": mode, **options},
        step_limit=LIMIT,
        **kwargs,
    )


def actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, NUM_ENVS, 2)).astype(np.float32)


def episodes(envs: gym.vector.VectorEnv, mode: AutoresetMode, steps: int = 17) -> list[tuple[float, float, float]]:
    """Returns (d(o_0), Σ r, d(o_T)) of every whole episode."""
    _, info = envs.reset(seed=0)
    first, total = info["steps_to_go"].copy(), np.zeros(NUM_ENVS)
    starts_now = np.zeros(NUM_ENVS, bool)
    whole = []
    for action in actions(steps):
        _, reward, terminated, truncated, info = envs.step(action)
        ended = terminated | truncated
        if mode is AutoresetMode.NEXT_STEP:
            assert not reward[starts_now].any() and not ended[starts_now].any(), "the step that resets is worth nothing"
            first[starts_now] = info["steps_to_go"][starts_now]
            total[starts_now] = 0.0
        total += reward
        last = info["final_info"]["steps_to_go"] if mode is AutoresetMode.SAME_STEP and ended.any() else info["steps_to_go"]
        whole += [(first[i], total[i], last[i]) for i in np.flatnonzero(ended)]
        if mode is AutoresetMode.SAME_STEP:
            first[ended], total[ended] = info["steps_to_go"][ended], 0.0
        if mode is AutoresetMode.DISABLED and ended.any():
            _, info = envs.reset(options={"reset_mask": ended})
            first[ended], total[ended] = info["steps_to_go"][ended], 0.0
        starts_now = ended
    return whole


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_rewards_telescope_in_every_autoreset_mode(vectorization: str, mode: AutoresetMode) -> None:
    envs = make(vectorization, mode, terminate_on="never")
    whole = episodes(envs, mode)
    envs.close()
    assert len(whole) >= 2 * NUM_ENVS
    for first, total, last in whole:
        assert total == pytest.approx(first - last)


def test_synchronous_and_asynchronous_vector_envs_are_the_same() -> None:
    results = []
    for vectorization in ("sync", "async"):
        envs = make(vectorization, AutoresetMode.NEXT_STEP)
        log = [envs.reset(seed=0)]
        log += [envs.step(action) for action in actions(8)]
        envs.close()
        results.append([(r[0]["agent_pos"].tolist(), r[-1]["steps_to_go"].tolist(), r[0]["instruction"].tolist()) for r in log])
    assert results[0] == results[1]


def test_an_env_of_a_vector_is_the_env_alone() -> None:
    envs, alone = make("sync", AutoresetMode.SAME_STEP), gym.make(POINT_MASS, step_limit=LIMIT)
    observation, _ = envs.reset(seed=10)
    expected, _ = alone.reset(seed=12)
    np.testing.assert_array_equal(observation["agent_pos"][2], expected["agent_pos"])
    for action in actions(12):
        observation, reward, *_ = envs.step(action)
        expected, expected_reward, terminated, truncated, _ = alone.step(action[2])
        if terminated or truncated:
            expected, _ = alone.reset()
        np.testing.assert_array_equal(observation["agent_pos"][2], expected["agent_pos"])
        assert reward[2] == expected_reward


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_infos_keep_their_dtypes(mode: AutoresetMode) -> None:
    envs = make("sync", mode)
    _, info = envs.reset(seed=0)
    for action in actions(4):
        for name, dtype in INFO_DTYPES.items():
            assert info[name].dtype == dtype and info[name].shape == (NUM_ENVS,)
            assert info[f"_{name}"].all()
        *_, info = envs.step(action)


def test_observations_of_a_vector_are_in_its_space(env_id: str, obs_mode: str) -> None:
    envs = make("sync", AutoresetMode.NEXT_STEP, env_id=env_id, obs_mode=obs_mode, image_size=(16, 16))
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert envs.observation_space.contains(envs.step(envs.action_space.sample())[0])
    envs.close()


def test_pixels_come_through_shared_memory() -> None:
    pictures = []
    for vectorization in ("sync", "async"):
        # "spawn": a process that has drawn must not be forked (true of every GL library)
        envs = make(vectorization, AutoresetMode.NEXT_STEP, context="spawn", obs_mode="pixels", image_size=(16, 16))
        envs.reset(seed=0)
        pictures.append(envs.step(actions(1)[0])[0]["pixels/top"])
        envs.close()
    np.testing.assert_array_equal(*pictures)


def test_observations_can_be_flattened() -> None:
    envs = make("sync", AutoresetMode.NEXT_STEP, wrappers=[FlattenObservation])
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (NUM_ENVS, 4 + 2 + 128) and envs.observation_space.contains(observation)


def test_episode_statistics_are_those_of_the_signal() -> None:
    envs = RecordEpisodeStatistics(make("sync", AutoresetMode.SAME_STEP, terminate_on="never"))
    _, info = envs.reset(seed=0)
    first = info["steps_to_go"]
    for action in actions(LIMIT):
        *_, truncated, info = envs.step(action)
    assert truncated.all()
    np.testing.assert_allclose(info["episode"]["r"], first - info["final_info"]["steps_to_go"])
    assert info["episode"]["l"].tolist() == [LIMIT] * NUM_ENVS
