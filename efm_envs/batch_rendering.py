"""Drawing many simulations: each worker is a thread with a GL context of its own, and draws its share of them."""

import atexit
import functools
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future

import mujoco
import numpy as np
from mujoco.batch import Batch

from efm_envs.rendering import CameraRenderer, Scene
from efm_envs.task import Array, Physics, SinglePhysics, Task

_open: "weakref.WeakSet[BatchRenderer]" = weakref.WeakSet()


class BatchRenderer:
    """Draws cameras of the simulations of a batch, at one size.

    Args:
        task: what is simulated.
        batch: the simulations.
        rows: each of them, as a batch of one.
        size: (height, width) of the pictures in pixels.
        workers: threads. They start at the first picture.
    """

    def __init__(self, task: Task, batch: Batch, rows: Sequence[Physics], size: tuple[int, int], workers: int) -> None:
        self._task, self._batch, self._rows, self._size, self._number = task, batch, rows, size, workers
        self._workers: list[_Worker] = []

    @property
    def renders(self) -> int:
        """Pictures drawn so far."""
        return sum(worker.camera.renders for worker in self._workers)

    def render(self, cameras: Sequence[str], rows: Sequence[int] | None = None) -> Array:
        """Returns what cameras see in each simulation, or in some: (n, height, width, 3) uint8, in a new array.

        Args:
            cameras: (n,), one for each of these simulations.
            rows: (n,) their numbers; None: all.

        Raises:
            RenderingError: there is no way to draw on this machine.
        """
        rows = range(len(self._rows)) if rows is None else rows
        if not self._workers:
            self._workers = [_Worker(_Row(self._task, self._batch, self._rows), self._size) for _ in range(self._number)]
        pictures = np.empty((len(rows), *self._size, 3), np.uint8)
        shares = [range(first, len(rows), self._number) for first in range(min(self._number, len(rows)))]
        drawn = []
        for worker, share in zip(self._workers, shares, strict=False):
            drawn.append(worker.submit([(place, rows[place], cameras[place]) for place in share], pictures))
        futures.wait(drawn)
        if self not in _open:
            _open.add(self)
            atexit.unregister(_close_all)
            atexit.register(_close_all)  # now that contexts are made: what is registered last runs first, and MuJoCo's own hook ends EGL
        for future in drawn:
            future.result()
        return pictures

    def close(self) -> None:
        """Frees the GL contexts, and ends the threads; more than once does no harm."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        _open.discard(self)


class _Row(Scene):
    """What cameras see of the simulation `row`."""

    def __init__(self, task: Task, batch: Batch, rows: Sequence[Physics]) -> None:
        self.row = 0
        self._task, self._batch, self._rows = task, batch, rows
        self._drawn: mujoco.MjData | None = None

    @property
    def data(self) -> mujoco.MjData:
        """The state that is drawn; up to date after `update`."""
        if self._drawn is None:
            self._drawn = mujoco.MjData(self.model)
        return self._drawn

    def update(self) -> None:
        """Brings the drawn state up to date."""
        if self.model is self._task.model:
            self._batch.get_data(self.row, self.data)
        else:
            self._task.pose(self._rows[self.row], SinglePhysics(self.data))
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)


class _Worker:
    """A thread, with the GL context that it alone uses. It ends when this object is closed, or forgotten."""

    def __init__(self, scene: _Row, size: tuple[int, int]) -> None:
        self.camera = CameraRenderer(scene, *size, closes_itself=False)
        self._scene = scene
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs, self.camera), name="efm-renderer", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def submit(self, places: Sequence[tuple[int, int, str]], pictures: Array) -> "Future[None]":
        """Lets the thread draw simulations into their places among the pictures, each seen by a camera: (place, row, camera)."""
        future: Future[None] = Future()
        self._jobs.put((functools.partial(_draw, self._scene, self.camera, places, pictures), future))
        return future

    def close(self) -> None:
        """Lets the thread free its context and end."""
        self._jobs.put(None)
        self._thread.join()


_Jobs = queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None]


def _draw(scene: _Row, camera: CameraRenderer, places: Sequence[tuple[int, int, str]], pictures: Array) -> None:
    for place, scene.row, name in places:
        pictures[place] = camera.render(name)


def _work(jobs: _Jobs, camera: CameraRenderer) -> None:
    """What a worker's thread does. It knows neither the worker nor whoever owns it, so that these can be forgotten."""
    while (todo := jobs.get()) is not None:
        job, future = todo
        try:
            future.set_result(job())
        except BaseException as error:  # whoever waits for the picture is told
            future.set_exception(error)
        del todo, job, future  # and the pictures with them
    camera.close()


def _close_all() -> None:
    """Closes what is still open while the GL libraries are still there to be called."""
    for renderer in list(_open):
        renderer.close()
