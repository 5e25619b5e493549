"""Demonstrators of dm_control's point_mass and reacher: straight to the goal, or by hidden poses first."""

from typing import Any

import numpy as np

from efm_envs.experts.base import Expert
from efm_envs.task import Array, Goals, Physics, Task
from efm_envs.tasks.dmc.reaching import ReachingTask

DETOURS = 2
PASSED = 0.1  # of the joints' range, or of half a turn: a hidden pose that is so near counts as reached


class DirectExpert(Expert):
    """A PD controller of the joints, aimed at the goal."""

    task: ReachingTask

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A)."""
        return self._towards(self.task.aim(physics), physics)

    def _towards(self, pose: Array, physics: Physics) -> Array:
        """Returns actions (1, A), clipped to [-1, 1]."""
        task = self.task
        return np.clip(np.array(task.stiffness) * (pose - physics.qpos) - np.array(task.damping) * physics.qvel, -1.0, 1.0)


class DetourExpert(DirectExpert):
    """The same controller, aimed at two poses in turn in which episodes could begin, and then at the goal."""

    def __init__(self, task: Task, **knobs: Any) -> None:
        super().__init__(task, **knobs)
        self._poses: list[Array] = []
        self._near = PASSED * self.task.model.jnt_range[-1, 1]

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:
        """Draws the poses."""
        self._poses = [self.task.random_positions(rng) for _ in range(DETOURS)]

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A)."""
        while self._poses and np.abs(physics.qpos[0] - self._poses[0]).max() <= self._near:
            self._poses.pop(0)
        return self._towards(self._poses[0], physics) if self._poses else super().act(physics, goals)
