"""The board: published numbers, the model of the physics (a tool and blocks that slide in the plane), and the richer one that is drawn.

All lengths in [m], the robot's base at the origin, x away from it, the board's surface at z = 0. "(published)" means
google-research/language-table, environments/constants.py.
"""

import functools
from collections.abc import Sequence

import mujoco
import numpy as np

import efm_assets
from efm_envs.task import Array
from efm_envs.tasks.language_table.shapes import Outline, shapes

WORKSPACE_LOW = np.array([0.15, -0.3048])  # of the tool (published)
WORKSPACE_HIGH = np.array([0.6, 0.3048])
BUFFER_M = 0.08  # starts and moved targets keep this from the workspace's edge (published)
BLOCK_GAP_M = 0.0175  # between two blocks' surfaces at the start (published)
TOOL_GAP_M = 0.06  # from the tool to a block's centre at the start (published)
ACTION_M = 0.1  # what an action of 1 adds to the commanded position (published)

BLOCK_MASS_KG = 0.01  # (published)
BLOCK_FRICTION = 0.5  # (published)
BLOCK_HALF_HEIGHT_M = 0.0125  # ours, as everything below
GRAVITY_M_S2 = 9.81

TIMESTEP_S = 0.01
SUBSTEPS = 10  # 10 Hz control (published)
# What is pushed at this speed meets the friction force μ·m·g; viscous damping is that force over the speed. A thing let go at 0.3 m/s
# then slides 7 mm, where dry friction would let it slide 9 mm.
FRICTION_SPEED_M_S = 0.12

TOOL_RADIUS_M = 0.0127
TOOL_MASS_KG = 0.1  # light and weak enough that it cannot squeeze a block into a wall
TOOL_REACH_M = 0.033  # its servo's target is at most so far ahead of it: it goes 0.3 m/s then, and 0.4 m/s for a moment
TOOL_STIFFNESS_PER_S2 = 400.0  # the servo: acceleration per position error, and per speed
TOOL_DAMPING_PER_S = 25.0

# Contact forces begin when two surfaces are this far apart: the tool covers less in one substep.
CONTACT_MARGIN_M = 0.004
SOLIMP = (0.9, 0.999, 0.004, 0.5, 2.0)  # hard where forces begin, for friction is as hard as the contact, and harder at the surface

# Walls, unseen, keep blocks on the board: a block between a wall and the tool at the edge of the workspace is not squeezed.
WALL_M = 0.075  # from the workspace's edge to a wall
WALL_LOW, WALL_HIGH = WORKSPACE_LOW - WALL_M, WORKSPACE_HIGH + WALL_M
PARKED_M = np.array([2.0, 0.0])  # where absent blocks wait, off the board

CAMERAS = ("front", "top", "side")
COLOR_RGBA = {"red": (1.0, 0.4, 0.4, 1.0), "green": (0.4, 1.0, 0.4, 1.0), "blue": (0.4, 0.4, 1.0, 1.0), "yellow": (1.0, 1.0, 0.4, 1.0)}


def block_radii(blocks: Sequence[str]) -> Array:
    """Returns (n,) in [m]: the radius of each block's circle."""
    return np.array([shapes()[block.split()[1]].radius_m for block in blocks])


def parked(index: int) -> Array:
    """Returns (3,): x, y and angle of block number `index` while it is absent."""
    return np.array([*PARKED_M, 0.0]) + np.array([0.0, 0.1 * index, 0.0])


@functools.cache
def physics_model(blocks: tuple[str, ...]) -> mujoco.MjModel:
    """Compiles the tool and the blocks ("red moon", …) as bodies that move in the plane; no arm, nothing to look at.

    qpos is x, y and angle of each block in turn, then x and y of the tool; ctrl is where the tool's servo pulls it.
    """
    spec = plane_spec("language_table_physics")
    _add_meshes(spec, {block.split()[1] for block in blocks}, half_height_m=0.02)
    for block in blocks:
        _add_block(spec, block)
    add_tool(spec)
    return spec.compile()


@functools.cache
def drawn_model(blocks: tuple[str, ...]) -> mujoco.MjModel:
    """Compiles what cameras see: the board, the arm and the blocks. qpos is x, y, angle of each block, then the arm's six joints."""
    spec = scenery_spec()
    _add_meshes(spec, {block.split()[1] for block in blocks}, BLOCK_HALF_HEIGHT_M)
    for block in blocks:
        body = _add_block(spec, block)
        body.pos = [0.0, 0.0, BLOCK_HALF_HEIGHT_M]
        for geom in body.geoms:
            geom.contype = geom.conaffinity = 0
            geom.rgba = COLOR_RGBA[block.split()[0]]
    add_arm(spec)
    return spec.compile()


def plane_spec(name: str) -> mujoco.MjSpec:
    """Returns the beginning of a model of things that slide in the plane between walls."""
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.option.timestep = TIMESTEP_S
    spec.option.gravity = [0.0, 0.0, 0.0]
    # Pyramidal: the third direction of an elliptic cone is vertical, where nothing can move, and its solver then diverges.
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.iterations, spec.option.ls_iterations = 20, 10
    geom = spec.default.geom
    geom.friction = [BLOCK_FRICTION, 0.0, 0.0]
    geom.condim = 3
    geom.margin = CONTACT_MARGIN_M / 2  # MuJoCo adds up the two geoms' margins
    geom.solimp = SOLIMP
    _add_walls(spec)
    return spec


def scenery_spec() -> mujoco.MjSpec:
    """Returns the beginning of a model to look at: the board and the cameras."""
    return mujoco.MjSpec.from_file(str(efm_assets.path("language_table/table.xml")))


def add_arm(spec: mujoco.MjSpec) -> None:
    """Adds the arm, as seen; its six joints are the last of qpos."""
    arm = mujoco.MjSpec.from_file(str(efm_assets.path("language_table/arm.xml")))
    spec.attach(arm, frame=spec.worldbody.add_frame(), prefix="xarm6/")


def _add_walls(spec: mujoco.MjSpec) -> None:
    thickness = 0.05
    center, half = (WALL_LOW + WALL_HIGH) / 2, (WALL_HIGH - WALL_LOW) / 2
    for name, side in {"near": (-1, 0), "far": (1, 0), "left": (0, -1), "right": (0, 1)}.items():
        along = np.abs(side)
        position = center + np.array(side) * (half + thickness)
        size = np.where(along, thickness, half + 2 * thickness)
        body = spec.worldbody.add_body(name=f"wall_{name}")  # a body of its own: cheaper in the broad phase than part of the world
        body.add_geom(
            name=f"wall_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[*position, 0.0],
            size=[*size, 0.02],
            contype=2,  # the tool does not touch walls: its target stays in the workspace
            conaffinity=0,
        )


def _add_meshes(spec: mujoco.MjSpec, names: set[str], half_height_m: float) -> None:
    for name in sorted(names):
        for i, part in enumerate(shapes()[name].parts):
            prism = [[x, y, z] for z in (-half_height_m, half_height_m) for x, y in part]
            spec.add_mesh(name=f"{name}_{i}", uservert=np.ravel(prism))


def _add_block(spec: mujoco.MjSpec, block: str) -> mujoco.MjsBody:
    shape = block.split()[1]
    outline = shapes()[shape]
    name = block.replace(" ", "_")
    body = spec.worldbody.add_body(name=name)
    add_planar_joints(body, name, outline)
    for i in range(len(outline.parts)):
        body.add_geom(name=f"{name}_{i}", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"{shape}_{i}", contype=1, conaffinity=3)
    return body


def add_planar_joints(body: mujoco.MjsBody, name: str, outline: Outline, mass_kg: float = BLOCK_MASS_KG) -> None:
    """Gives a body a mass, joints `NAME_x`, `NAME_y`, `NAME_turn`, and the table's friction on them."""
    body.mass, body.explicitinertial, body.ipos = mass_kg, True, [0.0, 0.0, 0.0]
    body.inertia = mass_kg * outline.gyration_radius_m**2 * np.ones(3)  # of a flat thing, only the third matters: it turns about z
    damping = BLOCK_FRICTION * mass_kg * GRAVITY_M_S2 / FRICTION_SPEED_M_S
    for axis, letter in enumerate("xy"):
        body.add_joint(name=f"{name}_{letter}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=np.eye(3)[axis], damping=[damping, 0, 0])
    turning = damping * outline.turning_radius_m**2
    body.add_joint(name=f"{name}_turn", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], damping=[turning, 0, 0])


def add_tool(spec: mujoco.MjSpec, height_m: float = 0.0) -> None:
    """Adds the tool, on two slides with a servo, and a mocap body that holds the commanded position."""
    body = spec.worldbody.add_body(
        name="tool", pos=[0, 0, height_m], ipos=[0, 0, 0], mass=TOOL_MASS_KG, explicitinertial=True, inertia=[1e-5] * 3
    )
    body.add_geom(name="tool", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[TOOL_RADIUS_M, 0, 0], contype=1, conaffinity=1)
    spec.worldbody.add_body(name="command", mocap=True)
    damping = TOOL_MASS_KG * TOOL_DAMPING_PER_S
    for axis, letter in enumerate("xy"):
        joint, direction = f"tool_{letter}", np.eye(3)[axis]
        body.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction, damping=[damping, 0, 0])
        servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=TOOL_MASS_KG * TOOL_STIFFNESS_PER_S2)
