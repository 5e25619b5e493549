"""EFMVectorEnv: one task in many simulations at once, stepped by native threads. Bit for bit what as many single envs do."""

import ctypes
import functools
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch, SimulationError

from efm_envs.batch_physics import DERIVED, BatchPhysics, RowPhysics, SomePhysics
from efm_envs.batch_rendering import BatchRenderer
from efm_envs.env import ENV_OPTIONS, EFMEnv, EnvState, checked_options, positive
from efm_envs.env_of_batch import SETTABLE, SHARED, EnvOfBatch
from efm_envs.errors import EFMError, InvalidActionError, InvalidStateError, one_of
from efm_envs.observations import PIXELS
from efm_envs.recording import Recording
from efm_envs.rewards.base import ACTION, GOAL_PIXELS, TRUE_SUCCESS, TRUTH
from efm_envs.rewards.signal import RewardSignal, SignalOutput, SignalState
from efm_envs.simulation import DIVERGED, DIVERGENCE
from efm_envs.task import Array, Goals, Scenario

NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)


@dataclass(frozen=True)
class VectorEnvState:
    """Everything that decides how a vector env goes on, made by `EFMVectorEnv.get_state`; shares nothing with it."""

    task: str
    physics: Array  # (B, mjSTATE_INTEGRATION)
    scenarios: tuple[Scenario, ...]
    episode_keys: tuple[tuple[int, int], ...]
    elapsed_steps: Array
    ended: Array
    signal: SignalState


_alive: "weakref.WeakSet[EFMVectorEnv]" = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked process: threads stay behind, and to wait for them, as a batch does at its end, would take for ever. So it never ends."""
    for envs in list(_alive):
        envs._is_inherited = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(envs.batch))


os.register_at_fork(after_in_child=_after_fork)


class EFMVectorEnv(VectorEnv[Any, Array, Array]):
    """A task in `num_envs` simulations. Made by `gym.make_vec`, whose keywords these are.

    Args:
        num_envs: how many.
        num_threads: that step and draw them; 0 is one for each processor. The results do not depend on it.
        autoreset_mode: Gymnasium's, as an `AutoresetMode` or its value: "NextStep", "SameStep" or "Disabled".
        max_episode_steps: shortens episodes, as for a single env.
        **options: every keyword of `EFMEnv`.

    Seeds are Gymnasium's: `reset(seed=s)` resets env i with s + i, a list gives one for each. Episodes are then those of a single env
    with that seed. In the mode "Disabled", an env whose episode has ended stays as it is, at a reward of 0 and at no cost to the
    physics, until `reset(options={"reset_mask": mask})`. A simulation that diverges ends its own episode only: `truncated`, and
    `info["error"]` says why.

    Attributes:
        task, obs_mode: as of a single env.
        example: a single env of the same kind, which is never stepped.
        envs: the envs of the batch, for experts and tools.
        step_limits, terminate_on, render_cameras: of each env; `set_attr` sets them.
        signal: turns the reward model's output into reward and predicted success; the model is asked once for all envs.
        goals: the present goals.
        episode_keys, episode_counts, elapsed_steps: of each env.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        num_threads: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        self.num_envs = positive("num_envs", num_envs)
        if isinstance(num_threads, bool) or not isinstance(num_threads, int | np.integer) or num_threads < 0:
            raise EFMError(f"num_threads is a whole number, 0 (one for each processor) or more; got {num_threads!r}.")
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        self.autoreset_mode = AutoresetMode(one_of("autoreset_mode", mode, [m.value for m in AutoresetMode]))
        self.example = EFMEnv(**options)
        if max_episode_steps is not None:
            self.example.step_limit = min(self.example.step_limit, positive("max_episode_steps", max_episode_steps))
        if self.example.render_mode == "human":
            raise EFMError('a vector env has no window: render_mode="rgb_array", or vectorization_mode="sync" for a window of each env.')
        self.task, self.obs_mode, self.render_mode = self.example.task, self.example.obs_mode, self.example.render_mode
        self.step_limits = np.full(self.num_envs, self.example.step_limit)
        self.terminate_on = np.full(self.num_envs, self.example.terminate_on, object)
        self.render_cameras = [self.example.render_camera] * self.num_envs
        self.metadata = {**self.example.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space, self.single_observation_space = self.example.action_space, self.example.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

        self.batch = Batch(self.task.model, self.num_envs, int(num_threads), persistent=self.task.reads_derived)
        self.physics = BatchPhysics(self.batch)
        single = self.example.signal
        self.signal = RewardSignal(single.model, self.num_envs, single.success_threshold, single.success_k_of_n)
        rows = [RowPhysics(self.physics, row) for row in range(self.num_envs)]
        workers = min(int(num_threads) or os.cpu_count() or 1, self.num_envs)
        self._observation_cameras = BatchRenderer(self.task, self.batch, rows, self.example.image_size, workers)
        self._render_cameras = BatchRenderer(self.task, self.batch, rows, self.example.render_size, workers)

        self.goals = Goals([])
        self._goals: list[Goals] = []
        self.scenarios: list[Scenario] = []
        self.episode_keys = [(0, -1)] * self.num_envs
        self.episode_counts = np.zeros(self.num_envs, np.int64)
        self.elapsed_steps = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)
        self._is_inherited = False
        self._physics_steps = 0
        self._actions = np.zeros(self.action_space.shape or ())  # that led here; zeros at the first observation of an episode
        self._last: dict[
            str, Array
        ] = {}  # what was observed, in the mode "Disabled": an env whose episode has ended is not looked at again
        self._recordings: list[Recording] = []
        self.envs = [EnvOfBatch(self, row, physics) for row, physics in enumerate(rows)]
        _alive.add(self)

    # -- Gymnasium -----------------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts episodes, in all envs or in those of `options["reset_mask"]` (B,) bool; the other options are a single env's.

        Raises:
            EFMError: a bad seed, mask or option. All envs stay as they were.
        """
        options = checked_options(options)
        mask = self._checked_mask(options.pop("reset_mask", None))
        seeds = self._seeds(seed)
        if not self.scenarios and not mask.all():
            raise gym.error.ResetNeeded("the first reset() resets all envs: leave reset_mask out.")
        return self._reset(mask, seeds, [options] * self.num_envs)

    def reset_each(
        self, seeds: Sequence[int | None] | None = None, options: Sequence[dict[str, Any]] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes in all envs, each with a seed and options of its own (B,).

        Raises:
            EFMError: a bad seed or option. All envs stay as they were.
        """
        each = [{}] * self.num_envs if options is None else [checked_options(option) for option in options]
        if len(each) != self.num_envs:
            raise EFMError(f"options are one dict for each of {self.num_envs} envs; got {len(each)}.")
        return self._reset(np.ones(self.num_envs, bool), self._seeds(seeds), each)

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Runs one control step in every env that is in an episode.

        Args:
            actions: (B, A) finite; what lies outside [-1, 1] is clipped.

        Raises:
            InvalidActionError: wrong shape, or not finite; says which env. All envs stay as they were.
        """
        if not self.scenarios:
            raise gym.error.ResetNeeded("call reset() before step().")
        self._check_process()
        actions = self._checked(actions)
        starting = self._ended & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        acting = ~self._ended
        self._actions = np.where(acting[:, None], actions, self._actions)
        errors = self._advance(actions, acting)
        if starting.any():
            self._start_next(starting)
        looking = acting | starting
        observations, lost = self._observe_some(looking, self._last), None
        if errors:
            lost = np.isin(np.arange(self.num_envs), list(errors))
            observations[TRUE_SUCCESS] = observations[TRUE_SUCCESS] & ~lost
        seen_by_model = self.example.pick(observations, self.example.model_names)
        output = self.signal.step(seen_by_model, self.goals, starting, None if looking.all() else ~looking, lost)
        rewards = np.where(acting, output.reward, 0.0)
        terminated, truncated = self._ends(observations, output, acting, errors)
        infos = self._infos(observations, output, np.ones(self.num_envs, bool))
        for row, error in errors.items():
            infos = self._add_info(infos, {"error": error}, row)
        seen = self._policy_observation(observations)
        self._ended = terminated | truncated | (~acting & ~starting)
        self._record(looking)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            seen, infos = self._restart(observations, seen, infos)
        return seen, rewards, terminated, truncated, infos

    def render(self) -> tuple[Array, ...] | None:
        """Returns a picture (H, W, 3) uint8 of each env in "rgb_array" mode."""
        if self.render_mode != "rgb_array":
            gym.logger.warn('render() of a vector env needs a mode: gym.make_vec(..., render_mode="rgb_array").')
            return None
        self._check_drawable()
        return tuple(self._render_cameras.render(self.render_cameras))

    def render_env(self, row: int) -> Array:
        """Returns a picture (H, W, 3) uint8 of one env, in any mode."""
        self._check_drawable()
        row = range(self.num_envs)[row]
        (picture,) = self._render_cameras.render(self.render_cameras[row : row + 1], [row])
        return picture

    def close_extras(self, **kwargs: Any) -> None:
        """Ends recordings, and frees what drawing took."""
        for recording in self._recordings:
            recording.close()
        self._observation_cameras.close()
        self._render_cameras.close()
        self.example.close()

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Returns an attribute of each env, for example `episode_key`."""
        return tuple(getattr(env, name) for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Returns what a method of each env returns, or an attribute of each."""
        values = self.get_attr(name)
        return tuple(value(*args, **kwargs) if callable(value) else value for value in values)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets `render_camera`, `step_limit`, `terminate_on`, or an attribute of your own, of each env.

        Args:
            name: of the attribute.
            values: a list or tuple with one for each env, or one for all.

        Raises:
            EFMError: an attribute that cannot be set, or a value that cannot be. All envs stay as they were.
        """
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise EFMError(f"set_attr takes one value, or one for each of {self.num_envs} envs; got {len(values)} of {name}.")
        owners = (EFMEnv, EnvOfBatch, self.example, self)
        is_known = name in ("physics", *ENV_OPTIONS, *SHARED) or any(hasattr(owner, name) for owner in owners)
        if is_known and name not in SETTABLE:
            raise EFMError(f"{name!r} of an env of a batch cannot be set. These can: {', '.join(SETTABLE)}, and names of your own.")
        before = [getattr(env, name, None) for env in self.envs]
        try:
            for env, value in zip(self.envs, values, strict=True):
                setattr(env, name, value)
        except EFMError:
            for env, value in zip(self.envs, before, strict=True):
                setattr(env, name, value)
            raise

    # -- what Gymnasium has no word for ----------------------------------------------------------------------------------------------

    def get_state(self) -> VectorEnvState:
        """Returns everything that decides how this vector env goes on."""
        if not self.scenarios:
            raise gym.error.ResetNeeded("call reset() before get_state().")
        physics, signal = self.batch.state.copy(), self.signal.get_state()
        keys, steps, ended = tuple(self.episode_keys), self.elapsed_steps.copy(), self._ended.copy()
        return VectorEnvState(self.task.fingerprint, physics, tuple(self.scenarios), keys, steps, ended, signal)

    def set_state(self, state: VectorEnvState) -> None:
        """Goes on, bit for bit, from where `get_state` was called, in this vector env or another of the same id, options and size.

        Raises:
            InvalidStateError: the state is another task's, or of another number of envs.
        """
        if not isinstance(state, VectorEnvState):
            raise InvalidStateError(f"set_state() takes what get_state() returned; got {type(state).__name__}.")
        if (state.task, state.physics.shape) != (self.task.fingerprint, self.batch.state.shape):
            raise InvalidStateError(
                f"the state is of {len(state.physics)} envs of task {state.task!r}; these are {self.num_envs} of {self.task.fingerprint!r}."
            )
        self._restore(state.physics, state.scenarios, state.episode_keys)
        self.elapsed_steps, self._ended = state.elapsed_steps.copy(), state.ended.copy()
        self.signal.set_state(state.signal)

    def start_from(self, states: Sequence[EnvState], episode_keys: Sequence[tuple[int, int]] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every env from a state in which a single env of this id was: its physics and its goal.

        Steps, rewards, and what a reward model remembers begin anew.

        Args:
            states: one for each env (B,), from `EFMEnv.get_state`.
            episode_keys: what the episodes are addressed by, from which experts draw what they make up; None: the states' own.

        Returns:
            Observations and infos, as from a reset.

        Raises:
            InvalidStateError: a state is another task's, or there are too few or too many.
        """
        tasks = sorted({str(getattr(state, "task", None)) for state in states})
        if len(states) != self.num_envs or tasks != [self.task.fingerprint]:
            mine = self.task.fingerprint
            raise InvalidStateError(f"start_from() takes {self.num_envs} states of task {mine!r}; got {len(states)} of {', '.join(tasks)}.")
        keys = [state.episode_key for state in states] if episode_keys is None else list(episode_keys)
        self._check_process()
        self._restore(np.stack([state.physics for state in states]), [state.scenario for state in states], keys)
        self.elapsed_steps, self._ended = np.zeros_like(self.elapsed_steps), np.zeros_like(self._ended)
        return self._first_look(np.ones(self.num_envs, bool))

    def record(self, path: str | os.PathLike[str], row: int = 0) -> "Recording":
        """Writes a video of one env from now on, until the recording is closed: `with envs.unwrapped.record("insert.mp4", row=3): ...`.

        Args:
            path: the file, .mp4 (the extra [agents] has what writes it) or .gif.
            row: which env.

        Raises:
            EFMError: a file of another kind; no such env.
        """
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < self.num_envs:
            raise EFMError(f"row is the number of an env, 0 to {self.num_envs - 1}; got {row!r}.")
        recording = Recording(path, functools.partial(self.render_env, int(row)), self.metadata["render_fps"], int(row))
        self._recordings = [r for r in self._recordings if r.is_open] + [recording]
        if self.scenarios:
            recording.add()
        return recording

    @property
    def counts(self) -> dict[str, int]:
        """Exact counts since these envs were made, over all of them: physics steps, calls of the reward model, pictures drawn."""
        return {
            "physics_steps": self._physics_steps,
            "reward_model_calls": self.signal.calls,
            "renders": self._observation_cameras.renders + self._render_cameras.renders + self.example.goal_pictures.renders,
        }

    def goals_of(self, row: int) -> Goals:
        """Returns the present goal of one env, as a batch of one; the same object throughout an episode."""
        return self._goals[row]

    # -- private ---------------------------------------------------------------------------------------------------------------------

    def _reset(self, mask: Array, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        self._check_process()
        rows = np.flatnonzero(mask).tolist()
        self._start(rows, [self._next_episode(row, seeds[row], options[row]) for row in rows])
        return self._first_look(mask)

    def _first_look(self, mask: Array) -> tuple[Any, dict[str, Any]]:
        """Returns observations and infos where the episodes in `mask` (B,) have just begun."""
        observations = self._observe_some(mask, self._last)
        output = self.signal.reset(self.example.pick(observations, self.example.model_names), self.goals, mask)
        self._record(mask)
        return self._policy_observation(observations), self._infos(observations, output, mask)

    def _restore(self, physics: Array, scenarios: Sequence[Scenario], keys: Sequence[tuple[int, int]]) -> None:
        """Puts every simulation where one was, in the middle of an episode."""
        self.scenarios, self.episode_keys = list(scenarios), list(keys)
        self._goals = [Goals([scenario.goal]) for scenario in self.scenarios]
        self.goals = Goals(scenario.goal for scenario in self.scenarios)
        self.batch.reset(stage=NO_STAGE)  # forgets divergences
        self.batch.state[:] = physics
        self.batch.forward(stage=DERIVED)
        self.episode_counts += 1
        self._actions[:] = 0.0
        self._last = {}

    def _start(self, rows: list[int], episodes: Sequence[tuple[tuple[int, int], Scenario]]) -> None:
        """Starts episodes in some envs."""
        new = Goals(scenario.goal for _, scenario in episodes)
        if not self.scenarios:
            self.scenarios = [scenario for _, scenario in episodes]
            self._goals, self.goals = [Goals([])] * self.num_envs, new
        self.batch.reset(rows, stage=NO_STAGE)
        for row, (key, scenario) in zip(rows, episodes, strict=True):
            self.episode_keys[row], self.scenarios[row], self._goals[row] = key, scenario, Goals([scenario.goal])
            for name, value in scenario.physics.items():
                getattr(self.physics, name)[row] = value
        self.batch.forward(rows, stage=DERIVED)
        self.goals = self.goals.replaced(rows, new)
        self._actions[rows] = 0.0
        self.episode_counts[rows] += 1
        self.elapsed_steps[rows] = 0
        self._ended[rows] = False

    def _start_next(self, mask: Array) -> None:
        """Starts the next episode in some envs."""
        rows = np.flatnonzero(mask).tolist()
        self._start(rows, [self._next_episode(row, None, {}) for row in rows])

    def _restart(self, before: dict[str, Array], seen: Any, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Starts the next episodes where one has just ended; returns what is seen now, and what was seen at the end in `infos`."""
        ended, none = self._ended.copy(), np.zeros(self.num_envs, bool)
        final: dict[str, Any] = {}
        for row in np.flatnonzero(ended).tolist():
            last = seen[row] if isinstance(seen, np.ndarray) else {name: value[row] for name, value in seen.items()}
            final_info = {name: _scalar(values[row]) for name, values in infos.items() if infos.get(f"_{name}", none)[row]}
            final = self._add_info(final, {"final_obs": last, "final_info": final_info}, row)
        self._start_next(ended)
        observations = self._observe_some(ended, before)
        self._record(ended)
        output = self.signal.reset(self.example.pick(observations, self.example.model_names), self.goals, ended)
        new = self._infos(observations, output, np.ones(self.num_envs, bool))
        return self._policy_observation(observations), {**new, **final}

    def _check_process(self) -> None:
        if self._is_inherited:
            raise EFMError(
                "this vector env was made before a fork, which leaves its threads behind. Make envs in the process that uses them."
            )

    def _check_drawable(self) -> None:
        self._check_process()
        if not self.scenarios:
            raise gym.error.ResetNeeded("call reset() before render().")

    def _record(self, mask: Array) -> None:
        """Adds a picture to the recordings of the envs in `mask` (B,)."""
        for recording in self._recordings:
            if mask[recording.row] and recording.is_open:
                recording.add()

    def _advance(self, actions: Array, acting: Array) -> dict[int, str]:
        """Runs one control step in some envs; returns what went wrong, by env."""
        self.task.apply(self.physics, np.where(acting[:, None], actions, 0.0))
        errors: dict[int, str] = {}
        try:
            stage = DERIVED if self.task.reads_derived else NO_STAGE
            self.batch.step(None if acting.all() else np.flatnonzero(acting), self.task.substeps, stage)
        except SimulationError as error:
            errors = {int(row): self.batch.error(int(row)) for row in error.ids}
        diverged = self.batch.warning[:, DIVERGED, 1] > 0  # since the episode began
        if diverged.any():
            errors |= dict.fromkeys(np.flatnonzero(diverged.any(axis=1) & acting).tolist(), DIVERGENCE)
        self.elapsed_steps[acting] += 1
        self._physics_steps += self.task.substeps * int(acting.sum())
        return errors

    def _ends(
        self, observations: Mapping[str, Array], output: SignalOutput, acting: Array, errors: Mapping[int, str]
    ) -> tuple[Array, Array]:
        """Returns which episodes terminated, and which were truncated, each (B,) bool."""
        predicted = output.predicted_success & (self.terminate_on == "predicted")
        terminated = acting & (predicted | observations[TRUE_SUCCESS] & (self.terminate_on == "true"))
        truncated = acting & (self.elapsed_steps >= self.step_limits)
        truncated[list(errors)] = True
        return terminated, truncated

    def _next_episode(self, row: int, seed: int | None, options: dict[str, Any]) -> tuple[tuple[int, int], Scenario]:
        self.example.episode_key = self.episode_keys[row]
        return self.example.next_episode(seed, dict(options))

    def _observe(self, physics: Any, goals: Goals, rows: list[int] | None = None) -> dict[str, Array]:
        return self.example.observer.observe(self.example.all_names, physics, goals, functools.partial(self._serve, rows))

    def _serve(self, rows: list[int] | None, name: str) -> Array:
        rows = list(range(self.num_envs)) if rows is None else rows
        if name == ACTION:
            return self._actions[rows]
        if name.startswith(GOAL_PIXELS):
            return np.stack([self.example.goal_pictures.of(self.scenarios[row], name) for row in rows])
        return self._observation_cameras.render([name.removeprefix(PIXELS)] * len(rows), rows)

    def _observe_some(self, mask: Array, others: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what is observed: looks at the envs in `mask` (B,) only, where what the others see is known."""
        if mask.all() or not others:
            observations = self._observe(self.physics, self.goals)
        else:
            observations = {name: others[name].copy() for name in others}
            rows = np.flatnonzero(mask).tolist()
            if rows:
                for name, values in self._observe(SomePhysics(self.physics, rows), self.goals.of(rows), rows).items():
                    observations[name][rows] = values
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self._last = observations
        return observations

    def _policy_observation(self, observations: Mapping[str, Array]) -> Any:
        seen, kept = {}, self._last or self.example.model_names  # the reward model may keep its own
        for name in self.example.observer.policy_names:
            seen[name] = observations[name].copy() if name in kept else observations[name]
        return seen[self.obs_mode] if self.obs_mode == "flat" else seen

    def _infos(self, observations: Mapping[str, Array], output: SignalOutput, mask: Array) -> dict[str, Any]:
        """Returns `info` as Gymnasium's vector envs have it: values (B,), and which of them are there."""
        values = {
            "is_success": observations[TRUE_SUCCESS].copy(),
            "predicted_success": output.predicted_success,
            "steps_to_go": output.steps_to_go.copy(),
            "instruction": np.array([*self.goals.instructions, None], object)[:-1],
            **{name: observations[TRUTH + name].copy() for name in self.task.info_types},
        }
        infos: dict[str, Any] = {}
        for name, value in values.items():
            value[~mask] = None if value.dtype == object else 0
            infos[name], infos[f"_{name}"] = value, mask.copy()
        return infos

    def _checked(self, actions: Array) -> Array:
        shape = (self.num_envs, *(self.single_action_space.shape or ()))
        try:
            values = np.asarray(actions, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidActionError(f"the actions are {shape} numbers; got {actions!r}.") from error
        if values.shape != shape:
            raise InvalidActionError(f"the actions of these envs have shape {shape}; got {values.shape}.")
        if not np.isfinite(values).all():
            row, element = np.argwhere(~np.isfinite(values))[0]
            raise InvalidActionError(
                f"an action must be finite; element {element} of env {row}'s is {values[row, element]}: {values[row]}."
            )
        return np.minimum(np.maximum(values, -1.0), 1.0)

    def _checked_mask(self, mask: Any) -> Array:
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise EFMError(f"reset_mask is an array ({self.num_envs},) of bool, True where an env is to be reset; got {mask!r}.")
        return mask.copy()

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
            return [int(seed) + row for row in range(self.num_envs)]
        try:
            seeds = list(seed)
        except TypeError as error:
            raise EFMError(f"seed is a whole number, or one for each of {self.num_envs} envs; got {seed!r}.") from error
        if len(seeds) != self.num_envs:
            raise EFMError(f"seed is a whole number, or one for each of {self.num_envs} envs; got {len(seeds)}.")
        return seeds


def _scalar(value: Any) -> Any:
    """Returns a number of numpy's as Python's, which is how `_add_info` knows it for one."""
    return value.item() if isinstance(value, np.generic) else value
