"""EFMEnv: one task in one simulation, with a reward model's signal as its reward."""

import copy
import dataclasses
import importlib
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium as gym
import mujoco
import numpy as np

from efm_envs.errors import EFMError, InvalidActionError, InvalidStateError, RewardModelError, UnknownOptionError, one_of, unknown_option
from efm_envs.goal_pictures import GoalPictures
from efm_envs.observations import FLAT, OBS_MODES, PIXELS, Observer
from efm_envs.rendering import LARGEST_PICTURE, CameraRenderer, Scene
from efm_envs.rewards.base import ACTION, GOAL_PIXELS, TRUE_SUCCESS, TRUTH, RewardModel, needed_names
from efm_envs.rewards.registry import make_reward_model
from efm_envs.rewards.signal import TERMINATE_ON, RewardSignal, SignalOutput, SignalState, TerminateOn, is_end
from efm_envs.scenarios import check_solvable, scenario_at
from efm_envs.simulation import DIVERGENCE, Simulation
from efm_envs.task import Array, Goals, Scenario, Task

if TYPE_CHECKING:
    from efm_envs.window import Window

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class EnvState:
    """Everything that decides how an env goes on, made by `EFMEnv.get_state`. May be pickled; shares nothing with the env."""

    task: str
    physics: Array  # mjSTATE_INTEGRATION
    scenario: Scenario
    episode_key: tuple[int, int]
    elapsed_steps: int
    signal: SignalState
    np_random: dict[str, Any]


class EFMEnv(gym.Env[Any, Array]):
    """A task, its physics, and a reward that a reward model gives. Made by `gym.make`, whose keywords these are.

    Args:
        task: the task's class as "module:Class" (the registration sets it).
        step_limit: control steps after which an episode is truncated (the registration sets it). The env keeps the count itself, so
            that a restored state restores it too; Gymnasium's `max_episode_steps=` can shorten an episode but not lengthen it.
        reward_model: a name, a dict {"id": name, option: value}, or an object: see `efm_envs.make_reward_model`.
        terminate_on: what ends an episode: "predicted" success, "true" success, or "never" (then only the step limit does).
        success_threshold: s in predicted success 1[d ≤ s], in [control steps]; None takes the reward model's own.
        success_k_of_n: (k, n): success is predicted where d ≤ s in k of the last n observations; None takes the reward model's own.
        obs_mode: "state"; "pixels" (cameras and the robot's own state); "pixels_state"; or "flat", one float32 vector that contains the
            goal (privileged: `metadata["privileged_observation"]` says so).
        goal_vector: adds the observation `goal_vector`, the goal as numbers, for policies that can't read `instruction` (privileged, too).
        cameras: names of the cameras in `pixels/<camera>`; None is the task's first.
        image_size: (height, width) of those pictures; None is the task's own.
        render_mode: None, "rgb_array" or "human".
        render_size: (height, width) of `render()`'s picture; None is the task's own.
        render_camera: the camera of `render()`; None is the task's first.
        **task_options: the task's own options, if it has any; its page lists them (the registration sets some).

    Episodes are addressed by index: how the k-th episode since `reset(seed=s)` starts is a function of (s, k), whatever was done
    before. `info` has, at every reset and step, `is_success` (ground truth), `predicted_success`, `steps_to_go` (the reward model's d),
    `instruction`, and what the task adds (`Task.info_types`). A simulation that diverges ends its episode: `truncated`, no reward and no
    success, and `info["error"]` says why.

    Attributes:
        task: what the episodes are about.
        simulation: the task's physics; `data` (a `mujoco.MjData`) and `physics` (the same as a batch of one) are its.
        signal: turns the reward model's output into reward and predicted success.
        episode_key: (s, k) of the present episode.
        episode_count: episodes begun so far, by a reset or by a restored state.
        elapsed_steps: control steps of the present episode.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(
        self,
        *,
        task: str,
        step_limit: int,
        reward_model: Any = "oracle",
        terminate_on: TerminateOn = "predicted",
        success_threshold: float | None = None,
        success_k_of_n: Sequence[int] | None = None,
        obs_mode: Literal["state", "pixels", "pixels_state", "flat"] = "state",
        goal_vector: bool = False,
        cameras: Sequence[str] | None = None,
        image_size: Sequence[int] | None = None,
        render_mode: str | None = None,
        render_size: Sequence[int] | None = None,
        render_camera: str | None = None,
        **task_options: Any,
    ) -> None:
        self.task = load_task(task, task_options)
        self.step_limit = positive("step_limit", step_limit)
        self.terminate_on: TerminateOn = one_of("terminate_on", terminate_on, TERMINATE_ON)
        self.obs_mode: str = one_of("obs_mode", obs_mode, OBS_MODES)
        self.render_mode = render_mode and one_of("render_mode", render_mode, self.metadata["render_modes"])
        self.render_camera = one_of("camera", render_camera or self.task.cameras[0], self.task.cameras)
        if isinstance(cameras, str):
            raise EFMError(f"cameras is a sequence of names, for example [{cameras!r}]; got {cameras!r}.")
        if cameras is not None and not len(cameras):
            raise EFMError(
                f'cameras names at least one of {", ".join(self.task.cameras)}; for no pictures, obs_mode="state". Got {cameras!r}.'
            )
        self.cameras = tuple(one_of("camera", c, self.task.cameras) for c in cameras or self.task.cameras[:1])
        self.metadata = {  # type: ignore[misc]
            **self.metadata,
            "render_fps": round(1.0 / self.task.control_dt_s),
            "privileged_observation": obs_mode == FLAT or goal_vector,
        }

        self.simulation = Simulation(self.task)
        self.data, self.physics = self.simulation.data, self.simulation.physics
        self._scene = Scene(self.task, self.physics, self.data)
        self.image_size = _size("image_size", self.task.image_size if image_size is None else image_size)
        self._observation_camera = CameraRenderer(self._scene, *self.image_size)
        self.render_size = _size("render_size", self.task.render_size if render_size is None else render_size)
        self._render_camera = CameraRenderer(self._scene, *self.render_size)
        self._window: Window | None = None

        self.observer = Observer(self.task, obs_mode, self.cameras, self.image_size, goal_vector=goal_vector)
        self.observation_space = self.observer.policy_space
        self.action_space = self.task.action_space

        model = make_reward_model(reward_model)
        check_fits(model, self.task)
        self.model_names = needed_names(model, self.observer.policy_names)
        self.observer.check_names(self.model_names, f"reward model {model.id!r}")
        self.goal_pictures = GoalPictures(self.task, self.image_size, [name for name in self.model_names if name.startswith(GOAL_PIXELS)])
        self.all_names = list(dict.fromkeys([*self.observer.policy_names, *self.model_names, TRUE_SUCCESS]))
        self.signal = RewardSignal(model, 1, success_threshold, success_k_of_n)

        self._scenario: Scenario | None = None
        self.episode_key = (0, -1)
        self.episode_count = 0
        self.elapsed_steps = 0
        self._physics_steps = 0
        self._no_action = np.zeros(self.action_space.shape or ())
        self._action = self._no_action

    # -- Gymnasium -----------------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the first episode of `seed`, or without one the next episode of the last seed.

        Args:
            seed: s of the episode's address (s, k); k is 0.
            options: `{"scenario": k}` starts episode k of the seed; `{"scenario": scenario}` one that `env.scenario` gave. Others are
                the task's own, by which a scenario is set by hand; its page lists them.

        Raises:
            EFMError: an unknown option, or a scenario that cannot be; says why. The env stays as it was.
        """
        key, scenario = self.next_episode(seed, checked_options(options))
        super().reset(seed=seed)
        self.episode_key = key
        self.elapsed_steps = 0
        self._start(scenario)
        observations = self._observe()
        output = self.signal.reset(self.pick(observations, self.model_names), self.goals)
        self._show()
        return self._policy_observation(observations), self._info(observations, output)

    def step(self, action: Array) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Runs one control step.

        Args:
            action: (A,) finite; what lies outside [-1, 1] is clipped.

        Raises:
            InvalidActionError: wrong shape, or not finite. The env stays as it was.
        """
        self.advance(action)
        observations, lost = self._observe(), None
        if self.simulation.has_diverged:
            lost = np.ones(1, bool)
            observations[TRUE_SUCCESS] &= False
        output = self.signal.step(self.pick(observations, self.model_names), self.goals, lost=lost)
        info = self._info(observations, output)
        terminated = is_end(self.terminate_on, info["predicted_success"], info["is_success"])
        truncated = self.elapsed_steps >= self.step_limit or lost is not None
        if lost is not None:
            info["error"] = DIVERGENCE
        self._show()
        return self._policy_observation(observations), float(output.reward[0]), terminated, truncated, info

    def render(self) -> Any:
        """Returns a picture (H, W, 3) uint8 in "rgb_array" mode; shows the window in "human" mode."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a mode: gym.make(..., render_mode="rgb_array"), or "human" for a window.')
            return None
        if self.render_mode == "human":
            return self._show()
        return self._render_camera.render(self.render_camera)

    def close(self) -> None:
        """Frees GL contexts and the window; more than once does no harm."""
        self._observation_camera.close()
        self._render_camera.close()
        self.goal_pictures.close()
        if self._window is not None:
            self._window.close()
            self._window = None

    # -- what Gymnasium has no word for ----------------------------------------------------------------------------------------------

    def get_state(self) -> EnvState:
        """Returns everything that decides how this env goes on."""
        if self._scenario is None:
            raise gym.error.ResetNeeded("call reset() before get_state().")
        physics = np.empty(mujoco.mj_stateSize(self.task.model, _STATE))
        mujoco.mj_getState(self.task.model, self.data, physics, _STATE)
        generator = copy.deepcopy(dict(self.np_random.bit_generator.state))
        key, steps, signal = self.episode_key, self.elapsed_steps, self.signal.get_state()
        return EnvState(self.task.fingerprint, physics, self._scenario, key, steps, signal, generator)

    def set_state(self, state: EnvState) -> None:
        """Goes on, bit for bit, from where `get_state` was called, in this env or another of the same id and options.

        Raises:
            InvalidStateError: the state is another task's.
        """
        if not isinstance(state, EnvState):
            raise InvalidStateError(f"set_state() takes what get_state() returned; got {type(state).__name__}.")
        size = mujoco.mj_stateSize(self.task.model, _STATE)
        if (state.task, len(state.physics)) != (self.task.fingerprint, size):
            mine = self.task.fingerprint
            raise InvalidStateError(
                f"the state is of task {state.task!r} with {len(state.physics)} numbers; this env's is {mine!r} with {size}."
            )
        self._start(state.scenario)
        mujoco.mj_setState(self.task.model, self.data, state.physics, _STATE)
        mujoco.mj_step1(self.task.model, self.data)
        self.np_random.bit_generator.state = state.np_random
        self.episode_key, self.elapsed_steps = state.episode_key, state.elapsed_steps
        self.signal.set_state(state.signal)

    def next_episode(self, seed: int | None, options: dict[str, Any]) -> tuple[tuple[int, int], Scenario]:
        """Returns the address and the start of the episode that a reset asks for; changes nothing."""
        first, number = self._next_key(seed)
        asked = options.pop("scenario", None)
        if isinstance(asked, int | np.integer) and not isinstance(asked, bool) and asked >= 0:
            number, asked = int(asked), None
        if not (asked is None or isinstance(asked, Scenario)):
            raise EFMError(f"the option scenario is an episode's number, 0 or more, or what env.unwrapped.scenario gave; got {asked!r}.")
        if asked is not None and asked.task != self.task.fingerprint:
            raise EFMError(
                f"the scenario is of task {asked.task!r}; this env's is {self.task.fingerprint!r}. Take one from an env of this id."
            )
        scenario = asked or scenario_at(self.task, (first, number))
        if options:
            scenario = self.task.arrange(scenario, options)
        scenario = dataclasses.replace(scenario, task=self.task.fingerprint)
        if (options or asked) and self.task.solvable_within is not None:
            check_solvable(self.task, scenario)
        return (first, number), scenario

    def advance(self, action: Array) -> None:
        """Runs one control step of the physics, and asks nobody about it: `step` without observation or reward.

        Raises:
            InvalidActionError: wrong shape, or not finite. The env stays as it was.
        """
        if self._scenario is None:
            raise gym.error.ResetNeeded("call reset() before step().")
        self._action = self._checked(action)
        self.simulation.step(self._action[None])
        self._physics_steps += self.task.substeps
        self.elapsed_steps += 1

    def look(self, names: Collection[str], goals: Goals | None = None) -> dict[str, Array]:
        """Returns the named observations of the present, each without a leading dimension: also what the policy does not see.

        Args:
            names: of any observation that a reward model may ask for.
            goals: one other goal than the present; the truth is then that of this goal.

        Raises:
            UnknownNameError: no such observation.
        """
        self.observer.check_names(names, "look()")
        seen = self.observer.observe(names, self.physics, self.goals if goals is None else goals, self._serve)
        return {name: seen[name][0] for name in names}

    def pick(self, observations: dict[str, Array], names: Collection[str]) -> dict[str, Array]:
        """Returns the observations of these names."""
        return {name: observations[name] for name in names}

    @property
    def goals(self) -> Goals:
        """The present goal, as a batch of one."""
        return self.simulation.goals

    @property
    def scenario(self) -> Scenario:
        """How the present episode began; `reset(options={"scenario": …})` takes it, in any env of this id."""
        if self._scenario is None:
            raise gym.error.ResetNeeded("call reset() before asking for the scenario.")
        return self._scenario

    @property
    def counts(self) -> dict[str, int]:
        """Exact counts since the env was made: physics steps, calls of the reward model, pictures drawn."""
        return {
            "physics_steps": self._physics_steps,
            "reward_model_calls": self.signal.calls,
            "renders": self._observation_camera.renders + self._render_camera.renders + self.goal_pictures.renders,
        }

    @property
    def task_description(self) -> str:
        """The present instruction, under the name LeRobot reads."""
        return self.goals.instructions[0] if len(self.goals) else ""

    @property
    def _max_episode_steps(self) -> int:
        """The step limit, under the name LeRobot reads."""
        return self.step_limit

    # -- private ---------------------------------------------------------------------------------------------------------------------

    def _next_key(self, seed: int | None) -> tuple[int, int]:
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
                raise EFMError(f"a seed is a whole number, 0 or more; got {seed!r}.")
            return int(seed), 0
        if self.episode_key[1] >= 0:
            return self.episode_key[0], self.episode_key[1] + 1
        return int(self.np_random.integers(2**31)), 0  # never seeded: Gymnasium seeds its generator from the system

    def _start(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._action = self._no_action
        self.episode_count += 1
        self.simulation.start(scenario)

    def _checked(self, action: Array) -> Array:
        shape = self.action_space.shape
        try:
            values = np.asarray(action, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidActionError(f"an action is {shape} numbers; got {action!r}.") from error
        if values.shape != shape:
            raise InvalidActionError(f"an action of this env has shape {shape}; got {values.shape}.")
        numbers = values.tolist()
        if math.isfinite(sum(numbers)) and min(numbers) >= -1.0 and max(numbers) <= 1.0:  # cheaper than arrays
            return values
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise InvalidActionError(f"an action must be finite; element {bad[0]} is {values[bad[0]]}: {values}.")
        return np.minimum(np.maximum(values, -1.0), 1.0)  # every task's action space is [-1, 1]

    def _observe(self) -> dict[str, Array]:
        return self.observer.observe(self.all_names, self.physics, self.goals, self._serve)

    def _serve(self, name: str) -> Array:
        if name == ACTION:
            return self._action[None].copy()
        if name.startswith(GOAL_PIXELS):
            return self.goal_pictures.of(self.scenario, name)[None]
        return self._observation_camera.render(name.removeprefix(PIXELS))[None]

    def _policy_observation(self, observations: dict[str, Array]) -> Any:
        seen = {}
        for name in self.observer.policy_names:
            value = observations[name][0]
            seen[name] = value.copy() if name in self.model_names else value  # the reward model may keep its own
        return seen[FLAT] if self.obs_mode == FLAT else seen

    def _info(self, observations: dict[str, Array], output: SignalOutput) -> dict[str, Any]:
        info = {
            "is_success": observations[TRUE_SUCCESS].item(),
            "predicted_success": output.predicted_success.item(),
            "steps_to_go": output.steps_to_go.item(),
            "instruction": self.goals.instructions[0],
        }
        for name in self.task.info_types:
            info[name] = observations[TRUTH + name].item()
        return info

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        if self._window is None:
            from efm_envs.window import Window

            self._window = Window(self._scene, self.render_camera, self.render_size, self.task.control_dt_s)
        self._window.show()


VECTOR_OPTIONS = ("autoreset_mode", "num_threads")
ENV_OPTIONS = tuple(name for name, p in inspect.signature(EFMEnv).parameters.items() if p.kind is p.KEYWORD_ONLY)


def load_task(entry_point: str, options: Mapping[str, Any]) -> Task:
    """Returns the task that "module:Class" names, made with `options`.

    Raises:
        UnknownOptionError: the task has no such option.
    """
    module, _, name = entry_point.partition(":")
    task_class = getattr(importlib.import_module(module), name)
    task_options = list(inspect.signature(task_class).parameters)
    for option in options:
        if option not in task_options:
            if option in VECTOR_OPTIONS:
                raise UnknownOptionError(
                    f"unexpected keyword argument {option!r}: only our own vector env takes it, gym.make_vec without vectorization_mode."
                )
            error = unknown_option("this env", option, [*ENV_OPTIONS, *task_options])
            # Python's words come first, for programs: TorchRL's GymEnv tries `frameskip=`, looks for them, and goes on without.
            raise UnknownOptionError(f"unexpected keyword argument {option!r}: {error}")
    task: Task = task_class(**options)
    return task


def check_fits(model: RewardModel, task: Task) -> None:
    """Raises RewardModelError for a model that was made for another task, or that makes time wait, which simulated time does not."""
    if model.task not in (None, task.name):
        raise RewardModelError(
            f"reward model {model.id!r} was made for task {model.task!r}; this env's task is {task.name!r}. Pass a model of this task."
        )
    if model.latency_s is not None:
        steps = math.ceil(model.latency_s / task.control_dt_s)
        raise RewardModelError(
            f"reward model {model.id!r} takes {model.latency_s} s a call, which is for real robots: simulated time does not wait. "
            f'In this env a model that late is {{"id": "delayed", "delay": {steps}, …}}.'
        )


def checked_options(options: Any) -> dict[str, Any]:
    """Returns the options of a reset in a dict of their own; raises EFMError if they are none."""
    if not (options is None or isinstance(options, Mapping)):
        raise EFMError(f"options is a dict, for example {{'scenario': 3}}; got {options!r}.")
    return dict(options or {})


def positive(option: str, value: Any) -> int:
    """Returns an option's value; raises EFMError if it is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise EFMError(f"{option} is a whole number, at least 1; got {value!r}.")
    return int(value)


def _size(option: str, value: Sequence[int]) -> tuple[int, int]:
    if np.shape(value) != (2,):
        raise EFMError(f"{option} is (height, width) in pixels; got {value!r}.")
    height, width = (positive(option, length) for length in value)
    if height > LARGEST_PICTURE[0] or width > LARGEST_PICTURE[1]:
        raise EFMError(f"{option} is at most {LARGEST_PICTURE[0]} × {LARGEST_PICTURE[1]} pixels; got {value!r}.")
    return height, width
