"""Drawing, created at the first picture and not before: a state-mode env never touches a GL library."""

import atexit
import ctypes.util
import functools
import importlib
import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np

from efm_envs.errors import RenderingError
from efm_envs.task import Physics, SinglePhysics, Task

HEADLESS_BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}  # MUJOCO_GL's value: name of the shared library
LARGEST_PICTURE = (1280, 1280)  # (height, width) in pixels: every scene's <global offheight offwidth>
DEBIAN_PACKAGES = "libegl1 libgl1-mesa-dri"  # software EGL; libosmesa6 is the other way

_open: "weakref.WeakSet[CameraRenderer]" = weakref.WeakSet()


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def find_backend() -> str | None:
    """Returns what MUJOCO_GL says, else the first way to draw that this machine has; None if there is none."""
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        return chosen
    if has_display():
        return "glfw" if sys.platform == "linux" else ""  # "": MuJoCo's own choice on this system
    return next((name for name, library in HEADLESS_BACKENDS.items() if ctypes.util.find_library(library)), None)


def _use_backend() -> None:
    """Lets MuJoCo draw with `find_backend()`, also where it was imported before anybody knew that there is no display."""
    backend = find_backend()
    if backend is None:
        raise RenderingError(
            f"no display, and neither EGL nor OSMesa is installed. On Debian or Ubuntu: apt-get install {DEBIAN_PACKAGES} "
            "(or libosmesa6). `efm doctor` shows what is found."
        )
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer draws in the thread that asks: small pictures are sooner done
    if backend in HEADLESS_BACKENDS:
        os.environ["MUJOCO_GL"] = backend  # libmujoco reads it when it makes its first context
        context_module = importlib.import_module("mujoco.rendering.classic.gl_context")
        context_module.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext  # type: ignore[attr-defined]


class Scene:
    """What cameras see of a simulation: the simulation itself or, where the task has one, a richer model posed after it.

    Args:
        task: what is simulated.
        physics: the simulation, a batch of one.
        data: the same, as MuJoCo's `MjData`.
    """

    def __init__(self, task: Task, physics: Physics, data: mujoco.MjData) -> None:
        self._task, self._physics, self._simulated = task, physics, data

    @property
    def model(self) -> mujoco.MjModel:
        """The model that is drawn."""
        return self._task.drawn_model

    @functools.cached_property
    def data(self) -> mujoco.MjData:
        """The state that is drawn; up to date after `update`."""
        return self._simulated if self.model is self._task.model else mujoco.MjData(self.model)

    def update(self) -> None:
        """Brings the drawn state up to date."""
        if self.data is self._simulated:
            return
        self._task.pose(self._physics, SinglePhysics(self.data))
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)


class CameraRenderer:
    """Draws a scene's cameras off screen, at one size.

    Args:
        scene: what is drawn.
        height, width: size of the pictures in pixels.
        closes_itself: at exit. A renderer of another thread than the main one is closed by that thread.

    Attributes:
        renders: pictures drawn so far.
    """

    def __init__(self, scene: Scene, height: int, width: int, *, closes_itself: bool = True) -> None:
        self._renderer: mujoco.Renderer | None = None
        self.renders = 0
        self._closes_itself = closes_itself
        self._scene = scene
        self._size = (height, width)

    def render(self, camera: str) -> np.ndarray:
        """Returns what `camera` sees, (height, width, 3) uint8, in a new array.

        Raises:
            RenderingError: there is no way to draw on this machine.
        """
        if self._renderer is None:
            self._renderer = self._make()
            if self._closes_itself:
                _close_at_exit(self)
        self._scene.update()
        self._renderer.update_scene(self._scene.data, camera=camera)
        self.renders += 1
        return self._renderer.render()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}  # a copy makes its own

    def close(self) -> None:
        """Frees the GL context; more than once does no harm."""
        if self._renderer is not None:
            context = self._renderer._gl_context
            if context is not None:
                context.make_current()  # MuJoCo frees by number what is in the context that is current: that may be another renderer's
            self._renderer.close()
            self._renderer = None

    def __del__(self) -> None:
        self.close()

    def _make(self) -> mujoco.Renderer:
        _use_backend()
        try:
            return mujoco.Renderer(self._scene.model, *self._size)
        except Exception as error:  # PyOpenGL, GLFW and MuJoCo each raise their own
            raise RenderingError(
                f"MuJoCo could not make a GL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}. "
                f"Without a display, try MUJOCO_GL=egl; on Debian or Ubuntu: apt-get install {DEBIAN_PACKAGES}. "
                "`efm doctor` shows what is found."
            ) from error


def _close_at_exit(renderer: CameraRenderer) -> None:
    _open.add(renderer)
    atexit.unregister(_close_all)
    atexit.register(_close_all)  # once more: what is registered last runs first, and MuJoCo's own hook ends EGL


def _close_all() -> None:
    """Closes what is still open while the GL libraries are still there to be called."""
    for renderer in list(_open):
        renderer.close()
