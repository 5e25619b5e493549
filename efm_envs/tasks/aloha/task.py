"""What all tasks at the ALOHA station share: two ways to move the arms, what is seen of them, how objects are placed."""

import abc
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import mujoco
import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, one_of
from efm_envs.task import Array, Goal, Goals, Physics, Scenario, Task, Truth
from efm_envs.tasks.aloha import station
from efm_envs.tasks.aloha.plan import Aims, Hand, Thing, Vec, Way
from efm_envs.tasks.by_hand import check_options, place_of

JOINTS, END_EFFECTORS = "joints", "ee"
CONTROLS = (JOINTS, END_EFFECTORS)
ACTION_M = 0.03  # what an end-effector action of 1 means, along x, y or z
TIMESTEP_S = {JOINTS: 0.002, END_EFFECTORS: 0.004}
SUBSTEPS = {JOINTS: 10, END_EFFECTORS: 25}  # 50 Hz, as ALOHA's; 10 Hz

# Back along the fingers, pitched as an expert has them.
LEFT_RETREAT: Vec = (-math.cos(station.PITCH_RAD), 0.0, math.sin(station.PITCH_RAD))
RIGHT_RETREAT: Vec = (math.cos(station.PITCH_RAD), 0.0, math.sin(station.PITCH_RAD))
LEAST_GAP_M = 0.005  # between objects that are placed by hand

# What is observed stays within these; they are generous, for limits are soft and objects can be thrown.
_BEYOND = np.tile([*[0.5] * station.ARM_JOINTS, 0.05, 0.05], 2)  # of a joint's range [rad, m]
FASTEST = 100.0  # [rad/s, m/s]
FARTHEST_M = 10.0


class Placing(NamedTuple):
    """Where an object lies when an episode starts; each (x, y) in [m], of its centre.

    Attributes:
        low, high: it is drawn uniform between these.
        reach_low, reach_high: between these it can be picked up, and so be placed by hand.
        radius: from its centre to its farthest corner, seen from above.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    reach_low: tuple[float, float]
    reach_high: tuple[float, float]
    radius: float


class AlohaTask(Task):
    """A task for two arms. Its objects have free joints, which follow the arms' in qpos in the order of `objects`.

    Args:
        control: "joints": 14 targets, 50 a second; or "ee": changes of where the tools are to be, 10 a second.
        yaw_rad: objects are turned by up to so much to either side when an episode starts, 0 to `most_yaw_rad`.

    Attributes:
        scene: name of its file in `assets/aloha`.
        objects: where each lies at the start, by the name of its body.
        instruction: what is asked for.
        aims: what the clean expert aims at.
        most_yaw_rad: closing fingers turn an object into line up to here.
        carries: which object, by its number, each gripper picks up from the table.
        grasp_slack_m: how far from where the clean expert takes it an object can be taken.
        noise_slack_m: by how much hands can shake, as a standard deviation, and still do it.
        tool_sites: numbers of the sites where the tools are, left and right.
    """

    cameras = ("angle", "top", "left/wrist", "right/wrist", "table")
    image_size = (224, 224)  # (paper)
    render_size = (480, 640)
    info_types: ClassVar[Mapping[str, type]] = {"stage": int}
    experts: ClassVar[Mapping[str, str]] = {
        "clean": "efm_envs.experts.aloha:CleanExpert",
        "human": "efm_envs.experts.aloha:HumanExpert",
        "with_failures": "efm_envs.experts.aloha:FailingExpert",
    }
    scene: ClassVar[str]
    objects: ClassVar[Mapping[str, Placing]]
    instruction: ClassVar[str]
    aims: ClassVar[Aims]
    most_yaw_rad: ClassVar[float]
    carries: ClassVar[tuple[int | None, int | None]]
    grasp_slack_m: ClassVar[float]
    noise_slack_m: float

    def __init__(self, control: str = JOINTS, yaw_rad: float = 0.0) -> None:
        self.control: str = one_of("control", control, CONTROLS)
        self.yaw_rad = checked_number("yaw_rad", yaw_rad, 0.0, self.most_yaw_rad)
        self.substeps = SUBSTEPS[self.control]  # type: ignore[misc]
        self.action_space = spaces.Box(-1.0, 1.0, (14 if control == JOINTS else 8,), np.float32)
        self.state_spaces = {"agent_pos": self._agent_space(), "environment_state": self._objects_space()}
        self._agent_size = self.state_spaces["agent_pos"].shape[0]
        self._control_dt_s = self.control_dt_s
        first = self.model.site("left/tool").id
        self.tool_sites = slice(first, first + 2)
        self._tool_poses = self.sensors("left_tool_position", "right_tool_y_axis")
        self._left_tool, self._right_tool = (self.sensors(f"{side}_tool_position", f"{side}_tool_position") for side in station.SIDES)
        self._fingers = self.sensors("left_left_finger_opening", "right_right_finger_opening")
        self._tool_velocities = self.sensors("left_tool_velocity", "right_tool_velocity")
        names = list(self.objects)
        self._object_poses = self.sensors(f"{names[0]}_position", f"{names[-1]}_y_axis")
        self._things = [self.sensors(f"{name}_position", f"{name}_x_axis") for name in names]

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint}({self.control}, yaw {self.yaw_rad!r})"

    # -- model ---------------------------------------------------------------------------------------------------------------------

    def spec(self) -> mujoco.MjSpec:
        """Returns the scene, to be compiled; what a variant changes of it is changed here."""
        return station.scene_spec(self.scene, TIMESTEP_S[self.control])

    def build_model(self) -> mujoco.MjModel:
        """Compiles what collides."""
        return station.without_scenery(self.spec()).compile()

    def build_drawn_model(self) -> mujoco.MjModel:
        """Compiles the whole scene."""
        return self.spec().compile()

    def pose(self, physics: Physics, drawn: Physics) -> None:
        """Both have the same joints."""
        drawn.qpos[:] = physics.qpos
        drawn.mocap_pos[:] = physics.mocap_pos

    # -- scenario ------------------------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws where the objects lie; the arms are at home, their grippers open."""
        lying = [
            self._lying(name, (*rng.uniform(placing.low, placing.high), rng.uniform(-self.yaw_rad, self.yaw_rad)))
            for name, placing in self.objects.items()
        ]
        return self._scenario(np.concatenate([station.home_ctrl(), *lying]))

    def arrange(self, scenario: Scenario, options: Mapping[str, Any]) -> Scenario:
        """Returns the scenario with objects placed by hand.

        Args:
            scenario: how the episode would start otherwise.
            options: by the name of an object, (x, y) or (x, y, yaw) in [m] and [rad].

        Raises:
            EFMError: it cannot be; says why.
        """
        check_options(self, options, self.objects)
        qpos = scenario.physics["qpos"].copy()
        for i, (name, placing) in enumerate(self.objects.items()):
            if name in options:
                first = station.ACTUATORS + 7 * i
                qpos[first : first + 7] = self._lying(name, _placed_by_hand(name, placing, options[name], self.most_yaw_rad))
        _check_apart(self.objects, qpos[station.ACTUATORS :].reshape(-1, 7)[:, :2].tolist())
        return self._scenario(qpos)

    def _scenario(self, qpos: Array) -> Scenario:
        """Returns the start from a state in which the arms are at home."""
        return Scenario({"qpos": qpos, "ctrl": station.home_ctrl(), "mocap_pos": station.HOME_M}, Goal(self.instruction))

    def _lying(self, name: str, pose: tuple[float, float, float]) -> list[float]:
        """Returns the place and the quaternion (7,) of an object that lies on the table at (x, y, yaw)."""
        x, y, yaw = pose
        height = self.model.body(name).pos[2] + self.model.geom("table").margin[0]
        return [x, y, height, math.cos(yaw / 2.0), 0.0, 0.0, math.sin(yaw / 2.0)]

    # -- action --------------------------------------------------------------------------------------------------------------------

    def apply(self, physics: Physics, actions: Array) -> None:
        """Joint actions are targets over the whole range of each joint and gripper; the others move the places commanded for the tools."""
        if self.control == JOINTS:
            station.ctrl_of_joint_actions(actions, out=physics.ctrl)
            return
        each = actions.reshape(len(actions), 2, 4)
        places = physics.mocap_pos
        places[:] = np.minimum(np.maximum(places + ACTION_M * each[..., :3], station.LOW_M), station.HIGH_M)
        physics.ctrl[:] = station.ctrl_of_tools(places, each[..., 3])

    def commanded_places(self, physics: Physics) -> Array:
        """Returns where (B, 2, 3) in [m] the tools are to be by the last action."""
        return physics.mocap_pos if self.control == END_EFFECTORS else station.tools_of_ctrl(physics.ctrl)

    def sensors(self, first: str, last: str) -> slice:
        """Returns where in sensordata the values of the sensors from one to another are, as the scene's file has them."""
        first_sensor, last_sensor = self.model.sensor(first), self.model.sensor(last)
        return slice(int(first_sensor.adr[0]), int(last_sensor.adr[0] + last_sensor.dim[0]))

    def tool_velocities(self, physics: Physics) -> Array:
        """Returns (B, 2, 3) in [m/s]."""
        return np.asarray(physics.sensordata[:, self._tool_velocities].reshape(-1, 2, 3))

    # -- observation ---------------------------------------------------------------------------------------------------------------

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns the arms and the objects; see the env's page for what each number is."""
        batch, arms = len(physics.qpos), station.ACTUATORS
        agent = np.empty((batch, self._agent_size), np.float32)
        agent[:, :arms], agent[:, arms : 2 * arms] = physics.qpos[:, :arms], physics.qvel[:, :arms]
        agent[:, 2 * arms : 2 * arms + 18] = physics.sensordata[:, self._tool_poses]
        if self.control == END_EFFECTORS:
            agent[:, 2 * arms + 18 :] = physics.mocap_pos.reshape(batch, 6)
        return {"agent_pos": agent, "environment_state": physics.sensordata[:, self._object_poses].astype(np.float32)}

    def _agent_space(self) -> spaces.Box:
        speeds = np.full(station.ACTUATORS, FASTEST)
        tools = np.tile([*[2.0] * 3, *[1.01] * 6], 2)
        commands = [station.LOW_M.ravel(), station.HIGH_M.ravel()] if self.control == END_EFFECTORS else [np.empty(0)] * 2
        low = [station.CTRL_LOW - _BEYOND, -speeds, -tools, commands[0]]
        high = [station.CTRL_HIGH + _BEYOND, speeds, tools, commands[1]]
        return spaces.Box(np.concatenate(low).astype(np.float32), np.concatenate(high).astype(np.float32))

    def _objects_space(self) -> spaces.Box:
        high = np.tile([*[FARTHEST_M] * 3, *[1.01] * 6], len(self.objects)).astype(np.float32)
        return spaces.Box(-high, high)

    # -- success -------------------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def stage_of(self, sensordata: Sequence[float], userdata: Sequence[float]) -> int:
        """Returns how far the task has come in one env, 0 to 4, by its contact sensors and what it remembers; 4 is success."""

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """Returns (B,) bool: the last stage."""
        return self.truth(physics, goals, estimate=False).is_success

    def truth(self, physics: Physics, goals: Goals, *, estimate: bool = True) -> Truth:
        """Stage and plan read the same sensors."""
        sensors = physics.sensordata.tolist()
        stages = list(map(self.stage_of, sensors, physics.userdata.tolist()))
        steps = [self.plan(row, self.aims).seconds / self._control_dt_s for row in sensors] if estimate else None
        is_success = np.array([stage == 4 for stage in stages])
        return Truth(is_success, None if steps is None else np.array(steps), {"stage": np.array(stages)})

    # -- plan ----------------------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def way(self, left: Hand, right: Hand, things: list[Thing], aims: Aims) -> Way:
        """Returns what both arms do next, and how long it takes until success."""

    @abc.abstractmethod
    def miss(self, rng: np.random.Generator) -> Vec:
        """Returns how far off, in [m], somebody is who misses: `Aims.aside`."""

    def plan(self, sensordata: Sequence[float], aims: Aims) -> Way:
        """Returns the plan from the present state of one env, as its sensors tell it."""
        lx, ly, lz = sensordata[self._left_tool]
        rx, ry, rz = sensordata[self._right_tool]
        left_a, left_b, right_a, right_b = sensordata[self._fingers]
        left, right = (
            Hand((lx, ly, lz), (left_a + left_b) / 2.0, LEFT_RETREAT),
            Hand((rx, ry, rz), (right_a + right_b) / 2.0, RIGHT_RETREAT),
        )
        return self.way(left, right, [Thing.of(*sensordata[pose]) for pose in self._things], aims)

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """How long the clean expert's plan takes from here."""
        return np.asarray(self.truth(physics, goals).steps_to_go)


def checked_number(name: str, value: Any, low: float, high: float) -> float:
    """Returns an option's value as a float; raises EFMError if it is no number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
        raise EFMError(f"{name} is a number from {low:g} to {high:g}; got {value!r}.")
    return float(value) + 0.0  # −0 is 0


def _check_apart(objects: Mapping[str, Placing], places: list[list[float]]) -> None:
    """Raises EFMError if two objects could overlap."""
    for (a, place_a), (b, place_b) in itertools.combinations(zip(objects, places, strict=True), 2):
        least = objects[a].radius + objects[b].radius + LEAST_GAP_M
        distance = math.dist(place_a, place_b)
        if distance < least:
            raise EFMError(f"the {a} and the {b} are {distance:.3f} m apart; their centres must be at least {least:.3f} m apart.")


def _placed_by_hand(name: str, placing: Placing, value: Any, most_yaw_rad: float) -> tuple[float, float, float]:
    """Returns (x, y, yaw) that a person typed.

    Raises:
        EFMError: it is something else, or no gripper reaches it there.
    """
    x, y, yaw = place_of(name, value, angle=0.0, called="yaw").tolist()
    (low_x, low_y), (high_x, high_y) = placing.reach_low, placing.reach_high
    if not (low_x <= x <= high_x and low_y <= y <= high_y):
        bounds = f"x must be from {low_x:g} to {high_x:g}, y from {low_y:g} to {high_y:g}"
        raise EFMError(f"the {name} cannot be at ({x:g}, {y:g}), outside its gripper's reach: {bounds}.")
    if abs(yaw) > most_yaw_rad:
        raise EFMError(f"the {name} cannot be turned by {yaw:g} rad, which closing fingers do not put right: at most ±{most_yaw_rad:g}.")
    return x, y, yaw
