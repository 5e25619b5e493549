"""EFM-PointMass-v0 against the notebook's recursion, a plain mj_step loop, and its own experts."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_envs
from efm_envs.tasks.point_mass import ARENA_M, GOAL_RANGE_M, MAX_ACCELERATION_M_S2, START_RANGE_M, SUCCESS_RADIUS_M, PointMass
from tests.efm_envs.fakes import POINT_MASS

SUBSTEP_S = 0.01


@pytest.fixture
def env() -> Iterator[Any]:
    env = gym.make(POINT_MASS, terminate_on="never").unwrapped
    yield env
    env.close()


def actions(steps: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, 2)).astype(np.float32)


def test_a_step_is_the_notebooks_recursion_ten_times(env: Any) -> None:
    env.reset(seed=0)
    position = env.data.qpos.copy()  # [m], the notebook's unit of length
    velocity = env.data.qvel * SUBSTEP_S  # [m] a substep
    for action in 0.3 * actions(25, seed=1):
        acceleration = MAX_ACCELERATION_M_S2 * SUBSTEP_S**2 * action.astype(np.float64)  # [m] a substep²
        for _ in range(10):
            velocity += acceleration
            position += velocity
        env.step(action)
        assert np.abs(position).max() < ARENA_M, "choose actions that stay off the walls"
        np.testing.assert_allclose(env.data.qpos, position, rtol=0, atol=1e-13)
        np.testing.assert_allclose(env.data.qvel * SUBSTEP_S, velocity, rtol=0, atol=1e-13)


def test_a_step_is_a_plain_mj_step_loop_bit_for_bit(env: Any) -> None:
    env.reset(seed=2)
    model = env.task.build_model()
    data = mujoco.MjData(model)
    data.qpos[:] = env.data.qpos
    for action in np.sign(actions(120, seed=3)):  # far enough to hit walls
        data.ctrl[:] = 5.0 * action
        for _ in range(10):
            mujoco.mj_step(model, data)
        env.step(action)
        np.testing.assert_array_equal(env.data.qpos, data.qpos)
        np.testing.assert_array_equal(env.data.qvel, data.qvel)


def test_derived_fields_are_those_of_the_state_just_reached(env: Any) -> None:
    env.reset(seed=4)
    for action in actions(5, seed=4):
        env.step(action)
        np.testing.assert_allclose(env.data.body("point").xpos[:2], env.data.qpos, atol=1e-15)


def test_the_observation_is_position_velocity_and_goal(env: Any) -> None:
    observation, _ = env.reset(seed=5)
    observation, *_ = env.step(np.ones(2))
    np.testing.assert_array_equal(observation["agent_pos"], np.float32([*env.data.qpos, *(0.01 * env.data.qvel)]))
    np.testing.assert_array_equal(observation["environment_state"], np.float32(env.goals.states[0]))
    np.testing.assert_array_equal(env.data.body("goal").xpos[:2], env.goals.states[0])
    assert efm_envs.decode_instruction(observation["instruction"]) == "Move the point to the goal."


def test_flat_is_position_velocity_and_goal() -> None:
    state, flat = gym.make(POINT_MASS), gym.make(POINT_MASS, obs_mode="flat")
    named, vector = state.reset(seed=6)[0], flat.reset(seed=6)[0]
    np.testing.assert_array_equal(vector, np.concatenate([named["agent_pos"], named["environment_state"]]))
    assert flat.unwrapped.metadata["privileged_observation"] and not state.unwrapped.metadata["privileged_observation"]


def test_a_start_is_at_rest_in_range_and_never_inside_the_goal() -> None:
    task = PointMass()
    for seed in range(3000):
        scenario = task.sample(np.random.default_rng(seed))
        start, goal = scenario.physics["qpos"], scenario.goal.state
        assert np.linalg.norm(start - goal) > SUCCESS_RADIUS_M
        assert np.abs(start).max() <= START_RANGE_M and np.abs(goal).max() <= GOAL_RANGE_M
        assert not scenario.physics["qvel"].any()


def test_success_is_within_fifteen_centimetres_at_any_speed() -> None:
    task = PointMass()
    batch = _State(qpos=[[0.15, 0.0], [0.1500001, 0.0], [0.0, 0.0]], qvel=[[0.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    assert task.is_success(batch, _goals_at_zero(3)).tolist() == [True, False, True]


@pytest.mark.parametrize("style", ["outwards", "bouncing", "random"])
def test_no_sequence_of_actions_leaves_the_observation_space(env: Any, style: str) -> None:
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=7)
    fastest = 0.0
    for _ in range(400):
        position, velocity = np.split(observation["agent_pos"], 2)
        outwards = np.where(velocity >= 0, 1.0, -1.0)
        bounce = np.where(np.abs(position) > 1.45, -np.sign(position), outwards)
        observation, *_ = env.step({"outwards": outwards, "bouncing": bounce, "random": rng.choice([-1.0, 1.0], 2)}[style])
        assert env.observation_space.contains(observation), observation["agent_pos"]
        fastest = max(fastest, float(np.abs(velocity).max()))
    assert style == "random" or fastest > 0.05, "this was to be the worst case"


def test_actions_beyond_the_space_are_clipped() -> None:
    first, second = gym.make(POINT_MASS), gym.make(POINT_MASS)
    first.reset(seed=8), second.reset(seed=8)
    np.testing.assert_array_equal(first.step(np.array([3.0, -9.0]))[0]["agent_pos"], second.step(np.array([1.0, -1.0]))[0]["agent_pos"])


def test_oracle_counts_down_by_one_along_the_direct_expert_to_exactly_zero() -> None:
    env = gym.make(POINT_MASS)
    expert = efm_envs.make_expert(env, style="direct")
    for seed in range(100):
        _, info = env.reset(seed=seed)
        d = [info["steps_to_go"]]
        while not info["is_success"]:
            _, reward, terminated, _, info = env.step(expert.act())
            d.append(info["steps_to_go"])
            assert reward == 1.0 and terminated == info["is_success"]
        assert d == list(range(len(d) - 1, -1, -1))


def test_oracle_counts_what_the_closed_loop_does_from_any_speed() -> None:
    """From states with a velocity too: simulate the notebook's controller in numpy, without MuJoCo."""
    rng = np.random.default_rng(9)
    position, velocity = rng.uniform(-0.9, 0.9, (200, 2)), rng.uniform(-1.0, 1.0, (200, 2))
    d = PointMass().steps_to_go(_State(position, velocity), _goals_at_zero(200))
    for i in range(200):
        p, v, steps = position[i].copy(), velocity[i].copy(), 0
        while np.linalg.norm(p) > SUCCESS_RADIUS_M:
            a = -2.0 * p - 1.25 * v
            for _ in range(10):
                v += a * SUBSTEP_S
                p += v * SUBSTEP_S
            steps += 1
        assert d[i] == steps


def test_estimates_of_a_batch_are_those_of_its_members() -> None:
    rng = np.random.default_rng(10)
    position, velocity = rng.uniform(-1.5, 1.5, (50, 2)), rng.uniform(-6.0, 6.0, (50, 2))
    task, goals = PointMass(), _goals_at_zero(1)
    batch = task.steps_to_go(_State(position, velocity), _goals_at_zero(50))
    single = [task.steps_to_go(_State(position[i : i + 1], velocity[i : i + 1]), goals)[0] for i in range(50)]
    assert batch.tolist() == single


@pytest.mark.parametrize(
    ("style", "episodes", "low", "high"),
    [("direct", 300, 12.3, 13.1), ("waypoints", 120, 65.0, 90.0)],  # notebook: 12.7 and 77.6
)
def test_experts_take_as_many_steps_as_the_notebooks(style: str, episodes: int, low: float, high: float) -> None:
    records = efm_envs.evaluate(lambda envs: efm_envs.make_expert(envs, style=style), POINT_MASS, episodes, num_envs=1)
    steps = [record.steps for record in records]
    assert low < np.mean(steps) < high
    assert np.mean([record.success_once for record in records]) > 0.95


class _State:
    def __init__(self, qpos: Any, qvel: Any) -> None:
        self.qpos, self.qvel = np.asarray(qpos, np.float64), np.asarray(qvel, np.float64)


def _goals_at_zero(batch: int) -> Any:
    from efm_envs.task import Goal, Goals

    return Goals([Goal("", np.zeros(2))] * batch)
