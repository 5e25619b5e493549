"""The ALOHA station's tasks: how episodes start, what moves the arms, what is seen, what counts, what can be set by hand."""

import copy
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_assets
import efm_envs
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.errors import EFMError, InvalidActionError, UnknownNameError, UnknownOptionError
from efm_envs.registration import registration
from efm_envs.rollout import rollout
from efm_envs.simulation import Simulation
from efm_envs.task import Array, SinglePhysics
from efm_envs.tasks.aloha import station
from efm_envs.tasks.aloha.insert import Insert
from efm_envs.tasks.aloha.task import AlohaTask
from efm_envs.tasks.aloha.transfer_cube import TransferCube

IDS = efm_envs.ids(tags=["aloha"])
JOINT_IDS = [aloha_id for aloha_id in IDS if registration(aloha_id).task_options["control"] == "joints"]
EE_IDS = [aloha_id for aloha_id in IDS if aloha_id not in JOINT_IDS]
INSERT_IDS, TRANSFER_CUBE_IDS = efm_envs.ids(tags=["insert"]), efm_envs.ids(tags=["transfer_cube"])
YAW = {"EFM-InsertTight-v0": 0.4}

ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
FINGERS = ("left_finger", "right_finger")
PLACES = {"peg": ((0.1, 0.2), (0.4, 0.6)), "socket": ((-0.2, -0.1), (0.4, 0.6)), "cube": ((0.0, 0.2), (0.4, 0.6))}
HEIGHT_M = {"peg": 0.01, "socket": 0.022, "cube": 0.02}
LOW_M = np.array([[-0.25, 0.34, 0.012], [-0.08, 0.34, 0.012]])
HIGH_M = np.array([[0.08, 0.66, 0.3], [0.25, 0.66, 0.3]])
FALLEN_M = -0.5
HOLDING_M, OPEN_M = 0.0199, 0.037  # of a finger that touches a cube, and of one that does not

rng_of = np.random.default_rng


def made(aloha_id: str, **kwargs: Any) -> Any:
    return gym.make(aloha_id, **{"terminate_on": "never", "disable_env_checker": True, **kwargs}).unwrapped


def still(env: Any) -> Array:
    """The action that keeps everything where it is when an episode starts."""
    if env.task.control == "joints":
        return station.joint_actions_of_ctrl(station.home_ctrl()[None])[0]
    return np.array([0.0, 0.0, 0.0, 1.0] * 2)


def objects(env: Any) -> dict[str, Array]:
    """Position and quaternion of each object."""
    return {name: env.data.joint(name).qpos.copy() for name in env.task.objects}


def tools(env: Any) -> Array:
    return np.array([env.data.site(f"{side}/tool").xpos for side in ("left", "right")])


def random_actions(env: Any, steps: int, seed: int = 0) -> Array:
    return rng_of(seed).uniform(-1.0, 1.0, (steps, *env.action_space.shape))


def after_the_expert(aloha_id: str, seconds: float, seed: int = 0, style: str = "clean") -> Any:
    env = made(aloha_id)
    env.reset(seed=seed)
    expert = efm_envs.make_expert(env, style)
    for _ in range(round(seconds / env.task.control_dt_s)):
        env.step(expert.act())
    return env


# -- how an episode starts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_objects_lie_uniformly_in_their_places_along_x(aloha_id: str) -> None:
    task, yaw = made(aloha_id).task, YAW.get(aloha_id, 0.0)
    starts = np.array([task.sample(rng_of(seed)).physics["qpos"][16:] for seed in range(400)]).reshape(400, -1, 7)
    for number, name in enumerate(task.objects):
        x, y, z, w, i, j, k = starts[:, number].T
        for drawn, (low, high) in zip((x, y, 2.0 * np.arctan2(k, w)), (*PLACES[name], (-yaw, yaw)), strict=True):
            assert low <= drawn.min() and drawn.max() <= high
            quarters, _ = np.histogram(drawn, bins=4, range=(low, high + 1e-9))
            assert high == low or (quarters > 70).all(), f"of 400, {quarters} in each quarter from {low} to {high}"
        np.testing.assert_allclose(z, HEIGHT_M[name] if "Tight" not in aloha_id or name == "peg" else 0.016, atol=0.6e-3)
        assert not i.any() and not j.any()
    assert abs(np.corrcoef(starts[:, :, :2].reshape(400, -1).T) - np.eye(2 * len(task.objects))).max() < 0.2


@pytest.mark.parametrize("aloha_id", IDS)
def test_how_an_episode_starts_is_a_function_of_its_seed(aloha_id: str) -> None:
    env, other = made(aloha_id), made(aloha_id)
    env.reset(seed=5)
    for action in random_actions(env, 5):
        env.step(action)
    starts = [(env.reset(seed=seed)[0], other.reset(seed=seed)[0]) for seed in (3, 4)]
    for a, b in starts:
        np.testing.assert_array_equal(a["environment_state"], b["environment_state"])
    assert not np.array_equal(starts[0][0]["environment_state"], starts[1][0]["environment_state"])


@pytest.mark.parametrize(("joints", "ee"), [("EFM-Insert-v0", "EFM-InsertEE-v0"), ("EFM-TransferCube-v0", "EFM-TransferCubeEE-v0")])
def test_both_ways_of_control_start_the_same(joints: str, ee: str) -> None:
    a, b = made(joints), made(ee)
    for seed in range(3):
        a.reset(seed=seed), b.reset(seed=seed)
        np.testing.assert_array_equal(a.data.qpos, b.data.qpos)


@pytest.mark.parametrize("aloha_id", IDS)
def test_the_arms_start_at_home_with_open_grippers(aloha_id: str) -> None:
    env = made(aloha_id)
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        np.testing.assert_allclose(tools(env), [[-0.2, 0.5, 0.18], [0.2, 0.5, 0.18]], atol=1e-6)
        np.testing.assert_allclose(observation["agent_pos"][[6, 7, 14, 15]], OPEN_M)
        assert not env.data.qvel.any() and info["stage"] == 0 and not info["is_success"]


@pytest.mark.parametrize("aloha_id", IDS)
def test_nothing_moves_by_itself(aloha_id: str) -> None:
    env = made(aloha_id)
    for seed in range(2):
        env.reset(seed=seed)
        before, arms, places = objects(env), env.data.qpos[:16].copy(), tools(env)
        for _ in range(round(1.0 / env.task.control_dt_s)):
            env.step(still(env))
        np.testing.assert_allclose(tools(env), places, atol=1e-3)
        np.testing.assert_allclose(env.data.qpos[:16], arms, atol=1e-3)
        for name, pose in objects(env).items():
            np.testing.assert_allclose(pose, before[name], atol=1e-3)


# -- joint actions -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", JOINT_IDS)
def test_a_joint_action_is_the_whole_range_of_its_actuators_in_alohas_order(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    named = [[f"{side}/{name}"] for side in ("left", "right") for name in ARM_JOINTS]
    named.insert(6, [f"left/{finger}" for finger in FINGERS])
    named.append([f"right/{finger}" for finger in FINGERS])
    assert env.action_space.shape == (len(named),) == (14,)
    for number, actuators in enumerate(named):
        driven = [env.task.model.actuator(name).id for name in actuators]
        others = np.setdiff1d(np.arange(env.task.model.nu), driven)
        commands = []
        for value in (-1.0, 0.0, 1.0):
            action = np.zeros((1, 14))
            action[0, number] = value
            env.task.apply(env.physics, action)
            commands.append(env.data.ctrl.copy())
        low, middle, high = np.array(commands)
        np.testing.assert_allclose([low[driven], high[driven]], env.task.model.actuator_ctrlrange[driven].T, atol=1e-12)
        np.testing.assert_allclose(middle[driven], (low[driven] + high[driven]) / 2.0, atol=1e-12)
        np.testing.assert_array_equal(low[others], high[others])


def test_actions_can_be_told_from_commands() -> None:
    actions = rng_of(0).uniform(-1.0, 1.0, (50, 14))
    commands = station.ctrl_of_joint_actions(actions)
    np.testing.assert_allclose(station.joint_actions_of_ctrl(commands), actions, atol=1e-12)
    np.testing.assert_allclose(station.ctrl_of_joint_actions(station.joint_actions_of_ctrl(commands)), commands, atol=1e-12)


@pytest.mark.parametrize("aloha_id", JOINT_IDS)
def test_joints_go_where_they_are_told(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    action = still(env)
    action[[0, 5, 6, 7, 12]] += [0.05, -0.1, -0.5, -0.05, 0.1]
    for _ in range(100):
        env.step(action)
    np.testing.assert_allclose(env.data.qpos[:16], env.data.ctrl, atol=1e-3)
    np.testing.assert_allclose(station.joint_actions_of_ctrl(env.data.ctrl[None])[0], action, atol=1e-6)


# -- end-effector actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", EE_IDS)
def test_an_action_moves_the_commanded_place_by_three_centimetres_and_the_tool_follows(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    before = tools(env)
    for number in range(6):
        side, axis = divmod(number, 3)
        action = still(env)
        action[4 * side + axis] = -0.5 if axis == 2 else 1.0 if side else -1.0
        before[side, axis] += 0.03 * action[4 * side + axis]
        observation, *_ = env.step(action)
        np.testing.assert_allclose(observation["agent_pos"][50:56], before.ravel(), atol=1e-6)
        for _ in range(8):
            env.step(still(env))
        np.testing.assert_allclose(tools(env), before, atol=2e-3)


@pytest.mark.parametrize("aloha_id", EE_IDS)
@pytest.mark.parametrize("way", [-1.0, 1.0])
def test_commanded_places_stay_in_the_workspace_and_tools_reach_its_ends(aloha_id: str, way: float) -> None:
    env, end = made(aloha_id), LOW_M if way < 0.0 else HIGH_M
    far = {name: (0.1 if name != "socket" else -0.1, 0.6) for name in env.task.objects}
    env.reset(seed=0, options=far)
    for side in (0, 1):
        env.reset(seed=0, options=far)
        for step in range(40):
            action = still(env)
            action[4 * side : 4 * side + 3] = way if step < 20 else 0.0
            observation, *_ = env.step(action)
        np.testing.assert_allclose(observation["agent_pos"][50 + 3 * side :][:3], end[side], atol=1e-6)
        np.testing.assert_allclose(tools(env)[side], end[side], atol=3e-3)


@pytest.mark.parametrize("aloha_id", EE_IDS)
def test_a_grippers_action_is_its_whole_range(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    for left, right in ((-1.0, 1.0), (1.0, -1.0), (0.0, 0.0)):
        for _ in range(12):
            observation, *_ = env.step(np.array([0.0, 0.0, 0.0, left, 0.0, 0.0, 0.0, right]))
        wanted = [0.002 + 0.035 * (gripper + 1.0) / 2.0 for gripper in (left, left, right, right)]
        np.testing.assert_allclose(observation["agent_pos"][[6, 7, 14, 15]], wanted, atol=5e-4)


@pytest.mark.parametrize("aloha_id", EE_IDS)
def test_tools_keep_their_pitch_and_close_along_y(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    for action in random_actions(env, 10) * ([1.0, 1.0, 0.5, 0.0] * 2):
        env.step(action)
    for _ in range(10):
        env.step(still(env))
    for side, ahead in (("left", 1.0), ("right", -1.0)):
        along, across, _ = env.data.site(f"{side}/tool").xmat.reshape(3, 3).T
        np.testing.assert_allclose(along, [ahead * np.cos(1.1), 0.0, -np.sin(1.1)], atol=1e-3)
        np.testing.assert_allclose(across, [0.0, ahead, 0.0], atol=1e-3)


# -- all actions -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_an_action_out_of_range_is_its_clipped_one(aloha_id: str) -> None:
    env, other = made(aloha_id), made(aloha_id)
    env.reset(seed=0), other.reset(seed=0)
    for action in 3.0 * random_actions(env, 10):
        env.step(action), other.step(np.clip(action, -1.0, 1.0))
    np.testing.assert_array_equal(env.data.qpos, other.data.qpos)
    np.testing.assert_array_equal(env.data.ctrl, other.data.ctrl)


@pytest.mark.parametrize("aloha_id", IDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_changes_nothing(aloha_id: str, bad: float) -> None:
    env, other = made(aloha_id), made(aloha_id)
    actions = random_actions(env, 6)
    for each in (env, other):
        each.reset(seed=0)
        for action in actions[:3]:
            each.step(action)
    spoilt = actions[0].copy()
    spoilt[-1] = bad
    with pytest.raises(InvalidActionError, match=f"must be finite; element {len(spoilt) - 1} is"):
        env.step(spoilt)
    for wrong in (actions[0][:-1], actions[:1], np.append(actions[0], 0.0)):
        with pytest.raises(InvalidActionError, match=rf"has shape \({len(spoilt)},\); got"):
            env.step(wrong)
    for action in actions[3:]:
        np.testing.assert_array_equal(env.step(action)[0]["agent_pos"], other.step(action)[0]["agent_pos"])


# -- what is observed --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_every_number_observed_is_what_the_page_says(aloha_id: str) -> None:
    env = after_the_expert(aloha_id, 2.0)
    observation, *_ = env.step(random_actions(env, 1)[0])
    data, joints = env.data, [f"{side}/{name}" for side in ("left", "right") for name in (*ARM_JOINTS, *FINGERS)]
    poses = [data.site(f"{side}/tool") for side in ("left", "right")]
    expected = [data.joint(name).qpos[0] for name in joints] + [data.joint(name).qvel[0] for name in joints]
    for pose in [*poses, *(data.body(name) for name in env.task.objects)]:
        columns = pose.xmat.reshape(3, 3).T
        expected += [*pose.xpos, *columns[0], *columns[1]]
    agent = expected[:50] + (list(data.mocap_pos.ravel()) if env.task.control == "ee" else [])
    np.testing.assert_array_equal(observation["agent_pos"], np.array(agent, np.float32))
    np.testing.assert_array_equal(observation["environment_state"], np.array(expected[50:], np.float32))
    assert np.abs(data.qvel[:16]).min() > 0.0, "choose a moment at which every joint moves"


@pytest.mark.parametrize("aloha_id", IDS)
def test_derived_fields_are_those_of_the_state_just_reached(aloha_id: str) -> None:
    env = after_the_expert(aloha_id, 2.5, style="with_failures")
    for action in random_actions(env, 10):
        env.step(action)
        fresh = copy.copy(env.data)
        mujoco.mj_forward(env.task.model, fresh)
        for name in ("site_xpos", "site_xmat", "xpos", "xquat", "sensordata"):
            np.testing.assert_array_equal(getattr(env.data, name), getattr(fresh, name), err_msg=name)
        assert env.data.ncon == fresh.ncon


@pytest.mark.parametrize("aloha_id", IDS)
def test_a_step_is_that_of_mujoco(aloha_id: str) -> None:
    """It begins with the half that the last one ended with; `mj_step`, from the same state with the same commands, comes to the same."""
    env = after_the_expert(aloha_id, 2.0)
    plain = copy.copy(env.data)
    for action in random_actions(env, 10):
        env.step(action)
        plain.ctrl[:] = env.data.ctrl
        mujoco.mj_step(env.task.model, plain, env.task.substeps)
        np.testing.assert_array_equal(plain.qpos, env.data.qpos)
        np.testing.assert_array_equal(plain.qvel, env.data.qvel)


@pytest.mark.parametrize("aloha_id", IDS)
def test_observations_stay_in_their_spaces_also_after_everything_fell(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    for number, action in enumerate(random_actions(env, 2 * round(1.2 / env.task.control_dt_s))):
        if number == round(1.2 / env.task.control_dt_s):
            for i, name in enumerate(env.task.objects):
                env.data.joint(name).qpos[:3] = 0.3 * i, 0.0, 0.1  # before the table
            mujoco.mj_step1(env.task.model, env.data)
        observation, _, _, _, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert np.isfinite(info["steps_to_go"])
    assert all(pose[2] < FALLEN_M for pose in objects(env).values())
    assert info["stage"] == 0 and not info["is_success"]


def test_an_unknown_camera_lists_the_cameras() -> None:
    for kwargs in ({"obs_mode": "pixels", "cameras": ["wrist"]}, {"render_camera": "wrist"}):
        with pytest.raises(UnknownNameError, match=r"'wrist'.* Valid: 'angle', 'left/wrist', 'right/wrist', 'table', 'top'"):
            made("EFM-Insert-v0", **kwargs)


# -- stages and success ------------------------------------------------------------------------------------------------------------


class Posed:
    """A task's simulation in states that were put there by hand."""

    def __init__(self, task: AlohaTask) -> None:
        self.task, self.simulation = task, Simulation(task)
        self.simulation.start(task.sample(rng_of(0)))
        self.data = self.simulation.data

    def stage(self) -> int:
        mujoco.mj_forward(self.task.model, self.data)
        stage = int(self.task.truth(self.simulation.physics, self.simulation.goals).info["stage"][0])
        assert self.simulation.is_success() == (stage == 4)
        return stage

    def lay(self, name: str, x: float, z: float, y: float = 0.5) -> None:
        self.data.joint(name).qpos[:] = x, y, z, 1.0, 0.0, 0.0, 0.0

    def grip(self, left: tuple[Any, float], right: tuple[Any, float]) -> None:
        """Brings each tool to a place, its fingers so far apart."""
        ctrl = station.ctrl_of_tools(np.array([[left[0], right[0]]]), np.ones((1, 2)))[0]
        ctrl[6:8], ctrl[14:16] = left[1], right[1]
        self.data.qpos[:16] = ctrl


@pytest.mark.parametrize(("scene", "task_class"), [("insert", Insert), ("transfer_cube", TransferCube)])
def test_the_scenes_keyframe_is_home(scene: str, task_class: Any) -> None:
    """So that who opens the file in a viewer finds the arms where episodes start."""
    model = mujoco.MjModel.from_xml_path(str(efm_assets.path(f"aloha/{scene}.xml")))
    np.testing.assert_allclose(model.key("home").ctrl, station.home_ctrl(), atol=1e-5)
    np.testing.assert_allclose(model.key("home").qpos[:16], station.home_ctrl(), atol=1e-5)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    assert data.contact.dist.min(initial=0.0) > -1e-6, "nothing is inside anything else"


@pytest.mark.parametrize("aloha_id", IDS)
def test_stages_go_from_nothing_to_success_in_an_experts_episodes(aloha_id: str) -> None:
    env, seen = made(aloha_id, terminate_on="true"), set()
    expert = efm_envs.make_expert(env)
    for seed in (1, 2, 3):
        _, info = env.reset(seed=seed)
        stages, ended = [info["stage"]], False
        while not ended:
            _, _, terminated, truncated, info = env.step(expert.act())
            ended = terminated or truncated
            stages.append(info["stage"])
            assert info["is_success"] == (stages[-1] == 4) and type(info["stage"]) is int
        assert stages[0] == 0 and stages[-1] == 4 and 2 in stages
        seen |= set(stages)
    assert seen >= {0, 2, 4}, "1 and 3 may last less than a control step"


@pytest.mark.parametrize("clearance_m", [0.001, 0.002, 0.008, 0.01])
def test_the_peg_counts_as_inserted_when_it_touches_the_seat_and_neither_touches_the_table(clearance_m: float) -> None:
    posed, half = Posed(Insert(clearance_m=clearance_m)), 0.014 + clearance_m
    joined = 0.1 - 1e-4  # half a peg, and half the seat
    for height, off, stage in ((0.2, 0.0, 4), (0.2, 1e-3, 0), (half, 0.0, 0), (half, 1e-3, 0)):
        posed.lay("socket", 0.0, height)
        posed.lay("peg", joined + off, height)
        assert posed.stage() == stage, (height, off)


@pytest.mark.parametrize("lying", ["peg", "socket"])
def test_the_peg_does_not_count_as_inserted_while_one_of_them_touches_the_table(lying: str) -> None:
    posed = Posed(Insert(clearance_m=0.01))
    posed.lay("socket", 0.0, 0.024 if lying == "socket" else 0.2)
    posed.lay("peg", 0.1 - 1e-4, 0.024 if lying == "socket" else 0.2)
    if lying == "peg":  # upright on the table, the socket upside down on it
        posed.data.joint("peg").qpos[:] = 0.0, 0.5, 0.06, np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0
        posed.data.joint("socket").qpos[:] = 0.0, 0.5, 0.16 - 1e-4, np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0
    assert posed.stage() == 0
    for name in ("peg", "socket"):
        posed.data.joint(name).qpos[2] += 0.01
    assert posed.stage() == 4


def test_the_peg_that_touches_a_wall_or_the_rim_but_not_the_seat_is_at_the_third_stage() -> None:
    posed = Posed(Insert())
    posed.lay("socket", 0.0, 0.2)
    for x, z in ((0.1 + 1e-3, 0.2 - 0.008 - 1e-4), (0.12 - 1e-4, 0.2 + 0.012)):
        posed.lay("peg", x, z)
        assert posed.stage() == 3


def test_insert_begins_when_all_four_fingers_touch_their_objects() -> None:
    posed, held = Posed(Insert()), {"socket": 0.022 - 1e-4, "peg": 0.01 - 1e-4}
    for height, stage in ((0.0, 1), (0.15, 2)):
        posed.lay("socket", -0.15, 0.022 + height)
        posed.lay("peg", 0.15, 0.01 + height)
        at = [(-0.15, 0.5, 0.022 + height), (0.15, 0.5, 0.013 + height)]
        for left, right in ((held["socket"], held["peg"]), (OPEN_M, held["peg"]), (held["socket"], OPEN_M), (OPEN_M, OPEN_M)):
            posed.grip((at[0], left), (at[1], right))
            assert posed.stage() == (stage if OPEN_M not in (left, right) else 0)


@pytest.mark.parametrize(
    ("left_m", "right_m", "in_the_air", "on_the_table"),
    [(OPEN_M, OPEN_M, 0, 0), (OPEN_M, HOLDING_M, 2, 1), (HOLDING_M, HOLDING_M, 3, 1), (HOLDING_M, OPEN_M, 4, 0)],
    ids=["nobody", "right", "both", "left"],
)
def test_the_cube_is_handed_over_when_the_left_gripper_alone_holds_it(
    left_m: float, right_m: float, in_the_air: int, on_the_table: int
) -> None:
    posed = Posed(TransferCube())
    posed.data.userdata[0] = 1.0  # the right gripper had it
    for height, stage in ((0.2, in_the_air), (0.02, on_the_table)):
        posed.lay("cube", 0.0, height)
        posed.grip(((-0.0155, 0.5, height), left_m), ((0.0155, 0.5, height), right_m))
        assert posed.stage() == stage


def test_one_finger_of_the_left_gripper_is_no_hold() -> None:
    posed = Posed(TransferCube())
    posed.data.userdata[0] = 1.0  # the right gripper had it
    posed.lay("cube", 0.0, 0.2)
    posed.grip(((-0.0155, 0.5, 0.2), HOLDING_M), ((0.2, 0.5, 0.2), OPEN_M))
    assert posed.stage() == 4
    for finger in FINGERS:
        posed.grip(((-0.0155, 0.5, 0.2), HOLDING_M), ((0.2, 0.5, 0.2), OPEN_M))
        posed.data.joint(f"left/{finger}").qpos[0] = OPEN_M
        assert posed.stage() == 0


def test_a_cube_that_the_left_gripper_picked_up_itself_was_not_handed_over() -> None:
    env = made("EFM-TransferCubeEE-v0")
    env.reset(seed=0, options={"cube": (0.0, 0.5)})
    task, physics = env.task, env.physics
    left, picked_up = env.data.site("left/tool"), False
    for _ in range(60):
        cube = env.data.body("cube").xpos
        above = cube - np.array([0.0155, 0.0, 0.0])
        aside = np.linalg.norm((above - left.xpos)[:2])
        is_there = np.linalg.norm(above - left.xpos) < 0.01
        target = above if aside < 0.02 else above + np.array([0.0, 0.0, 0.1])
        picked_up |= is_there
        grip = -1.0 if picked_up else 1.0
        rise = [0.0, 0.0, 0.2] if picked_up and env.data.joint("left/left_finger").qpos[0] < 0.0215 else [0.0, 0.0, 0.0]
        move = np.clip((target + rise - left.xpos) / 0.03 * 0.5, -1, 1)
        _, _, _, _, info = env.step(np.array([*move, grip, 0.0, 0.0, 0.0, 1.0]))
        assert info["stage"] == 0 and not info["is_success"]
        if cube[2] > 0.08:
            break
    assert env.data.body("cube").xpos[2] > 0.05, "it did pick it up"
    assert task.steps_to_go(physics, env.goals)[0] > 15.0, "nearly all is still to do"


@pytest.mark.parametrize("height", [0.02, 0.2])
def test_a_gripper_that_is_only_near_the_cube_does_not_shorten_the_way(height: float) -> None:
    posed = Posed(TransferCube())
    posed.lay("cube", 0.0, height)
    posed.grip(((-0.0155, 0.5, height), HOLDING_M), ((0.0155, 0.5, height), OPEN_M))
    assert posed.stage() == 0
    assert posed.task.steps_to_go(posed.simulation.physics, posed.simulation.goals)[0] > 50.0


def test_what_was_handed_over_is_forgotten_on_the_table() -> None:
    env = made("EFM-TransferCubeEE-v0")
    env.reset(seed=0)
    expert = efm_envs.make_expert(env)
    while not env.step(expert.act())[4]["is_success"]:
        pass
    assert env.data.userdata[0] == 1.0
    for _ in range(10):
        env.step(np.array([0, 0, 0, 1.0, 0, 0, 0, 1.0]))  # both let go
    assert env.data.userdata[0] == 0.0


def test_the_cube_is_not_handed_over_while_the_right_palm_touches_it() -> None:
    posed, ahead_m = Posed(TransferCube()), 0.05
    posed.lay("cube", 0.0, 0.2)
    posed.grip(((-0.0155, 0.5, 0.2), HOLDING_M), ((-ahead_m * np.cos(1.1), 0.5, 0.2 - ahead_m * np.sin(1.1)), OPEN_M))
    posed.stage()
    touching = {frozenset(posed.task.model.geom(int(i)).name for i in pair) for pair in posed.data.contact.geom}
    assert frozenset({"right/palm_collision", "cube"}) in touching, "choose a pose in which the palm touches it"
    assert posed.stage() == 3


# -- what can be set by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_objects_can_be_placed_by_hand(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=1)
    drawn = objects(env)
    for number, name in enumerate(env.task.objects):
        x = 0.12 if number == 0 else -0.13
        for place, yaw in (((x, 0.45), 0.0), ((x, 0.55, 0.25), 0.25), (np.array([x, 0.41, -0.1], np.float32), -0.1), ([x, 0.5], 0.0)):
            observation, info = env.reset(seed=1, options={name: place})
            state = observation["environment_state"][9 * number :][:9]
            np.testing.assert_allclose(state[:2], place[:2], atol=1e-6)
            np.testing.assert_allclose(state[3:9], [np.cos(yaw), np.sin(yaw), 0.0, -np.sin(yaw), np.cos(yaw), 0.0], atol=1e-6)
            assert info["stage"] == 0
            for other in set(env.task.objects) - {name}:
                np.testing.assert_allclose(objects(env)[other], drawn[other], atol=1e-12)
            again, _ = env.reset(options={"scenario": env.scenario})
            np.testing.assert_array_equal(again["environment_state"], observation["environment_state"])


BAD_PLACES = [
    (INSERT_IDS[0], {"peg": (0.5, 0.5)}, r"the peg cannot be at \(0.5, 0.5\), .* x must be from 0 to 0.23, y from 0.37 to 0.63"),
    (INSERT_IDS[1], {"peg": (0.1, 0.36)}, r"the peg cannot be at \(0.1, 0.36\), .* x must be from 0 to 0.23, y from 0.37 to 0.63"),
    (INSERT_IDS[2], {"socket": (0.01, 0.5)}, "the socket cannot be at .* x must be from -0.23 to 0, y from 0.37 to 0.63"),
    (TRANSFER_CUBE_IDS[0], {"cube": (-0.04, 0.5)}, "the cube cannot be at .* x must be from -0.03 to 0.215, y from 0.37 to 0.63"),
    (TRANSFER_CUBE_IDS[1], {"cube": (0.1, 0.5, 0.7)}, r"the cube cannot be turned by 0.7 rad, .* at most ±0.3"),
    (INSERT_IDS[0], {"peg": (0.1, 0.5, -2.0)}, r"the peg cannot be turned by -2 rad, .* at most ±0.4"),
    (INSERT_IDS[0], {"peg": (0.0, 0.5), "socket": (-0.1, 0.5)}, r"the peg and the socket are 0.100 m apart; .* at least 0.132 m apart"),
    (INSERT_IDS[1], {"peg": (0.05, 0.5), "socket": (0.0, 0.5)}, "the peg and the socket are 0.050 m apart"),
    (INSERT_IDS[0], {"pegs": (0.1, 0.5)}, r"unknown option of Insert's reset\(\): 'pegs'\. .* Valid: 'peg', 'scenario', 'socket'"),
    (TRANSFER_CUBE_IDS[0], {"peg": (0.1, 0.5)}, r"unknown option of TransferCube's reset\(\): 'peg'\. .*Valid: 'cube', 'scenario'"),
    *(
        (aloha_id, {name: value}, rf"the place of the {name} is \(x, y\) or \(x, y, yaw\), finite numbers .*; got ")
        for aloha_id, name in ((INSERT_IDS[0], "peg"), (INSERT_IDS[1], "socket"), (TRANSFER_CUBE_IDS[0], "cube"))
        for value in [
            (np.nan, 0.5),
            (0.1, np.inf),
            (0.1, 0.5, -np.inf),
            (0.1,),
            (0.1, 0.5, 0.0, 0.0),
            [[0.1, 0.5]],
            0.1,
            None,
            "here",
            ("a", "b"),
            {"x": 0.1},
            (0.1j, 0.5),
        ]
    ),
]


@pytest.mark.parametrize(("aloha_id", "options", "message"), BAD_PLACES, ids=[f"{a}-{o}" for a, o, _ in BAD_PLACES])
def test_an_object_cannot_be_placed_where_it_cannot_be_and_the_env_goes_on_as_it_was(
    aloha_id: str, options: dict[str, Any], message: str
) -> None:
    env, other = env_and_its_twin(aloha_id)
    for each in (env, other):
        each.reset(seed=2)
    with pytest.raises(EFMError, match=message):
        env.reset(seed=3, options=options)
    action = random_actions(env, 1)[0]
    np.testing.assert_array_equal(env.step(action)[0]["agent_pos"], other.step(action)[0]["agent_pos"])
    assert (env.episode_key, env.elapsed_steps, env.scenario is not None) == ((2, 0), 1, True)
    np.testing.assert_array_equal(env.reset()[0]["environment_state"], other.reset()[0]["environment_state"])


@functools.cache
def env_and_its_twin(aloha_id: str) -> tuple[Any, Any]:
    return made(aloha_id), made(aloha_id)


@pytest.mark.parametrize("aloha_id", INSERT_IDS)
@pytest.mark.parametrize("clearance_m", [0.001, 0.004, 0.01])
def test_the_clearance_is_between_the_peg_and_each_wall(aloha_id: str, clearance_m: float) -> None:
    task = made(aloha_id, clearance_m=clearance_m).task
    for model in (task.model, task.drawn_model):
        peg = model.geom("peg").size
        for wall, axis, side in (("left", 1, 1.0), ("right", 1, -1.0), ("top", 2, 1.0), ("bottom", 2, -1.0)):
            geom = model.geom(f"socket_{wall}")
            assert geom.pos[axis] * side - geom.size[axis] - peg[axis] == pytest.approx(clearance_m, abs=1e-12)
            assert geom.size[axis] == pytest.approx(0.002) and geom.size[0] == pytest.approx(0.06)
        outside = model.geom("socket_top").pos[2] + 0.002
        assert model.geom("socket_top").size[1] == pytest.approx(outside)
        assert model.geom("socket_left").pos[1] + 0.002 == pytest.approx(outside)
        np.testing.assert_array_equal(model.geom("seat").size, [0.04, 0.01, 0.01])
    env = made(aloha_id, clearance_m=clearance_m)
    env.reset(seed=0)
    assert objects(env)["socket"][2] == pytest.approx(0.014 + clearance_m, abs=0.6e-3), "it lies on the table"


@pytest.mark.parametrize("task_class", [Insert, TransferCube])
def test_objects_are_turned_by_up_to_the_yaw_that_is_asked_for(task_class: Any) -> None:
    for yaw_rad in (0, 0.1, np.float32(0.25), task_class.most_yaw_rad):
        task = task_class(yaw_rad=yaw_rad)
        starts = np.array([task.sample(rng_of(seed)).physics["qpos"][16:] for seed in range(200)]).reshape(-1, 7)
        yaws = 2.0 * np.arctan2(starts[:, 6], starts[:, 3])
        assert yaw_rad * 0.95 <= np.abs(yaws).max() <= yaw_rad


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *(("clearance_m", v, "clearance_m is a number from 0.001 to 0.01; got") for v in (0, 0.0009, 0.011, -0.01, np.nan, np.inf)),
        *(("clearance_m", v, "clearance_m is a number from 0.001 to 0.01; got") for v in (None, "0.004", True, [0.004])),
        *(("yaw_rad", v, "yaw_rad is a number from 0 to 0.4; got") for v in (-0.1, 0.41, np.nan, -np.inf, None, "0.1", False)),
        *(("control", v, "unknown control: .* Valid: 'ee', 'joints'") for v in ("EE", "joint", None, 1)),
    ],
)
def test_a_bad_option_of_the_task_is_refused_with_what_is_valid(option: str, value: Any, message: str) -> None:
    with pytest.raises(EFMError, match=message):
        made("EFM-Insert-v0", **{option: value})


def test_transfer_cube_has_no_clearance() -> None:
    with pytest.raises(UnknownOptionError, match=r"unknown option of this env: 'clearance_m'.* 'control', .*'yaw_rad'"):
        made("EFM-TransferCube-v0", clearance_m=0.004)


def test_control_says_what_moves_the_arms_and_how_often() -> None:
    for aloha_id in ("EFM-Insert-v0", "EFM-InsertEE-v0", "EFM-TransferCube-v0"):
        for control, size, hertz, seen in (("joints", 14, 50, 50), ("ee", 8, 10, 56)):
            env = made(aloha_id, control=control)
            assert env.action_space.shape == (size,) and env.observation_space["agent_pos"].shape == (seen,)
            assert env.metadata["render_fps"] == hertz and env.task.control_dt_s == pytest.approx(1.0 / hertz)


VARIANTS = [
    *((Insert, {"control": c, "clearance_m": m, "yaw_rad": y}) for c in ("joints", "ee") for m in (0.002, 0.008) for y in (0.0, 0.4)),
    *((TransferCube, {"control": c, "yaw_rad": y}) for c in ("joints", "ee") for y in (0.0, 0.2)),
]


def test_every_variant_has_its_own_fingerprint() -> None:
    fingerprints = [task(**options).fingerprint for task, options in VARIANTS]
    assert len(set(fingerprints)) == len(VARIANTS)
    assert fingerprints == [task(**options).fingerprint for task, options in VARIANTS]


@pytest.mark.parametrize("option", ["yaw_rad", "clearance_m"])
def test_variants_that_hardly_differ_have_fingerprints_that_do(option: str) -> None:
    one, other = (made("EFM-Insert-v0", **{option: value}).task for value in (0.004, 0.004 + 1e-9))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("options", [{"clearance_m": 0.004}, {"yaw_rad": 0.1}, {"control": "joints"}], ids=str)
def test_a_scenario_of_another_variant_is_refused(options: dict[str, Any]) -> None:
    env, other = made("EFM-InsertEE-v0"), made("EFM-InsertEE-v0", **options)
    env.reset(seed=0), other.reset(seed=0)
    with pytest.raises(EFMError, match=r"the scenario is of task '.*:Insert\(.*\)'; this env's is '.*:Insert\(.*\)'"):
        env.reset(options={"scenario": other.scenario})


@pytest.mark.parametrize("value", [(10**400, 0.5), (0.1, -(10**400))], ids=["x", "y"])
def test_a_place_beyond_all_numbers_is_refused(value: Any) -> None:
    with pytest.raises(EFMError, match="the place of the peg is"):
        made("EFM-Insert-v0").reset(seed=0, options={"peg": value})


# -- models and copies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_two_envs_share_nothing(aloha_id: str) -> None:
    env, other = made(aloha_id), made(aloha_id)
    env.reset(seed=0)
    expected = [env.step(action)[0]["agent_pos"] for action in random_actions(env, 5)]
    other.task.model.opt.gravity[:] = 0.0, 0.0, 9.81
    other.task.model.actuator_gainprm[:] = 0.0
    other.reset(seed=1)
    env.reset(seed=0)
    for action, seen in zip(random_actions(env, 5), expected, strict=True):
        other.step(action)
        np.testing.assert_array_equal(env.step(action)[0]["agent_pos"], seen)


@pytest.mark.parametrize("aloha_id", IDS)
def test_what_is_drawn_has_the_joints_of_what_is_simulated(aloha_id: str) -> None:
    env = after_the_expert(aloha_id, 2.0)
    model, drawn = env.task.model, env.task.drawn_model
    for count, named in (("njnt", "joint"), ("nbody", "body"), ("nu", "actuator"), ("nsite", "site"), ("nsensor", "sensor")):
        names = [[getattr(m, named)(i).name for i in range(getattr(m, count))] for m in (model, drawn)]
        assert names[0] == names[1]
    np.testing.assert_array_equal(model.jnt_qposadr, drawn.jnt_qposadr)
    np.testing.assert_array_equal(model.qpos0, drawn.qpos0)
    assert drawn.ngeom > model.ngeom
    picture = mujoco.MjData(drawn)
    env.task.pose(env.physics, SinglePhysics(picture))
    mujoco.mj_kinematics(drawn, picture)
    np.testing.assert_allclose(picture.xpos, env.data.xpos, atol=1e-12)
    np.testing.assert_allclose(picture.xmat, env.data.xmat, atol=1e-12)


@pytest.mark.parametrize("aloha_id", ["EFM-Insert-v0", "EFM-TransferCubeEE-v0"])
def test_a_copy_made_in_the_middle_of_a_grasp_goes_on_the_same(aloha_id: str) -> None:
    env = after_the_expert(aloha_id, 2.5)
    assert env.data.ncon >= 8, "choose a moment at which something is held"
    other = copy.deepcopy(env)
    for action in random_actions(env, 10):
        np.testing.assert_array_equal(env.step(action)[0]["environment_state"], other.step(action)[0]["environment_state"])


# -- episodes that were recorded ---------------------------------------------------------------------------------------------------


def replay(episode: Episode) -> list[Array]:
    """Returns qpos at the start and after each of its actions; compares what is seen on the way, bit for bit."""
    env = made(episode.env_id)
    observation, _ = env.reset(seed=episode.seed)
    places = [env.data.qpos.copy()]
    for t, action in enumerate([*episode.actions, None]):
        for name, value in observation.items():
            np.testing.assert_array_equal(value, episode.observations[name][t])
        if action is not None:
            observation, *_ = env.step(action)
            places.append(env.data.qpos.copy())
    return places


@pytest.mark.parametrize("aloha_id", ["EFM-Insert-v0", "EFM-InsertTight-v0", "EFM-TransferCube-v0"])
def test_recorded_actions_play_an_episode_again_bit_for_bit_also_from_disk(aloha_id: str, tmp_path: Path) -> None:
    policy = functools.partial(efm_envs.make_expert, style="human")
    (episode,) = rollout(policy, aloha_id, [7], num_envs=2, terminate_on="true")
    save_episodes(tmp_path / "e.npz", [episode])
    (loaded,), _ = load_episodes(tmp_path / "e.npz")
    assert episode.end_reason == "terminated"
    np.testing.assert_array_equal(replay(episode), replay(loaded))


# -- steps to go -------------------------------------------------------------------------------------------------------------------


@functools.cache
def clean_episodes(aloha_id: str) -> list[Episode]:
    return list(rollout(efm_envs.make_expert, aloha_id, range(100, 106), terminate_on="true"))


@pytest.mark.parametrize("aloha_id", IDS)
def test_steps_to_go_is_zero_at_success_and_at_least_one_before(aloha_id: str) -> None:
    for episode in clean_episodes(aloha_id):
        assert (episode.steps_to_go[episode.is_success] == 0.0).all()
        assert (episode.steps_to_go[~episode.is_success] >= 1.0).all()
        assert episode.is_success[-1] and not episode.is_success[:-1].any()


@pytest.mark.parametrize("aloha_id", IDS)
def test_steps_to_go_falls_as_the_clean_expert_goes_on(aloha_id: str) -> None:
    falls = np.concatenate([np.diff(episode.steps_to_go) < 0.0 for episode in clean_episodes(aloha_id)])
    assert falls.mean() >= 0.95


@pytest.mark.parametrize("aloha_id", IDS)
def test_steps_to_go_at_the_start_are_about_those_that_the_clean_expert_takes(aloha_id: str) -> None:
    ratios = [episode.steps_to_go[0] / len(episode) for episode in clean_episodes(aloha_id)]
    assert 0.75 < np.mean(ratios) < 1.25


@pytest.mark.parametrize("aloha_id", IDS)
def test_steps_to_go_rises_when_something_is_dropped_and_the_clean_expert_picks_it_up_again(aloha_id: str) -> None:
    env = made(aloha_id, terminate_on="true")
    _, info = env.reset(seed=11)
    expert, name = efm_envs.make_expert(env), next(iter(env.task.objects))  # which the right gripper holds
    lying = objects(env)[name][2]
    while not (info["stage"] == 2 and objects(env)[name][2] > lying + 0.04):
        action = expert.act()
        *_, info = env.step(action)
    before = info["steps_to_go"]
    action[-1] = 1.0
    if env.task.control == "ee":
        action[[0, 1, 2, 4, 5, 6]] = 0.0
    for _ in range(round(0.6 / env.task.control_dt_s)):
        *_, info = env.step(action)
    assert objects(env)[name][2] < lying + 5e-3 and info["stage"] < 2
    assert info["steps_to_go"] > before + 0.5 / env.task.control_dt_s
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(expert.act())
        ended = terminated or truncated
    assert info["is_success"]
