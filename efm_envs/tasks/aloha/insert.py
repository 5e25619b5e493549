"""Insert: the left arm holds a socket, the right arm puts a peg into it. ALOHA's bimanual insertion (gym-aloha; paper, section 4.2)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import mujoco
import numpy as np

from efm_envs.tasks.aloha.plan import Aims, Hand, Move, Thing, Vec, Way, carry, holds, minus, pick, plus, shifted, split, travel_s
from efm_envs.tasks.aloha.task import JOINTS, AlohaTask, Placing, checked_number

HALF_LENGTH_M = 0.06  # of the peg and of the socket (gym-aloha)
PEG_HALF_WIDTH_M = 0.01  # (gym-aloha)
WALL_M = 0.004  # thickness of the socket's walls (gym-aloha)
DEPTH_M = 0.02  # from the mouth to the seat (gym-aloha)
CLEARANCE_M = 0.008  # between the peg and each wall (gym-aloha)
LEAST_CLEARANCE_M, MOST_CLEARANCE_M = 0.001, 0.01

GAP_M = 0.05  # between the peg's tip and the mouth when they are to be lined up
WAIT_M = 0.08  # an arm whose fellow has yet to pick up waits so much farther out
MET_M = 0.015  # the socket has come to where the peg meets it
STRAIGHT = 0.4  # share of the clearance by which the tip may be off when it goes in
BACK = 4.0  # for each metre that it is farther off, it keeps so much distance from the mouth
INSERTING = 0.5  # of the usual speed, and so of how hard a tool presses …
NEAR_SEAT_M, PRESSING = 0.003, 0.2  # … and so near the seat: gently enough to stay there
KEEP_M = 0.0004  # so near, it stays: what its command is ahead by presses it on
PRESS_M = 0.01  # the tip is sent so far beyond the seat
MISS_M = (0.003, 0.008)  # by how much more than the clearance somebody is off who meets the rim


class Insert(AlohaTask):
    """Task of `EFM-Insert-v0`, `EFM-InsertEE-v0` and `EFM-InsertTight-v0`; see the env's page for spaces and rules.

    Args:
        control: "joints" or "ee".
        clearance_m: between the peg and each wall of the socket, 0.001 to 0.01 m.
        yaw_rad: peg and socket are turned by up to so much when an episode starts, 0 to 0.4.
    """

    name = "Insert"
    scene = "insert"
    instruction = "Insert the peg into the socket."
    objects: ClassVar[Mapping[str, Placing]] = {
        "peg": Placing((0.1, 0.4), (0.2, 0.6), (0.0, 0.37), (0.23, 0.63), 0.061),
        "socket": Placing((-0.2, 0.4), (-0.1, 0.6), (-0.23, 0.37), (0.0, 0.63), 0.066),
    }
    aims: ClassVar[Aims] = Aims(meeting=(0.0, 0.5, 0.2), left_grasp=0.01, right_grasp=0.01)
    most_yaw_rad = 0.4
    carries = (1, 0)
    grasp_slack_m = 0.015
    object_names = ("peg", "socket")

    def __init__(self, control: str = JOINTS, clearance_m: float = CLEARANCE_M, yaw_rad: float = 0.0) -> None:
        self.clearance_m = checked_number("clearance_m", clearance_m, LEAST_CLEARANCE_M, MOST_CLEARANCE_M)
        self.noise_slack_m = self.clearance_m / 2.0
        self.socket_half_width_m = PEG_HALF_WIDTH_M + self.clearance_m + WALL_M
        super().__init__(control, yaw_rad)
        self._contacts = self.sensors("peg_right_left_finger", "peg_seat")

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint[:-1]}, clearance {self.clearance_m!r})"

    def spec(self) -> mujoco.MjSpec:
        """Returns the scene with the socket's walls where the clearance puts them."""
        spec = super().spec()
        half, middle, thick = self.socket_half_width_m, self.socket_half_width_m - WALL_M / 2.0, WALL_M / 2.0
        spec.body("socket").pos[2] = half
        for name, place, size in (
            ("socket_top", (0.0, 0.0, middle), (HALF_LENGTH_M, half, thick)),
            ("socket_bottom", (0.0, 0.0, -middle), (HALF_LENGTH_M, half, thick)),
            ("socket_left", (0.0, middle, 0.0), (HALF_LENGTH_M, thick, half - WALL_M)),
            ("socket_right", (0.0, -middle, 0.0), (HALF_LENGTH_M, thick, half - WALL_M)),
        ):
            wall = spec.geom(name)
            wall.pos, wall.size = place, size
        return spec

    # -- success -------------------------------------------------------------------------------------------------------------------

    def stage_of(self, sensordata: Sequence[float], userdata: Sequence[float]) -> int:
        """Returns how far it has come.

        1: both fingers of each gripper touch its object; 2: they hold both off the table; 3: peg and socket touch, off the table;
        4: the peg touches the seat, off the table.
        """
        peg_left, peg_right, socket_left, socket_right, peg_table, socket_table, peg_socket, peg_seat = sensordata[self._contacts]
        if not (peg_table or socket_table):
            if peg_seat:
                return 4
            if peg_socket:
                return 3
        held = peg_left and peg_right and socket_left and socket_right
        return 0 if not held else 1 if peg_table or socket_table else 2

    def miss(self, rng: np.random.Generator) -> Vec:
        """Returns a place where the tip meets the rim."""
        off, angle = self.clearance_m + rng.uniform(*MISS_M), rng.uniform(0.0, 2.0 * math.pi)
        return 0.0, off * math.cos(angle), off * math.sin(angle)

    # -- plan ----------------------------------------------------------------------------------------------------------------------

    def way(self, left: Hand, right: Hand, things: list[Thing], aims: Aims) -> Way:
        """Both pick up; they meet; the peg lines up with the mouth and goes in."""
        peg, socket = things
        half = self.socket_half_width_m
        apart = HALF_LENGTH_M + GAP_M / 2.0
        socket_goal, peg_goal = shifted(aims.meeting, (1.0, 0.0, 0.0), -apart), shifted(aims.meeting, (1.0, 0.0, 0.0), apart)
        has_socket, has_peg = holds(left, socket.center, socket.axis, half), holds(right, peg.center, peg.axis, PEG_HALF_WIDTH_M)
        if has_socket and has_peg:
            return self._join(left, right, peg, socket, (socket_goal, peg_goal), aims)
        if has_socket:
            left_move = carry(left, socket.center, shifted(socket_goal, (1.0, 0.0, 0.0), -WAIT_M))
            left_s = 0.0
        else:
            left_move = pick(left, shifted(socket.center, socket.axis, -aims.left_grasp), half)
            left_s = left_move.seconds
        if has_peg:
            right_move = carry(right, peg.center, shifted(peg_goal, (1.0, 0.0, 0.0), WAIT_M))
            right_s = 0.0
        else:
            right_move = pick(right, shifted(peg.center, peg.axis, aims.right_grasp), PEG_HALF_WIDTH_M)
            right_s = right_move.seconds
        meeting_s = max(left_s + travel_s(math.dist(socket.center, socket_goal)), right_s + travel_s(math.dist(peg.center, peg_goal)))
        return Way((left_move, right_move), meeting_s + _inserting_s(GAP_M, 0.0))

    def _join(self, left: Hand, right: Hand, peg: Thing, socket: Thing, goals: tuple[Vec, Vec], aims: Aims) -> Way:
        """Returns how two objects that are held come together."""
        socket_goal, peg_goal = goals
        left_move = carry(left, socket.center, socket_goal)
        mouth, tip = shifted(socket.center, socket.axis, HALF_LENGTH_M), shifted(peg.center, peg.axis, -HALF_LENGTH_M)
        along, aside = split(minus(tip, plus(mouth, aims.aside)), socket.axis)
        far = math.dist(socket.center, socket_goal)
        if far > MET_M or along > 1.5 * GAP_M:
            seconds = max(left_move.seconds, travel_s(math.dist(peg.center, peg_goal)))
            return Way((left_move, carry(right, peg.center, peg_goal)), seconds + _inserting_s(GAP_M, 0.0))
        if along < KEEP_M - DEPTH_M:
            return Way((left_move, Move(right.tool, False, 0.0, PRESSING)), 0.0)
        off = max(aside - STRAIGHT * self.clearance_m, 0.0)
        is_inside = along < 0.0 and aside < 1.5 * self.clearance_m
        wanted = -(DEPTH_M + PRESS_M) if is_inside or off == 0.0 else min(GAP_M, BACK * off)
        goal = shifted(plus(mouth, aims.aside), socket.axis, wanted)
        speed = 1.0 if wanted >= 0.0 else PRESSING if along < NEAR_SEAT_M - DEPTH_M else INSERTING
        right_move = carry(right, tip, goal, speed)
        return Way((left_move, right_move), _inserting_s(along, aside))


def _inserting_s(along: float, aside: float) -> float:
    """Returns how long the tip takes from a place before the mouth to the seat."""
    return travel_s(max(along + DEPTH_M, 0.0)) / INSERTING + travel_s(aside)
