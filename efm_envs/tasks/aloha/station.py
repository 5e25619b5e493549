"""The ALOHA station: two ViperX 300s arms that face each other across a table. Its models, its home, and what moves it.

The first 16 values of qpos and of ctrl are the arms', left then right: six joints [rad] in the order of `kinematics.JOINTS`, then the
two fingers [m], each from the middle of the gripper outwards.
"""

import functools

import mujoco
import numpy as np

import efm_assets
from efm_envs.task import Array
from efm_envs.tasks.aloha import kinematics

SIDES = ("left", "right")
ARM_JOINTS = len(kinematics.JOINTS)
ACTUATORS = 2 * (ARM_JOINTS + 2)

BASE_M = np.array([[-0.469, 0.5, 0.0], [0.469, 0.5, 0.0]])  # gym-aloha; the right arm is turned by half a turn
BASE_AXES = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])  # so its x and y run the other way

PITCH_RAD = 1.1  # of a gripper that an end-effector action moves: less comes near the wrist's singularity, more out of reach
HOME_M = np.array([[-0.2, 0.5, 0.18], [0.2, 0.5, 0.18]])  # where the tools are when an episode starts
CLOSED_M, OPEN_M = 0.002, 0.037  # a finger's range of commands (Menagerie)

# Where end-effector actions may command the tools: within reach at that pitch, and no deeper than the table lets fingertips go.
LOW_M = np.array([[-0.25, 0.34, 0.012], [-0.08, 0.34, 0.012]])
HIGH_M = np.array([[0.08, 0.66, 0.3], [0.25, 0.66, 0.3]])

# Which of 14 actions (six joints and a gripper each side, as ALOHA has them) drives each of the 16 actuators, and the middle and the
# half of its range of commands.
_DRIVEN_BY = np.array([*range(6), 6, 6, *range(7, 13), 13, 13])
CTRL_LOW = np.tile([*kinematics.JOINT_LOW, CLOSED_M, CLOSED_M], 2)
CTRL_HIGH = np.tile([*kinematics.JOINT_HIGH, OPEN_M, OPEN_M], 2)
_MIDDLE, _HALF = (CTRL_HIGH + CTRL_LOW) / 2.0, (CTRL_HIGH - CTRL_LOW) / 2.0


def ctrl_of_joint_actions(actions: Array, out: Array | None = None) -> Array:
    """Returns the commands (B, 16), in `out` if given, that actions (B, 14) in [-1, 1] stand for: each the whole range of its actuator."""
    ctrl = np.multiply(actions[:, _DRIVEN_BY], _HALF, out=out)
    ctrl += _MIDDLE
    return ctrl


def joint_actions_of_ctrl(ctrl: Array) -> Array:
    """Returns the actions (B, 14) that stand for commands (B, 16)."""
    actions = np.empty((len(ctrl), 14))
    actions[:, _DRIVEN_BY] = (ctrl - _MIDDLE) / _HALF
    return actions


def ctrl_of_tools(places: Array, grippers: Array) -> Array:
    """Returns the commands (B, 16) that bring the tools to places (B, 2, 3) in [m], pitched down, with grippers (B, 2) from -1 to 1."""
    commands = np.empty((len(places), 2, ARM_JOINTS + 2))
    commands[..., :ARM_JOINTS] = kinematics.tool_down((places - BASE_M) * BASE_AXES, PITCH_RAD).joints
    commands[..., ARM_JOINTS:] = (CLOSED_M + (OPEN_M - CLOSED_M) / 2.0 * (grippers + 1.0))[..., None]
    return commands.reshape(len(places), ACTUATORS)


def tools_of_ctrl(ctrl: Array) -> Array:
    """Returns where (B, 2, 3) in [m] commands (B, 16) bring the tools."""
    joints = ctrl.reshape(len(ctrl), 2, ARM_JOINTS + 2)[..., :ARM_JOINTS]
    return np.asarray(BASE_M + BASE_AXES * kinematics.forward(joints)[0])


@functools.cache
def home_ctrl() -> Array:
    """Returns the commands (16,) at which the arms are at home, their grippers open; also their place in qpos."""
    ctrl = ctrl_of_tools(HOME_M[None], np.ones((1, 2)))[0]
    ctrl.flags.writeable = False
    return ctrl


# -- models ------------------------------------------------------------------------------------------------------------------------


def scene_spec(name: str, timestep_s: float) -> mujoco.MjSpec:
    """Returns the scene of `aloha/name.xml`, still to be compiled."""
    spec = mujoco.MjSpec.from_file(str(efm_assets.path(f"aloha/{name}.xml")))
    spec.option.timestep = timestep_s
    return spec


def without_scenery(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Takes away what nothing collides with: the physics has no use for it, and each shape costs time at every step."""
    for geom in list(spec.geoms):
        if not (geom.contype or geom.conaffinity):
            spec.delete(geom)
    return spec
