"""TransferCube: the right arm picks up a cube and hands it over to the left arm. ALOHA's other simulated task (gym-aloha)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from efm_envs.task import Array, Physics
from efm_envs.tasks.aloha.plan import Aims, Hand, Move, Thing, Vec, Way, carry, closing_s, holds, pick, plus, shifted, travel_s
from efm_envs.tasks.aloha.station import OPEN_M
from efm_envs.tasks.aloha.task import JOINTS, AlohaTask, Placing

HALF_WIDTH_M = 0.02  # (gym-aloha)
X_AXIS = (1.0, 0.0, 0.0)
WAIT_M = 0.12  # so far from the meeting point, back along its fingers, the left gripper waits
MET_M = 0.02  # the cube has come to where it is handed over
LIFTED_M = 0.03  # the centre of a cube that is higher up is off the table
BESIDE_M, LETTING_GO_M = 0.05, 0.005  # so near the cube, and no farther open than that, the right gripper still has it
MISS_M = (0.04, 0.06)  # so far from the cube the left gripper closes that misses it
OPENING_S = 0.05  # until a gripper that lets go touches no more


class TransferCube(AlohaTask):
    """Task of `EFM-TransferCube-v0` and `EFM-TransferCubeEE-v0`; see the env's page for spaces and rules.

    Args:
        control: "joints" or "ee".
        yaw_rad: the cube is turned by up to so much when an episode starts, 0 to 0.3.
    """

    name = "TransferCube"
    scene = "transfer_cube"
    instruction = "Hand the cube over from the right gripper to the left one."
    objects: ClassVar[Mapping[str, Placing]] = {"cube": Placing((0.0, 0.4), (0.2, 0.6), (-0.03, 0.37), (0.215, 0.63), 0.029)}
    aims: ClassVar[Aims] = Aims(meeting=(0.0, 0.5, 0.2), left_grasp=0.0155, right_grasp=0.0155)
    most_yaw_rad = 0.3
    carries = (None, 0)
    grasp_slack_m = 0.003
    noise_slack_m = 0.004
    object_names = ("cube",)

    def __init__(self, control: str = JOINTS, yaw_rad: float = 0.0) -> None:
        super().__init__(control, yaw_rad)
        self._contacts = self.sensors("cube_left_left_finger", "cube_table")

    # -- success -------------------------------------------------------------------------------------------------------------------

    def apply(self, physics: Physics, actions: Array) -> None:
        """As for every task of the station; and remembers whether the right gripper has had the cube since it was last on the table."""
        super().apply(physics, actions)
        *_, right_gripper, table = physics.sensordata[:, self._contacts].T
        physics.userdata[:, 0] = (table == 0.0) & ((right_gripper > 0.0) | (physics.userdata[:, 0] > 0.0))

    def stage_of(self, sensordata: Sequence[float], userdata: Sequence[float]) -> int:
        """Returns how far it has come.

        1: the right gripper touches the cube; 2: which is off the table; 3: both fingers of the left one touch it, too; 4: and the right
        gripper does not any more.
        """
        left_finger, right_finger, right_gripper, table = sensordata[self._contacts]
        if not (right_gripper or userdata[0]):
            return 0
        if table:
            return 1 if right_gripper else 0
        if left_finger and right_finger:
            return 3 if right_gripper else 4
        return 2 if right_gripper else 0

    def miss(self, rng: np.random.Generator) -> Vec:
        """Returns a place where the left gripper closes on nothing."""
        return -rng.uniform(*MISS_M), 0.0, rng.uniform(0.0, MISS_M[0])

    # -- plan ----------------------------------------------------------------------------------------------------------------------

    def way(self, left: Hand, right: Hand, things: list[Thing], aims: Aims) -> Way:
        """The right arm brings the cube; the left one comes and takes hold of it; the right one lets go."""
        (cube,) = things
        has_left, has_right = (holds(hand, cube.center, X_AXIS, HALF_WIDTH_M) for hand in (left, right))
        bring = carry(right, cube.center, aims.meeting)
        left_grasp = plus(shifted(cube.center, X_AXIS, -aims.left_grasp), aims.aside)
        is_handed = cube.center[2] > LIFTED_M and right.opening < HALF_WIDTH_M + LETTING_GO_M
        if has_left and is_handed and math.dist(right.tool, cube.center) < BESIDE_M:
            hold = carry(left, cube.center, aims.meeting)
            return Way((hold, Move(right.tool, True, OPENING_S)), OPENING_S)
        take_s = travel_s(WAIT_M) + closing_s(OPEN_M, HALF_WIDTH_M) + OPENING_S
        if has_right and math.dist(cube.center, aims.meeting) < MET_M:
            take = pick(left, left_grasp, HALF_WIDTH_M)
            return Way((take, bring), take.seconds + OPENING_S)
        waiting_place = shifted(shifted(aims.meeting, X_AXIS, -aims.left_grasp), left.retreat, WAIT_M)
        wait = Move(waiting_place, True, travel_s(math.dist(left.tool, waiting_place)))
        if has_left:  # which nobody handed it: it lets go
            wait = Move(left.tool, True, OPENING_S + wait.seconds)
        if has_right:
            return Way((wait, bring), max(bring.seconds, wait.seconds) + take_s)
        fetch = pick(right, shifted(cube.center, X_AXIS, aims.right_grasp), HALF_WIDTH_M)
        return Way((wait, fetch), max(fetch.seconds + travel_s(math.dist(cube.center, aims.meeting)), wait.seconds) + take_s)
