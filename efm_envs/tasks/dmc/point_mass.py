"""The suite's point_mass: a point in the plane, to be moved to the middle (dm_control, suite/point_mass.py)."""

from typing import ClassVar

import numpy as np

from efm_envs.task import Array, Goals, Physics, Scenario
from efm_envs.tasks.dmc.reaching import ReachingTask
from efm_envs.tasks.dmc.suite import UNBOUNDED, distance, joined


class PointMass(ReachingTask):
    """Task of `EFM-DMC-PointMassEasy-v0`; see the env's page for spaces and rules."""

    name = "DMCPointMass"
    domain = "point_mass"
    instruction = "Move the point to the target."
    substeps = 1
    cameras = ("fixed", "cam0")
    agent_bounds = (UNBOUNDED,) * 4
    top_speed = 0.1
    stiffness: ClassVar[tuple[float, ...]] = (100.0, 100.0)
    damping: ClassVar[tuple[float, ...]] = (25.0, 25.0)

    def __init__(self) -> None:
        super().__init__()
        self._point, self._target = (self.model.geom(name).id for name in ("pointmass", "target"))
        self._radius_m = self.model.geom("target").size[0]

    def draw(self, rng: np.random.Generator) -> Scenario:
        """The point is anywhere, at rest."""
        return Scenario({"qpos": self.random_positions(rng)}, self.goal())

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns position [m] and velocity [m/s]; the target is always in the middle."""
        return {"agent_pos": joined(physics.qpos, physics.qvel)}

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """The point's centre is within the target. dm_control's reward is 1 there where no control is used."""
        return distance(physics.geom_xpos, self._point, self._target) <= self._radius_m

    def aim(self, physics: Physics) -> Array:
        """Returns the middle."""
        return np.zeros_like(physics.qpos)
