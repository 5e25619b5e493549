"""One task in one simulation: what starts it and what moves it, for the env and for whoever tries something out first."""

import functools
from typing import Any

import mujoco
import numpy as np

from efm_envs.task import Array, Goals, Scenario, SinglePhysics, Task

# Of MuJoCo's warnings, those that a simulation has diverged: BADQPOS, BADQVEL, BADQACC. It is set back to the model's default pose then.
DIVERGED = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1)
DIVERGENCE = "the simulation diverged: MuJoCo found a position, velocity or acceleration that is not finite, and began anew."


class Simulation:
    """A task's physics, from a scenario on. It knows nothing of observations or rewards.

    Where the task reads derived fields, a step begins with those that the last one ended with: who moves `data` by hand calls
    `mujoco.mj_step1` afterwards.

    Args:
        task: what is simulated.

    Attributes:
        data: the simulation, a `mujoco.MjData`.
        physics: the same as a batch of one, as tasks read it.
        goals: the present goal, as a batch of one.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.data = mujoco.MjData(task.model)
        self.physics = SinglePhysics(self.data)
        self.goals = Goals([])

    @property
    def has_diverged(self) -> bool:
        """Whether the simulation diverged since it was started: what it shows now means nothing."""
        return any(self._divergences.tolist())

    @functools.cached_property
    def _divergences(self) -> Array:
        return np.asarray(self.data.warning.number)[DIVERGED]  # a live view

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_divergences"}  # a copy looks at its own data

    def start(self, scenario: Scenario) -> None:
        """Goes to where an episode begins."""
        self.goals = Goals([scenario.goal])
        mujoco.mj_resetData(self.task.model, self.data)
        for name, value in scenario.physics.items():
            getattr(self.physics, name)[0] = value
        mujoco.mj_step1(self.task.model, self.data)

    def step(self, actions: Array) -> None:
        """Runs one control step with actions (1, A) in [-1, 1]."""
        self.task.apply(self.physics, np.asarray(actions, np.float64))
        model, data, substeps = self.task.model, self.data, self.task.substeps
        if not self.task.reads_derived:
            mujoco.mj_step(model, data, substeps)
            return
        mujoco.mj_step2(model, data)  # a step is mj_step1, what no control enters, and mj_step2: the first half is done already
        if substeps > 1:
            mujoco.mj_step(model, data, substeps - 1)
        mujoco.mj_step1(model, data)  # derived fields (xpos, sensordata, …) of the state just reached

    def is_success(self) -> bool:
        """Whether the goal is reached: the ground truth."""
        return bool(self.task.is_success(self.physics, self.goals)[0])
