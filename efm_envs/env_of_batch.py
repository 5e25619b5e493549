"""One env of a vector env, for whoever expects a single one."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym

from efm_envs.batch_physics import RowPhysics
from efm_envs.env import positive
from efm_envs.errors import one_of
from efm_envs.rewards.signal import TERMINATE_ON
from efm_envs.task import Array, Goals, Scenario

if TYPE_CHECKING:
    from efm_envs.vector import EFMVectorEnv

SHARED = ("action_space", "cameras", "image_size", "metadata", "obs_mode", "observation_space", "render_mode", "render_size", "task")
SETTABLE = ("render_camera", "step_limit", "terminate_on")


class EnvOfBatch:
    """One env of a vector env, with what experts and tools read of a single one. It cannot be stepped alone.

    Attributes:
        physics: its simulation, as a batch of one.
        action_space, cameras, image_size, metadata, obs_mode, observation_space, render_mode, render_size, task: as of a single env.
    """

    def __init__(self, envs: "EFMVectorEnv", row: int, physics: RowPhysics) -> None:
        self._envs, self._row, self.physics = envs, row, physics

    def __getattr__(self, name: str) -> Any:
        if name in SHARED:
            return getattr(self._envs.example, name)
        known = sorted({*SHARED, *(n for n in (*dir(type(self)), *vars(self)) if not n.startswith("_"))})
        raise AttributeError(f"an env of a batch has no attribute {name!r}. It has: {', '.join(known)}.")

    @property
    def unwrapped(self) -> "EnvOfBatch":
        """Itself."""
        return self

    @property
    def spec(self) -> Any:
        """What it was made from."""
        return self._envs.spec

    @property
    def terminate_on(self) -> str:
        """What ends an episode; may be set."""
        return str(self._envs.terminate_on[self._row])

    @terminate_on.setter
    def terminate_on(self, value: Any) -> None:
        self._envs.terminate_on[self._row] = one_of("terminate_on", value, TERMINATE_ON)

    @property
    def render_camera(self) -> str:
        """The camera of `render`; may be set."""
        return self._envs.render_cameras[self._row]

    @render_camera.setter
    def render_camera(self, value: Any) -> None:
        self._envs.render_cameras[self._row] = one_of("camera", value, self.task.cameras)

    def render(self) -> Array:
        """Returns a picture (H, W, 3) uint8, in any mode."""
        return self._envs.render_env(self._row)

    @property
    def goals(self) -> Goals:
        """The present goal, as a batch of one."""
        self._check_begun()
        return self._envs.goals_of(self._row)

    @property
    def scenario(self) -> Scenario:
        """How the present episode began."""
        self._check_begun()
        return self._envs.scenarios[self._row]

    @property
    def episode_key(self) -> tuple[int, int]:
        """(s, k) of the present episode."""
        return self._envs.episode_keys[self._row]

    @property
    def episode_count(self) -> int:
        """Episodes begun so far."""
        return int(self._envs.episode_counts[self._row])

    @property
    def elapsed_steps(self) -> int:
        """Control steps of the present episode."""
        return int(self._envs.elapsed_steps[self._row])

    @property
    def step_limit(self) -> int:
        """Control steps after which an episode is truncated; may be set."""
        return int(self._envs.step_limits[self._row])

    @step_limit.setter
    def step_limit(self, value: Any) -> None:
        self._envs.step_limits[self._row] = positive("step_limit", value)

    @property
    def task_description(self) -> str:
        """The present instruction, under the name LeRobot reads."""
        return self._envs.goals.instructions[self._row] if self._envs.scenarios else ""

    @property
    def _max_episode_steps(self) -> int:
        """The step limit, under the name LeRobot reads."""
        return self.step_limit

    def _check_begun(self) -> None:
        if not self._envs.scenarios:
            raise gym.error.ResetNeeded("call reset() before asking for the goal or the scenario.")
