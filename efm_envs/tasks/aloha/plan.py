"""The clean expert's plan: where each tool goes next, and how long it all still takes.

A plan is a function of the present state alone, so it goes on from wherever the arms and the objects are: after a drop it picks up
again, off the mouth of the socket it draws back. Coordinates are the world's, in [m]; times are in [s].
"""

import math
from typing import NamedTuple

from efm_envs.tasks.aloha.station import OPEN_M

Vec = tuple[float, float, float]

SPEED_M_S = 0.3  # of a tool on its way
LAG_S = 0.3  # a tool follows its command by about so much

HOVER_M = 0.06  # how far off its object a gripper lines up
FREE_M, FUNNEL = 0.004, 4.0  # it comes nearer by this much for each metre that it is better lined up than this
NEAR_M = 0.007  # so near to where it grasps, a gripper closes
NEAR_CLOSING = 0.3  # and the farther it has closed, the less it minds: for each metre
ROOM_M = 0.006  # a finger that has less room than this beside the object opens before it goes there
HELD_ALONG_M, HELD_ACROSS_M = 0.045, 0.02  # an object is held if its centre is within these of the tool, and the fingers touch it:
APART_M, PRESSED_M = 2e-3, 2e-3  # they are apart by its width, at most this more or less
CLOSING_M_S, GRIPPING_S = 0.08, 0.1  # how fast a finger closes, and how long it takes to get going and to hold firmly


class Hand(NamedTuple):
    """One gripper.

    Attributes:
        tool: where its tool is.
        opening: of its fingers, the mean of both, from the middle.
        retreat: unit vector back along its fingers: from there it comes to an object.
    """

    tool: Vec
    opening: float
    retreat: Vec


class Thing(NamedTuple):
    """An object.

    Attributes:
        center: where it is.
        axis: unit vector, its x axis; of the two ends it could be that of, the one that points more to the right.
    """

    center: Vec
    axis: Vec

    @classmethod
    def of(cls, x: float, y: float, z: float, axis_x: float, axis_y: float, axis_z: float) -> "Thing":
        """Returns the object at a place, with its x axis or the opposite."""
        return cls((x, y, z), (axis_x, axis_y, axis_z) if axis_x >= 0.0 else (-axis_x, -axis_y, -axis_z))


class Aims(NamedTuple):
    """What a plan aims at, where it is free to choose.

    Attributes:
        meeting: where the objects, or the object and the other gripper, meet.
        left_grasp, right_grasp: how far from an object's centre, towards its own side, each gripper takes it.
        aside: how far off the right place the objects are brought together: a mistake.
    """

    meeting: Vec
    left_grasp: float
    right_grasp: float
    aside: Vec = (0.0, 0.0, 0.0)


class Move(NamedTuple):
    """What a gripper does next.

    Attributes:
        target: where its tool goes.
        is_open: whether its fingers are to be open.
        seconds: until that is done.
        speed: of the tool, as a share of its usual one.
    """

    target: Vec
    is_open: bool
    seconds: float
    speed: float = 1.0


class Way(NamedTuple):
    """The plan for both arms.

    Attributes:
        moves: what the left arm and the right arm do next.
        seconds: until success.
    """

    moves: tuple[Move, Move]
    seconds: float


def shifted(point: Vec, direction: Vec, by: float) -> Vec:
    """Returns the point `by` metres on in a direction."""
    return point[0] + by * direction[0], point[1] + by * direction[1], point[2] + by * direction[2]


def minus(a: Vec, b: Vec) -> Vec:
    """Returns a − b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def plus(a: Vec, b: Vec) -> Vec:
    """Returns a + b."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def split(offset: Vec, direction: Vec) -> tuple[float, float]:
    """Returns how far an offset goes along a unit vector, and how far across it."""
    along = offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]
    return along, math.sqrt(max(math.dist(offset, (0.0, 0.0, 0.0)) ** 2 - along * along, 0.0))


def holds(hand: Hand, center: Vec, axis: Vec, half_width: float) -> bool:
    """Whether a gripper holds an object: it is between the fingers, and they are as far apart as it is wide."""
    if not -PRESSED_M < hand.opening - half_width < APART_M:
        return False
    along, across = split(minus(hand.tool, center), axis)
    return abs(along) < HELD_ALONG_M and across < HELD_ACROSS_M


def travel_s(distance: float) -> float:
    """Returns how long a tool takes for a way from rest to rest."""
    return distance / SPEED_M_S + LAG_S * (1.0 - math.exp(-distance / (SPEED_M_S * LAG_S)))


def closing_s(opening: float, half_width: float) -> float:
    """Returns how long fingers take until they hold an object."""
    return max(opening - half_width, 0.0) / CLOSING_M_S + GRIPPING_S


def pick(hand: Hand, grasp: Vec, half_width: float) -> Move:
    """Returns how a gripper gets hold of an object: it lines up at a distance, comes nearer the better it is lined up, and closes."""
    height, aside = split(minus(hand.tool, grasp), hand.retreat)
    near = NEAR_M + NEAR_CLOSING * (OPEN_M - hand.opening)
    if aside < near and abs(height) < near:
        return Move(hand.tool, False, closing_s(hand.opening, half_width))
    wanted = min(HOVER_M, FUNNEL * max(aside - FREE_M, 0.0))
    if hand.opening < half_width + ROOM_M and height < HOVER_M:
        wanted = HOVER_M
    way = math.hypot(aside, height - wanted) + wanted
    return Move(shifted(grasp, hand.retreat, wanted), True, travel_s(way) + closing_s(OPEN_M, half_width))


def carry(hand: Hand, center: Vec, goal: Vec, speed: float = 1.0) -> Move:
    """Returns how a gripper that holds an object brings it to a place."""
    return Move(plus(hand.tool, minus(goal, center)), False, travel_s(math.dist(goal, center)) / speed, speed)
