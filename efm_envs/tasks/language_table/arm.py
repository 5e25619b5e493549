"""Where the drawn arm's joints are: inverse kinematics of an xArm6 that holds the tool upright. For pictures; nothing is simulated.

"(manual)" means the UFACTORY xArm User Manual's modified DH table of the xArm6; "(published)" means google-research/language-table,
environments/constants.py. All lengths in [m], all angles in [rad]; assets/language_table/arm.xml has the same numbers.
"""

import numpy as np

from efm_envs.task import Array

BASE_X_M = -0.0155  # the base stands this far behind the published origin: see assets/language_table/PROVENANCE.md
FLANGE_HEIGHT_M = 0.145  # (published)
SHOULDER_HEIGHT_M = 0.267  # d1 (manual)
ELBOW_M = (0.0535, 0.2845)  # ahead of and above the shoulder at zero; a2 is its length, 0.28949 (manual)
WRIST_M = (0.0775, 0.3425)  # ahead of and below the elbow at zero: a3, d4 (manual)
FLANGE_M = (0.076, 0.097)  # ahead of and below the wrist at zero: a5, d6 (manual)

_UPPER_ARM_M, _FOREARM_M = np.hypot(*ELBOW_M), np.hypot(*WRIST_M)
_ELBOW_ZERO = np.arctan2(*ELBOW_M) + np.arctan2(*WRIST_M)  # between upper arm and forearm at zero
_SHOULDER_ZERO = np.arctan2(ELBOW_M[1], ELBOW_M[0])  # of the upper arm above the horizon at zero: 1.3849179 (manual)
_WRIST_RISE_M = FLANGE_HEIGHT_M + FLANGE_M[1] - SHOULDER_HEIGHT_M  # of the wrist above the shoulder: 2.5 cm below it

# The wrist's horizontal distance from the shoulder while the elbow is neither folded nor stretched, less 0.1 mm.
_NEAREST_M = np.sqrt((_FOREARM_M - _UPPER_ARM_M) ** 2 - _WRIST_RISE_M**2) + 1e-4
_FARTHEST_M = np.sqrt((_FOREARM_M + _UPPER_ARM_M) ** 2 - _WRIST_RISE_M**2) - 1e-4


def arm_joints(tool_xy: Array) -> Array:
    """Returns the joints with which the arm holds the tool upright above points of the table, elbow up.

    Joint 1 turns the arm's plane towards the tool. In it the wrist is 0.076 m short of the tool and 0.025 m below the shoulder, so
    shoulder, elbow and wrist are a triangle with known sides: the law of cosines gives joints 3 and 2. Joint 4 stays 0, joint 5 undoes
    the tilt of 2 and 3, and joint 6 undoes joint 1's turn: the flange points down and always the same way, as the published one
    (rotation vector (0, π, 0)).

    Reach, from the base's axis: 0.133 to 0.716. A point outside is replaced by the nearest one on the same bearing. All of x 0.13 to
    0.62, y ±0.325 is inside. Angles are continuous everywhere except behind the base (y = 0, x < `BASE_X_M`), where joint 1 wraps.

    Args:
        tool_xy: (B, 2), finite, in [m] in the world's frame.

    Returns:
        (B, 6) float64 in [rad], in the order of arm_joint1 to arm_joint6.
    """
    ahead, left = tool_xy[:, 0] - BASE_X_M, np.asarray(tool_xy[:, 1], np.float64)
    with np.errstate(over="ignore"):  # what is too far to square is too far to reach
        reach = np.clip(np.hypot(ahead, left) - FLANGE_M[0], _NEAREST_M, _FARTHEST_M)  # (B,) of the wrist
    turn = np.arctan2(left, ahead)
    square = reach**2 + _WRIST_RISE_M**2  # from shoulder to wrist
    elbow = np.arccos((_UPPER_ARM_M**2 + _FOREARM_M**2 - square) / (2.0 * _UPPER_ARM_M * _FOREARM_M))
    shoulder = np.arctan2(_WRIST_RISE_M, reach) + np.arctan2(_FOREARM_M * np.sin(elbow), _UPPER_ARM_M - _FOREARM_M * np.cos(elbow))
    joint2, joint3 = _SHOULDER_ZERO - shoulder, _ELBOW_ZERO - elbow
    return np.stack([turn, joint2, joint3, np.zeros_like(turn), -joint2 - joint3, turn - np.pi], axis=1)
