"""Domains of the suite whose goal is a pose of the joints, each of which has a motor of its own."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from efm_envs.task import Array, Goals, Physics
from efm_envs.tasks.dmc.suite import SuiteTask


class ReachingTask(SuiteTask):
    """A domain in which a PD controller is the expert.

    Attributes:
        top_speed: at which a joint goes under full control, in [m/s] or [rad/s]: gear over damping.
        stiffness, damping: of the controller, for each joint: control by [m] or [rad], and by [m/s] or [rad/s].
    """

    experts: ClassVar[Mapping[str, str]] = {
        "clean": "efm_envs.experts.dmc:DirectExpert",
        "human": "efm_envs.experts.dmc:DetourExpert",
    }
    top_speed: ClassVar[float]
    stiffness: ClassVar[tuple[float, ...]]
    damping: ClassVar[tuple[float, ...]]

    @abc.abstractmethod
    def aim(self, physics: Physics) -> Array:
        """Returns (B, nq): the pose to go to from the present one."""

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Control steps at top speed, for the joint that has farthest to go; rough: joints take time to speed up and to stop."""
        return np.abs(self.aim(physics) - physics.qpos).max(axis=1) / (self.top_speed * self.control_dt_s)
