"""The plans of `pushing`, for many at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from efm_envs.task import Array
from efm_envs.tasks.language_table.families import APART_M, Aim, components, length_of
from efm_envs.tasks.language_table.pushing import (
    ALIGNED_M,
    ALIGNED_SLOPE,
    BLOCK_EXTENT_M,
    FARTHEST_M,
    GRAZING,
    LINE_UP_M,
    NEAREST_M,
    TINY_M,
    TOUCH_M,
    Plan,
)

RING_PLACES = 16  # places tried on the ring about a group from which a block should come apart
CROWDED_WEIGHT = 3.0  # a metre that the tool must stand too close to a block counts as so many metres of way


@dataclass(frozen=True)
class Plans:
    """`pushing.Plan`, B of them.

    Attributes:
        is_aligned: (B,) bool: the tool stands behind the block and can push; always for a tool that is to point.
        push: (B,) complex: direction in which the moving thing should go, a unit.
        across_m: (B,) [m]: how far the tool is off the line of the push, to the left.
        waypoint: (B,) complex: where the tool should go if it is not aligned.
        length_m: (B,) [m]: what the tool has to go until the goal is reached.
    """

    is_aligned: Array
    push: Array
    across_m: Array
    waypoint: Array
    length_m: Array

    def first(self) -> Plan:
        """Returns the first plan by itself."""
        values = (values[0].item() for values in vars(self).values())
        return Plan(*values)

    def rows(self, index: Array) -> "Plans":
        """Returns the plans number `index` (C,)."""
        return Plans(*(values[index] for values in vars(self).values()))


Extents = Callable[[Array, Any], Array | float]


def block_extents(push: Array, rows: Any) -> float:
    """Returns how far a block reaches back from its middle, whatever the direction."""
    return BLOCK_EXTENT_M


def plan_all(aim: Aim, points: Array, moving: Array, target: Array, extents: Extents = block_extents) -> Plans:
    """Plans to bring what moves (B,) to its targets (B,), with the blocks and the tool at `points` (B, n + 1) complex.

    `extents` says how far what is pushed reaches back from its middle, for directions (C,) complex of the push and the goals' numbers.

    Where blocks must come apart, any place on the ring about the group will do: of some, the one with the shortest plan is taken.
    """
    if not aim.has_apart:
        return _plan(aim, points, moving, target, slice(None), extents)
    batch = len(target)
    ring = aim.anchor(points)[:, None] + APART_M * np.exp(2j * np.pi * np.arange(RING_PLACES) / RING_PLACES)  # (B, K)
    targets = np.where(aim.is_apart[:, None], ring, target[:, None]).ravel()
    each = np.repeat(np.arange(batch), RING_PLACES)
    plans = _plan(aim, points[each], moving[each], targets, each, extents)
    standing = moving[each] - (extents(plans.push, each) + TOUCH_M + LINE_UP_M) * plans.push
    room = length_of(points[each, :-1] - standing[:, None]).min(axis=1)
    cost = plans.length_m + CROWDED_WEIGHT * np.maximum(aim.tool_clearance_m - room, 0.0)
    return plans.rows(cost.reshape(batch, RING_PLACES).argmin(axis=1) + RING_PLACES * np.arange(batch))


def _plan(aim: Aim, points: Array, moving: Array, target: Array, rows: Any, extents: Extents) -> Plans:
    """Plans for goals number `rows` of `aim`, (C) of them. `pushing.plan` says what is done."""
    tool, blocks = points[:, -1], points[:, :-1]
    push, distance = _unit(target - moving)
    slack = aim.slack_m[rows]
    first = detour(moving, push, distance - slack, blocks + aim.set_aside[rows], aim.clearance_m[rows])
    if first.is_blocked is not None:
        push = np.where(first.is_blocked, _unit(first.waypoint - moving)[0], push)
    ahead, across = components(tool - moving, push)
    touch = extents(push, rows) + TOUCH_M
    past_touch = -ahead - touch
    off_line = abs(across) - ALIGNED_SLOPE * np.maximum(past_touch, 0.0)
    is_aligned = (off_line < ALIGNED_M) & (past_touch > NEAREST_M) & (past_touch < FARTHEST_M)
    to_standing = detour(tool, *_unit(moving - (touch + LINE_UP_M) * push - tool), blocks, aim.tool_clearance_m)
    approach = np.where(is_aligned, np.maximum(past_touch, 0.0), to_standing.length_m + LINE_UP_M)
    waypoint = to_standing.waypoint
    if aim.has_point:
        is_point = aim.is_point[rows]
        is_aligned, waypoint = is_aligned | is_point, np.where(is_point, first.waypoint, waypoint)
        approach = np.where(is_point, 0.0, approach)
    left = first.length_m + slack - aim.radius[rows]
    return Plans(is_aligned, push, across, waypoint, np.maximum(approach + left, 0.0))


def _unit(way: Array) -> tuple[Array, Array]:
    """Returns directions and lengths of ways (…) complex."""
    length = length_of(way)
    return way * (1.0 / np.maximum(length, TINY_M)), length


class Detour(NamedTuple):
    """A way around the circle that is most in the way.

    Attributes:
        waypoint: (C,) complex: where to go first: the goal, or the point beside that circle.
        length_m: (C,) [m]: of the way by that point.
        is_blocked: (C,) bool: whether there is such a circle; None where there is none for any.
    """

    waypoint: Array
    length_m: Array
    is_blocked: Array | None


def detour(start: Array, along: Array, length: Array, around: Array, clearance_m: Array | float) -> Detour:
    """Goes from `start` (C,) complex in the directions `along` (C,) for `length` (C,) [m], each around the circle most in its way.

    Args:
        start: (C,) complex.
        along: (C,) complex, units.
        length: (C,) [m].
        around: (C, n) complex: centres of the circles.
        clearance_m: their radius; (C,) where it differs.
    """
    clearance = np.reshape(clearance_m, (-1, 1))
    ahead, across = components(around - start[:, None], along[:, None])  # (C, n)
    aside = abs(across)
    is_in_the_way = (aside < clearance) & (ahead > GRAZING * aside) & (ahead < length[:, None])
    goal = start + length * along
    if not is_in_the_way.any():
        return Detour(goal, length, None)
    rows, deepest = np.arange(len(start)), np.where(is_in_the_way, aside - clearance, 0.0).argmin(axis=1)
    ahead, across, is_blocked = ahead[rows, deepest], across[rows, deepest], is_in_the_way[rows, deepest]
    across = across - np.copysign(clearance_m, across)
    waypoint = np.where(is_blocked, start + ahead * along + across * (1j * along), goal)
    return Detour(waypoint, np.where(is_blocked, np.hypot(ahead, across) + np.hypot(length - ahead, across), length), is_blocked)
