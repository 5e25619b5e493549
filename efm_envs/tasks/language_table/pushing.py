"""How one pushes something to a place: the plan that the clean expert follows and whose length is the privileged steps-to-go.

Points of the board are complex numbers, x + iy in [m]. `pushing_batch` makes the same plans for many at once; tests hold the two together
to the last bit, so the arithmetic here is written out in real numbers, which round alike everywhere.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from efm_envs.tasks.language_table.board import CONTACT_MARGIN_M, TOOL_RADIUS_M

STEP_M = 0.03  # what the clean expert moves the tool in a control step: 0.3 m/s (published: oracles/oriented_push_oracle.py)
BLOCK_EXTENT_M = 0.022  # from a block's centre to its side, on average over shapes and directions
TOUCH_M = TOOL_RADIUS_M + CONTACT_MARGIN_M  # from the side of what is pushed to the tool's centre
LINE_UP_M = 0.016  # so much before it touches, the tool lines up
NEAREST_M = -0.028  # a tool that is so much nearer than where it touches is beside the block, not in the hollow of a moon
FARTHEST_M = 0.08  # a tool that is so far from touching lines up before it pushes
ALIGNED_M = 0.022  # the tool may be this far off the line of the push
ALIGNED_SLOPE = 0.2  # and that much more for each metre that it is farther behind
GRAZING = 1.0  # a block this little ahead, for what it is aside, is past
TINY_M = 1e-9

Extent = Callable[[complex], float]


class Push(NamedTuple):
    """Something to bring to a place, and what is in the way.

    Attributes:
        moving: where it is: the middle of a block, or the tool itself.
        target: where its middle should come to.
        radius_m: how near is enough.
        slack_m: how far before the target one may aim.
        tool: where the tool is.
        blocks: where all blocks are: the tool goes around them.
        in_the_way: where the blocks are that what moves goes around.
        clearance_m: what it keeps from their middles.
        tool_clearance_m: what the tool keeps.
        extent: says how far what is pushed reaches back from its middle, for a direction of the push.
        is_point: whether it is the tool itself that should come to the target.
    """

    moving: complex
    target: complex
    radius_m: float
    slack_m: float
    tool: complex
    blocks: Sequence[complex]
    in_the_way: Sequence[complex]
    clearance_m: float
    tool_clearance_m: float
    extent: Extent
    is_point: bool


class Plan(NamedTuple):
    """What to do next, and how far it is.

    Attributes:
        is_aligned: whether the tool stands behind the block and can push; always for a tool that is to point.
        push: direction in which the moving thing should go, a unit.
        across_m: how far the tool is off the line of the push, to the left.
        waypoint: where the tool should go if it is not aligned.
        length_m: what the tool has to go until the goal is reached.
    """

    is_aligned: bool
    push: complex
    across_m: float
    waypoint: complex
    length_m: float


def plan(push: Push) -> Plan:
    """Returns the plan: around the blocks to a point behind the one to push, then push it, around the others, to its target."""
    tool, moving = push.tool, push.moving
    direction, distance = unit(push.target - moving)
    first, length, is_blocked = detour(moving, direction, distance - push.slack_m, push.in_the_way, push.clearance_m)
    left = length + push.slack_m - push.radius_m
    if is_blocked:
        direction, _ = unit(first - moving)
    ahead, across = components(tool - moving, direction)
    if push.is_point:
        return Plan(True, direction, across, first, max(left, 0.0))
    touch = push.extent(direction) + TOUCH_M
    past_touch = -ahead - touch
    off_line = abs(across) - ALIGNED_SLOPE * max(past_touch, 0.0)
    is_aligned = off_line < ALIGNED_M and NEAREST_M < past_touch < FARTHEST_M
    behind = complex(moving.real - (touch + LINE_UP_M) * direction.real, moving.imag - (touch + LINE_UP_M) * direction.imag)
    waypoint, approach, _ = detour(tool, *unit(behind - tool), push.blocks, push.tool_clearance_m)
    approach = max(past_touch, 0.0) if is_aligned else approach + LINE_UP_M
    return Plan(is_aligned, direction, across, waypoint, max(approach + left, 0.0))


def detour(start: complex, along: complex, length: float, around: Sequence[complex], clearance_m: float) -> tuple[complex, float, bool]:
    """Goes from `start` in the direction `along` for `length` [m], around the circle that is most in the way.

    Args:
        start: where from.
        along: a unit.
        length: in [m].
        around: centres of the circles.
        clearance_m: their radius.

    Returns:
        Where to go first: the goal, or the point beside that circle; the length of the way by that point in [m]; whether there is such
        a circle.
    """
    u, v = along.real, along.imag
    most = None
    for center in around:
        x, y = center.real - start.real, center.imag - start.imag
        across = y * u - x * v
        aside = abs(across)
        if aside < clearance_m:
            ahead = x * u + y * v
            if ahead > GRAZING * aside and ahead < length and (most is None or aside < most[0]):
                most = aside, ahead, across
    if most is None:
        return complex(start.real + length * u, start.imag + length * v), length, False
    _, ahead, across = most
    across = across - (clearance_m if across >= 0.0 else -clearance_m)
    waypoint = complex(start.real + ahead * u - across * v, start.imag + ahead * v + across * u)
    return waypoint, abs(complex(ahead, across)) + abs(complex(length - ahead, across)), True


def unit(way: complex) -> tuple[complex, float]:
    """Returns the direction and the length of a way."""
    length = abs(way)
    scale = 1.0 / max(length, TINY_M)
    return complex(way.real * scale, way.imag * scale), length


def components(way: complex, along: complex) -> tuple[float, float]:
    """Returns how far a way goes along a direction, a unit, and across, to the left."""
    x, y, u, v = way.real, way.imag, along.real, along.imag
    return x * u + y * v, y * u - x * v


def block_extent(direction: complex) -> float:
    """Returns how far a block reaches back from its middle, whatever the direction."""
    return BLOCK_EXTENT_M
