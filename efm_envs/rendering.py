"""Drawing, created at the first picture and not before: a state-mode env never touches a GL library."""

import atexit
import ctypes.util
import importlib
import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np

from efm_envs.errors import RenderingError

HEADLESS_BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}  # MUJOCO_GL's value: name of the shared library
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
    if backend in HEADLESS_BACKENDS:
        os.environ["MUJOCO_GL"] = backend  # libmujoco reads it when it makes its first context
        context_module = importlib.import_module("mujoco.rendering.classic.gl_context")
        context_module.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext  # type: ignore[attr-defined]


class CameraRenderer:
    """Draws a model's cameras off screen, at one size.

    Args:
        model: the compiled model.
        height, width: size of the pictures in pixels.

    Attributes:
        renders: pictures drawn so far.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self.renders = 0
        self._model = model
        self._size = (height, width)
        self._renderer: mujoco.Renderer | None = None

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Returns what `camera` sees, (height, width, 3) uint8, in a new array.

        Raises:
            RenderingError: there is no way to draw on this machine.
        """
        if self._renderer is None:
            self._renderer = self._make()
            _close_at_exit(self)
        self._renderer.update_scene(data, camera=camera)
        self.renders += 1
        return self._renderer.render()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}  # a copy makes its own

    def close(self) -> None:
        """Frees the GL context; more than once does no harm."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _make(self) -> mujoco.Renderer:
        _use_backend()
        try:
            return mujoco.Renderer(self._model, *self._size)
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
