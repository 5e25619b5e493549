"""Where one ViperX 300s arm's tool is, and the joints that bring it there: forward and inverse kinematics, in closed form.

Base frame: +x ahead, +y left, z up, origin at the base. Waist, shoulder and elbow place the wrist's centre, the point in which the axes
of the last three joints meet; these three turn the tool about it. The tool is a point between the fingertips, ahead of the wrist's
centre on the tool frame's x axis; y is the way the fingers close.

"(published)" means vx300s.xml of MuJoCo Menagerie and gym-aloha; assets/aloha/vx300s.xml has the same numbers. All lengths in [m], all
angles in [rad]. Input is finite, of at most 1e150: what NaN, inf or more gives is unspecified, so an env checks its actions first.
Every product is written out, because a matrix product may round a row differently in another batch: results do not depend on the batch.
`station.BASE_M` and `station.BASE_AXES` say how the two bases stand in the world.
"""

import math
from typing import NamedTuple

import numpy as np

from efm_envs.task import Array

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")  # about z, y, y, x, y, x
JOINT_LOW = np.array([-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158])  # (published)
JOINT_HIGH = np.array([3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158])  # (published)

SHOULDER_HEIGHT_M = 0.079 + 0.04805  # (published)
ELBOW_M = (0.05955, 0.3)  # ahead of and above the shoulder at zero (published)
FOREARM_M = 0.2 + 0.1  # from the elbow ahead to the wrist's centre at zero (published)
GRIPPER_M = 0.069744  # from the wrist's centre ahead to the gripper's origin (published)
TOOL_M = 0.148  # from the gripper's origin ahead to the tool; ours: between the fingertips
WRIST_TO_TOOL_M = GRIPPER_M + TOOL_M

# Shoulder, elbow and wrist's centre are a triangle. The bend is the angle by which the forearm turns down from the upper arm's line.
_UPPER_ARM_M = math.hypot(*ELBOW_M)
_LEAN = math.atan2(*ELBOW_M)  # of the upper arm ahead of the vertical, at zero
_BEND_ZERO = math.pi / 2 - _LEAN
_COS_BEND_MIN = math.cos(JOINT_HIGH[2] + _BEND_ZERO)  # the elbow folds to its limit and no further
NEAREST_M = math.sqrt(_UPPER_ARM_M**2 + FOREARM_M**2 + 2.0 * _UPPER_ARM_M * FOREARM_M * _COS_BEND_MIN)  # shoulder to wrist's centre
FARTHEST_M = _UPPER_ARM_M + FOREARM_M

_ROUNDING = 1e-12  # what is outside a limit by less is inside
_SINGULAR = 1e-13  # less is rounding: of the wrist's centre from the waist's axis, in [m], and of the sine of wrist_angle
_HALF_TURN = np.array([math.pi, 0.0, math.pi])  # of the rolls, from one of the wrist's solutions to the other


class Solution(NamedTuple):
    """Joints for a wished pose of the tool.

    Attributes:
        joints: (..., 6) float64 in [rad], in the order of `JOINTS`, within their ranges, finite.
        is_reachable: (...) bool, whether these joints bring the tool exactly to the wished pose. Others might: see `inverse`.
    """

    joints: Array
    is_reachable: Array


def forward(joints: Array) -> tuple[Array, Array]:
    """Returns where the tool is.

    Args:
        joints: (..., 6) in [rad], in the order of `JOINTS`.

    Returns:
        Position (..., 3) in [m] and rotation (..., 3, 3) of the tool in the base frame, float64.
    """
    joints = np.array(joints, np.float64)
    joints[..., 2] += joints[..., 1]  # the forearm's angle below the horizon
    cos, sin = np.moveaxis(np.cos(joints), -1, 0), np.moveaxis(np.sin(joints), -1, 0)  # (6, ...)
    ahead = ELBOW_M[0] * cos[1] + ELBOW_M[1] * sin[1] + FOREARM_M * cos[2]
    above = ELBOW_M[1] * cos[1] - ELBOW_M[0] * sin[1] - FOREARM_M * sin[2]

    column_cos, column_sin = cos[..., None], sin[..., None]
    x, y, z = np.eye(3)  # rows of the rotation, from the tool inwards
    y, z = _turn(column_cos[5], column_sin[5], y, z)
    z, x = _turn(column_cos[4], column_sin[4], z, x)
    y, z = _turn(column_cos[3], column_sin[3], y, z)
    z, x = _turn(column_cos[2], column_sin[2], z, x)
    x, y = _turn(column_cos[0], column_sin[0], x, y)
    rotation = np.stack([x, y, z], axis=-2)
    wrist = np.stack([ahead * cos[0], ahead * sin[0], above + SHOULDER_HEIGHT_M], axis=-1)
    return wrist + WRIST_TO_TOOL_M * rotation[..., 0], rotation


def inverse(position: Array, rotation: Array) -> Solution:
    """Returns the joints that bring the tool to a pose.

    A pose has up to eight solutions. This one's waist faces the wrist's centre (the arm does not reach backwards over its shoulder), its
    elbow is above the line from shoulder to wrist, and its wrist_angle is at least 0 if the wrist's joints are then within their ranges,
    else at most 0 if they are then, else at least 0. Where a joint is not determined: the waist is 0 when the wrist's centre is on its
    axis; a wrist's centre exactly at the shoulder counts as above it; when wrist_angle is 0, forearm_roll is 0 and wrist_rotate takes
    all the roll. The waist and the rolls do not quite reach ±π: what needs more than 3.14158 is out of reach.

    A pose out of reach gets near joints. A wrist's centre farther from the shoulder than `FARTHEST_M`, or nearer than `NEAREST_M`, is
    moved to that distance on the line from the shoulder. A joint outside its range is clipped to it; the wrist's joints then keep the
    wished rotation as far as their own ranges let them.

    Args:
        position: (..., 3) of the tool in the base frame, in [m].
        rotation: (..., 3, 3) of the tool in the base frame, orthonormal. Its leading dimensions broadcast with those of `position`.

    Returns:
        The joints, and whether they reach the pose.
    """
    position, rotation = np.asarray(position, np.float64), np.asarray(rotation, np.float64)
    arm, is_in_reach = _arm_joints(position - WRIST_TO_TOOL_M * rotation[..., 0])
    wished = np.empty((*arm.shape[:-1], 6))
    wished[..., :3] = arm
    wished[..., 3:] = _wrist_joints(np.minimum(np.maximum(arm, JOINT_LOW[:3]), JOINT_HIGH[:3]), rotation)
    joints = np.minimum(np.maximum(wished, JOINT_LOW), JOINT_HIGH)
    is_within = (np.abs(wished - joints) <= _ROUNDING).all(axis=-1)
    return Solution(joints, np.asarray(is_in_reach & is_within))


def tool_down(position: Array, pitch_rad: float) -> Solution:
    """Returns the joints that bring the tool to points, pointing ahead and down, with no roll.

    The tool's rotation is a turn by `pitch_rad` about the base frame's y axis, wherever the waist faces: the fingers close along that
    axis. As `inverse` in everything else.

    Args:
        position: (..., 3) of the tool in the base frame, in [m].
        pitch_rad: 0 points straight ahead, π/2 straight down.

    Returns:
        The joints, and whether they reach the pose.
    """
    cos, sin = math.cos(pitch_rad), math.sin(pitch_rad)
    return inverse(position, np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]))


def _turn(cos: Array, sin: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Returns the coordinates u and v after a turn from u towards v; the turn back has −sin."""
    return cos * u - sin * v, sin * u + cos * v


def _arm_joints(wrist: Array) -> tuple[Array, Array]:
    """Returns waist, shoulder and elbow (..., 3) in [rad], unclipped, for the wrist's centre (..., 3), and whether its distance will do."""
    x, y, above = wrist[..., 0], wrist[..., 1], wrist[..., 2] - SHOULDER_HEIGHT_M
    ahead = np.hypot(x, y)
    square = ahead * ahead + above * above
    wished = (square - (_UPPER_ARM_M**2 + FOREARM_M**2)) / (2.0 * _UPPER_ARM_M * FOREARM_M)
    cos_bend = np.minimum(np.maximum(wished, _COS_BEND_MIN), 1.0)
    sin_bend = np.sqrt((1.0 - cos_bend) * (1.0 + cos_bend))

    joints = np.empty(wrist.shape)
    joints[..., 0] = np.where(ahead < _SINGULAR, 0.0, np.arctan2(y, x))
    rise = np.arctan2(FOREARM_M * sin_bend, _UPPER_ARM_M + FOREARM_M * cos_bend)  # of the upper arm above the line to the wrist
    joints[..., 1] = np.arctan2(ahead, above) - rise - _LEAN
    joints[..., 2] = np.arccos(cos_bend) - _BEND_ZERO
    return joints, np.abs(wished - cos_bend) <= _ROUNDING


def _wrist_joints(arm: Array, rotation: Array) -> Array:
    """Returns forearm_roll, wrist_angle and wrist_rotate (..., 3) in [rad], unclipped, that give the tool its rotation.

    The rotation as seen from the forearm is Rx(forearm_roll) Ry(wrist_angle) Rx(wrist_rotate). The first column, where the tool points,
    gives the first two. The second row after forearm_roll is undone is (0, cos, −sin) of the third, whatever the second is: so the three
    fit together even where the first is poorly determined.
    """
    angle = np.stack([arm[..., 0], arm[..., 1] + arm[..., 2]], axis=-1)
    cos, sin = np.cos(angle), -np.sin(angle)  # turns back
    x, y = _turn(cos[..., :1], sin[..., :1], rotation[..., 0, :], rotation[..., 1, :])  # (..., 3) rows
    z, x = _turn(cos[..., 1:], sin[..., 1:], rotation[..., 2, :], x)

    sin_angle = np.hypot(y[..., 0], z[..., 0])
    forearm_roll = np.where(sin_angle < _SINGULAR, 0.0, np.arctan2(y[..., 0], -z[..., 0]))
    row = np.cos(forearm_roll)[..., None] * y + np.sin(forearm_roll)[..., None] * z
    joints = np.empty(row.shape)
    joints[..., 0] = forearm_roll
    joints[..., 1] = np.arctan2(sin_angle, x[..., 0])
    joints[..., 2] = np.arctan2(-row[..., 2], row[..., 1])

    is_first = _is_within_wrist(joints)
    if is_first.all():
        return joints
    other = joints - np.copysign(_HALF_TURN, joints)
    other[..., 1] = -joints[..., 1]
    return np.where((is_first | ~_is_within_wrist(other))[..., None], joints, other)


def _is_within_wrist(joints: Array) -> Array:
    """Returns (...,), whether the wrist's joints (..., 3) are within their ranges."""
    is_within: Array = (joints >= JOINT_LOW[3:] - _ROUNDING) & (joints <= JOINT_HIGH[3:] + _ROUNDING)
    return np.asarray(is_within.all(axis=-1))
