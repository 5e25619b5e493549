"""The physics of LanguageTable against closed forms: how blocks slide, turn and stop, how the tool moves, what never happens."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import mujoco
import numpy as np
import pytest

from efm_envs.simulation import Simulation
from efm_envs.task import SinglePhysics
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.board_task import BoardTask
from efm_envs.tasks.language_table.shapes import SHAPES, Outline, is_inside, shapes
from efm_envs.tasks.language_table.task import LanguageTable

MIDDLE = complex(*(board.WORKSPACE_LOW + board.WORKSPACE_HIGH) / 2)
CUBE_HALF_M = 0.0185
FRICTION, GRAVITY = 0.5, 9.81
BRAKING_S = 0.12 / (FRICTION * GRAVITY)  # m/b: the speed at which viscous friction is μ·m·g, over μ·g
DIRECTIONS = np.exp(1j * np.deg2rad([0.0, 17.0, 45.0, 90.0, 133.0, 180.0, 241.0, 270.0, 328.0]))  # along axes, diagonals, neither


# -- a block and a tool that moves steadily --------------------------------------------------------------------------------------------


def pushing(block: str, tool: complex, velocity: complex, seconds: float, angle: float = 0.0) -> Iterator[mujoco.MjData]:
    """Yields the simulation at each substep. The block starts in the middle of the board, the tool at `tool` from there."""
    model = board.physics_model((block,))
    data = mujoco.MjData(model)
    start = MIDDLE + tool
    data.qpos[:] = [MIDDLE.real, MIDDLE.imag, angle, start.real, start.imag]
    lag = velocity * board.TOOL_DAMPING_PER_S / board.TOOL_STIFFNESS_PER_S2  # the servo pulls so far ahead of a tool at this speed
    for step in range(1, round(seconds / board.TIMESTEP_S) + 1):
        target = start + velocity * step * board.TIMESTEP_S + lag
        data.ctrl[:] = target.real, target.imag
        mujoco.mj_step(model, data)
        yield data


def push_cube(offset_m: float, speed: float, slant: float = 0.0, metres: float = 0.034, direction: complex = 1.0) -> np.ndarray:
    """Returns (T, 5): x, y, angle of a cube from where it was, and x, y of the tool, each substep.

    It is pushed on the face that looks to −x, at `offset_m` from the face's middle, `slant` rad from the face's normal. All of it is
    turned by `direction` before, and what is returned is turned back: with the same laws in every direction, it makes no difference.
    """
    behind = -(CUBE_HALF_M + board.TOOL_RADIUS_M + board.CONTACT_MARGIN_M)
    tool, velocity, bearing = complex(behind, offset_m) * direction, speed * np.exp(1j * slant) * direction, np.angle(direction)
    path = np.array([data.qpos.copy() for data in pushing("blue cube", tool, velocity, metres / speed, float(bearing))])
    at = (path[:, [0, 3]] + 1j * path[:, [1, 4]] - MIDDLE) / direction
    return np.stack([at[:, 0].real, at[:, 0].imag, path[:, 2] - bearing, at[:, 1].real, at[:, 1].imag], axis=1)


def limit_surface_motion(x: float, y: float, pusher: complex, c: float) -> tuple[complex, float]:
    """Returns velocity and turning rate of a block, in its frame, that is pushed at (x, y) on a face that looks to −x.

    Lynch, Maekawa & Tanie (IROS 1992), their equations for a pusher that sticks. Where that asks for a force outside of the friction
    cone, the force lies on the cone's edge, and the contact keeps the pusher's normal velocity.
    """
    sticking = np.array([[c**2 + x**2, x * y], [x * y, c**2 + y**2]]) @ [pusher.real, pusher.imag] / (c**2 + x**2 + y**2)
    velocity = complex(*sticking)
    if abs(velocity.imag) > FRICTION * velocity.real:
        edge = complex(1.0, FRICTION * np.sign(velocity.imag))
        velocity = edge * pusher.real / (1.0 - y * (x * edge.imag - y * edge.real) / c**2)
    return velocity, (x * velocity.imag - y * velocity.real) / c**2


def turn_expected_and_turn_made(path: np.ndarray, c: float) -> tuple[float, float]:
    """Returns by how much a cube should have turned over the last 2 cm of a push of 3.4 cm, by the limit surface, and did.

    Surfaces push one another across a gap of a part of the contact margin; the force acts in the middle of that gap.
    """
    first = round(len(path) * 1.4 / 3.4)
    (x, y, turn), tool = path[first, :3], complex(*path[first, 3:])
    center, made, fineness = complex(x, y), path[-1, 2] - turn, 10
    step = (complex(*path[-1, 3:]) - tool) / (fineness * (len(path) - 1 - first))
    gap = -((tool - center) * np.exp(-1j * turn)).real - CUBE_HALF_M - board.TOOL_RADIUS_M
    start = turn
    for _ in range(fineness * (len(path) - 1 - first)):
        across = ((tool - center) * np.exp(-1j * turn)).imag
        velocity, rate = limit_surface_motion(-CUBE_HALF_M - gap / 2, across, step * np.exp(-1j * turn), c)
        center, turn, tool = center + velocity * np.exp(1j * turn), turn + rate, tool + step
    return turn - start, made


# -- pushing ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_force_moves_a_block_along_the_normal_of_its_limit_surface(shape: str) -> None:
    """f²/f_max² + τ²/τ_max² ≤ 1 with τ_max = c f_max: the motion (v, ω) is parallel to (f, τ/c²). So slow that inertia does not matter."""
    model = board.physics_model((f"red {shape}",))
    data = mujoco.MjData(model)
    c = radii_of(shapes()[shape])[0]
    for place, force in itertools.product([0.01, 0.02j, -0.015 + 0.01j], 1e-4 * DIRECTIONS):
        mujoco.mj_resetData(model, data)
        data.qpos[:2], data.qpos[3:5] = (MIDDLE.real, MIDDLE.imag), board.WORKSPACE_LOW
        data.ctrl[:] = board.WORKSPACE_LOW
        torque = (place.conjugate() * force).imag
        for _ in range(50):
            turned = force * np.exp(1j * data.qpos[2])
            data.qfrc_applied[:3] = turned.real, turned.imag, torque
            mujoco.mj_step(model, data)
        velocity = complex(*data.qvel[:2]) * np.exp(-1j * data.qpos[2])
        np.testing.assert_allclose(velocity / abs(velocity), force / abs(force), atol=2e-3)
        np.testing.assert_allclose(data.qvel[2] / abs(velocity), torque / c**2 / abs(force), rtol=1e-3, atol=1e-9)


# Up to 14° from the normal the contact sticks; at 56° it slides, for friction reaches to 27°.
@pytest.mark.parametrize("speed", [0.02, 0.05])
@pytest.mark.parametrize(
    ("offset_m", "slant_deg"),
    [(0.003, 0), (0.008, 0), (0.012, 0), (-0.015, 0), (0.003, 14), (0.012, 14), (-0.012, 14), (0.003, 56), (0.008, 56)],
)
def test_a_slowly_pushed_cube_turns_as_the_limit_surface_says(speed: float, offset_m: float, slant_deg: float) -> None:
    """Within 5 %: friction in a contact is a little soft, and blocks have inertia."""
    path = push_cube(offset_m, speed, np.deg2rad(slant_deg))
    expected, made = turn_expected_and_turn_made(path, radii_of(shapes()["cube"])[0])
    assert abs(expected) > 0.05, "choose a push that turns it"
    assert made == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_cube_pushed_on_the_middle_of_a_face_goes_straight(direction: complex) -> None:
    path = push_cube(0.0, 0.1, metres=0.12, direction=direction)
    assert path[-1, 0] > 0.1
    assert np.abs(path[:, 1]).max() < 1e-3
    assert np.rad2deg(np.abs(path[:, 2]).max()) < 1.0


@pytest.mark.parametrize("direction", DIRECTIONS[1:])
def test_a_push_has_the_same_result_in_every_direction(direction: complex) -> None:
    first, turned = push_cube(0.008, 0.1, slant=0.2, direction=1.0), push_cube(0.008, 0.1, slant=0.2, direction=direction)
    np.testing.assert_allclose(turned, first, atol=1e-4)


def test_a_push_on_the_other_side_has_the_mirrored_result() -> None:
    left, right = push_cube(0.008, 0.1, slant=0.2), push_cube(-0.008, 0.1, slant=-0.2)
    np.testing.assert_allclose(right, left * [1, -1, -1, 1, -1], atol=1e-4)


def test_a_cube_pushed_beside_the_middle_of_a_face_turns_away_from_that_side() -> None:
    for direction, offset in itertools.product(DIRECTIONS, (-0.015, -0.006, 0.006, 0.015)):
        assert push_cube(offset, 0.1, direction=direction)[-1, 2] * np.sign(offset) < -0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pushed_block_turns_as_the_majority_of_three_rays_votes(shape: str) -> None:
    """Mason's voting theorem (1986): the edges of the friction cone and the push, from the contact, each pass the centre on one side.

    It holds for slow pushes, whatever the pressure under the block: here once the vote was the same for 0.1 s, so that inertia is
    spent, and where each ray passes at 2 mm or more.
    """
    edge, cases = np.exp(1j * np.arctan(FRICTION)), 0
    for angle, offset in itertools.product(np.deg2rad(np.arange(0, 360, 20)), (-0.014, -0.007, 0.007, 0.014)):
        vote, held = 0.0, 0
        for data in pushing(f"red {shape}", complex(-0.045, offset), 0.05, 0.7, angle):
            before, vote = vote, 0.0
            if len({tuple(place) for place in data.contact.pos.round(4)}) == 1:  # not apart, nor at two horns of a moon at once
                contact = data.contact[0]
                normal = complex(*contact.frame[:2]) * np.sign(contact.frame[0])  # towards the block: the tool goes to +x
                arm = complex(*(contact.pos[:2] - data.qpos[:2]))
                arms = (arm.conjugate() * np.array([normal * edge, normal / edge, 1.0])).imag
                if np.abs(arms).min() > 2e-3:
                    vote = np.sign(np.sign(arms).sum())
            held = held + 1 if vote and vote == before else 0
            if held >= 10:
                cases += 1
                assert np.sign(data.qvel[2]) == vote, (np.rad2deg(angle), offset)
    assert cases > 300


# -- coming to rest --------------------------------------------------------------------------------------------------------------------


def let_go(shape: str, velocity: complex, rate: float) -> np.ndarray:
    """Returns x, y, angle that a block covers within 0.5 s, and then its rates (6,)."""
    model = board.physics_model((f"red {shape}",))
    data = mujoco.MjData(model)
    data.qpos[:2] = MIDDLE.real, MIDDLE.imag
    data.qpos[3:] = data.ctrl[:] = board.WORKSPACE_LOW
    data.qvel[:3] = velocity.real, velocity.imag, rate
    mujoco.mj_step(model, data, round(0.5 / board.TIMESTEP_S))
    return np.concatenate([data.qpos[:3] - [MIDDLE.real, MIDDLE.imag, 0.0], data.qvel[:3]])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_let_go_slides_mass_times_speed_over_damping(shape: str) -> None:
    for direction in DIRECTIONS:
        covered = let_go(shape, 0.3 * direction, 0.0)
        assert complex(*covered[:2]) == pytest.approx(0.3 * BRAKING_S * direction, abs=1e-8)
        assert 0.3 * BRAKING_S < 0.01
        assert np.hypot(*covered[3:5]) < 1e-4 and abs(covered[2]) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_that_spins_turns_inertia_times_rate_over_damping(shape: str) -> None:
    c, gyration = radii_of(shapes()[shape])
    for rate in (-10.0, 3.0):
        covered = let_go(shape, 0.0, rate)
        assert covered[2] == pytest.approx(rate * BRAKING_S * gyration**2 / c**2, rel=2e-3)
        assert abs(covered[5]) < 1e-3 and np.abs(covered[:2]).max() < 1e-12


# -- what never happens ----------------------------------------------------------------------------------------------------------------


@dataclass
class Extremes:
    """What was seen in many pushes.

    Attributes:
        penetration_m: the deepest contact, at any substep.
        outside_m: how far the centre of anything but the tool was beyond the walls.
        tool_outside_m: how far the tool was beyond the workspace.
        command_outside_m: how far the commanded position was beyond it.
        touched: substeps with a contact.
        largest: (nq,) the largest value of each coordinate, without sign, at the end of any control step.
    """

    penetration_m: float = 0.0
    outside_m: float = -np.inf
    tool_outside_m: float = -np.inf
    command_outside_m: float = -np.inf
    touched: int = 0
    largest: np.ndarray = field(default_factory=lambda: np.zeros(1))


def push_about(task: BoardTask, pushes: int, seed: int) -> Extremes:
    """Pushes at random: ten control steps each, every tenth push in a new scenario; every other push goes straight at something."""
    rng, simulation, seen = np.random.default_rng(seed), Simulation(task), Extremes()
    model, data, physics = task.model, simulation.data, simulation.physics
    for number in range(pushes):
        if number % 10 == 0:
            simulation.start(task.sample(rng))
        actions = rng.uniform(-1.0, 1.0, (10, 1, 2))
        if number % 2:
            *things, tool = task.points(physics)[0]
            way = things[rng.integers(len(things))] - tool
            step_m = rng.uniform(0.001, board.TOOL_REACH_M)  # beyond the servo's reach, farther is not faster
            actions[:] = np.array([way.real, way.imag]) / abs(way) * step_m / board.ACTION_M
        for action in actions:
            task.apply(physics, action)
            for _ in range(task.substeps):
                mujoco.mj_step(model, data)
                if data.ncon:
                    seen.touched += 1
                    seen.penetration_m = max(seen.penetration_m, -data.contact.dist.min())
            points = task.points(physics)[0]
            places = np.stack([points.real, points.imag], axis=1)
            command = data.mocap_pos[0, :2]
            seen.largest = np.maximum(seen.largest, np.abs(data.qpos))
            seen.outside_m = max(seen.outside_m, outside(places[:-1], board.WALL_LOW, board.WALL_HIGH))
            seen.tool_outside_m = max(seen.tool_outside_m, outside(places[-1], board.WORKSPACE_LOW, board.WORKSPACE_HIGH))
            seen.command_outside_m = max(seen.command_outside_m, outside(command, board.WORKSPACE_LOW, board.WORKSPACE_HIGH))
        assert not any(warning.number for warning in data.warning), "MuJoCo met NaN and began anew, or had too little memory"
    return seen


def outside(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    return float(np.maximum(low - places, places - high).max())


@pytest.fixture(scope="module")
def extremes() -> Extremes:
    return push_about(LanguageTable(), 10_000, seed=0)


def test_nothing_penetrates_more_than_a_millimetre_in_10000_pushes(extremes: Extremes) -> None:
    assert extremes.touched > 100_000, "many pushes should meet something"
    assert extremes.penetration_m < 1e-3


def test_nothing_leaves_the_board_in_10000_pushes(extremes: Extremes) -> None:
    assert extremes.outside_m < 0.0


def test_the_commanded_position_never_leaves_the_workspace_nor_the_tool_by_more_than_a_centimetre(extremes: Extremes) -> None:
    assert extremes.command_outside_m == 0.0, "reached, but never passed"
    assert extremes.tool_outside_m < 0.01


# -- the tool --------------------------------------------------------------------------------------------------------------------------


def move_tool(actions: np.ndarray, start: complex = MIDDLE) -> tuple[np.ndarray, np.ndarray]:
    """Returns (T,) complex: where the tool is, and its velocity, each substep, on an empty board."""
    task = LanguageTable(blocks="16-train")
    simulation = Simulation(task)
    scenario = task.sample(np.random.default_rng(0))
    absent = np.ravel([board.parked(i) for i in range(len(task.blocks))])
    place = np.array([start.real, start.imag])
    simulation.start(scenario)
    simulation.data.qpos[:] = [*absent, *place]
    simulation.data.mocap_pos[0, :2] = place
    places, velocities = [], []
    for action in actions:
        task.apply(simulation.physics, action[None])
        for _ in range(task.substeps):
            mujoco.mj_step(task.model, simulation.data)
            places.append(complex(*simulation.data.qpos[-2:]))
            velocities.append(complex(*simulation.data.qvel[-2:]))
    return np.array(places), np.array(velocities)


def action(way: complex) -> np.ndarray:
    return np.array([way.real, way.imag])


def test_the_tool_goes_30_centimetres_a_second_on_average_and_never_42() -> None:
    for direction in DIRECTIONS:
        places, velocities = move_tool(np.tile(action(direction), (7, 1)), MIDDLE - 0.1 * direction)
        assert 0.295 < abs(places[59] - places[29]) / 0.3 < 0.301, "once it is going: control steps four to six"
        assert np.abs(velocities).max() < 0.42
    rng = np.random.default_rng(5)
    for _ in range(100):
        _, velocities = move_tool(rng.choice([-1.0, 1.0], (6, 2)) * rng.uniform(0.2, 1.0, (6, 1)))
        assert np.abs(velocities).max() < 0.42, "whatever is done"


def test_the_tool_moves_alike_in_every_direction() -> None:
    for share in (0.1, 0.3, 0.5):
        along_x, _ = move_tool(np.tile(action(share), (4, 1)))
        for direction in DIRECTIONS:
            places, _ = move_tool(np.tile(action(share * direction), (4, 1)))
            np.testing.assert_allclose((places - MIDDLE) / direction, along_x - MIDDLE, atol=1e-9)


def test_a_step_of_three_centimetres_is_made_within_three_control_steps() -> None:
    for direction in DIRECTIONS:
        way = 0.03 * direction
        places, _ = move_tool(np.stack([action(way / board.ACTION_M), np.zeros(2), np.zeros(2)]))
        assert abs(places[-1] - MIDDLE - way) < 2e-3


def test_a_tool_sent_beyond_the_workspace_stops_at_its_edge() -> None:
    for way, x, y in [(1.0, 0.6, None), (-1.0, 0.15, None), (1.0j, None, 0.3048), (-1.0j, None, -0.3048), (1.0 + 1.0j, 0.6, 0.3048)]:
        places, _ = move_tool(np.tile(action(complex(way)), (20, 1)))
        overshoot = outside(np.stack([places.real, places.imag], axis=1), board.WORKSPACE_LOW, board.WORKSPACE_HIGH)
        assert overshoot < 0.01
        assert x is None or places[-1].real == pytest.approx(x, abs=1e-3)
        assert y is None or places[-1].imag == pytest.approx(y, abs=1e-3)


# -- the same again --------------------------------------------------------------------------------------------------------------------


def test_the_same_scenario_and_actions_give_the_same_states_bit_for_bit() -> None:
    """Side by side, in tasks of their own, and after other episodes."""
    rng = np.random.default_rng(1)
    first, second = Simulation(LanguageTable()), Simulation(LanguageTable())
    for _ in range(5):
        scenario = first.task.sample(rng)
        second.start(second.task.sample(rng))
        second.step(rng.uniform(-1.0, 1.0, (1, 2)))
        for simulation in (first, second):
            simulation.start(scenario)
        for actions in rng.uniform(-1.0, 1.0, (100, 1, 2)):
            first.step(actions)
            second.step(actions)
            np.testing.assert_array_equal(first.data.qpos, second.data.qpos)
            np.testing.assert_array_equal(first.data.qvel, second.data.qvel)


def test_a_control_step_is_a_loop_of_single_substeps_bit_for_bit() -> None:
    rng, task = np.random.default_rng(2), LanguageTable()
    simulation, data = Simulation(task), mujoco.MjData(task.model)
    contacts = 0
    for _ in range(5):
        simulation.start(task.sample(rng))
        data = copy.copy(simulation.data)
        for actions in rng.uniform(-1.0, 1.0, (100, 1, 2)):
            simulation.step(actions)
            task.apply(SinglePhysics(data), actions)
            for _ in range(task.substeps):
                mujoco.mj_step(task.model, data)
            contacts += data.ncon
            np.testing.assert_array_equal(data.qpos, simulation.data.qpos)
            np.testing.assert_array_equal(data.qvel, simulation.data.qvel)
    assert contacts > 0, "this was to include pushes"


# -- shapes ----------------------------------------------------------------------------------------------------------------------------


def edges_of(outline: Outline) -> list[tuple[complex, complex]]:
    return [
        (complex(*corner), complex(*after)) for part in outline.parts for corner, after in zip(part, np.roll(part, -1, axis=0), strict=True)
    ]


def integrals(outline: Outline) -> tuple[float, complex, float, float]:
    """Returns the area of an outline and the integrals of position, distance and distance² from the origin.

    Exact sums over the triangles, with sign, between the origin and each edge of each part; an edge that two parts share cancels.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    area, first, distance, second = 0.0, 0.0j, 0.0, 0.0
    for start, end in edges_of(outline):
        cross = (start.conjugate() * end).imag
        along = start + (end - start) * (nodes + 1) / 2
        area += cross / 2
        first += cross / 2 * (start + end) / 3
        distance += cross / 3 * (np.abs(along) @ weights) / 2  # ∫ r·r dr from the origin to the edge
        second += cross / 4 * (np.abs(along) ** 2 @ weights) / 2
    return area, first, distance, second


def radii_of(outline: Outline) -> tuple[float, float]:
    """Returns mean and root mean square distance from the origin."""
    area, _, distance, second = integrals(outline)
    return distance / area, float(np.sqrt(second / area))


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_are_convex_and_counter_clockwise(shape: str) -> None:
    check_parts_are_convex(shapes()[shape])


def check_parts_are_convex(outline: Outline) -> None:
    for part in outline.parts:
        sides = np.roll(part, -1, axis=0) - part
        after = np.roll(sides, -1, axis=0)
        assert (sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0] > 0.0).all()
        turns = np.angle((after @ [1, 1j]) / (sides @ [1, 1j])).sum()
        assert turns == pytest.approx(2 * np.pi), "once around"


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_join_to_one_outline_without_gaps_or_overlaps(shape: str) -> None:
    """Of the edges, those that two parts share cancel; what is left is one loop around all of it, whose area is the union's."""
    outline = shapes()[shape]
    edges = {(np.round(start, 9), np.round(end, 9)) for start, end in edges_of(outline)}
    border = dict(edge for edge in edges if edge[::-1] not in edges)
    assert len(border) == sum(edge[::-1] not in edges for edge in edges), "no corner is passed twice"
    corners = [next(iter(border))]
    while (corner := border[corners[-1]]) != corners[0]:
        corners.append(corner)
    assert len(corners) == len(border), "one loop"
    for x, y in np.random.default_rng(3).uniform(-0.025, 0.025, (2000, 2)):
        ways = np.array(corners) - complex(x, y)
        around = round(np.angle(np.roll(ways, -1) / ways).sum() / (2 * np.pi))
        assert around == sum(bool(is_inside(np.array([[x, y]]), part)[0]) for part in outline.parts)
        assert around in (0, 1), "the loop does not cross itself"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_origin_is_the_centroid_and_the_radii_are_those_of_the_area(shape: str) -> None:
    check_radii(shapes()[shape])


def check_radii(outline: Outline) -> None:
    area, first, _, _ = integrals(outline)
    turning, gyration = radii_of(outline)
    assert abs(first / area) < 5e-5
    assert outline.turning_radius_m == pytest.approx(turning, rel=2e-3)
    assert outline.gyration_radius_m == pytest.approx(gyration, rel=2e-3)
    assert outline.radius_m == pytest.approx(max(abs(start) for start, _ in edges_of(outline)), rel=1e-12)


def test_a_cubes_radii_are_those_of_a_square() -> None:
    side, cube = 2 * CUBE_HALF_M, shapes()["cube"]
    assert radii_of(cube) == pytest.approx((0.38259785823 * side, side / np.sqrt(6)), rel=1e-9)
    assert cube.turning_radius_m == pytest.approx(0.38259785823 * side, rel=1e-4)
    assert cube.gyration_radius_m == pytest.approx(side / np.sqrt(6), rel=1e-4)
    assert cube.radius_m == pytest.approx(side / np.sqrt(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_fits_between_a_wall_and_the_tool_at_the_workspaces_edge(shape: str) -> None:
    """However it lies, and without being touched by both at once."""
    room = board.WALL_M - board.TOOL_RADIUS_M
    assert 2 * shapes()[shape].radius_m + 2 * board.CONTACT_MARGIN_M < room


def test_the_walls_stand_where_the_board_ends() -> None:
    model = board.physics_model(("blue cube",))
    for name, axis, side in [("near", 0, -1), ("far", 0, 1), ("left", 1, -1), ("right", 1, 1)]:
        wall = model.geom(f"wall_{name}")
        bound = (board.WALL_LOW if side < 0 else board.WALL_HIGH)[axis]
        assert wall.pos[axis] - side * wall.size[axis] == pytest.approx(bound)


# -- what is drawn ---------------------------------------------------------------------------------------------------------------------


def check_drawn_model(task: BoardTask, bodies: list[str], episodes: int = 10) -> None:
    """What is drawn is where the physics has it, in scenarios that were pushed about a little."""
    rng, simulation = np.random.default_rng(4), Simulation(task)
    physical = simulation.data
    drawn = mujoco.MjData(task.drawn_model)
    for _ in range(episodes):
        simulation.start(task.sample(rng))
        for actions in rng.uniform(-1.0, 1.0, (20, 1, 2)):
            simulation.step(actions)
        task.pose(simulation.physics, SinglePhysics(drawn))
        mujoco.mj_kinematics(task.drawn_model, drawn)
        mujoco.mj_kinematics(task.model, physical)
        for name in bodies:
            np.testing.assert_allclose(drawn.body(name).xpos[:2], physical.body(name).xpos[:2], atol=1e-12)
            np.testing.assert_allclose(drawn.body(name).xmat, physical.body(name).xmat, atol=1e-12)
        tip, tool = drawn.site("xarm6/arm_tip"), physical.body("tool")
        np.testing.assert_allclose(tip.xpos[:2], tool.xpos[:2], atol=2e-4)
        assert 0.0 < tip.xpos[2] < 0.01, "just above the board"
        assert tip.xmat[8] ** 2 == pytest.approx(1.0), "upright"


def check_that_nothing_drawn_collides(model: mujoco.MjModel) -> None:
    assert not model.geom_contype.any() and not model.geom_conaffinity.any()


@pytest.mark.parametrize("blocks", ["4", "8", "16-train"])
def test_blocks_and_the_arms_tip_are_drawn_where_the_physics_has_them(blocks: str) -> None:
    task = LanguageTable(blocks=blocks)
    check_drawn_model(task, [block.replace(" ", "_") for block in task.blocks])


def test_nothing_that_is_drawn_collides() -> None:
    check_that_nothing_drawn_collides(LanguageTable().drawn_model)
