"""What importing and making an env costs, and does not load."""

import json
import os
import subprocess
import sys

HEAVY = ("torch", "mujoco", "OpenGL", "glfw", "matplotlib", "scipy", "stable_baselines3", "dm_control", "efm_agents", "efm_benchmarks")
WITHOUT_DISPLAY = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}


def fresh(code: str) -> str:
    """Runs code in a new process; returns what it printed."""
    result = subprocess.run([sys.executable, "-c", code], env=WITHOUT_DISPLAY, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Returns which of the packages are loaded after `code`."""
    return json.loads(fresh(f"{code}\nimport sys, json; print(json.dumps([n for n in {names!r} if n in sys.modules]))"))


def test_importing_loads_nothing_heavy() -> None:
    assert loaded("import efm_envs; efm_envs.ids()", HEAVY) == []


def test_importing_costs_little_more_than_gymnasium() -> None:
    code = "import time, gymnasium; t = time.process_time(); import efm_envs; print(time.process_time() - t)"
    assert min(float(fresh(code)) for _ in range(2)) < 0.3


def test_an_env_in_state_mode_loads_no_gl() -> None:
    """`mujoco` itself imports glfw; what must not happen is that a GL library is loaded or a context made."""
    code = """
import gymnasium as gym
env = gym.make("efm_envs:EFM-PointMass-v0", render_mode="rgb_array")
env.reset(seed=0)
env.step(env.action_space.sample())
libraries = [line.split()[-1] for line in open("/proc/self/maps")] if __import__("sys").platform == "linux" else []
gl = [path for path in libraries if any(name in path for name in ("libGL", "libEGL", "libOSMesa", "libGLX"))]
assert not gl, gl
assert env.unwrapped.counts["renders"] == 0 and env.unwrapped._render_camera._renderer is None
"""
    assert loaded(code, ("torch", "OpenGL", "efm_agents", "imageio")) == []


def test_an_env_of_dm_controls_suite_takes_its_files_and_none_of_its_code() -> None:
    code = "import gymnasium as gym; gym.make('efm_envs:EFM-DMC-ReacherEasy-v0').reset(seed=0)"
    assert loaded(code, ("dm_control", "dm_control.suite", "dm_control.mujoco", "dm_env", "lxml", "OpenGL")) == ["dm_control"]


def test_gymnasium_finds_an_id_by_the_packages_name() -> None:
    code = "import gymnasium as gym; e = gym.make('efm_envs:EFM-PointMass-v0'); print(e.reset(seed=0)[1]['steps_to_go'] > 0)"
    assert fresh(code) == "True\n"


def test_every_public_name_is_there_and_listed() -> None:
    import efm_envs

    for name in efm_envs.__all__:
        assert getattr(efm_envs, name) is not None and name in dir(efm_envs)
    assert not hasattr(efm_envs, "no_such_name")
