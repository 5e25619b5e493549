"""What the domains of dm_control's suite share: the installed dm_control's own models, in which what an episode changes is state.

Compared with dm_control 1.0.50; the env's page lists what differs.
"""

import abc
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium import spaces

from efm_envs.errors import missing_extra
from efm_envs.rendering import LARGEST_PICTURE
from efm_envs.simulation import Simulation
from efm_envs.task import Array, Goal, Physics, Scenario, Task

UNBOUNDED = 1000.0  # the bound, far from what happens, of quantities that MuJoCo and dm_control do not bound; spaces are finite
EXTRA = "dm-control"
TEXTURE_SIZE = 64  # in pixels, of what fills the background; dm_control's 800 take 12 MB and 60 ms for every env


class SuiteTask(Task):
    """A domain of dm_control's suite.

    Attributes:
        domain: name of its file in dm_control.
        instruction: what is asked for.
        agent_bounds: largest absolute values of `agent_pos`.
        environment_bounds: of `environment_state`; where there are none, there is no such observation.
    """

    experts: ClassVar[Mapping[str, str]] = {}
    domain: ClassVar[str]
    instruction: ClassVar[str]
    agent_bounds: ClassVar[Sequence[float]]
    environment_bounds: ClassVar[Sequence[float]] = ()

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)
        bounds = {"agent_pos": self.agent_bounds, "environment_state": self.environment_bounds}
        self.state_spaces = {name: _box(largest) for name, largest in bounds.items() if len(largest)}

    # -- model ---------------------------------------------------------------------------------------------------------------------

    def spec(self) -> mujoco.MjSpec:
        """Returns the model, to be compiled; a task makes state of what dm_control changes in the model."""
        return read_spec(self.domain)

    def build_model(self) -> mujoco.MjModel:
        """Compiles the model."""
        return self.spec().compile()

    def sensors(self, first: str, last: str) -> slice:
        """Returns where in `sensordata` the values of two sensors and of those between them are."""
        start, end = self.model.sensor(first), self.model.sensor(last)
        return slice(int(start.adr[0]), int(end.adr[0] + end.dim[0]))

    # -- scenario ------------------------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws a start as dm_control does; one that is a success already is drawn again."""
        while True:
            scenario = self.draw(rng)
            if not self.started(scenario).is_success():
                return scenario

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator) -> Scenario:
        """Draws a start as dm_control does."""

    def started(self, scenario: Scenario) -> Simulation:
        """Returns a simulation in which the episode has just begun; the next call begins another one in it."""
        self._scratch.start(scenario)
        return self._scratch

    def is_free(self, scenario: Scenario) -> bool:
        """Whether nothing touches anything at the start."""
        return bool(self.started(scenario).data.ncon == 0)

    def random_positions(self, rng: np.random.Generator, joints: Sequence[int] | slice = slice(None)) -> Array:
        """Draws positions of joints in [m] or [rad]: uniform within their limits, without such in ±π."""
        is_limited = self.model.jnt_limited[joints].astype(bool)
        low, high = np.where(is_limited, self.model.jnt_range[joints].T, [[-np.pi], [np.pi]])
        return rng.uniform(low, high)

    def goal(self, *state: float) -> Goal:
        """Returns the goal with these numbers."""
        return Goal(self.instruction, np.array(state, np.float64))

    @functools.cached_property
    def _scratch(self) -> Simulation:
        return Simulation(self)

    # -- control -------------------------------------------------------------------------------------------------------------------

    def apply(self, physics: Physics, actions: Array) -> None:
        """An action is what dm_control takes: these domains' controls go from -1 to 1."""
        physics.ctrl[:] = actions


# -- models ----------------------------------------------------------------------------------------------------------------------------


def read_spec(domain: str) -> mujoco.MjSpec:
    """Returns a domain's model as the installed dm_control has it, with looks that cost less to draw.

    Raises:
        MissingExtraError: dm_control is not installed.
    """
    try:
        import dm_control
    except ModuleNotFoundError as error:
        raise missing_extra("an env of dm_control's suite", EXTRA) from error
    spec = mujoco.MjSpec.from_file(str(Path(dm_control.__file__).parent / "suite" / f"{domain}.xml"))
    _simplify_looks(spec)
    return spec


def make_mocap(spec: mujoco.MjSpec, kind: str, name: str) -> None:
    """Moves a geom or a site of the world to a mocap body of the same name: each simulation then has it where it wants."""
    element = getattr(spec, kind)(name)
    look = {field: getattr(element, field) for field in ("type", "size", "material")}
    body = spec.worldbody.add_body(name=name, mocap=True, pos=element.pos)
    spec.delete(element)
    getattr(body, f"add_{kind}")(name=name, **look)


def _simplify_looks(spec: mujoco.MjSpec) -> None:
    """No shadows, mirrors and smoothed edges, and fewer faces: a software renderer is ten times as fast."""
    spec.visual.global_.offheight, spec.visual.global_.offwidth = LARGEST_PICTURE
    quality = spec.visual.quality
    quality.shadowsize, quality.offsamples, quality.numslices, quality.numstacks, quality.numquads = 0, 0, 20, 10, 1
    for material in spec.materials:
        material.reflectance = 0.0
    for texture in spec.textures:
        if texture.width > TEXTURE_SIZE and texture.mark == mujoco.mjtMark.mjMARK_RANDOM:
            texture.mark, texture.width = mujoco.mjtMark.mjMARK_NONE, TEXTURE_SIZE
            texture.height = TEXTURE_SIZE * (6 if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX else 1)


# -- numbers ---------------------------------------------------------------------------------------------------------------------------


def length(*components: Array) -> Array:
    """Returns (B,): how long vectors are that are given by component, each (B,)."""
    return np.asarray(np.sqrt(sum(component * component for component in components)))


def distance(positions: Array, a: int, b: int) -> Array:
    """Returns (B,) in [m]: how far apart two of the positions (B, n, 3) are."""
    return length(*(positions[:, a] - positions[:, b]).T)


def joined(*parts: Array) -> Array:
    """Returns (B, n) float32: the parts (B, …) one after another."""
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _box(largest: Sequence[float]) -> spaces.Box:
    high = np.array(largest, np.float32)
    return spaces.Box(-high, high)
