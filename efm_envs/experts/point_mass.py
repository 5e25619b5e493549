"""PointMass's demonstrators: straight to the goal, or through five hidden waypoints first."""

import numpy as np

from efm_envs.experts.base import Expert
from efm_envs.task import Array, Goals, Physics, Task
from efm_envs.tasks.point_mass import MAX_ACCELERATION_M_S2, START_RANGE_M, SUCCESS_RADIUS_M, pd_acceleration

WAYPOINTS = 5  # (notebook)


class DirectExpert(Expert):
    """The PD controller, aimed at the goal."""

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, 2)."""
        return _action(goals.states, physics)


class WaypointsExpert(Expert):
    """The PD controller, aimed at five random points in turn and then at the goal.

    Nothing in the observation tells the next waypoint: a policy that imitates this can only learn the mixture.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._targets: list[Array] = []

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:
        """Draws the waypoints, uniform in the square in which starts are drawn."""
        waypoints = rng.uniform(-START_RANGE_M, START_RANGE_M, (WAYPOINTS, 2))
        self._targets = [*waypoints, goals.states[0]]

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, 2). A waypoint counts as reached within the goal's radius."""
        while len(self._targets) > 1 and np.linalg.norm(physics.qpos[0] - self._targets[0]) <= SUCCESS_RADIUS_M:
            self._targets.pop(0)
        return _action(self._targets[0], physics)


def _action(target: Array, physics: Physics) -> Array:
    """Returns actions (1, 2), clipped to [-1, 1]."""
    return np.clip(pd_acceleration(target, physics.qpos, physics.qvel) / MAX_ACCELERATION_M_S2, -1.0, 1.0)
