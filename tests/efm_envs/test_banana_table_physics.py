"""The physics of BananaTable: how a banana turns, rocks and comes to rest, and what never happens."""

import itertools

import mujoco
import numpy as np
import pytest

from efm_envs.task import SinglePhysics
from efm_envs.tasks.banana_table import (
    MASS_KG,
    ROLL_DAMPING_NMS,
    ROLL_INERTIA_KG_M2,
    ROLL_LIMIT_DEG,
    ROLL_STIFFNESS_NM,
    THICKNESS_M,
    BananaTable,
    banana_outline,
)
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.pushing import TOUCH_M
from efm_envs.tasks.language_table.shapes import SHAPES
from tests.efm_envs.test_language_table_physics import (
    BRAKING_S,
    DIRECTIONS,
    MIDDLE,
    Extremes,
    check_drawn_model,
    check_parts_are_convex,
    check_radii,
    check_that_nothing_drawn_collides,
    push_about,
)

ACROSS = np.deg2rad([90.0, 270.0])  # of a banana whose back or belly looks to −x


def push(angle: float, offset_m: float, direction: complex = 1.0, speed: float = 0.2) -> tuple[np.ndarray, mujoco.MjData]:
    """Pushes a banana for a second, past its centre by `offset_m`, all of it turned by `direction`; takes the tool away after that.

    Returns:
        (100, 4): x, y, angle, roll each substep of the push, turned back; the simulation, with the tool far away.
    """
    model = BananaTable().model
    data = mujoco.MjData(model)
    start, velocity = MIDDLE + complex(-0.13, offset_m) * direction, speed * direction
    data.qpos[:] = [MIDDLE.real, MIDDLE.imag, angle + np.angle(direction), 0.0, start.real, start.imag]
    lag = velocity * board.TOOL_DAMPING_PER_S / board.TOOL_STIFFNESS_PER_S2  # the servo pulls so far ahead of a tool at this speed
    path = []
    for step in range(1, 101):
        target = start + velocity * step * board.TIMESTEP_S + lag
        data.ctrl[:] = target.real, target.imag
        mujoco.mj_step(model, data)
        at = (complex(*data.qpos[:2]) - MIDDLE) / direction
        path.append([at.real, at.imag, data.qpos[2] - np.angle(direction), data.qpos[3]])
    data.qpos[4:] = data.ctrl[:] = board.WORKSPACE_LOW
    data.qvel[4:] = 0.0
    return np.array(path), data


# -- turning and rocking ---------------------------------------------------------------------------------------------------------------


def test_a_banana_pushed_off_its_centre_turns_away_from_that_side_and_rocks() -> None:
    for angle, offset in itertools.product(ACROSS, (-0.03, -0.015, 0.015, 0.03)):
        path, _ = push(angle, offset)
        assert (path[-1, 2] - angle) * np.sign(offset) < -0.3
        assert np.abs(path[:, 3]).max() > 0.1


def test_a_banana_pushed_through_its_centre_across_goes_straight() -> None:
    for angle in ACROSS:
        path, _ = push(angle, 0.0)
        assert path[-1, 0] > 0.05
        assert np.abs(path[:, 1]).max() < 1e-3 and np.abs(path[:, 2] - angle).max() < np.deg2rad(1.0)


def test_a_push_has_the_same_result_in_every_direction() -> None:
    expected, _ = push(ACROSS[0], 0.02)
    for direction in DIRECTIONS[1:]:
        np.testing.assert_allclose(push(ACROSS[0], 0.02, direction)[0], expected, atol=2e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_cannot_roll(shape: str) -> None:
    model = board.physics_model((f"red {shape}",))
    joints = [model.joint(i) for i in range(model.njnt)]
    assert [joint.name for joint in joints] == [f"red_{shape}_x", f"red_{shape}_y", f"red_{shape}_turn", "tool_x", "tool_y"]
    assert [joint.type[0] for joint in joints] == [mujoco.mjtJoint.mjJNT_SLIDE] * 2 + [mujoco.mjtJoint.mjJNT_HINGE] + [
        mujoco.mjtJoint.mjJNT_SLIDE
    ] * 2
    assert model.joint(f"red_{shape}_turn").axis.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("timestep_s", "tolerance"), [(board.TIMESTEP_S, 0.05), (board.TIMESTEP_S / 20, 0.005)])
def test_a_banana_let_go_rolled_rocks_as_the_linear_system_of_roll_and_slide_does(timestep_s: float, tolerance: float) -> None:
    """Small angles: mass rolls about its belly, one thickness below, which moves it aside, where the table brakes it."""
    model = BananaTable().model
    model.opt.timestep = timestep_s
    data = mujoco.MjData(model)
    roll, shift = 0.05, 0.05 * THICKNESS_M
    data.qpos[:4], data.qpos[4:], data.ctrl[:] = [MIDDLE.real, MIDDLE.imag, 0.0, roll], board.WORKSPACE_LOW, board.WORKSPACE_LOW
    mass = MASS_KG * np.array([[1.0, -THICKNESS_M], [-THICKNESS_M, THICKNESS_M**2 + ROLL_INERTIA_KG_M2 / MASS_KG]])  # of y and roll
    stiffness, damping = np.diag([0.0, ROLL_STIFFNESS_NM]), np.diag([MASS_KG / BRAKING_S, ROLL_DAMPING_NMS])
    rates = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.linalg.solve(mass, stiffness), -np.linalg.solve(mass, damping)]])
    values, vectors = np.linalg.eig(rates)
    shares = np.linalg.solve(vectors, [0.0, roll, 0.0, 0.0])
    for step in range(1, round(2.0 / timestep_s) + 1):
        mujoco.mj_step(model, data)
        expected = (vectors * np.exp(values * step * timestep_s) @ shares).real
        assert data.qpos[3] == pytest.approx(expected[1], abs=tolerance * roll)
        assert data.qpos[1] - MIDDLE.imag == pytest.approx(expected[0], abs=tolerance * shift)


def test_a_banana_comes_to_rest_within_two_seconds() -> None:
    """It lies still, and rocks by a degree at most."""
    for angle, offset in itertools.product(np.deg2rad(np.arange(0, 360, 45)), (-0.03, 0.0, 0.03)):
        _, data = push(angle, offset, speed=0.3)
        mujoco.mj_step(data.model, data, round(2.0 / board.TIMESTEP_S))
        swing = np.hypot(data.qpos[3], data.qvel[3] * np.sqrt(ROLL_INERTIA_KG_M2 / ROLL_STIFFNESS_NM))
        assert np.abs(data.qvel[:3]).max() < 1e-3 and np.rad2deg(swing) < 1.0


# -- what never happens ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extremes() -> Extremes:
    return push_about(BananaTable(), 3_000, seed=0)


def test_nothing_penetrates_more_than_a_millimetre_in_3000_pushes(extremes: Extremes) -> None:
    assert extremes.touched > 20_000, "many pushes should meet something"
    assert extremes.penetration_m < 1e-3


def test_nothing_leaves_the_board_in_3000_pushes(extremes: Extremes) -> None:
    assert extremes.outside_m < 0.0
    assert extremes.command_outside_m == 0.0 and extremes.tool_outside_m < 0.01


def test_the_roll_stays_within_its_limits_in_3000_pushes(extremes: Extremes) -> None:
    assert 0.3 < extremes.largest[3] < np.deg2rad(ROLL_LIMIT_DEG)


# -- shape and picture -----------------------------------------------------------------------------------------------------------------


def test_the_outlines_parts_are_convex_and_its_radii_those_of_its_area() -> None:
    check_parts_are_convex(banana_outline())
    check_radii(banana_outline())


def test_the_solid_banana_is_as_wide_and_as_long_as_its_outline() -> None:
    """Seen from above. Its cross-sections are octagons, their flat sides outwards, so it is a little narrower."""
    model = BananaTable().model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    solid = np.concatenate([corners(model, data, i) for i in range(model.nmesh)])
    flat = np.concatenate(banana_outline().parts)
    np.testing.assert_allclose(solid.min(axis=0)[:2] - data.body("banana").xpos[:2], flat.min(axis=0), atol=2e-3)
    np.testing.assert_allclose(solid.max(axis=0)[:2] - data.body("banana").xpos[:2], flat.max(axis=0), atol=2e-3)


def corners(model: mujoco.MjModel, data: mujoco.MjData, i: int) -> np.ndarray:
    """Returns (V, 3): the corners of part `i` in the world."""
    geom, mesh = model.geom(f"banana_{i}"), model.mesh(f"banana_{i}")
    vertices = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
    return vertices @ data.geom_xmat[geom.id].reshape(3, 3).T + data.geom_xpos[geom.id]


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.5])
def test_the_tool_that_stands_behind_a_bananas_extent_just_touches(turn: float) -> None:
    """Where the tool meets the outer bow or a tip squarely; in the hollow of the inner one it meets a side of it first."""
    task = BananaTable()
    data = mujoco.MjData(task.model)
    tool = task.model.geom("tool").id
    parts = [task.model.geom(f"banana_{i}").id for i in range(task.model.nmesh)]
    for bearing in np.deg2rad([0, 30, 60, 75, 90, 105, 120, 150, 180]):  # from the centre to the tool: around the outer bow
        data.qpos[:4] = [MIDDLE.real, MIDDLE.imag, turn, 0.0]
        push = complex(-np.exp(1j * (bearing + turn)))
        extent = task.extent(SinglePhysics(data), 0)(push)
        standing = MIDDLE - (extent + TOUCH_M) * push
        data.qpos[4:] = standing.real, standing.imag
        mujoco.mj_kinematics(task.model, data)
        distance = min(mujoco.mj_geomDistance(task.model, data, tool, part, 0.2, np.zeros(6)) for part in parts)
        assert distance == pytest.approx(board.CONTACT_MARGIN_M, abs=3e-3), np.rad2deg(bearing)
        points = task.points(SinglePhysics(data))[0]
        assert abs(points[1] - points[0]) == pytest.approx(extent + TOUCH_M)


def test_the_banana_and_the_arms_tip_are_drawn_where_the_physics_has_them() -> None:
    check_drawn_model(BananaTable(), ["banana"])


def test_nothing_that_is_drawn_collides() -> None:
    check_that_nothing_drawn_collides(BananaTable().drawn_model)
