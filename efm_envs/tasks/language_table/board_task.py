"""What all tasks on the board share: the tool and how it moves, the arm that is drawn, success, and the plan behind steps-to-go."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError
from efm_envs.simulation import Simulation
from efm_envs.task import Array, Goals, Physics, Scenario, Task, Truth
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.arm import arm_joints
from efm_envs.tasks.language_table.families import TOOL_CLEARANCE_M, Aim
from efm_envs.tasks.language_table.instructions import FAMILIES
from efm_envs.tasks.language_table.pushing import STEP_M, Extent, Plan, block_extent, plan
from efm_envs.tasks.language_table.pushing_batch import Extents, block_extents, plan_all

DRAGGED_STEPS = 200.0  # steps-to-go once the anchor was dragged: the goal is out of reach
FEW = 7  # so many plans are sooner made one by one than as arrays
STARTING_STEPS = 1.0  # the tool needs a moment to get going


class BoardTask(Task):
    """A task on the board. The tool's x and y are the last two of qpos."""

    substeps = board.SUBSTEPS
    cameras = board.CAMERAS
    image_size = (180, 320)  # (published)
    render_size = (360, 640)
    solvable_within = 60  # people take up to three times as long, and have 200 steps
    reads_derived = False  # qpos says it all
    tool_clearance_m: ClassVar[float] = TOOL_CLEARANCE_M  # what the tool keeps from the centre of what it goes around
    experts: ClassVar[Mapping[str, str]] = {
        "clean": "efm_envs.experts.language_table:CleanExpert",
        "human": "efm_envs.experts.language_table:HumanExpert",
    }

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        overshoot = 0.01  # the servo's, in [m]; it is millimetres
        low, high = np.tile(board.WORKSPACE_LOW - overshoot, 2), np.tile(board.WORKSPACE_HIGH + overshoot, 2)
        self._agent_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        self._aim: tuple[Goals, Aim] | None = None

    @abc.abstractmethod
    def points(self, physics: Physics) -> Array:
        """Returns (B, n + 1) complex: x + iy in [m] of each of the n objects, and of the tool."""

    def extent(self, physics: Physics, row: int) -> Extent:
        """Returns how far what is pushed reaches back from its middle, as a function of the direction of the push."""
        return block_extent

    def extents(self, physics: Physics) -> Extents:
        """Returns the same for all."""
        return block_extents

    def pose(self, physics: Physics, drawn: Physics) -> None:
        """The objects are where they are; the arm holds the tool."""
        n = physics.qpos.shape[1] - 2
        drawn.qpos[:, :n] = physics.qpos[:, :n]
        drawn.qpos[:, n:] = arm_joints(physics.qpos[:, n:])

    def agent_pos(self, physics: Physics) -> Array:
        """Returns (B, 4) float32 in [m]: where the tool is, and its commanded position."""
        seen = np.empty((len(physics.qpos), 4), np.float32)
        seen[:, :2], seen[:, 2:] = physics.qpos[:, -2:], physics.mocap_pos[:, 0, :2]
        return seen

    def apply(self, physics: Physics, actions: Array) -> None:
        """An action moves the commanded position, which stays in the workspace; the tool's servo follows it at a limited speed."""
        tool = physics.qpos[:, -2:]
        command = physics.mocap_pos[:, 0, :2]
        np.minimum(np.maximum(command + board.ACTION_M * actions, board.WORKSPACE_LOW), board.WORKSPACE_HIGH, out=command)
        ahead = command - tool
        distance = np.hypot(ahead[:, :1], ahead[:, 1:])
        physics.ctrl[:] = tool + ahead * (board.TOOL_REACH_M / np.maximum(distance, board.TOOL_REACH_M))

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """What the family asks for; see `families`."""
        return self.truth(physics, goals, estimate=False).is_success

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """The length of the clean expert's plan over its speed."""
        return np.asarray(self.truth(physics, goals).steps_to_go)

    def truth(self, physics: Physics, goals: Goals, *, estimate: bool = True) -> Truth:
        """Both look at the same places."""
        aim, points = self.aim(goals), self.points(physics)
        moving = aim.moving(points)
        target = aim.target(points, moving)
        is_success = aim.is_success(points, moving, target)
        if not estimate:
            return Truth(is_success, None, {})
        if len(points) <= FEW and not aim.has_apart:
            length = np.array([plan(aim.push(i, points, moving, target, self.extent(physics, i))).length_m for i in range(len(points))])
        else:
            length = plan_all(aim, points, moving, target, self.extents(physics)).length_m
        steps = length / STEP_M + STARTING_STEPS
        if aim.has_beside:
            steps = np.where(aim.is_dragged(points), DRAGGED_STEPS, steps)
        return Truth(is_success, steps, {})

    def plan(self, physics: Physics, goals: Goals) -> Plan:
        """Returns the clean expert's plan from here, for a batch of one."""
        aim, points = self.aim(goals), self.points(physics)
        moving = aim.moving(points)
        target = aim.target(points, moving)
        if not aim.has_apart:
            return plan(aim.push(0, points, moving, target, self.extent(physics, 0)))
        return plan_all(aim, points, moving, target, self.extents(physics)).first()

    def encode_goals(self, goals: Goals) -> Array:
        """Returns (B, 11 + 2n): family (one-hot), target's offset [m] and radius [m], what moves (one-hot), anchor's weights."""
        states = goals.states
        family = np.eye(len(FAMILIES))[states[:, 0].astype(int)]
        return np.concatenate([family, states[:, [2, 3, 1]], states[:, 6:]], axis=1, dtype=np.float32)

    def aim(self, goals: Goals) -> Aim:
        """Returns the goals as arrays; taken apart once for each goals object."""
        if self._aim is None or self._aim[0] is not goals:
            self._aim = goals, Aim(goals, self.tool_clearance_m)
        return self._aim[1]


def check_apart(task: BoardTask, scenario: Scenario) -> None:
    """Raises EFMError if two things overlap; what is as near as contact forces reach is pushed apart."""
    simulation = Simulation(task)
    simulation.start(scenario)
    contacts = simulation.data.contact
    for pair in contacts.geom[contacts.dist < 0.0]:
        a, b = (_thing(simulation, geom) for geom in pair)
        raise EFMError(f"{a} and {b} are in the same place. Place one of them elsewhere.")


def _thing(simulation: Simulation, geom: int) -> str:
    body = simulation.task.model.geom_bodyid[geom]
    x, y, _ = simulation.data.xpos[body]
    return f"the {simulation.task.model.body(body).name.replace('_', ' ')} at {text_of(complex(x, y))}"


def check_inside(what: str, at: complex, low: Array, high: Array) -> None:
    """Raises EFMError for a thing outside its bounds, each (2,) in [m]."""
    if not (low[0] <= at.real <= high[0] and low[1] <= at.imag <= high[1]):
        bounds = f"x must be from {low[0]:.3f} to {high[0]:.3f}, y from {low[1]:.3f} to {high[1]:.3f}"
        raise EFMError(f"the {what} cannot be at {text_of(at)}: {bounds}.")


def text_of(point: complex) -> str:
    """Returns "(x, y)"."""
    return f"({point.real:.3f}, {point.imag:.3f})"
