"""The suite's finger: a finger of two links, to turn a spinner until its tip is in a target (dm_control, suite/finger.py)."""

import mujoco
import numpy as np

from efm_envs.errors import one_of
from efm_envs.task import Array, Goals, Physics, Scenario
from efm_envs.tasks.dmc.suite import UNBOUNDED, SuiteTask, joined, length, make_mocap, read_spec

TARGET_RADIUS_M = {"easy": 0.07, "hard": 0.03}  # (dm_control)
SPIN_SPEED_RAD_S = 5.0  # of the spinner after a push; ours, for the estimate of what is left


class FingerTurn(SuiteTask):
    """Task of `EFM-DMC-FingerTurnEasy-v0` and `EFM-DMC-FingerTurnHard-v0`; see the env's page for spaces and rules.

    Args:
        difficulty: "easy" or "hard": the size of the target.
    """

    name = "DMCFingerTurn"
    domain = "finger"
    instruction = "Turn the spinner until its tip is in the target."
    substeps = 2
    cameras = ("cam0", "cam1")
    agent_bounds = (UNBOUNDED,) * 6
    environment_bounds = (UNBOUNDED,) * 6

    def __init__(self, difficulty: str = "easy") -> None:
        self.difficulty: str = one_of("difficulty", difficulty, TARGET_RADIUS_M)
        super().__init__()
        self._joints, self._hinge = self.sensors("proximal", "distal_velocity"), self.sensors("hinge_velocity", "hinge_velocity")
        self._tip, self._target, self._spinner = (self.sensors(name, name) for name in ("tip", "target", "spinner"))
        self._touch = self.sensors("touchtop", "touchbottom")
        self._radius_m = self.model.site("target").size[0]
        self._arm_m = self.model.geom("cap1").size.sum()  # from the hinge to where targets are (dm_control)

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint}({self.difficulty})"

    def spec(self) -> mujoco.MjSpec:
        """The target is a mocap body."""
        spec = read_spec(self.domain)
        make_mocap(spec, "site", "target")
        spec.site("target").size[0] = TARGET_RADIUS_M[self.difficulty]
        return spec

    def draw(self, rng: np.random.Generator) -> Scenario:
        """The target is anywhere about the hinge; finger and spinner are at rest in any pose in which they do not touch."""
        angle = rng.uniform(-np.pi, np.pi)
        x, y, z = self.model.body("spinner").pos
        target = np.array([[x + self._arm_m * np.sin(angle), y, z + self._arm_m * np.cos(angle)]])
        while True:
            physics = {"qpos": self.random_positions(rng), "mocap_pos": target}
            scenario = Scenario(physics, self.goal(target[0, 0], target[0, 2]))
            if self.is_free(scenario):
                return scenario

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns what is felt of the finger, and what is seen of the spinner and the target.

        `agent_pos`: the joints' positions [rad] and velocities [rad/s]; log(1 + force in [N]) of the two touch sensors.
        `environment_state`: x and z from the hinge to the spinner's tip [m]; the hinge's velocity [rad/s]; x and z from the hinge to the
        target [m]; from the tip to the surface of the target [m], negative inside.
        """
        sensed = physics.sensordata
        tip, target = self._from_hinge(physics)
        to_surface = length(*(target - tip).T) - self._radius_m
        return {
            "agent_pos": joined(sensed[:, self._joints], np.log1p(sensed[:, self._touch])),
            "environment_state": joined(tip, sensed[:, self._hinge], target, to_surface[:, None]),
        }

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """The spinner's tip is in the target."""
        tip, target = self._from_hinge(physics)
        return length(*(target - tip).T) - self._radius_m <= 0.0

    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Control steps for the angle that is left at the speed of a spinner that was pushed; rough: the finger must get there first."""
        tip, target = (np.arctan2(x, z) for x, z in (place.T for place in self._from_hinge(physics)))
        turn = np.abs(target - tip)
        return np.minimum(turn, 2.0 * np.pi - turn) / (SPIN_SPEED_RAD_S * self.control_dt_s)

    def _from_hinge(self, physics: Physics) -> tuple[Array, Array]:
        """Returns x and z of tip and target, each (B, 2) in [m]."""
        sensed = physics.sensordata
        tip, target, hinge = (sensed[:, where][:, ::2] for where in (self._tip, self._target, self._spinner))
        return tip - hinge, target - hinge
