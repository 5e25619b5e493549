"""The suite's ball_in_cup: a cup in the plane, to catch the ball that hangs from it (dm_control, suite/ball_in_cup.py)."""

import numpy as np

from efm_envs.task import Array, Goals, Physics, Scenario
from efm_envs.tasks.dmc.suite import UNBOUNDED, SuiteTask, joined, length

BALL_LOW_M, BALL_HIGH_M = (-0.2, 0.2), (0.2, 0.5)  # the ball's x and z from its own place (dm_control)
BALL_SPEED_M_S = 2.4  # after a fall from the string's whole length, 0.3 m; ours, for the estimate of what is left


class BallInCup(SuiteTask):
    """Task of `EFM-DMC-BallInCupCatch-v0`; see the env's page for spaces and rules."""

    name = "DMCBallInCup"
    domain = "ball_in_cup"
    instruction = "Catch the ball in the cup."
    substeps = 10
    cameras = ("cam0", "cam1")
    agent_bounds = (UNBOUNDED,) * 4
    environment_bounds = (UNBOUNDED,) * 4

    def __init__(self) -> None:
        super().__init__()
        self._ball, self._target = self.model.body("ball").id, self.model.site("target").id
        self._room_m = self.model.site("target").size[[0, 2]] - self.model.geom("ball").size[0]

    def draw(self, rng: np.random.Generator) -> Scenario:
        """The cup is at home, the ball anywhere below or beside it where it touches nothing; both are at rest."""
        while True:
            ball = rng.uniform(BALL_LOW_M, BALL_HIGH_M)
            scenario = Scenario({"qpos": np.array([0.0, 0.0, *ball])}, self.goal())
            if self.is_free(scenario):
                return scenario

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns positions [m] and velocities [m/s] along x and z: the cup's, and the ball's."""
        qpos, qvel = physics.qpos, physics.qvel
        return {"agent_pos": joined(qpos[:, :2], qvel[:, :2]), "environment_state": joined(qpos[:, 2:], qvel[:, 2:])}

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """The ball is in the cup, all of it."""
        x, z = np.abs(self._to_target(physics)).T
        return (x < self._room_m[0]) & (z < self._room_m[1])

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Control steps for the straight way at the speed of a ball that has swung; rough: the ball must first be swung up."""
        return length(*self._to_target(physics).T) / (BALL_SPEED_M_S * self.control_dt_s)

    def _to_target(self, physics: Physics) -> Array:
        """Returns (B, 2) in [m]."""
        return np.asarray(physics.site_xpos[:, self._target, ::2] - physics.xpos[:, self._ball, ::2])
