"""The simulations of a batch, as tasks and experts read them: all, some, or one as a batch of one."""

import mujoco
from mujoco.batch import Batch

from efm_envs.task import Array

DERIVED = int(mujoco.mjtStage.mjSTAGE_VEL)  # positions and velocities, and what follows from them


class BatchPhysics:
    """The fields of a batch, as tasks read them: live arrays (B, …)."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view = self._batch.bind(name)
        if not view.flags.writeable:  # a derived field, which is empty until the next call
            self._batch.forward(stage=DERIVED)
        setattr(self, name, view)  # the next look-up does not come here
        return view


class SomePhysics:
    """Some simulations of a batch, to be read: copies (n, …) of their fields, made when they are asked for."""

    def __init__(self, physics: BatchPhysics, rows: list[int]) -> None:
        self._physics, self._rows = physics, rows

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        copy: Array = getattr(self._physics, name)[self._rows]
        setattr(self, name, copy)
        return copy


class RowPhysics:
    """One simulation of a batch, as a batch of one: live arrays (1, …)."""

    def __init__(self, physics: BatchPhysics, row: int) -> None:
        self._physics, self._row = physics, row

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view: Array = getattr(self._physics, name)[self._row : self._row + 1]
        setattr(self, name, view)
        return view
