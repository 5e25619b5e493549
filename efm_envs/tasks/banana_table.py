"""BananaTable: push a banana to a place on the board (paper, section 4.3).

The paper gives the instruction ("X the banana to the Y of the table", nine places Y) and what is difficult: a banana turns and rocks as
blocks do not. All numbers here are ours, but for those of the board, which are LanguageTable's.
"""

import copy
import functools
import re
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, one_of
from efm_envs.task import Array, Goal, Goals, Physics, Scenario
from efm_envs.tasks.by_hand import check_options, place_of
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.board_task import BoardTask, check_apart, check_inside
from efm_envs.tasks.language_table.families import Aim, place_goal
from efm_envs.tasks.language_table.instructions import InvalidInstructionError
from efm_envs.tasks.language_table.pushing import Extent
from efm_envs.tasks.language_table.pushing_batch import Extents
from efm_envs.tasks.language_table.shapes import Outline, is_inside, outline

MASS_KG = 0.03  # a toy banana: the tool, which must not squeeze blocks, could not push 120 g
BEND_M, BEND_RAD = 0.075, 0.9  # the middle line is an arc of this radius, this far to either side
THICKNESS_M = 0.0165  # radius in the middle
TIP_SHARE = 0.4  # of that, at the tips
BEARINGS = 72  # in which it is known how far the banana reaches
TIP_RISE_M = 0.012  # how much higher the tips are: pushed there, it rocks
SEGMENTS, CORNERS = 6, 8  # convex parts along it, corners of a cross-section
ROLL_STIFFNESS_NM = 0.012  # for each radian: the weight, times the 4 cm by which what carries it moves aside
ROLL_DAMPING_NMS = 3e-4  # it rocks to and fro a few times, at 1.9 Hz
ROLL_INERTIA_KG_M2 = 7e-5  # more than a banana's own, which would rock faster than a substep can follow
ROLL_LIMIT_DEG = 40.0

BODY_RGBA, TIP_RGBA = (0.98, 0.85, 0.25, 1.0), (0.35, 0.25, 0.12, 1.0)
TOOL_GAP_M = 0.1  # from the tool to the banana's middle at the start

VERBS = {"train": ("push", "move", "slide", "put", "bring"), "held_out": ("shove", "nudge", "guide", "drag", "take")}
PLACE_NAMES = {
    **{place: f"{place} side" for place in ("top", "bottom", "left", "right")},
    "center": "center",
    **{f"{row} {column}": f"{row} {column} corner" for row in ("top", "bottom") for column in ("left", "right")},
}
RESET_OPTIONS = ("instruction", "banana", "tool")


class BananaTable(BoardTask):
    """Task of `EFM-BananaTable-v0`; see the env's page for spaces and rules.

    Args:
        instructions: which verbs are used, "train" or "held_out".
    """

    name = "BananaTable"
    tool_clearance_m = 0.09
    object_names = ("banana",)

    def __init__(self, instructions: str = "train") -> None:
        super().__init__()
        self.split = one_of("instructions", instructions, VERBS)
        low = np.array([*board.WALL_LOW, -1.0, -1.0, -1.0], np.float32)
        high = np.array([*board.WALL_HIGH, 1.0, 1.0, 1.0], np.float32)
        self.state_spaces = {"agent_pos": self._agent_space, "environment_state": spaces.Box(low, high)}

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint}({self.split})"

    def build_model(self) -> mujoco.MjModel:
        """Returns the tool and the banana. qpos is the banana's x, y, angle and roll, then the tool's x and y."""
        return copy.copy(_physics_model())

    def build_drawn_model(self) -> mujoco.MjModel:
        """Returns the board, the banana and the arm."""
        return copy.copy(_drawn_model())

    # -- scenario ------------------------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws where the banana and the tool are, and a place to which the banana must go; not one where it is already."""
        low, high = board.WORKSPACE_LOW + board.BUFFER_M, board.WORKSPACE_HIGH - board.BUFFER_M
        while True:
            tool, banana = rng.uniform(low, high, (2, 2))
            place = list(PLACE_NAMES)[rng.integers(len(PLACE_NAMES))]
            verb = VERBS[self.split][rng.integers(len(VERBS[self.split]))]
            pose = np.array([*banana, rng.uniform(-np.pi, np.pi), 0.0])
            if np.linalg.norm(tool - banana) > TOOL_GAP_M and not _is_at(place, pose):
                return _scenario(pose, tool, place, f"{verb} the banana to the {PLACE_NAMES[place]} of the table")

    def arrange(self, scenario: Scenario, options: Mapping[str, Any]) -> Scenario:
        """Returns the scenario with what the options set by hand.

        Args:
            scenario: how the episode would start otherwise.
            options: `banana`: (x, y) or (x, y, angle) in [m] and [rad]; `tool`: (x, y); `instruction`: a sentence.

        Raises:
            EFMError: it cannot be; says why.
        """
        check_options(self, options, RESET_OPTIONS)
        qpos = scenario.physics["qpos"]
        tool = place_of("tool", options.get("tool", qpos[-2:]))
        pose = np.append(place_of("banana", options.get("banana", qpos[:3]), angle=qpos[2]), 0.0)
        instruction = options.get("instruction", scenario.goal.instruction)
        place = _parse(instruction)
        reach = banana_outline().radius_m
        check_inside("tool", complex(*tool), board.WORKSPACE_LOW, board.WORKSPACE_HIGH)
        check_inside("banana", complex(*pose[:2]), board.WALL_LOW + reach, board.WALL_HIGH - reach)
        if _is_at(place, pose):
            raise EFMError(f"{instruction!r} is fulfilled already. Place the banana elsewhere, or ask for another place.")
        arranged = _scenario(pose, tool, place, instruction)
        check_apart(self, arranged)
        return arranged

    # -- observation ---------------------------------------------------------------------------------------------------------------

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns the tool's position and its commanded one [m]; the banana's x, y [m], cosine and sine of its angle, roll [rad]."""
        qpos = physics.qpos
        banana = np.stack([qpos[:, 0], qpos[:, 1], np.cos(qpos[:, 2]), np.sin(qpos[:, 2]), qpos[:, 3]], axis=1, dtype=np.float32)
        return {"agent_pos": self.agent_pos(physics), "environment_state": banana}

    def encode_goals(self, goals: Goals) -> Array:
        """Returns (B, 3) float32: the place [m] and its radius [m]."""
        return goals.states[:, [2, 3, 1]].astype(np.float32)

    def points(self, physics: Physics) -> Array:
        """Returns (B, 2) complex: where the banana and the tool are."""
        qpos = physics.qpos
        return np.asarray(qpos[:, [0, 4]] + 1j * qpos[:, [1, 5]])

    def extent(self, physics: Physics, row: int) -> Extent:
        """A banana reaches back farther along than across."""
        turn = float(physics.qpos[row, 2])
        reach = _reach()

        def extent(direction: complex) -> float:
            place = _place_in_table(float(np.arctan2(-direction.imag, -direction.real)) - turn)
            i = int(place)
            return reach[i] + (place - i) * (reach[i + 1] - reach[i])

        return extent

    def extents(self, physics: Physics) -> Extents:
        """Returns the same for all."""
        turn = physics.qpos[:, 2]
        reach = np.array(_reach())

        def extents(push: Array, rows: Any) -> Array:
            place = _place_in_table(np.arctan2(-push.imag, -push.real) - turn[rows])
            i = place.astype(int)
            return np.asarray(reach[i] + (place - i) * (reach[i + 1] - reach[i]))

        return extents


def _parse(instruction: str) -> str:
    """Returns the place that a sentence asks for."""
    verbs = [verb for split in VERBS.values() for verb in split]
    places = {name: place for place, name in PLACE_NAMES.items()}
    pattern = rf"({'|'.join(verbs)}) the banana to the ({'|'.join(places)}) of the table\.?"
    found = re.fullmatch(pattern, " ".join(str(instruction).lower().split()))
    if found is None:
        raise InvalidInstructionError(
            f"not an instruction of BananaTable: {instruction!r}. Expected: X the banana to the Y of the table, "
            f"where X is one of {', '.join(verbs)}, and Y one of {', '.join(places)}."
        )
    return places[found[2]]


def _is_at(place: str, pose: Array) -> bool:
    aim = Aim(Goals([Goal("", place_goal(place))]))
    points = np.array([[complex(*pose[:2]), 0j]])
    return bool(aim.is_success(points, points[:, 0], aim.target(points, points[:, 0]))[0])


def _scenario(pose: Array, tool: Array, place: str, instruction: str) -> Scenario:
    physics = {"qpos": np.concatenate([pose, tool]), "mocap_pos": np.array([[*tool, 0.0]]), "ctrl": tool}
    return Scenario(physics, Goal(instruction, place_goal(place)))


# -- the banana's shape ------------------------------------------------------------------------------------------------------------------


def _rings() -> tuple[Array, Array]:
    """Returns (SEGMENTS + 1, 3): the middle line, in [m]; (SEGMENTS + 1,): the radius of the cross-sections on it."""
    along = np.linspace(-1.0, 1.0, SEGMENTS + 1)
    angle = BEND_RAD * along
    middle = np.stack([BEND_M * np.sin(angle), BEND_M * (np.cos(angle) - 1.0), TIP_RISE_M * along**2], axis=1)
    return middle, THICKNESS_M * (TIP_SHARE + (1.0 - TIP_SHARE) * np.sqrt(1.0 - along**2))


@functools.cache
def banana_outline() -> Outline:
    """Returns the banana as seen from above, about its centroid."""
    middle, radius = _rings()
    across = np.stack([np.sin(BEND_RAD * np.linspace(-1, 1, SEGMENTS + 1)), np.cos(BEND_RAD * np.linspace(-1, 1, SEGMENTS + 1))], axis=1)
    outer, inner = middle[:, :2] + radius[:, None] * across, middle[:, :2] - radius[:, None] * across
    return outline([np.stack([inner[i], inner[i + 1], outer[i + 1], outer[i]]) for i in range(SEGMENTS)])


def _place_in_table(bearing: Any) -> Any:
    """Returns where in `_reach()` a bearing in [rad] from the long axis falls, 0 up to BEARINGS; of one, or of an array."""
    return (bearing % (2.0 * np.pi)) * (BEARINGS / (2.0 * np.pi)) % BEARINGS


@functools.cache
def _reach() -> tuple[float, ...]:
    """Returns how far the banana reaches from its centroid in [m], at BEARINGS bearings once around, and at the first one again."""
    distance = np.linspace(0.0, 0.1, 201)
    ray = distance[:, None] * np.exp(2j * np.pi * np.arange(BEARINGS) / BEARINGS)
    points = np.stack([ray.real, ray.imag], axis=-1).reshape(-1, 2)
    inside = np.any([is_inside(points, part) for part in banana_outline().parts], axis=0).reshape(ray.shape)
    reach = (distance[:, None] * inside).max(axis=0).tolist()
    return (*reach, reach[0])


def _segments() -> list[Array]:
    """Returns the corners (2 · CORNERS, 3) of each convex part in [m], about the centroid and the height of the middle."""
    middle, radius = _rings()
    center = _centroid()
    turn = 2.0 * np.pi * (np.arange(CORNERS) + 0.5) / CORNERS
    rings = []
    for point, thick, angle in zip(middle, radius, BEND_RAD * np.linspace(-1, 1, SEGMENTS + 1), strict=True):
        across = np.array([np.sin(angle), np.cos(angle), 0.0])
        rings.append(point - center + thick * (np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * np.array([0.0, 0.0, 1.0])))
    return [np.concatenate([rings[i], rings[i + 1]]) for i in range(SEGMENTS)]


def _centroid() -> Array:
    """Returns (3,): the centroid, seen from above, on the middle line's own axes."""
    middle, radius = _rings()
    corner = middle[0, :2] - radius[0] * np.array([np.sin(-BEND_RAD), np.cos(-BEND_RAD)])  # the outline's first corner, before it was moved
    return np.append(corner - banana_outline().parts[0][0], 0.0)


@functools.cache
def _physics_model() -> mujoco.MjModel:
    spec = board.plane_spec("banana_table_physics")
    for geom in _add_banana(spec).geoms:
        geom.contype, geom.conaffinity = 1, 3
    board.add_tool(spec, THICKNESS_M)
    return spec.compile()


@functools.cache
def _drawn_model() -> mujoco.MjModel:
    spec = board.scenery_spec()
    geoms = _add_banana(spec).geoms
    for i, geom in enumerate(geoms):
        geom.contype = geom.conaffinity = 0
        geom.rgba = TIP_RGBA if i in (0, len(geoms) - 1) else BODY_RGBA
    board.add_arm(spec)
    return spec.compile()


def _add_banana(spec: mujoco.MjSpec) -> mujoco.MjsBody:
    """Adds the banana: a body in the plane that can also roll over its belly, for it is pushed above where the table holds it back."""
    body = spec.worldbody.add_body(name="banana", pos=[0.0, 0.0, THICKNESS_M])
    board.add_planar_joints(body, "banana", banana_outline(), MASS_KG)
    turning_inertia = MASS_KG * banana_outline().gyration_radius_m ** 2
    body.inertia = [ROLL_INERTIA_KG_M2, turning_inertia, turning_inertia]
    body.add_joint(
        name="banana_roll",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        pos=[0.0, 0.0, -THICKNESS_M],
        axis=[1, 0, 0],
        stiffness=[ROLL_STIFFNESS_NM, 0, 0],
        damping=[ROLL_DAMPING_NMS, 0, 0],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        range=[-ROLL_LIMIT_DEG, ROLL_LIMIT_DEG],
    )
    for i, corners in enumerate(_segments()):
        spec.add_mesh(name=f"banana_{i}", uservert=corners.ravel())
        body.add_geom(name=f"banana_{i}", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"banana_{i}")
    return body
