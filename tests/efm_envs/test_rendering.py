"""Pictures: things are where they should be, nothing is drawn that nobody asked for, and a machine that cannot draw says why."""

import gc
import os
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from efm_envs import rendering
from efm_envs.errors import RenderingError
from tests.efm_envs.fakes import POINT_MASS

LANGUAGE_TABLE = "EFM-LanguageTable4-v0"
WITHOUT_DISPLAY = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}


def pixel(env: Any, camera: str, place: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Returns (row, column) of a place in the world in a camera's picture: a pinhole camera, computed without MuJoCo's renderer."""
    data, model = env.unwrapped.data, env.unwrapped.task.model
    right, up, back = data.camera(camera).xmat.reshape(3, 3).T
    ray = np.asarray(place, float) - data.camera(camera).xpos
    focal = size[0] / 2 / np.tan(np.radians(model.camera(camera).fovy[0]) / 2)
    depth = -ray @ back
    return int(size[0] / 2 - focal * (ray @ up) / depth), int(size[1] / 2 + focal * (ray @ right) / depth)


def colour(picture: np.ndarray, place: tuple[int, int]) -> str:
    red, green, blue = picture[place].astype(int)
    return "green" if green > red + 30 and green > blue + 30 else "blue" if blue > red + 30 and blue > green + 30 else "other"


@pytest.mark.parametrize("seed", range(4))
def test_the_goal_is_green_and_the_point_is_blue_where_they_are(seed: int) -> None:
    env = gym.make(POINT_MASS, render_mode="rgb_array", render_size=(240, 320))
    env.reset(seed=seed)
    goal, point = env.unwrapped.goals.states[0], env.unwrapped.data.qpos
    picture = env.render()
    env.close()
    assert picture.shape == (240, 320, 3) and picture.dtype == np.uint8
    assert colour(picture, pixel(env, "top", [*point, 0.12], (240, 320))) == "blue"
    away = goal - 0.1 * (point - goal) / np.linalg.norm(point - goal)  # inside the goal, on the far side from the point
    assert colour(picture, pixel(env, "top", [*away, 0.01], (240, 320))) == "green"
    mirrored = [colour(picture, pixel(env, "top", [*place, 0.05], (240, 320))) for place in (-point, [1, -1] * point, [-1, 1] * point)]
    assert mirrored.count("blue") == 0, "the picture is upside down or mirrored"


def test_the_observed_picture_is_the_rendered_one() -> None:
    env = gym.make(POINT_MASS, obs_mode="pixels", image_size=(48, 64), render_mode="rgb_array", render_size=(48, 64))
    observation, _ = env.reset(seed=1)
    np.testing.assert_array_equal(observation["pixels/top"], env.render())
    after = env.step(np.ones(2))[0]["pixels/top"]
    assert not np.array_equal(observation["pixels/top"], after), "a picture is of the present"
    env.close()


def test_two_envs_that_draw_in_turn_do_not_disturb_each_other() -> None:
    envs = [gym.make(POINT_MASS, obs_mode="pixels", image_size=(32, 32 + 16 * i)) for i in range(2)]
    alone = [env.reset(seed=i)[0]["pixels/top"] for i, env in enumerate(envs)]
    together = [env.reset(seed=i)[0]["pixels/top"] for i, env in reversed(list(enumerate(envs)))]
    for a, b in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(a, b)
    envs[0].close()
    np.testing.assert_array_equal(envs[1].reset(seed=1)[0]["pixels/top"], alone[1])
    envs[1].close()


def test_closing_twice_does_no_harm_and_an_env_may_draw_again() -> None:
    env = gym.make(POINT_MASS, render_mode="rgb_array", render_size=(32, 32))
    env.close()
    env.reset(seed=0)
    first = env.render()
    env.close()
    env.close()
    np.testing.assert_array_equal(env.render(), first)
    env.close()


def test_render_without_a_mode_says_how_to_get_one() -> None:
    env = gym.make(POINT_MASS).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match=r'gym.make\(..., render_mode="rgb_array"\)'):
        assert env.render() is None


def test_the_frame_rate_is_the_control_rate(env_id: str) -> None:
    env = gym.make(env_id)
    assert env.metadata["render_fps"] == round(1 / env.unwrapped.task.control_dt_s)


# -- machines that cannot draw ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_a_machine_without_gl_is_told_what_to_install(no_display: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "HEADLESS_BACKENDS", {"egl": "no-such-library"})
    assert rendering.find_backend() is None
    env = gym.make(POINT_MASS, obs_mode="pixels")
    with pytest.raises(RenderingError, match=r"neither EGL nor OSMesa is installed.*apt-get install libegl1 libgl1-mesa-dri"):
        env.reset(seed=0)
    plain = gym.make(POINT_MASS)
    plain.reset(seed=0)
    plain.step(np.zeros(2))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_a_window_without_a_display_says_what_to_do_instead(no_display: None) -> None:
    env = gym.make(POINT_MASS, render_mode="human")
    with pytest.raises(RenderingError, match=r'render_mode="human" opens a window, and there is no display.*"rgb_array"'):
        env.reset(seed=0)
    env.close()


def test_what_mujoco_gl_says_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", " EGL ")
    monkeypatch.setenv("DISPLAY", ":0")
    assert rendering.find_backend() == "egl"


@pytest.mark.skipif(sys.platform != "linux", reason="MUJOCO_GL is read on Linux")
def test_a_backend_that_does_not_work_is_named_with_the_way_out(tmp_path: Any) -> None:
    """A display that is not there: GLFW is chosen, and cannot open it."""
    code = f"import efm_envs, gymnasium as gym; gym.make({POINT_MASS!r}, obs_mode='pixels').reset()"
    result = subprocess.run(
        [sys.executable, "-c", code], env={**WITHOUT_DISPLAY, "DISPLAY": ":987"}, capture_output=True, text=True, timeout=60
    )
    assert "RenderingError: MuJoCo could not make a GL context" in result.stderr
    assert "try MUJOCO_GL=egl" in result.stderr


def test_pictures_left_open_do_not_break_the_exit() -> None:
    code = f"import efm_envs, gymnasium as gym; e = gym.make({POINT_MASS!r}, obs_mode='pixels'); e.reset(); print('drawn')"
    result = subprocess.run([sys.executable, "-c", code], env=WITHOUT_DISPLAY, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "drawn\n", "")


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_a_renderer_that_goes_leaves_the_pictures_of_others_as_they_were(how: str) -> None:
    """MuJoCo's own frees textures and buffers, by number, in whichever context is current."""
    first, second = (gym.make(env_id, obs_mode="pixels", image_size=(48, 48)).unwrapped for env_id in (LANGUAGE_TABLE, "EFM-InsertEE-v0"))
    first.reset(seed=0)
    expected = second.reset(seed=0)[0]["pixels/angle"]
    if how == "closed":
        first.close()
    del first
    gc.collect()
    assert np.array_equal(second.reset(seed=0)[0]["pixels/angle"], expected)
    third = gym.make(LANGUAGE_TABLE, obs_mode="pixels", image_size=(48, 48))
    third.reset(seed=0)
    assert np.array_equal(second.reset(seed=0)[0]["pixels/angle"], expected)
    second.close()
    third.close()
