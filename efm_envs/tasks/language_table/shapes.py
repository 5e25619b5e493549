"""The blocks' outlines, as convex parts, and what follows from an outline: how it turns, and how the table brakes it.

A block that slides on a table is described well by an ellipsoidal limit surface (Lynch, Maekawa & Tanie, IROS 1992): the friction that it
can give is bounded by f²/f_max² + τ²/τ_max² ≤ 1, and it moves along the normal of that surface. Viscous damping b of its two slides and
b·c² of its turn, with c = τ_max / f_max, moves along the very same directions. So a slow push moves a block here as it does there, for
a fraction of the cost of contacts with the table.
"""

import functools
from dataclasses import dataclass

import numpy as np

from efm_envs.task import Array

COLORS = ("red", "blue", "green", "yellow")
SHAPES = ("moon", "cube", "star", "pentagon")
_FINENESS = 200  # points across a bounding box, for the integrals over an area


@dataclass(frozen=True)
class Outline:
    """A flat shape, its origin at the centroid.

    Attributes:
        parts: convex polygons, each (V, 2) in [m], counter-clockwise, that cover it together.
        radius_m: of the smallest circle about the centroid that holds it.
        turning_radius_m: c in [m]: the largest friction torque about the centroid over the largest friction force, for pressure that
            is the same everywhere: the mean distance from the centroid.
        gyration_radius_m: root mean square distance from the centroid in [m].
    """

    parts: tuple[Array, ...]
    radius_m: float
    turning_radius_m: float
    gyration_radius_m: float


def outline(parts: list[Array]) -> Outline:
    """Returns the outline that convex polygons (V, 2) make together, moved so that its centroid is the origin."""
    corners = np.concatenate(parts)
    low, high = corners.min(axis=0), corners.max(axis=0)
    cell = (np.arange(_FINENESS) + 0.5) / _FINENESS
    points = low + np.stack(np.meshgrid(cell, cell), axis=-1).reshape(-1, 2) * (high - low)
    inside = points[np.any([is_inside(points, part) for part in parts], axis=0)]
    centroid = inside.mean(axis=0)
    distance = np.linalg.norm(inside - centroid, axis=1)
    return Outline(
        tuple(part - centroid for part in parts),
        float(np.linalg.norm(corners - centroid, axis=1).max()),
        float(distance.mean()),
        float(np.sqrt((distance**2).mean())),
    )


def is_inside(points: Array, polygon: Array) -> Array:
    """Returns (P,) bool: which points (P, 2) lie in a convex counter-clockwise polygon (V, 2)."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    to_points = points[:, None] - polygon
    return np.asarray((edges[:, 0] * to_points[..., 1] - edges[:, 1] * to_points[..., 0] >= 0.0).all(axis=1))


def _ring(radius_m: float, degrees: Array) -> Array:
    angles = np.deg2rad(degrees)
    return radius_m * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cube() -> list[Array]:
    return [0.0185 * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])]


def _pentagon() -> list[Array]:
    return [_ring(0.0225, 90.0 + 72.0 * np.arange(5))]


def _star() -> list[Array]:
    """Five kites, from the centre to each tip."""
    tips, notches = _ring(0.0245, 90.0 + 72.0 * np.arange(5)), _ring(0.0118, 54.0 + 72.0 * np.arange(5))
    return [np.stack([np.zeros(2), notches[i], tips[i], notches[(i + 1) % 5]]) for i in range(5)]


def _moon() -> list[Array]:
    """A crescent: what a disc leaves of another, cut into two horns and two pieces between."""
    horn = np.array([-0.0087, 0.0188])  # where the two circles meet
    outer = _ring(0.0207, np.array([-58.0, 0.0, 58.0]))
    inner = np.array([-0.0129, 0.0]) + _ring(0.0192, np.array([-42.0, 0.0, 42.0]))
    horns = [np.stack([inner[0], horn * [1, -1], outer[0]]), np.stack([inner[2], outer[2], horn])]
    return horns + [np.stack([inner[i], outer[i], outer[i + 1], inner[i + 1]]) for i in range(2)]


@functools.cache
def shapes() -> dict[str, Outline]:
    """Returns the outline of each shape, by name. About 4 cm wide, as the published blocks; the outlines are ours."""
    return {"moon": outline(_moon()), "cube": outline(_cube()), "star": outline(_star()), "pentagon": outline(_pentagon())}
