"""Any env as a `dm_env.Environment`, which dm_control's viewer opens, too. Needs the extra [dm-control]; see docs/dm_env.md."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces

from efm_envs.env import EFMEnv
from efm_envs.errors import EFMError, missing_extra
from efm_envs.rendering import HEADLESS_BACKENDS, find_backend, has_display
from efm_envs.task import SinglePhysics

EXTRA = "dm-control"

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise missing_extra("efm_envs.interop.dm_env", EXTRA) from error


def to_dm_env(env: gym.Env[Any, Any], *, seed: int | None = None) -> "DmEnvInterface":
    """Returns a Gymnasium env as a dm_env environment. It is the env itself, not a copy; `close` closes it.

    Args:
        env: one env, made by `gym.make`, with or without wrappers. Its spaces are Box, Discrete, or Dicts of these.
        seed: of the first reset; without one, it starts the next episode of the env's last seed, as all later ones do.

    Raises:
        EFMError: many envs in one, something that is no env, or a space that dm_env has no spec for.

    >>> environment = to_dm_env(gym.make("efm_envs:EFM-PointMass-v0", obs_mode="flat"), seed=0)
    >>> environment.reset().step_type
    <StepType.FIRST: 0>
    >>> timestep = environment.step(np.zeros(2, np.float32))
    >>> environment.observation_spec().validate(timestep.observation).shape, timestep.discount, environment.info["is_success"]
    ((6,), 1.0, False)
    """
    return DmEnvInterface(env, seed)


class DmEnvInterface(dm_env.Environment):
    """A Gymnasium env as a dm_env environment. Usually made by `to_dm_env`, whose arguments these are.

    Observations, actions and rewards are the env's own. The last timestep of a terminated episode has discount 0, of a truncated one 1;
    the step after it starts the next episode, and its action is ignored.

    Attributes:
        env: the Gymnasium env.
        info: what the env said at the last reset or step besides: `is_success`, `predicted_success`, `steps_to_go`, `instruction`, ….
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        if not isinstance(env, gym.Env):
            raise EFMError(f"to_dm_env() takes one env, as gym.make() returns it; got {type(env).__name__}. Of many, convert each.")
        self.env = env
        self.info: dict[str, Any] = {}
        self._seed = seed
        self._is_over = True
        self._mirror: _Mirror | None = None
        self._observation_spec = _spec(env.observation_space, "observation")
        self._action_spec = _spec(env.action_space, "action")

    def reset(self) -> dm_env.TimeStep:
        """Starts the next episode; the first one that of `seed`."""
        with self._watched():
            observation, self.info = self.env.reset(seed=self._seed)
        self._seed, self._is_over = None, False
        if self._mirror is not None:
            self._mirror.clear()
        return dm_env.restart(observation)

    def step(self, action: Any) -> dm_env.TimeStep:
        """Runs one control step, or starts the next episode if there is none or the last is over.

        Raises:
            InvalidActionError: wrong shape, or not finite. The env stays as it was.
        """
        if self._is_over:
            return self.reset()
        with self._watched():
            observation, reward, terminated, truncated, self.info = self.env.step(action)
        self._is_over = bool(terminated or truncated)
        if terminated:
            return dm_env.termination(float(reward), observation)
        if truncated:
            return dm_env.truncation(float(reward), observation)
        return dm_env.transition(float(reward), observation)

    def observation_spec(self) -> Any:
        """Returns an array's spec, or a dict of them by the observations' names."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """Returns the spec of an action."""
        return self._action_spec

    @property
    def physics(self) -> Any:
        """A `dm_control.mujoco.Physics` of what cameras see, up to date whenever asked for; made at the first time.

        Where the task's drawn model is the simulated one, `physics.data` is the simulation itself. Elsewhere it follows the simulation:
        `qpos` and `qvel` of joints, and `xfrc_applied` on bodies, that both models have go from it to the simulation when they are
        changed, so that a pushed object moves. Time passes by `step` of the environment, not of the physics.

        Raises:
            EFMError: there is no env of ours under the wrappers.
            MissingExtraError: dm_control is not installed.
        """
        if self._mirror is None:
            base = self.env.unwrapped
            if not isinstance(base, EFMEnv):
                raise EFMError(f"physics needs one of our envs, for example EFM-PointMass-v0; got {base}.")
            self._mirror = _Mirror(base)
        self._mirror.update()
        return self._mirror.physics

    def close(self) -> None:
        """Closes the env and frees what the physics draws with; more than once does no harm."""
        if self._mirror is not None:
            self._mirror.physics.free()
            self._mirror = None
        self.env.close()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Around what moves the env: takes over what was done to `physics`, and keeps that up to date."""
        with _kept_context(), self._mirror.moving() if self._mirror else contextlib.nullcontext():
            yield


class _Mirror:
    """dm_control's physics of what cameras see of an env's simulation, and the way from one to the other."""

    def __init__(self, env: EFMEnv) -> None:
        backend = find_backend()
        if backend in HEADLESS_BACKENDS:
            os.environ.setdefault("MUJOCO_GL", backend)  # dm_control would take GLFW, which needs a display
        try:
            from dm_control.mujoco import Physics, wrapper
        except ModuleNotFoundError as error:
            raise missing_extra("physics", EXTRA) from error
        self._env, task = env, env.task
        self._is_same = task.drawn_model is task.model
        self._drawn = env.data if self._is_same else mujoco.MjData(task.drawn_model)
        self._view = SinglePhysics(self._drawn)
        joints, bodies = (sorted(_names(task.model, kind) & _names(task.drawn_model, kind)) for kind in ("joint", "body"))
        self._joints = [(env.data.joint(name), self._drawn.joint(name)) for name in joints]
        self._bodies = [(env.data.body(name), self._drawn.body(name)) for name in bodies]
        self.physics: Any = Physics(wrapper.MjData(self._drawn))
        self._remember()

    def update(self) -> None:
        """Takes over what was moved by hand, then shows the simulation as it is."""
        if self._is_same or not self._env.episode_count:
            return
        if (self._drawn.qpos != self._qpos).any() or (self._drawn.qvel != self._qvel).any():
            for simulated, drawn in self._joints:
                simulated.qpos[:], simulated.qvel[:] = drawn.qpos, drawn.qvel
            mujoco.mj_step1(self._env.task.model, self._env.data)
        self._show()

    def clear(self) -> None:
        """Forgets forces: a new episode begins without."""
        self._drawn.xfrc_applied[:] = 0.0

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Around what moves the env: meanwhile, forces on drawn bodies act on the simulated ones of the same name."""
        self.update()
        pushed = [] if self._is_same else [pair for pair in self._bodies if pair[1].xfrc_applied.any()]
        for simulated, drawn in pushed:
            simulated.xfrc_applied[:] = drawn.xfrc_applied
        try:
            yield
        finally:
            for simulated, _ in pushed:
                simulated.xfrc_applied[:] = 0.0
        if not self._is_same:
            self._show()

    def _show(self) -> None:
        self._env.task.pose(self._env.physics, self._view)
        for simulated, drawn in self._joints:
            drawn.qvel[:] = simulated.qvel
        self._drawn.time = self._env.data.time
        mujoco.mj_step1(self._env.task.drawn_model, self._drawn)  # the viewer's mouse weighs a body by its inertia and its velocity
        self._remember()

    def _remember(self) -> None:
        self._qpos, self._qvel = self._drawn.qpos.copy(), self._drawn.qvel.copy()


@contextlib.contextmanager
def _kept_context() -> Iterator[None]:
    """Gives GLFW's context back afterwards: dm_control does not notice that an env that draws has taken it."""
    if getattr(sys.modules.get("dm_control._render"), "BACKEND", None) != "glfw" or not has_display():
        yield
        return
    import glfw

    current = glfw.get_current_context()
    try:
        yield
    finally:
        glfw.make_context_current(current)


def _names(model: mujoco.MjModel, kind: str) -> set[str]:
    """Returns the names of a model's joints or bodies, without the world's."""
    count = model.njnt if kind == "joint" else model.nbody
    return {getattr(model, kind)(i).name for i in range(count)} - {"", "world"}


def _spec(space: spaces.Space[Any], name: str) -> Any:
    """Returns the spec of a space: bounded where a bound is finite."""
    if isinstance(space, spaces.Dict):
        return {key: _spec(value, key) for key, value in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n) - 1
        return specs.BoundedArray((), space.dtype, first, last, name) if first else specs.DiscreteArray(last + 1, space.dtype, name)
    if not isinstance(space, spaces.Box):
        raise EFMError(f"dm_env has no spec for the {name} {space}; it has for Box, Discrete, and Dicts of these. Wrap the env.")
    if not (np.isfinite(space.low).any() or np.isfinite(space.high).any()):
        return specs.Array(space.shape, space.dtype, name)
    return specs.BoundedArray(space.shape, space.dtype, space.low, space.high, name)
