"""The window of `render_mode="human"`. Imported when one is opened: GLFW's library is not on every machine."""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import glfw
import mujoco

from efm_envs.errors import RenderingError
from efm_envs.rendering import Scene, has_display


class Window:
    """Shows a simulation as one of its cameras sees it, no faster than real time.

    It draws in the caller's thread and only reads the simulation. MuJoCo's own passive viewer does neither: its thread crashes the
    process at exit or beside a second window, it needs `mjpython` on macOS, and its mouse pushes bodies.

    Args:
        scene: what is shown.
        camera: whose view is shown.
        size: (height, width) of the window at first, in pixels.
        control_dt_s: time between two pictures in [s].

    Raises:
        RenderingError: no display, or no GL on it.
    """

    def __init__(self, scene: Scene, camera: str, size: tuple[int, int], control_dt_s: float) -> None:
        if not has_display():
            raise RenderingError(
                'render_mode="human" opens a window, and there is no display here (DISPLAY is not set). '
                'Use render_mode="rgb_array", or `efm play --video FILE`.'
            )
        self._source = scene
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = scene.model.camera(camera).id
        self._scene = mujoco.MjvScene(scene.model, maxgeom=10_000)
        self._window: Any = _open_window(size, f"{camera} camera")
        with _current(self._window):
            glfw.swap_interval(0)  # `show` keeps the time
            self._context = mujoco.MjrContext(scene.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._control_dt_s = control_dt_s
        self._next_frame_s = time.monotonic()

    def show(self) -> None:
        """Draws the present state when its time has come; does nothing once the window was closed, by its user or by `close`."""
        if self._window is None:
            return
        if glfw.window_should_close(self._window):
            return self.close()
        self._next_frame_s = max(self._next_frame_s + self._control_dt_s, time.monotonic() - self._control_dt_s)
        time.sleep(max(0.0, self._next_frame_s - time.monotonic()))
        self._source.update()
        model, data = self._source.model, self._source.data
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        with _current(self._window):
            whole = mujoco.MjrRect(0, 0, *glfw.get_framebuffer_size(self._window))
            mujoco.mjr_render(whole, self._scene, self._context)
            glfw.swap_buffers(self._window)
        glfw.poll_events()

    def close(self) -> None:
        """Closes the window; more than once does no harm."""
        if self._window is not None:
            with _current(self._window):
                self._context.free()
            glfw.destroy_window(self._window)
            self._window = None


def _open_window(size: tuple[int, int], title: str) -> Any:
    _release_egl()
    height, width = size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glfw.GLFWError)  # said below, with what to do
        window = glfw.create_window(width, height, title, None, None) if glfw.init() else None
    if not window:
        raise RenderingError(
            f"GLFW could not open a window on the display {os.environ.get('DISPLAY')!r}. "
            'Use render_mode="rgb_array", or `efm play --video FILE`.'
        )
    return window


@contextlib.contextmanager
def _current(window: Any) -> Iterator[None]:
    """Gives the thread's GL context to a window for a while."""
    _release_egl()
    glfw.make_context_current(window)
    yield
    glfw.make_context_current(None)  # type: ignore[arg-type]


def _release_egl() -> None:
    """Lets an EGL context (MUJOCO_GL=egl) go: while a thread has one, X ends the process that makes a window's context current."""
    egl = sys.modules.get("mujoco.egl")
    if egl is not None and egl.EGL_DISPLAY is not None:
        egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_CONTEXT)
