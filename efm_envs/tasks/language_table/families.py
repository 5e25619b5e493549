"""The seven families of instructions: what each asks for, when it is fulfilled, and how its goals are drawn.

Numbers and rules are those of google-research/language-table, environments/rewards/, the file of each family. Points of the board are
complex numbers, x + iy in [m].

Every goal is one sentence about one moving thing (a block, or the tool itself): it must come within a radius of a target, which is given
relative to an anchor: nothing (a place on the board), another block, or the centroid of several. A goal's numbers, (G,) float64:

    family | radius | offset x, y | anchor's start x, y | mover: block 0 … n−1, tool (one-hot) | anchor: weight of block 0 … n−1
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from efm_envs.task import Array, Goal, Goals
from efm_envs.tasks.language_table.board import BUFFER_M, WORKSPACE_HIGH, WORKSPACE_LOW
from efm_envs.tasks.language_table.instructions import DIRECTIONS, FAMILIES, PLACES, Meaning
from efm_envs.tasks.language_table.pushing import Extent, Push

BLOCK_RADIUS_M = 0.05  # block2block and point: centres this close (rewards/constants.py)
START_RADIUS_M = 0.06  # they never start this close
PLACE_RADIUS_M, CENTER_RADIUS_M = 0.115, 0.1  # absolute
PLACE_SHIFT_M = 0.025  # absolute: the board is not quite where the workspace is
NEAR_M, FAR_M, RELATIVE_RADIUS_M = 0.15, 0.25, 0.1  # relative
BESIDE_M, BESIDE_DIAGONAL_M, BESIDE_RADIUS_M = 0.08, 0.04, 0.04  # block_relative: offsets, along each axis on a diagonal
BESIDE_LINE = (0.5, 1.1, 10)  # block_relative: near any of 10 points between these fractions of the offset
DRAGGED_M = 0.05  # block_relative: the anchor may not be moved farther
GROUP_M = 0.08  # separate: blocks closer than this are together
APART_M, APART_RADIUS_M = 0.1, 0.025  # separate: this far from the group's centroid, give or take
CORNER_INSET_M, CORNER_RADIUS_M = 0.08, 0.08  # corner: both from the workspace's edges

# Ours: what something that is moved keeps from the centre of a block that it goes around.
TOOL_CLEARANCE_M, BLOCK_CLEARANCE_M, CAREFUL_CLEARANCE_M = 0.052, 0.052, 0.058
NEAR_ENOUGH = 0.8  # of the radius: what lies in the way beyond does not matter, unless the target is beside a block that must stay

BLOCK_RELATIVE, SEPARATE = FAMILIES.index("block_relative"), FAMILIES.index("separate")
_HEAD = 6  # numbers of a goal before the mover


def _toward(direction: str) -> complex:
    """Returns 1, i, 1 + i, …: the camera looks back at the robot, so up is −x and left is −y (rewards/block2relativelocation.py)."""
    words = direction.split()
    vertical = -1.0 if {"up", "top"} & set(words) else 1.0 if {"down", "bottom"} & set(words) else 0.0
    return complex(vertical, -1.0 if "left" in words else 1.0 if "right" in words else 0.0)


def _place(name: str, low: Array, high: Array) -> complex:
    center, half, toward = (low + high) / 2, (high - low) / 2, _toward(name)
    return complex(center[0] + toward.real * half[0], center[1] + toward.imag * half[1])


_SHIFT = np.array([PLACE_SHIFT_M, 0.0])
PLACE_AT = {name: _place(name, WORKSPACE_LOW - _SHIFT, WORKSPACE_HIGH - _SHIFT) for name in PLACES}
CORNER_AT = {n: _place(n, WORKSPACE_LOW + CORNER_INSET_M, WORKSPACE_HIGH - CORNER_INSET_M) for n in PLACES if " " in n}


def beside(direction: str) -> complex:
    """Returns the offset that block_relative asks for."""
    toward = _toward(direction)
    return toward * (BESIDE_DIAGONAL_M if toward.real and toward.imag else BESIDE_M)


def is_inside(point: complex) -> bool:
    """Whether a target keeps the buffer from the workspace's edge (rewards/reward.py)."""
    low, high = WORKSPACE_LOW + BUFFER_M, WORKSPACE_HIGH - BUFFER_M
    return bool(low[0] < point.real < high[0] and low[1] < point.imag < high[1])


def length_of(way: Array) -> Array:
    """Returns the lengths of ways, complex. Unlike `abs`, it rounds alike however many there are: a batch says what its rows say."""
    return np.hypot(way.real, way.imag)


def components(way: Array, along: Array) -> tuple[Array, Array]:
    """Returns how far ways go along directions (units), and across, to the left; complex products do not round alike, either."""
    x, y, u, v = way.real, way.imag, along.real, along.imag
    return x * u + y * v, y * u - x * v


# -- a goal as numbers -------------------------------------------------------------------------------------------------------------


def goal_state(meaning: Meaning, blocks: Sequence[str], at: Array, tool: complex) -> Array:
    """Returns the goal's numbers (G,).

    Args:
        meaning: what is asked for.
        blocks: the names of the n blocks of the model.
        at: (n,) complex: where they are.
        tool: where the tool is.
    """
    index = {block: i for i, block in enumerate(blocks)}
    mover, weights = np.zeros(len(blocks) + 1), np.zeros(len(blocks))
    mover[len(blocks) if meaning.family == "point" else index[meaning.block]] = 1.0
    anchors = meaning.avoid or [b for b in (meaning.reference, meaning.block if meaning.family == "point" else None) if b]
    weights[[index[block] for block in anchors]] = 1.0 / max(len(anchors), 1)
    offset, radius = _target(meaning, complex(at[index[meaning.block]]))
    return _pack(meaning.family, radius, offset, complex(weights @ at), mover, weights)


def place_goal(place: str) -> Array:
    """Returns the numbers (G,) of the goal that the only object of a table should come to a place, as in the family "absolute"."""
    radius = CENTER_RADIUS_M if place == "center" else PLACE_RADIUS_M
    return _pack("absolute", radius, PLACE_AT[place], 0j, np.array([1.0, 0.0]), np.zeros(1))


def _pack(family: str, radius: float, offset: complex, anchor: complex, mover: Array, weights: Array) -> Array:
    head = [FAMILIES.index(family), radius, offset.real, offset.imag, anchor.real, anchor.imag]
    return np.concatenate([head, mover, weights])


def _target(meaning: Meaning, block: complex) -> tuple[complex, float]:
    """Returns the target's offset from the anchor, and the radius."""
    match meaning.family:
        case "absolute":
            place = str(meaning.place)
            return PLACE_AT[place], CENTER_RADIUS_M if place == "center" else PLACE_RADIUS_M
        case "corner":
            return CORNER_AT[str(meaning.place)], CORNER_RADIUS_M
        case "relative":
            toward = _toward(str(meaning.direction))
            return block + toward / abs(toward) * (FAR_M if meaning.far else NEAR_M), RELATIVE_RADIUS_M
        case "block_relative":
            return beside(str(meaning.direction)), BESIDE_RADIUS_M
        case "separate":
            return complex(APART_M), APART_RADIUS_M
        case _:
            return 0j, BLOCK_RADIUS_M


class Aim:
    """The goals of a batch as arrays, taken apart once, and the situation at hand measured against them.

    Args:
        goals: the goals of B episodes over n blocks.
        tool_clearance_m: what the tool keeps from the centre of a block that it goes around.

    Attributes:
        is_beside: (B,) bool: of the family block_relative; is_apart: of separate; is_point: of point. has_…: whether any is.
        radius: (B,) [m].
        offset: (B,) complex: the target, from the anchor.
        mover: (B,) int: column of the moving thing among block 0 … n−1, tool.
        weights: (B, n): the anchor's.
        anchor_start: (B,) complex: where it was when the episode began.
        set_aside: (B, n) complex: far away for the blocks that what moves need not go around (itself, and the one that it should come
            to), 0 for the others: added to the blocks' places, it leaves what is in the way.
        clearance_m: (B,) [m]: what it keeps from the centres of the others.
        tool_clearance_m: what the tool keeps from the centres of all.
        slack_m: (B,) [m]: how far before the target one may aim.
    """

    def __init__(self, goals: Goals, tool_clearance_m: float = TOOL_CLEARANCE_M) -> None:
        states = goals.states
        n = (states.shape[1] - _HEAD - 1) // 2
        self._rows = np.arange(len(states))

        family = states[:, 0].astype(int)
        self.is_beside, self.is_apart = family == BLOCK_RELATIVE, family == SEPARATE
        self.has_beside, self.has_apart = bool(self.is_beside.any()), bool(self.is_apart.any())
        self.radius = states[:, 1]
        self.offset = states[:, 2] + 1j * states[:, 3]
        self._offset_m = length_of(self.offset)

        self.mover = states[:, _HEAD : _HEAD + n + 1].argmax(axis=1)
        self.is_point = self.mover == n
        self.has_point = bool(self.is_point.any())

        self.weights = states[:, _HEAD + n + 1 :]
        self.anchor_start = states[:, 4] + 1j * states[:, 5]
        self.has_anchor = bool(self.weights.any())
        self._has_single_anchors = bool((self.weights.max(axis=1, initial=0.0) == 1.0).all())
        self._single_anchor = self.weights.argmax(axis=1)

        comes_to = (self.weights > 0.0) & ~(self.is_beside | self.is_apart)[:, None]
        is_aside = comes_to | (states[:, _HEAD : _HEAD + n] > 0.0)
        self.set_aside = 1e3 * is_aside + 0j
        clearance = np.where(self.is_beside, CAREFUL_CLEARANCE_M, BLOCK_CLEARANCE_M)
        self.clearance_m = np.where(self.is_point, tool_clearance_m, clearance)
        self.tool_clearance_m = tool_clearance_m
        self.slack_m = np.where(self.is_beside, 0.0, NEAR_ENOUGH * self.radius)

        as_numbers = (self.radius, self.slack_m, self.clearance_m, self.is_point, is_aside)
        self._radius_m, self._slack_m, self._clearance_m, self._is_point, self._is_aside = (values.tolist() for values in as_numbers)

    def moving(self, points: Array) -> Array:
        """Returns (B,) complex: where the moving thing is. `points` (B, n + 1) complex: the blocks and the tool."""
        return points[self._rows, self.mover]

    def anchor(self, points: Array) -> Array:
        """Returns (B,) complex: where the anchor is; 0 without one."""
        if self._has_single_anchors:
            return points[self._rows, self._single_anchor]
        return np.asarray((self.weights * points[:, :-1]).sum(axis=1))

    def target(self, points: Array, moving: Array) -> Array:
        """Returns (B,) complex: where what moves (B,) complex should come to, from where it is now."""
        if not self.has_anchor:
            return self.offset
        anchor = self.anchor(points)
        target = anchor + self.offset
        if self.has_beside:
            along, _ = components(moving - anchor, self.offset / np.maximum(self._offset_m**2, 1e-9))
            first, last, count = BESIDE_LINE
            step = (last - first) / (count - 1)
            nearest = first + step * np.clip(np.round((along - first) / step), 0, count - 1)
            target = np.where(self.is_beside, anchor + nearest * self.offset, target)
        if self.has_apart:
            away = moving - anchor
            target = np.where(self.is_apart, anchor + APART_M * away / np.maximum(length_of(away), 1e-9), target)
        return target

    def push(self, row: int, points: Array, moving: Array, target: Array, extent: Extent) -> Push:
        """Returns what is to be done in one episode of the batch."""
        blocks = points[row, :-1].tolist()
        return Push(
            moving=complex(moving[row]),
            target=complex(target[row]),
            radius_m=self._radius_m[row],
            slack_m=self._slack_m[row],
            tool=complex(points[row, -1]),
            blocks=blocks,
            in_the_way=[block for block, is_aside in zip(blocks, self._is_aside[row], strict=True) if not is_aside],
            clearance_m=self._clearance_m[row],
            tool_clearance_m=self.tool_clearance_m,
            extent=extent,
            is_point=self._is_point[row],
        )

    def is_dragged(self, points: Array) -> Array:
        """Returns (B,) bool: whether an anchor that must stay was moved too far."""
        return self.is_beside & (length_of(self.anchor(points) - self.anchor_start) > DRAGGED_M)

    def is_success(self, points: Array, moving: Array, target: Array) -> Array:
        """Returns (B,) bool: the ground truth."""
        is_near = length_of(moving - target) < self.radius
        return np.asarray(is_near & ~self.is_dragged(points) if self.has_beside else is_near)


# -- drawing a meaning for blocks that lie where they lie -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where things are when an episode starts.

    Attributes:
        blocks: names of the blocks on the table.
        at: (k,) complex: where they are.
        tool: where the tool is.
    """

    blocks: tuple[str, ...]
    at: Array
    tool: complex

    def of(self, block: str) -> complex:
        """Returns where a block is."""
        return complex(self.at[self.blocks.index(block)])


def draw_meaning(family: str, layout: Layout, rng: np.random.Generator) -> Meaning | None:
    """Returns something that the family can ask for in this layout, not fulfilled yet; None where this draw gave nothing."""
    meaning = _DRAW[family](layout, rng)
    return meaning if meaning is not None and is_allowed(meaning, layout) else None


def is_allowed(meaning: Meaning, layout: Layout) -> bool:
    """Whether an episode may start here: as published, with a target on the board and away from what is asked for."""
    state = goal_state(meaning, layout.blocks, layout.at, layout.tool)
    aim = Aim(Goals([Goal("", state)]))
    points = np.append(layout.at, layout.tool)[None]
    moving = aim.moving(points)
    target = aim.target(points, moving)
    is_success, distance = bool(aim.is_success(points, moving, target)[0]), float(abs(moving - target)[0])
    match meaning.family:
        case "block2block" | "point":
            return distance >= START_RADIUS_M
        case "block_relative":
            return is_inside(layout.of(str(meaning.reference)) + beside(str(meaning.direction))) and not is_success
        case "relative" | "separate":
            return is_inside(complex(target[0])) and not is_success
        case _:
            return not is_success


def _one(layout: Layout, rng: np.random.Generator) -> str:
    return layout.blocks[rng.integers(len(layout.blocks))]


def _two(layout: Layout, rng: np.random.Generator) -> tuple[str, str]:
    first, second = rng.choice(len(layout.blocks), 2, replace=False)
    return layout.blocks[first], layout.blocks[second]


def _choice(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _draw_block2block(layout: Layout, rng: np.random.Generator) -> Meaning:
    block, reference = _two(layout, rng)
    return Meaning("block2block", block, reference=reference)


def _draw_block_relative(layout: Layout, rng: np.random.Generator) -> Meaning:
    block, reference = _two(layout, rng)
    return Meaning("block_relative", block, reference=reference, direction=_choice(DIRECTIONS, rng))


def _draw_separate(layout: Layout, rng: np.random.Generator) -> Meaning | None:
    """Takes the block that is closest, on average, to those that it is together with (rewards/separate_blocks.py)."""
    distance = abs(layout.at[:, None] - layout.at)
    together = (distance < GROUP_M) & ~np.eye(len(layout.at), dtype=bool)
    if not together.any():
        return None
    mean = np.where(together.any(axis=1), (distance * together).sum(axis=1) / np.maximum(together.sum(axis=1), 1), np.inf)
    block = int(mean.argmin())
    avoid = tuple(sorted(layout.blocks[i] for i in np.flatnonzero(together[block])))
    return Meaning("separate", layout.blocks[block], avoid=avoid)


_DRAW: dict[str, Callable[[Layout, np.random.Generator], Meaning | None]] = {
    "block2block": _draw_block2block,
    "absolute": lambda layout, rng: Meaning("absolute", _one(layout, rng), place=_choice(PLACES, rng)),
    "relative": lambda layout, rng: Meaning("relative", _one(layout, rng), direction=_choice(DIRECTIONS, rng), far=bool(rng.integers(2))),
    "block_relative": _draw_block_relative,
    "separate": _draw_separate,
    "point": lambda layout, rng: Meaning("point", _one(layout, rng)),
    "corner": lambda layout, rng: Meaning("corner", _one(layout, rng), place=_choice(tuple(CORNER_AT), rng)),
}
