"""The suite's reacher: an arm of two links in the plane, to touch a target with its tip (dm_control, suite/reacher.py)."""

from typing import ClassVar

import mujoco
import numpy as np

from efm_envs.errors import one_of
from efm_envs.task import Array, Goals, Physics, Scenario
from efm_envs.tasks.dmc.reaching import ReachingTask
from efm_envs.tasks.dmc.suite import UNBOUNDED, joined, length, make_mocap, read_spec

TARGET_RADIUS_M = {"easy": 0.05, "hard": 0.015}  # (dm_control)
TARGET_FROM_M, TARGET_TO_M = 0.05, 0.2  # from the shoulder (dm_control)
LINK_M = 0.12  # of each of the two links (dm_control's model)


class Reacher(ReachingTask):
    """Task of `EFM-DMC-ReacherEasy-v0` and `EFM-DMC-ReacherHard-v0`; see the env's page for spaces and rules.

    Args:
        difficulty: "easy" or "hard": the size of the target.
    """

    name = "DMCReacher"
    domain = "reacher"
    instruction = "Touch the target with the tip of the arm."
    substeps = 1
    cameras = ("fixed", "hand")
    agent_bounds = (UNBOUNDED,) * 4
    environment_bounds = (UNBOUNDED,) * 2
    top_speed = 5.0
    stiffness: ClassVar[tuple[float, ...]] = (10.0, 4.0)
    damping: ClassVar[tuple[float, ...]] = (0.8, 0.1)

    def __init__(self, difficulty: str = "easy") -> None:
        self.difficulty: str = one_of("difficulty", difficulty, TARGET_RADIUS_M)
        super().__init__()
        self._tip, self._target = (self.model.geom(name).id for name in ("finger", "target"))
        self._reach_m = self.model.geom_size[[self._target, self._tip], 0].sum()

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint}({self.difficulty})"

    def spec(self) -> mujoco.MjSpec:
        """The target is a mocap body."""
        spec = read_spec(self.domain)
        make_mocap(spec, "geom", "target")
        spec.geom("target").size[0] = TARGET_RADIUS_M[self.difficulty]
        return spec

    def draw(self, rng: np.random.Generator) -> Scenario:
        """The arm is in any pose, at rest; the target is 5 to 20 cm from its shoulder."""
        qpos = self.random_positions(rng)
        angle, radius = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(TARGET_FROM_M, TARGET_TO_M)
        x, y = radius * np.sin(angle), radius * np.cos(angle)
        target = np.array([[x, y, self.model.body("target").pos[2]]])
        return Scenario({"qpos": qpos, "mocap_pos": target}, self.goal(x, y))

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns the joints' positions [rad] and velocities [rad/s], and the way from the tip to the target [m]."""
        return {
            "agent_pos": joined(physics.qpos, physics.qvel),
            "environment_state": self._to_target(physics).astype(np.float32),
        }

    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """The tip touches the target."""
        return length(*self._to_target(physics).T) <= self._reach_m

    def aim(self, physics: Physics) -> Array:
        """Returns the angles at which the tip is on the target, the elbow on its present side, the shoulder by the shorter way."""
        x, y = physics.geom_xpos[:, self._target, :2].T
        shoulder, elbow = physics.qpos.T
        side = np.where(elbow < 0.0, -1.0, 1.0)
        bend = side * np.arccos((x * x + y * y) / (2.0 * LINK_M**2) - 1.0)  # of two equal links
        turn = np.arctan2(y, x) - bend / 2.0 - shoulder
        return np.stack([shoulder + turn - 2.0 * np.pi * np.round(turn / (2.0 * np.pi)), bend], axis=1)

    def _to_target(self, physics: Physics) -> Array:
        """Returns (B, 2) in [m]."""
        return np.asarray(physics.geom_xpos[:, self._target, :2] - physics.geom_xpos[:, self._tip, :2])
