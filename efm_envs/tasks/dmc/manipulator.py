"""The suite's manipulator: a planar arm, to bring a ball to a place or a peg into a slot (dm_control, suite/manipulator.py)."""

from collections.abc import Sequence
from typing import ClassVar

import mujoco
import numpy as np

from efm_envs.task import Array, Goals, Physics, Scenario
from efm_envs.tasks.dmc.suite import UNBOUNDED, SuiteTask, distance, joined, read_spec

ARM_JOINTS = ("arm_root", "arm_shoulder", "arm_elbow", "arm_wrist", "finger", "fingertip", "thumb", "thumbtip")  # (dm_control's order)
PROPS = ("ball", "cup", "target_ball", "peg", "slot", "target_peg")
CLOSE_M = 0.01  # (dm_control)
IN_HAND, IN_TARGET = 0.1, 0.1  # how often the object starts there (dm_control)
TARGET_LOW_M, TARGET_HIGH_M = (-0.4, 0.1), (0.4, 0.4)  # x and z (dm_control)
OBJECT_LOW_M, OBJECT_HIGH_M, THROWN_M_S = (-0.5, 0.0), (0.5, 0.7), 5.0  # x and z, and speed along x (dm_control)
HAND_SPEED_M_S = 1.0  # ours, for the estimate of what is left


class Manipulator(SuiteTask):
    """What the manipulator's tasks share.

    Attributes:
        props: the object, the target, and what else is there.
        target_turn_rad: by how much the target is turned, to either side.
        held_at: the object's site that is to be in the gripper.
        meeting: sites of the object and of the target that are to meet.
    """

    domain = "manipulator"
    substeps = 10
    cameras = ("fixed", "hand")
    agent_bounds = (1.0,) * 16 + (UNBOUNDED,) * 13 + (UNBOUNDED, UNBOUNDED, 1.0, 1.0)
    environment_bounds = (UNBOUNDED, UNBOUNDED, 1.0, 1.0, UNBOUNDED, UNBOUNDED, UNBOUNDED, UNBOUNDED, UNBOUNDED, 1.0, 1.0)
    props: ClassVar[tuple[str, ...]]
    target_turn_rad: ClassVar[float]
    held_at: ClassVar[str]
    meeting: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self) -> None:
        super().__init__()
        model = self.model
        self._arm = [model.joint(name).id for name in ARM_JOINTS]
        self._finger, self._thumb = model.joint("finger").id, model.joint("thumb").id
        first = model.joint(f"{self.props[0]}_x").id  # x, z and angle follow each other
        self._object_joints = slice(first, first + 3)
        self._hand, self._object, self._target = (model.body(name).id for name in ("hand", *self.props[:2]))
        self._grasp, self._held = model.site("grasp").id, model.site(self.held_at).id
        self._meeting = [(model.site(mine).id, model.site(its).id) for mine, its in self.meeting]

    def spec(self) -> mujoco.MjSpec:
        """Other tasks' objects are left out; the target, and a slot, are mocap bodies."""
        spec = read_spec(self.domain)
        for prop in set(PROPS) - set(self.props):
            spec.delete(spec.body(prop))
        for prop in self.props[1:]:
            spec.body(prop).mocap = True
        return spec

    # -- scenario ------------------------------------------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator) -> Scenario:
        """The arm is in any pose; the object is in the hand, at the target, or anywhere and thrown; nothing touches anything.

        As in dm_control, an object in the hand or at the target keeps the speed of a throw that was drawn, and refused, before.
        """
        qvel = np.zeros(self.model.nv)
        while True:
            qpos = self.model.qpos0.copy()
            qpos[self._arm] = self.random_positions(rng, self._arm)
            qpos[self._finger] = qpos[self._thumb]
            target = (*rng.uniform(TARGET_LOW_M, TARGET_HIGH_M), rng.uniform(-self.target_turn_rad, self.target_turn_rad))
            qpos[self._object_joints] = self._draw_object(rng, qpos, target, qvel)
            scenario = self._scenario(qpos, qvel, target)
            if self.is_free(scenario):
                return scenario

    def _draw_object(self, rng: np.random.Generator, qpos: Array, target: tuple[float, ...], qvel: Array) -> Sequence[float]:
        """Returns x, z and the angle of the object, given the rest; writes its velocity if it is thrown."""
        chance = rng.random()
        if chance < IN_HAND:
            return self._in_hand(qpos, target)
        if chance < IN_HAND + IN_TARGET:
            return target
        qvel[self._object_joints.start] = rng.uniform(-THROWN_M_S, THROWN_M_S)
        return (*rng.uniform(OBJECT_LOW_M, OBJECT_HIGH_M), rng.uniform(0.0, 2.0 * np.pi))

    def _in_hand(self, qpos: Array, target: tuple[float, ...]) -> Sequence[float]:
        """Returns x, z and the angle of an object that lies in the gripper."""
        physics = self.started(self._scenario(qpos, np.zeros(self.model.nv), target)).physics
        place, turn = physics.site_xpos[0, self._grasp], physics.site_xmat[0, self._grasp]
        return place[0], place[2], np.pi - np.arctan2(turn[6], turn[0])

    def _scenario(self, qpos: Array, qvel: Array, target: tuple[float, ...]) -> Scenario:
        """Returns the start with the target, and what else is to be there, at x, z, angle."""
        x, z, angle = target
        bodies = sorted(self.model.body(prop).id for prop in self.props[1:])  # the order of mocap bodies
        mocap_pos = np.array([[x, self.model.body_pos[body, 1], z] for body in bodies])
        mocap_quat = np.array([[np.cos(angle / 2.0), 0.0, np.sin(angle / 2.0), 0.0]] * len(bodies))
        return Scenario({"qpos": qpos, "qvel": qvel.copy(), "mocap_pos": mocap_pos, "mocap_quat": mocap_quat}, self.goal(*target))

    # -- observation ---------------------------------------------------------------------------------------------------------------

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns what is felt of the arm, and what is seen of the object and the target.

        `agent_pos`: sine and cosine of each of the eight joints; their velocities [rad/s]; log(1 + force in [N]) of the five touch
        sensors; the hand's pose. `environment_state`: the object's pose; its velocities [m/s, m/s, rad/s]; the target's pose. A pose is x
        and z [m], and w and y of the quaternion.
        """
        angles, qvel = physics.qpos[:, self._arm], physics.qvel
        turns = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(angles), 16)
        touch = np.log1p(physics.sensordata)
        return {
            "agent_pos": joined(turns, qvel[:, self._arm], touch, *self._pose(physics, self._hand)),
            "environment_state": joined(
                *self._pose(physics, self._object), qvel[:, self._object_joints], *self._pose(physics, self._target)
            ),
        }

    def _pose(self, physics: Physics, body: int) -> tuple[Array, Array]:
        """Returns x and z, and w and y of the quaternion, each (B, 2)."""
        return physics.xpos[:, body, ::2], physics.xquat[:, body, ::2]

    # -- success -------------------------------------------------------------------------------------------------------------------

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """The object is at the target, to a centimetre."""
        return self._gap_m(physics) <= CLOSE_M

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Control steps from hand to object and from there to the target, at 1 m/s; rough: grasping, lifting and turning take longer."""
        to_object = distance(physics.site_xpos, self._grasp, self._held)
        return (to_object + self._gap_m(physics)) / (HAND_SPEED_M_S * self.control_dt_s)

    def _gap_m(self, physics: Physics) -> Array:
        """Returns (B,): how far apart what is to meet still is, at most."""
        gaps = [distance(physics.site_xpos, mine, its) for mine, its in self._meeting]
        return np.asarray(np.maximum.reduce(gaps))


class BringBall(Manipulator):
    """Task of `EFM-DMC-ManipulatorBringBall-v0`; see the env's page for spaces and rules."""

    name = "DMCBringBall"
    instruction = "Bring the ball to the target."
    props: ClassVar[tuple[str, ...]] = ("ball", "target_ball")
    target_turn_rad = np.pi
    held_at = "ball"
    meeting: ClassVar[tuple[tuple[str, str], ...]] = (("ball", "target_ball"),)


class InsertPeg(Manipulator):
    """Task of `EFM-DMC-ManipulatorInsertPeg-v0`; see the env's page for spaces and rules."""

    name = "DMCInsertPeg"
    instruction = "Insert the peg into the slot."
    props: ClassVar[tuple[str, ...]] = ("peg", "target_peg", "slot")
    target_turn_rad = np.pi / 3.0
    held_at = "peg_grasp"
    meeting: ClassVar[tuple[tuple[str, str], ...]] = (("peg", "target_peg"), ("peg_tip", "target_peg_tip"))
