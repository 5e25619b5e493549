"""The physics of the ALOHA station: grips hold, nothing sinks in, nothing breaks out, and its numbers are those of its files."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import efm_assets
import efm_envs
from efm_envs.registration import registration
from efm_envs.task import Array
from efm_envs.tasks.aloha import station

IDS = efm_envs.ids(tags=["aloha"])
SIDES = ("left", "right")
LIFTED_M, SLIP_M, SUNK_M, SUNK_BETWEEN_M = 0.05, 1e-3, 0.5e-3, 1.2e-3
HOLD_S, SETTLING_S = 5.0, 0.5


def made(aloha_id: str, **kwargs: Any) -> Any:
    return gym.make(aloha_id, **{"terminate_on": "never", "reward_model": "none", "disable_env_checker": True, **kwargs}).unwrapped


def held(env: Any, action: Array) -> Array:
    """The action that keeps commands and grippers as the last one left them."""
    return action if env.task.control == "joints" else action * ([0.0, 0.0, 0.0, 1.0] * 2)


def in_gripper(env: Any, side: str, name: str) -> Array:
    """Where an object is, as its gripper sees it."""
    tool = env.data.site(f"{side}/tool")
    return np.asarray(tool.xmat.reshape(3, 3).T @ (env.data.body(name).xpos - tool.xpos))


def substeps(env: Any, action: Array) -> Iterator[mujoco.MjData]:
    """Runs one control step as the env does, and yields the simulation at each substep."""
    model, data = env.task.model, env.data
    env.task.apply(env.physics, np.asarray(action, np.float64)[None])
    for number in range(env.task.substeps):
        (mujoco.mj_step if number else mujoco.mj_step2)(model, data)
        yield data
    mujoco.mj_step1(model, data)
    yield data


def object_velocities(env: Any) -> Array:
    return env.data.qvel[16:].reshape(-1, 6)[:, :3]


# -- grips -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("aloha_id", IDS)
def test_what_a_gripper_lifted_does_not_slip_in_five_seconds(aloha_id: str, seed: int) -> None:
    env = made(aloha_id)
    env.reset(seed=seed)
    task, expert, names = env.task, efm_envs.make_expert(env), list(env.task.objects)
    carried = [(SIDES[hand], names[thing]) for hand, thing in enumerate(task.carries) if thing is not None]
    lying = {name: env.data.body(name).xpos[2] for name in names}
    while any(env.data.body(name).xpos[2] < lying[name] + LIFTED_M for name in names):
        action = expert.act()
        env.step(action)
    assert_no_slip(env, held(env, action), carried)


@pytest.mark.parametrize("aloha_id", efm_envs.ids(tags=["transfer_cube"]))
def test_the_cube_does_not_slip_where_it_was_handed_over(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=0)
    expert, is_success = efm_envs.make_expert(env), False
    while not is_success:
        action = expert.act()
        is_success = env.step(action)[-1]["is_success"]
    assert_no_slip(env, held(env, action), [("left", "cube")])


def assert_no_slip(env: Any, action: Array, carried: list[tuple[str, str]]) -> None:
    for _ in range(round(SETTLING_S / env.task.control_dt_s)):
        env.step(action)
    first = [in_gripper(env, *pair) for pair in carried]
    for _ in range(round(HOLD_S / env.task.control_dt_s)):
        env.step(action)
        for before, (side, name) in zip(first, carried, strict=True):
            slip = np.linalg.norm(in_gripper(env, side, name) - before)
            assert slip <= SLIP_M, f"the {name} slipped {1000 * slip:.2f} mm in the {side} gripper"


# -- nothing sinks in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["clean", "human"])
@pytest.mark.parametrize("aloha_id", IDS)
def test_nothing_sinks_in_while_an_expert_works(aloha_id: str, style: str) -> None:
    """In any contact: fingers in objects, objects in the table or in each other, the peg in the seat.

    That is so at every substep of 2 ms. With those of 4 ms a gripper that closes presses the peg into pads and table by up to 1.1 mm for
    a few substeps; what is seen, at the end of a control step, is not so deep.
    """
    env = made(aloha_id)
    substep_m = SUNK_M if env.task.model.opt.timestep < 0.003 else SUNK_BETWEEN_M
    expert, data, touched = efm_envs.make_expert(env, style), env.data, 0
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(env.step_limit):
            for _ in substeps(env, expert.act()):
                touched += data.ncon
                assert data.contact.dist.min(initial=0.0) >= -substep_m, deepest(env)
            assert data.contact.dist.min(initial=0.0) >= -SUNK_M, deepest(env)
            if env.simulation.is_success():
                break
        assert env.simulation.is_success()
    assert touched > 1000


def deepest(env: Any) -> str:
    contact = env.data.contact[int(env.data.contact.dist.argmin())]
    names = " and ".join(env.task.model.geom(int(i)).name for i in contact.geom)
    return f"{names} are {-1000.0 * contact.dist:.2f} mm in each other"


# -- random actions ----------------------------------------------------------------------------------------------------------------


def fastest_possible_m_s(model: mujoco.MjModel) -> float:
    """Returns a bound on the speed of whatever the arms hit.

    A joint that its motor drives against its damping alone goes no faster than largest torque / damping. A fingertip is then no faster
    than all of these added up, each at its longest lever, as if all axes were parallel and the arm stretched: 5.1 (waist) + 5.9 (shoulder)
    + 1.7 (elbow) + 0.7 (forearm) + 1.2 (wrist angle) + 1.7 (wrist rotate, at a finger's outer edge) = 16.3 m/s. Contacts are critically
    damped, so what is hit leaves no faster than it was hit; from as high as an arm reaches it may fall to the floor.

    It is no law of nature: the links kick each other, and single joints were seen at three times their bound, but never all at once. In
    1,000 episodes of 100 random actions the fastest object was at 4.7 m/s with joint targets and at 1.4 m/s with moves of the tools; with
    every action at ±1, at 8.0 and 1.6 m/s.
    """
    upper_m, forearm_m, hand_m, finger_m = np.hypot(0.05955, 0.3), 0.3, 0.069744 + 0.154, 0.041 + 0.012
    ahead_m = upper_m + forearm_m + hand_m
    levers_m = np.array([ahead_m, ahead_m, forearm_m + hand_m, hand_m, hand_m, np.hypot(finger_m, 0.012)])
    joints_rad_s = model.actuator_forcerange[:6, 1] / model.dof_damping[:6]
    fall_m = 0.127 + ahead_m + 0.75
    return float(np.sqrt((joints_rad_s @ levers_m) ** 2 + 2.0 * 9.81 * fall_m))


@pytest.mark.parametrize(("aloha_id", "episodes"), [("EFM-Insert-v0", 60), ("EFM-TransferCube-v0", 40)])
def test_random_joint_targets_break_nothing(aloha_id: str, episodes: int) -> None:
    flail(aloha_id, range(episodes), steps=100)


@pytest.mark.parametrize(("aloha_id", "episodes"), [("EFM-InsertEE-v0", 40), ("EFM-InsertTight-v0", 30), ("EFM-TransferCubeEE-v0", 30)])
def test_random_moves_of_the_tools_break_nothing(aloha_id: str, episodes: int) -> None:
    flail(aloha_id, range(episodes), steps=50)


@pytest.mark.parametrize("aloha_id", IDS)
def test_random_actions_at_their_extremes_break_nothing(aloha_id: str) -> None:
    flail(aloha_id, range(15, 25), steps=120 if registration(aloha_id).task_options["control"] == "joints" else 40, extreme=True)


def flail(aloha_id: str, seeds: range, steps: int, extreme: bool = False) -> None:
    env = made(aloha_id)
    model, data = env.task.model, env.data
    bound = fastest_possible_m_s(model)
    for seed in seeds:
        env.reset(seed=seed)
        actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, *env.action_space.shape))
        for action in np.sign(actions) if extreme else actions:
            observation, *_ = env.step(action)
            assert np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all()
            assert np.linalg.norm(object_velocities(env), axis=1).max() < bound
            assert np.linalg.norm(env.task.tool_velocities(env.physics)[0], axis=1).max() < bound
            assert env.observation_space.contains(observation)
        assert not any(warning.number for warning in data.warning), "MuJoCo met NaN and began anew, or had too little memory"


def test_the_bound_on_speed_is_what_its_derivation_says() -> None:
    for aloha_id in IDS:
        assert fastest_possible_m_s(made(aloha_id).task.model) == pytest.approx(17.3, abs=0.2)


# -- energy ------------------------------------------------------------------------------------------------------------------------


def energy(env: Any) -> float:
    """Of the arms: their motion, their servos' springs at constant commands, and the springs between their fingers, in [J]."""
    model, data = env.task.model, env.data
    mujoco.mj_energyVel(model, data)
    off = data.ctrl - data.qpos[:16]
    servos = 0.5 * model.actuator_gainprm[:, 0] @ off**2
    tied = 0.5 * sum(5000.0 * (data.qpos[i] - data.qpos[i + 1]) ** 2 for i in (6, 14))
    return float(data.energy[1] + servos + tied)


@pytest.mark.parametrize("aloha_id", IDS)
def test_with_held_commands_arms_that_were_pushed_lose_energy_and_come_to_rest(aloha_id: str) -> None:
    env = made(aloha_id)
    for seed in range(3):
        env.reset(seed=seed)
        push = np.random.default_rng(seed).uniform(-0.5, 0.5, (2, 8))
        push[:, 6:] = 0.0  # not the fingers
        env.data.qvel[:16] = push.ravel()
        mujoco.mj_forward(env.task.model, env.data)
        before = first = energy(env)
        for _ in range(round(4.0 / env.task.model.opt.timestep)):
            mujoco.mj_step(env.task.model, env.data)
            now = energy(env)
            assert now <= before + 1e-6 * first
            before = now
        assert before < 1e-4 * first
        assert np.abs(env.data.qvel[:16]).max() < 1e-3
        np.testing.assert_allclose(env.data.qpos[:16], env.data.ctrl, atol=1e-3)


@pytest.mark.parametrize("aloha_id", IDS)
def test_arms_have_no_weight_and_objects_have_theirs(aloha_id: str) -> None:
    model = made(aloha_id).task.model
    names = [model.body(i).name for i in range(model.nbody)]
    arms = np.array([name.startswith(("left/", "right/")) for name in names])
    np.testing.assert_array_equal(model.body_gravcomp, arms.astype(float))
    np.testing.assert_array_equal(model.opt.gravity, [0.0, 0.0, -9.81])


# -- numbers -----------------------------------------------------------------------------------------------------------------------


def arm_in_its_file() -> ET.Element:
    return ET.parse(str(efm_assets.path("aloha/vx300s.xml"))).getroot()


def numbers(element: ET.Element, name: str) -> list[float]:
    return [float(value) for value in element.attrib[name].split()]


@pytest.mark.parametrize("aloha_id", IDS)
def test_masses_and_inertias_of_the_arms_are_those_of_their_file(aloha_id: str) -> None:
    task = made(aloha_id).task
    for model in (task.model, task.drawn_model):
        bodies = [body for body in arm_in_its_file().iter("body")]
        assert len(bodies) == 9
        for body in bodies:
            inertial = body.find("inertial")
            assert inertial is not None
            for side in SIDES:
                compiled = model.body(f"{side}/{body.attrib['name']}")
                assert compiled.mass[0] == pytest.approx(float(inertial.attrib["mass"]), rel=1e-12)
                np.testing.assert_allclose(compiled.ipos, numbers(inertial, "pos"), atol=1e-15)
                np.testing.assert_allclose(np.sort(compiled.inertia), np.sort(numbers(inertial, "diaginertia")), rtol=1e-12)


@pytest.mark.parametrize("aloha_id", IDS)
def test_servos_of_the_arms_are_those_of_their_file(aloha_id: str) -> None:
    task = made(aloha_id).task
    for model in (task.model, task.drawn_model):
        for servo in arm_in_its_file().findall("actuator/position"):
            name = servo.attrib["name"]
            if "finger" in name:
                continue
            (joint,) = (joint for joint in arm_in_its_file().iter("joint") if joint.attrib.get("name") == name)
            for side in SIDES:
                compiled, dof = model.actuator(f"{side}/{name}"), model.joint(f"{side}/{name}")
                kp = float(servo.attrib["kp"])
                assert [compiled.gainprm[0], *compiled.biasprm[:3]] == [kp, 0.0, -kp, 0.0]
                np.testing.assert_array_equal(compiled.ctrlrange, numbers(servo, "ctrlrange"))
                np.testing.assert_array_equal(compiled.forcerange, numbers(servo, "forcerange"))
                np.testing.assert_array_equal(dof.range, numbers(joint, "range"))
                np.testing.assert_array_equal(dof.range, compiled.ctrlrange)
                assert dof.damping[0] == float(joint.attrib["damping"])
                assert dof.armature[0] == float(joint.attrib.get("armature", 0.0))


@pytest.mark.parametrize("aloha_id", IDS)
def test_what_is_drawn_weighs_and_pulls_like_what_is_simulated(aloha_id: str) -> None:
    task = made(aloha_id).task
    model, drawn = task.model, task.drawn_model
    assert model.ngeom < drawn.ngeom and model.opt.timestep == drawn.opt.timestep
    for name in (
        *("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_gravcomp", "jnt_range", "jnt_axis", "jnt_pos", "dof_damping"),
        *("dof_armature", "dof_frictionloss", "actuator_gainprm", "actuator_biasprm", "actuator_ctrlrange", "actuator_forcerange"),
        *("tendon_stiffness", "tendon_damping", "tendon_lengthspring", "site_pos", "site_quat", "cam_pos", "qpos0"),
    ):
        np.testing.assert_array_equal(getattr(model, name), getattr(drawn, name), err_msg=name)


@pytest.mark.parametrize("aloha_id", IDS)
def test_what_collides_is_all_that_is_simulated(aloha_id: str) -> None:
    task = made(aloha_id).task
    model, drawn = task.model, task.drawn_model
    colliding = [i for i in range(drawn.ngeom) if drawn.geom_contype[i] or drawn.geom_conaffinity[i]]
    assert [drawn.geom(i).name for i in colliding] == [model.geom(i).name for i in range(model.ngeom)]
    for name in ("geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_solref", "geom_solimp", "geom_margin", "geom_condim"):
        np.testing.assert_array_equal(getattr(model, name), getattr(drawn, name)[colliding], err_msg=name)


@pytest.mark.parametrize("aloha_id", IDS)
def test_objects_have_the_mass_of_50_grams_and_the_inertia_of_their_boxes(aloha_id: str) -> None:
    task = made(aloha_id).task
    model = task.model
    for name in task.objects:
        body = model.body(name)
        assert body.mass[0] == pytest.approx(0.05)
        geoms = [model.geom(i) for i in range(model.ngeom) if model.geom_bodyid[i] == body.id]
        mass = 0.05 / len(geoms)
        inertia = np.zeros(3)
        for geom in geoms:
            for square in (geom.size**2 / 3.0, geom.pos**2):
                inertia += mass * (square.sum() - square)
        np.testing.assert_allclose(np.sort(body.inertia), np.sort(inertia), rtol=1e-6)


def test_the_arms_stand_where_gym_aloha_has_them_and_mirror_each_other() -> None:
    model = made("EFM-Insert-v0").task.model
    for side, x in zip(SIDES, (-0.469, 0.469), strict=True):
        np.testing.assert_allclose(model.body(f"{side}/base").pos, [x, 0.5, 0.0], atol=1e-12)
    home = station.home_ctrl().reshape(2, 8)
    np.testing.assert_allclose(home[0], home[1], atol=1e-12)
