"""PointMass: push a point to a goal. The paper's teaching example (arXiv 2509.15155, the authors' PointMass notebook).

The notebook counts in substeps: `v += a`, `p += v`, ten of them a control step. Here a substep is 0.01 s, so its numbers become
SI units: a length stays, a velocity is divided by 0.01 s and an acceleration by (0.01 s)².
"""

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium import spaces

import efm_assets
from efm_envs.task import Array, Goal, Goals, Physics, Scenario, Task

START_RANGE_M = 1.0  # starts are uniform in ±1, at rest (notebook)
GOAL_RANGE_M = 0.9  # goals are uniform in ±0.9 (notebook)
SUCCESS_RADIUS_M = 0.15  # (notebook)
ARENA_M = 1.5  # half-width; ours: the notebook has no walls, and an unbounded arena overflows
KP_PER_S2 = 2.0  # the controllers' gains: 2e-4 and 0.0125 a substep (notebook)
KD_PER_S = 1.25
MAX_ACCELERATION_M_S2 = 5.0  # what an action of 1 means; ours: the notebook's actions have no limit
MAX_SPEED_M_S = 6.0  # bound of the observation: sqrt(2 · 5 m/s² · 3 m) = 5.5 from wall to wall

INSTRUCTION = "Move the point to the goal."


def pd_acceleration(target: Array, position: Array, velocity: Array) -> Array:
    """Returns the notebook's PD controller's acceleration in [m/s²], the shape of its arguments."""
    return KP_PER_S2 * (target - position) - KD_PER_S * velocity


class PointMass(Task):
    """Task of `EFM-PointMass-v0`; see the env's documentation for spaces and rules."""

    name = "PointMass"
    substeps = 10
    cameras = ("top",)
    experts: ClassVar[Mapping[str, str]] = {
        "clean": "efm_envs.experts.point_mass:DirectExpert",
        "direct": "efm_envs.experts.point_mass:DirectExpert",
        "human": "efm_envs.experts.point_mass:WaypointsExpert",
        "waypoints": "efm_envs.experts.point_mass:WaypointsExpert",
    }
    object_names = ("goal",)

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        reach = np.float32(ARENA_M + 0.1)  # joint limits are soft: they give by centimetres
        self._substep_s = self.control_dt_s / self.substeps
        fastest = MAX_SPEED_M_S * self._substep_s
        agent = np.array([reach, reach, fastest, fastest], np.float32)
        self.state_spaces = {
            "agent_pos": spaces.Box(-agent, agent),
            "environment_state": spaces.Box(-reach, reach, (2,), np.float32),
        }
        self._future_offset = _direct_expert_offsets(self._substep_s, self.substeps)

    def build_model(self) -> mujoco.MjModel:
        """Compiles `point_mass/point_mass.xml`."""
        return mujoco.MjModel.from_xml_path(str(efm_assets.path("point_mass/point_mass.xml")))

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws start and goal; a start that is already at the goal is drawn again."""
        goal = rng.uniform(-GOAL_RANGE_M, GOAL_RANGE_M, 2)
        start = rng.uniform(-START_RANGE_M, START_RANGE_M, 2)
        while np.linalg.norm(start - goal) <= SUCCESS_RADIUS_M:
            start = rng.uniform(-START_RANGE_M, START_RANGE_M, 2)
        physics = {"qpos": start, "qvel": np.zeros(2), "mocap_pos": np.array([[*goal, 0.0]])}
        return Scenario(physics, Goal(INSTRUCTION, goal))

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns position [m] and velocity [m per substep, as in the notebook], and the goal's position [m]."""
        velocity = physics.qvel * self._substep_s
        agent_pos = np.concatenate([physics.qpos, velocity], axis=1, dtype=np.float32)  # (B, 4)
        return {"agent_pos": agent_pos, "environment_state": goals.states.astype(np.float32)}

    def apply(self, physics: Physics, actions: Array) -> None:
        """An action is an acceleration, held for the ten substeps."""
        physics.ctrl[:] = MAX_ACCELERATION_M_S2 * actions

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """Within 0.15 m of the goal, at any speed."""
        return _is_near(*(physics.qpos - goals.states).T)

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Control steps until the direct expert, from here, is within the goal: its closed loop is linear, so its future is known.

        Walls and the limit of the action are left out: near them the estimate is a little low.
        """
        of_offset, of_velocity = self._future_offset[:, :1], self._future_offset[:, 1:]  # (K, 1)
        now = zip((physics.qpos - goals.states).T, physics.qvel.T, strict=True)  # x, then y; each (B,)
        arrived = _is_near(*(of_offset * offset + of_velocity * velocity for offset, velocity in now))  # (K, B): after k control steps
        return np.where(arrived.any(axis=0), arrived.argmax(axis=0), float(len(arrived)))


def _is_near(x: Array, y: Array) -> Array:
    """Whether offsets from the goal in [m] are success."""
    return np.asarray(x * x + y * y <= SUCCESS_RADIUS_M**2)


def _direct_expert_offsets(dt_s: float, substeps: int, horizon: int = 96) -> Array:
    """Returns (horizon, 2): row k maps [offset, velocity] now to the offset after k control steps of the direct expert, on one axis.

    96 control steps are enough from anywhere in the arena at any speed it allows.
    """
    substep = np.array([[1.0, dt_s, dt_s**2], [0.0, 1.0, dt_s], [0.0, 0.0, 1.0]])  # [offset, velocity, acceleration]
    held = np.linalg.matrix_power(substep, substeps)  # semi-implicit Euler, the acceleration held
    feedback = np.array([[1.0, 0.0], [0.0, 1.0], [-KP_PER_S2, -KD_PER_S]])
    control_step = held[:2] @ feedback  # (2, 2)
    return np.array([np.linalg.matrix_power(control_step, k)[0] for k in range(horizon)])
