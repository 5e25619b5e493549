"""`render_mode="human"`, on a display that nobody sees. Each test has a process of its own: GLFW's errors end a process."""

import os
import subprocess
import sys
import textwrap

import pytest

import efm_envs
from efm_envs.observations import OBS_MODES

PRELUDE = """
import warnings, time
import gymnasium as gym, numpy as np, efm_envs
from gymnasium.utils.env_checker import check_env
warnings.simplefilter("error")

def opened(**kwargs):
    env = gym.make("EFM-PointMass-v0", render_mode="human", render_size=(120, 160), **kwargs)
    env.reset(seed=0)
    return env
"""


def run(display: str, code: str, **environment: str) -> str:
    """Runs code with a display; returns what it printed."""
    base = {key: value for key, value in os.environ.items() if key not in ("WAYLAND_DISPLAY", "MUJOCO_GL")}
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        env={**base, "DISPLAY": display, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0 and not result.stderr, (result.returncode, result.stderr)
    return result.stdout


@pytest.mark.parametrize("mode", OBS_MODES)
@pytest.mark.parametrize("env", efm_envs.ids())
def test_gymnasiums_checker_has_nothing_to_say_of_any_render_mode(xvfb: str, env: str, mode: str) -> None:
    run(xvfb, f"check_env(gym.make({env!r}, obs_mode={mode!r}, image_size=(32, 32)).unwrapped)")


@pytest.mark.parametrize("backend", ["", "egl"])
def test_windows_and_pictures_live_side_by_side(xvfb: str, backend: str) -> None:
    """MuJoCo's passive viewer ended the process here: beside a second window, and at exit."""
    run(
        xvfb,
        """
        a, b = opened(obs_mode="pixels", image_size=(32, 32)), opened()
        picture = gym.make("EFM-PointMass-v0", render_mode="rgb_array"); picture.reset(seed=0)
        for _ in range(3):
            for env in (a, b):
                env.step(np.zeros(2)); assert env.render() is None
            assert picture.render().std() > 10
        a.close(); a.close(); b.step(np.zeros(2))
        a.reset(seed=1)  # opens it again; left open at exit
        """,
        **({"MUJOCO_GL": backend} if backend else {}),
    )


def test_a_window_shows_the_camera_and_moves_nothing(xvfb: str) -> None:
    shown = run(
        xvfb,
        """
        import glfw, mujoco
        env, plain = opened(), gym.make("EFM-PointMass-v0", render_mode="rgb_array", render_size=(120, 160))
        plain.reset(seed=0)
        picture, swap = np.zeros((120, 160, 3), np.uint8), glfw.swap_buffers

        def look_and_swap(window):
            mujoco.mjr_readPixels(picture, None, mujoco.MjrRect(0, 0, 160, 120), env.unwrapped._window._context)
            swap(window)

        glfw.swap_buffers = look_and_swap
        for _ in range(10):
            a, b = env.step(np.array([0.3, -0.2])), plain.step(np.array([0.3, -0.2]))
            assert (a[0]["agent_pos"] == b[0]["agent_pos"]).all() and a[1] == b[1]
        difference = np.abs(picture[::-1].astype(int) - plain.render())
        print(picture.std() > 10, np.percentile(difference, 95) < 10)
        """,
    )
    assert shown == "True True\n"


def test_a_window_keeps_real_time_and_may_be_closed_by_its_user(xvfb: str) -> None:
    run(
        xvfb,
        """
        import glfw
        env = opened()
        start = time.monotonic()
        for _ in range(5):
            env.step(np.zeros(2))
        assert time.monotonic() - start > 0.3, "5 steps of 0.1 s"
        glfw.set_window_should_close(env.unwrapped._window._window, True)
        for _ in range(3):
            env.step(np.zeros(2))
        env.close()
        """,
    )


def test_a_display_that_is_not_there_is_named(xvfb: str) -> None:
    printed = run(
        ":987",
        """
        try:
            opened()
        except Exception as error:
            print(type(error).__name__, error)
        """,
    )
    assert printed.startswith("RenderingError GLFW could not open a window on the display ':987'. Use render_mode=\"rgb_array\"")
