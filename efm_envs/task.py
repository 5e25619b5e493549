"""What a task must say: its model, its scenarios, what is seen, what an action does, and what success means.

A task is written batch-first: every function takes and returns arrays with a leading batch dimension B, and reads the physics
through attributes named as in `mujoco.MjData`. A single env passes its `MjData` as a batch of one (`SinglePhysics`); a vector env
passes `mujoco.batch.Batch`, whose attributes are the same arrays for many simulations. The task's code is the same for both.
"""

import abc
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from efm_envs.errors import unknown_option

if TYPE_CHECKING:
    import mujoco

Array = np.ndarray


class Physics(Protocol):
    """The fields of `mujoco.MjData` with a leading batch dimension; arrays are live views: writing moves the simulation."""

    def __getattr__(self, name: str) -> Any: ...


class SinglePhysics:
    """One `MjData` seen as a batch of one.

    Attributes are live views of MjData's arrays, (1, …). Only fields of fixed size (`qpos`, `xpos`, `sensordata`, …) may be read:
    those that MuJoCo reallocates at every step (`contact`, `efc_*`) go stale.
    """

    def __init__(self, data: "mujoco.MjData") -> None:
        self._data = data

    def __reduce__(self) -> tuple[type["SinglePhysics"], tuple["mujoco.MjData"]]:
        return SinglePhysics, (self._data,)  # a copy looks at its own data

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view = getattr(self._data, name)[None]
        setattr(self, name, view)  # the next look-up does not come here
        return view


@dataclass(frozen=True)
class Goal:
    """What one episode asks for.

    Attributes:
        instruction: the sentence that a policy reads.
        state: (G,) float64, the task's own numbers for it (privileged unless they are also observed).
    """

    instruction: str
    state: Array = field(default_factory=lambda: np.zeros(0))


class Goals:
    """The goals of a batch of B episodes, as arrays.

    Attributes:
        instructions: B sentences.
        states: (B, G) float64.
    """

    def __init__(self, goals: Iterable[Goal]) -> None:
        goals = list(goals)
        self.instructions = [goal.instruction for goal in goals]
        self.states = np.array([goal.state for goal in goals], dtype=np.float64)

    def of(self, rows: Sequence[int]) -> "Goals":
        """Returns the goals of some episodes."""
        return self.from_arrays([self.instructions[row] for row in rows], self.states[rows])

    def replaced(self, rows: Sequence[int], goals: "Goals") -> "Goals":
        """Returns these goals, those of some episodes replaced by others."""
        instructions, states = self.instructions.copy(), self.states.copy()
        for row, instruction in zip(rows, goals.instructions, strict=True):
            instructions[row] = instruction
        states[rows] = goals.states
        return self.from_arrays(instructions, states)

    @classmethod
    def from_arrays(cls, instructions: list[str], states: Array) -> "Goals":
        """Returns goals that have these B sentences and these states (B, G)."""
        goals = cls([])
        goals.instructions, goals.states = instructions, states
        return goals

    def __len__(self) -> int:
        return len(self.instructions)

    def __getitem__(self, index: int) -> Goal:
        return Goal(self.instructions[index], self.states[index].copy())


@dataclass(frozen=True)
class Scenario:
    """How one episode starts: a pure function of the generator that drew it.

    Attributes:
        physics: initial value of each named MjData field that differs from the model's default, for example `qpos` (nq,).
        goal: what the episode asks for.
        task: fingerprint of the task that it is a start of; the env says it.
    """

    physics: Mapping[str, Array]
    goal: Goal
    task: str = ""


class Truth(NamedTuple):
    """What is true of B simulations, whatever a reward model says of them.

    Attributes:
        is_success: (B,) bool.
        steps_to_go: (B,) float64 in [control steps]; None where nobody asked for it.
        info: what the task's `info_types` names, each (B,).
    """

    is_success: Array
    steps_to_go: Array | None
    info: Mapping[str, Array]


class Task(abc.ABC):
    """One task: everything that an env needs to know, and nothing about rewards.

    Attributes:
        name: short name, for messages.
        substeps: physics steps a control step.
        cameras: names of the model's cameras, the default one first.
        action_space: (A,) box, symmetric and normalised: [-1, 1].
        state_spaces: the observations that need no camera, by name (`agent_pos`, `environment_state`), each a float32 box.
        experts: scripted demonstrators by style, as `module:Class` strings. `clean` is the best one, `human` the demonstrator.
        image_size, render_size: (height, width) in pixels of observed pictures and of `render()`'s, where `gym.make` is not told others.
        reads_derived: whether the task reads fields that MuJoCo derives (xpos, sensordata, …); if not, they lag one substep behind.
        object_names: what `environment_state` lists, in its order, with equally many numbers each; empty if it is no such list.
        info_types: what `truth` adds to `info`: the type of each value, by name.
        solvable_within: a start counts only if the clean expert succeeds within so many control steps; None: every start counts.
        fingerprint: says which task this is, variant included: equal fingerprints mean equal scenarios.
    """

    name: ClassVar[str]
    substeps: ClassVar[int]
    cameras: ClassVar[tuple[str, ...]]
    experts: ClassVar[Mapping[str, str]]
    image_size: ClassVar[tuple[int, int]] = (96, 96)
    render_size: ClassVar[tuple[int, int]] = (480, 480)
    reads_derived: ClassVar[bool] = True
    info_types: ClassVar[Mapping[str, type]] = {}
    solvable_within: ClassVar[int | None] = None
    object_names: tuple[str, ...] = ()
    action_space: spaces.Box
    state_spaces: Mapping[str, spaces.Box]

    @functools.cached_property
    def model(self) -> "mujoco.MjModel":
        """The compiled MuJoCo model."""
        return self.build_model()

    @property
    def fingerprint(self) -> str:
        """A task with variants adds what tells them apart."""
        return f"{type(self).__module__}:{type(self).__qualname__}"

    @property
    def control_dt_s(self) -> float:
        """Control period in [s]."""
        return float(self.model.opt.timestep) * self.substeps

    @abc.abstractmethod
    def build_model(self) -> "mujoco.MjModel":
        """Compiles the model."""

    def truth(self, physics: Physics, goals: Goals, *, estimate: bool = True) -> Truth:
        """Returns the ground truth, with `steps_to_go` if `estimate`; a task overrides it that shares work or has `info_types`."""
        return Truth(self.is_success(physics, goals), self.steps_to_go(physics, goals) if estimate else None, {})

    @functools.cached_property
    def drawn_model(self) -> "mujoco.MjModel":
        """The model that cameras see; made when the first picture is asked for."""
        return self.build_drawn_model()

    def build_drawn_model(self) -> "mujoco.MjModel":
        """Returns a model that is richer than that of the physics, if there is one; it has all of `cameras`."""
        return self.model

    def pose(self, physics: Physics, drawn: Physics) -> None:  # noqa: B027 (most draw what they simulate)
        """Gives `drawn`, a batch of `drawn_model`, the positions (qpos, mocap_pos, …) that go with `physics`."""

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws how an episode starts. Reads nothing but `rng`."""

    def arrange(self, scenario: Scenario, options: Mapping[str, Any]) -> Scenario:
        """Returns the scenario changed by hand, as `reset(options=…)` asks.

        Raises:
            EFMError: an option that the task does not have, or a scenario that cannot be; says why.
        """
        raise unknown_option(f"{self.name}'s reset()", next(iter(options)), ["scenario"])

    @abc.abstractmethod
    def apply(self, physics: Physics, actions: Array) -> None:
        """Writes the controls for actions (B, A) in [-1, 1]."""

    @abc.abstractmethod
    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns the observations named in `state_spaces`, each (B, …) float32, in new arrays."""

    @abc.abstractmethod
    def is_success(self, physics: Physics, goals: Goals) -> Array:
        """Returns (B,) bool: the ground truth."""

    @abc.abstractmethod
    def steps_to_go(self, physics: Physics, goals: Goals) -> Array:
        """Returns (B,) float64 in [control steps]: about what is left for the clean expert.

        At success the value does not matter: `truth/steps_to_go` is 0 there, and at least 1 elsewhere, for every task.
        """

    def encode_goals(self, goals: Goals) -> Array:
        """Returns (B, E) float32 in [-1, 1]: the goal as numbers, for who can't read; E is 0 where `state_spaces` shows the goal."""
        return np.zeros((len(goals), 0), np.float32)
