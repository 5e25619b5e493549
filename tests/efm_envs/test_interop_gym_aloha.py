"""Our envs under gym-aloha's names and units."""

import inspect
import os
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import efm_envs
from efm_envs.errors import EFMError, InvalidActionError, UnknownNameError, UnknownOptionError
from efm_envs.interop import gym_aloha
from efm_envs.interop.gym_aloha import GymAlohaInterface, agent_positions, aloha_actions, env_actions, make
from efm_envs.tasks.aloha import station
from tests.scripts import load_script

NAMES = list(gym_aloha.IDS)
SMALL = {"observation_width": 32, "observation_height": 24}

# What gym-aloha 0.1.3 and 0.1.5 declare (env.py, AlohaEnv.__init__), for both ids.
ACTION_SPACE = spaces.Box(low=-1, high=1, shape=(14,), dtype=np.float32)
PICTURES = spaces.Dict({"top": spaces.Box(low=0, high=255, shape=(480, 640, 3), dtype=np.uint8)})
AGENT_POS = spaces.Box(low=-1000.0, high=1000.0, shape=(14,), dtype=np.float64)
OBSERVATION_SPACES = {"pixels": PICTURES, "pixels_agent_pos": spaces.Dict({"pixels": PICTURES, "agent_pos": AGENT_POS})}

# Targets in [rad] and of grippers, within every range and all different.
SOMEWHERE = np.array([0.1, -1.2, 1.5, -2.5, -0.4, 2.8, 0.25, -0.2, -0.5, 0.7, 3.0, 1.9, -3.0, 0.75])


def made(name: str = NAMES[0], obs_type: Any = "state", **kwargs: Any) -> GymAlohaInterface:
    return make(name, obs_type, **kwargs)


# -- as gym-aloha has it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("obs_type", OBSERVATION_SPACES)
def test_spaces_are_gym_alohas(name: str, obs_type: str) -> None:
    env = made(name, obs_type)
    assert env.action_space == ACTION_SPACE and env.observation_space == OBSERVATION_SPACES[obs_type]
    assert env.metadata["render_fps"] == 50 and "rgb_array" in env.metadata["render_modes"] and env.render_mode == "rgb_array"
    assert env.unwrapped.step_limit == 300


@pytest.mark.parametrize("obs_type", OBSERVATION_SPACES)
def test_observations_are_of_those_spaces(obs_type: str) -> None:
    env = made(obs_type=obs_type)
    for observation in (env.reset(seed=0)[0], env.step(SOMEWHERE)[0]):
        assert observation in OBSERVATION_SPACES[obs_type]
    env.close()


def test_pictures_have_the_size_asked_for() -> None:
    env = made(obs_type="pixels", **SMALL, visualization_width=40, visualization_height=30)
    observation, _ = env.reset(seed=0)
    assert observation["top"].shape == env.observation_space["top"].shape == (24, 32, 3)
    assert env.render().shape == (30, 40, 3)
    env.close()


def test_one_picture_is_drawn_a_step_and_none_in_state_mode() -> None:
    for obs_type, pictures in {"pixels": 1, "pixels_agent_pos": 1, "state": 0}.items():
        env = made(obs_type=obs_type, **SMALL)
        env.reset(seed=0)
        env.step(SOMEWHERE)
        assert env.unwrapped.counts["renders"] == 2 * pictures
        env.close()


def test_more_cameras_can_be_asked_for() -> None:
    env = made(obs_type="pixels_agent_pos", cameras=["left/wrist", "top"], **SMALL)
    observation, _ = env.reset(seed=0)
    assert list(observation["pixels"]) == ["left/wrist", "top"] and observation in env.observation_space
    env.close()


def test_at_home_agent_pos_is_the_joints_in_radians_with_open_grippers() -> None:
    observation, info = made().reset(seed=0)
    home = station.home_ctrl()
    np.testing.assert_allclose(observation["agent_pos"], [*home[:6], 1.0, *home[8:14], 1.0], atol=1e-6)
    assert observation["agent_pos"].dtype == np.float64 and not info["is_success"]


def test_the_state_mode_has_the_envs_own_objects() -> None:
    for name, env_id in gym_aloha.IDS.items():
        observation, _ = made(name).reset(seed=3)
        ours, _ = gym.make(env_id).reset(seed=3)
        np.testing.assert_array_equal(observation["environment_state"], ours["environment_state"])


# -- actions -----------------------------------------------------------------------------------------------------------------------


def test_an_action_commands_joint_targets_in_radians() -> None:
    env = made()
    env.reset(seed=0)
    env.step(SOMEWHERE)
    ctrl = env.unwrapped.data.ctrl.reshape(2, 8)
    np.testing.assert_allclose(ctrl[:, :6], SOMEWHERE.reshape(2, 7)[:, :6], atol=1e-12)
    opening = station.CLOSED_M + SOMEWHERE[[6, 13]] * (station.OPEN_M - station.CLOSED_M)
    np.testing.assert_allclose(ctrl[:, 6:], np.repeat(opening, 2).reshape(2, 2), atol=1e-12)


@pytest.mark.parametrize(
    ("gripper", "opening"), [(0.0, station.CLOSED_M), (1.0, station.OPEN_M), (-0.5, station.CLOSED_M), (2.0, station.OPEN_M)]
)
def test_a_gripper_is_closed_at_0_and_open_at_1_and_no_further(gripper: float, opening: float) -> None:
    env = made()
    env.reset(seed=0)
    env.step(np.where(np.arange(14) % 7 == 6, gripper, SOMEWHERE))
    np.testing.assert_allclose(env.unwrapped.data.ctrl[[6, 7, 14, 15]], opening, atol=1e-12)


def test_targets_stop_at_the_joints_limits() -> None:
    env = made()
    env.reset(seed=0)
    env.step(np.full(14, 100.0))
    np.testing.assert_allclose(env.unwrapped.data.ctrl, station.CTRL_HIGH, atol=1e-12)


def test_actions_come_back_from_ours_in_batches_too() -> None:
    actions = SOMEWHERE * np.linspace(0.0, 1.0, 5)[:, None]
    np.testing.assert_allclose(aloha_actions(env_actions(actions)), actions, atol=1e-12)
    np.testing.assert_allclose(agent_positions(station.ctrl_of_joint_actions(env_actions(actions))), actions, atol=1e-12)


def test_who_commands_where_the_arms_are_stays_there() -> None:
    env = made(NAMES[1])
    first, _ = env.reset(seed=0)
    for _ in range(50):
        last, *_ = env.step(first["agent_pos"])
    np.testing.assert_allclose(last["agent_pos"], first["agent_pos"], atol=1e-3)


# -- episodes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_ends_an_episode_with_the_last_reward(name: str) -> None:
    env = made(name)
    expert = efm_envs.make_expert(env)
    env.reset(seed=0)
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(aloha_actions(expert.act()))
        assert isinstance(reward, float) and reward == info["stage"]
        rewards.append(reward)
    assert terminated and not truncated and info["is_success"] and info["steps_to_go"] == 0.0
    assert rewards[0] == 0.0 and 2.0 in rewards and rewards.index(4.0) == len(rewards) - 1


def test_the_envs_own_reward_is_to_be_had() -> None:
    env = made(reward="steps_to_go")
    _, before = env.reset(seed=0)
    action = aloha_actions(efm_envs.make_expert(env).act())
    _, reward, _, _, after = env.step(action)
    assert reward == pytest.approx(before["steps_to_go"] - after["steps_to_go"]) and reward != 0.0


def test_an_episode_is_truncated_at_its_limit() -> None:
    env = made(max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(SOMEWHERE)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_our_options_are_passed_on() -> None:
    env = made(clearance_m=0.004, terminate_on="never", reward_model="none")
    assert env.unwrapped.task.clearance_m == 0.004 and env.unwrapped.terminate_on == "never"
    env.reset(seed=1, options={"peg": (0.15, 0.45), "socket": (-0.12, 0.55)})
    with pytest.raises(UnknownOptionError, match="clearance"):
        made(clearance=0.004)


@pytest.mark.parametrize("obs_type", gym_aloha.OBS_MODES)
def test_gymnasiums_checker_accepts_it(obs_type: str) -> None:
    env = made(obs_type=obs_type, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env, skip_render_check=True)


def test_it_is_made_again_from_its_spec_and_in_a_vector_env() -> None:
    again = gym.make(made(obs_type="pixels_agent_pos").spec)
    assert isinstance(again, GymAlohaInterface) and again.observation_space == OBSERVATION_SPACES["pixels_agent_pos"]
    envs = gym.vector.SyncVectorEnv([made, made])
    observations, _ = envs.reset(seed=0)
    assert observations["agent_pos"].shape == (2, 14)
    envs.step(np.stack([SOMEWHERE] * 2).astype(np.float32))
    envs.close()


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("examples/gym_aloha_script.py").main(**SMALL) == [False, True]
    assert "expert: highest reward 4 of 4, success True" in capsys.readouterr().out


# -- errors ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(13), r"shape \(14,\); got \(13,\)"),
        (np.zeros((1, 14)), r"shape \(14,\); got \(1, 14\)"),
        (np.where(np.arange(14) == 3, np.nan, SOMEWHERE), "element 3 is nan"),
        (np.where(np.arange(14) == 5, np.inf, SOMEWHERE), "element 5 is inf"),
        ("left", r"an action is \(14,\) numbers; got 'left'"),
    ],
)
def test_a_bad_action_is_refused_and_changes_nothing(action: Any, message: str) -> None:
    env = made()
    env.reset(seed=0)
    before = env.unwrapped.get_state().physics
    with pytest.raises(InvalidActionError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.unwrapped.get_state().physics, before)


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'gym_aloha/AlohaInsert-v0'\. Did you mean 'gym_aloha/AlohaInsertion-v0'\?.*TransferCube-v0'"
    ):
        made("gym_aloha/AlohaInsert-v0")
    with pytest.raises(UnknownNameError, match=r"unknown obs_type: 'images'\..*'pixels', 'pixels_agent_pos', 'state'"):
        made(obs_type="images")
    with pytest.raises(UnknownNameError, match=r"unknown reward: 'dense'\..*'stage', 'steps_to_go'"):
        made(reward="dense")


@pytest.mark.parametrize("other", ["EFM-InsertEE-v0", "EFM-PointMass-v0", "CartPole-v1"])
def test_other_envs_are_refused(other: str) -> None:
    with pytest.raises(EFMError, match=rf"joint targets move; got .*{other}.*Make one: gym.make.*EFM-Insert-v0 or EFM-TransferCube-v0"):
        GymAlohaInterface(gym.make(other))


def test_end_effector_control_is_refused() -> None:
    with pytest.raises(EFMError, match=r"joint targets move; got .* with control='ee'"):
        made(control="ee")


@pytest.mark.parametrize(("received", "obs_type"), [("state", "pixels"), ("flat", "state"), ("pixels", "state")])
def test_an_env_that_does_not_observe_what_is_to_be_shown_is_refused(received: str, obs_type: Any) -> None:
    with pytest.raises(EFMError, match=rf"obs_type='{obs_type}' needs an env with obs_mode='\w+'; got obs_mode='{received}'"):
        GymAlohaInterface(gym.make("EFM-Insert-v0", obs_mode=received), obs_type)


# -- beside the installed package --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The package, where benchmarks/perf/requirements-gym-aloha.txt is installed."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    return pytest.importorskip("gym_aloha")


def same_form(ours: Any, other: Any) -> bool:
    """Whether two observations have the same keys, shapes and types."""
    if isinstance(other, dict):
        return list(ours) == list(other) and all(same_form(ours[key], other[key]) for key in other)
    return bool(ours.shape == other.shape and ours.dtype == other.dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("obs_type", OBSERVATION_SPACES)
def test_the_installed_package_declares_and_returns_the_same(theirs: Any, name: str, obs_type: str) -> None:
    ours, other = made(name, obs_type), gym.make(name, obs_type=obs_type, disable_env_checker=True)
    assert ours.action_space == other.action_space and ours.observation_space == other.observation_space
    assert ours.unwrapped.step_limit == other.spec.max_episode_steps
    assert ours.metadata["render_fps"] == other.metadata["render_fps"]
    (a, info_a), (b, info_b) = ours.reset(seed=0), other.reset(seed=0)
    assert same_form(a, b) and set(info_b) <= set(info_a)
    action = np.clip(SOMEWHERE, -1.0, 1.0).astype(np.float32)
    (a, *_, info_a), (b, *_, info_b) = ours.step(action), other.step(action)
    assert same_form(a, b) and set(info_b) <= set(info_a)
    ours.close()


def test_the_installed_package_has_these_ids_and_keywords(theirs: Any) -> None:
    assert sorted(name for name in gym.registry if name.startswith("gym_aloha/")) == sorted(NAMES)
    keywords = set(inspect.signature(theirs.env.AlohaEnv).parameters) - {"task"}
    assert keywords <= set(inspect.signature(make).parameters)


def test_the_installed_package_lays_objects_where_we_do(theirs: Any) -> None:
    placings = {**made(NAMES[0]).unwrapped.task.objects, **made(NAMES[1]).unwrapped.task.objects}
    starts = [(*theirs.utils.sample_insertion_pose(seed), theirs.utils.sample_box_pose(seed)) for seed in range(500)]
    places = np.array(starts)[..., :2]
    for i, name in enumerate(("peg", "socket", "cube")):
        np.testing.assert_allclose(places[:, i].min(axis=0), placings[name].low, atol=0.005)
        np.testing.assert_allclose(places[:, i].max(axis=0), placings[name].high, atol=0.005)
