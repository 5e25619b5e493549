"""What a vector env costs and what can be asked of it and set: exact counters, attributes of each env, videos."""

import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import efm_envs
from efm_envs.errors import EFMError, MissingExtraError, UnknownNameError
from tests.efm_envs.fakes import POINT_MASS

NUM_ENVS = 4
SMALL = {"obs_mode": "pixels", "image_size": (16, 16), "terminate_on": "never"}


def made(env_id: str = POINT_MASS, **kwargs: Any) -> Any:
    envs = gym.make_vec(env_id, num_envs=NUM_ENVS, **kwargs)
    envs.reset(seed=0)
    return envs


def step(envs: Any) -> Any:
    return envs.step(np.zeros(envs.action_space.shape, np.float32))


def spent(envs: Any, call: Any) -> Counter[str]:
    """Returns what a call cost."""
    before = Counter(envs.unwrapped.counts)
    call()
    after = Counter(envs.unwrapped.counts)
    after.subtract(before)
    return after


# -- costs --------------------------------------------------------------------------------------------------------------------------


def test_a_step_costs_one_control_step_and_one_picture_an_env_and_one_call_of_the_model() -> None:
    envs = made(**SMALL)
    assert spent(envs, lambda: step(envs)) == {"physics_steps": NUM_ENVS * 10, "renders": NUM_ENVS, "reward_model_calls": 1}
    envs.close()


def test_a_camera_is_drawn_only_where_somebody_asked_for_it() -> None:
    envs = made("EFM-InsertEE-v0", obs_mode="pixels", image_size=(16, 16), cameras=["top", "left/wrist"])
    assert spent(envs, lambda: step(envs))["renders"] == 2 * NUM_ENVS
    envs.close()
    envs = made("EFM-InsertEE-v0")
    assert spent(envs, lambda: step(envs))["renders"] == 0


def test_envs_whose_episode_is_over_cost_nothing_until_they_are_reset() -> None:
    envs = made(autoreset_mode="Disabled", **SMALL)
    envs.set_attr("step_limit", [1, 9, 1, 9])
    step(envs)
    assert spent(envs, lambda: step(envs)) == {"physics_steps": 2 * 10, "renders": 2, "reward_model_calls": 1}
    mask = np.array([True, False, False, False])
    assert spent(envs, lambda: envs.reset(options={"reset_mask": mask})) == {"physics_steps": 0, "renders": 1, "reward_model_calls": 1}
    assert spent(envs, lambda: step(envs))["renders"] == 3
    envs.close()


def test_a_restart_in_the_same_step_draws_only_what_restarts() -> None:
    envs = made(autoreset_mode="SameStep", **SMALL)
    envs.set_attr("step_limit", [1, 9, 9, 9])
    assert spent(envs, lambda: step(envs)) == {"physics_steps": NUM_ENVS * 10, "renders": NUM_ENVS + 1, "reward_model_calls": 2}
    envs.close()


def test_when_all_episodes_are_over_nothing_is_looked_at() -> None:
    envs = made(autoreset_mode="Disabled", step_limit=1, **SMALL)
    first = step(envs)
    assert spent(envs, lambda: step(envs)) == {"physics_steps": 0, "renders": 0, "reward_model_calls": 1}
    second = step(envs)
    assert all(np.array_equal(first[0][name], second[0][name]) for name in first[0]) and not second[1].any()
    envs.close()


def test_writing_to_what_an_ended_env_returned_changes_nothing() -> None:
    envs = made(autoreset_mode="Disabled", step_limit=1, terminate_on="never")
    kept = {name: values.copy() for name, values in step(envs)[0].items()}
    for values in step(envs)[0].values():
        values[:] = 0
    assert all(np.array_equal(values, kept[name]) for name, values in step(envs)[0].items())


def test_256_envs_take_little_more_memory_than_one() -> None:
    code = """
import gymnasium as gym, efm_envs
def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20
def run(num_envs):
    envs = gym.make_vec("EFM-LanguageTable-v0", num_envs=num_envs)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(envs.action_space.sample())
    return envs
kept = [run(1)]
before = resident_mib()
kept.append(run(256))
print(resident_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # [MiB]; 1 to 20 are usual


def test_forgetting_to_close_leaves_no_trace_at_exit() -> None:
    code = f"import gymnasium as gym, efm_envs; e = gym.make_vec({POINT_MASS!r}, num_envs=3, obs_mode='pixels'); e.reset(seed=0)"
    for more in ("", "; e.unwrapped.render_env(1)"):
        done = subprocess.run([sys.executable, "-c", code + more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def renderer_threads() -> int:
    return sum(thread.name == "efm-renderer" for thread in threading.enumerate())


def test_vector_envs_that_are_forgotten_leave_no_threads() -> None:
    gc.collect()
    before = renderer_threads()
    for _ in range(3):
        envs = made(render_mode="rgb_array", render_size=(16, 16), num_threads=2)
        envs.render()
        assert renderer_threads() == before + 2
        del envs
        gc.collect()
        deadline = time.monotonic() + 10.0
        while renderer_threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert renderer_threads() == before


def test_a_forked_process_can_forget_them_and_is_told_not_to_use_them() -> None:
    code = f"""
import gc, os, sys, gymnasium as gym, numpy as np, efm_envs
envs = gym.make_vec({POINT_MASS!r}, num_envs=4, num_threads=2)
envs.reset(seed=0)
actions = np.zeros(envs.action_space.shape, np.float32)
envs.step(actions)
child = os.fork()
if child == 0:
    for call in (lambda: envs.step(actions), envs.reset, lambda: envs.render_env(0)):
        try:
            call()
        except efm_envs.errors.EFMError as error:
            print(error)
    del envs
    gc.collect()
    new = gym.make_vec({POINT_MASS!r}, num_envs=2, num_threads=2)
    new.reset(seed=0)
    new.step(actions[:2])
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
envs.step(actions)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("this vector env was made before a fork") == 3


# -- attributes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_limits_and_ends_can_be_set_for_each_env_as_in_single_envs(mode: AutoresetMode) -> None:
    envs = made(autoreset_mode=mode)
    others = gym.make_vec(POINT_MASS, num_envs=NUM_ENVS, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    others.reset(seed=0)
    for e in (envs, others):
        e.set_attr("step_limit", [2, 3, 90, 90])
        e.set_attr("terminate_on", ["never", "true", "true", "never"])
        assert e.get_attr("step_limit") == (2, 3, 90, 90)
    experts = [efm_envs.make_expert(e) for e in (envs, others)]
    for _ in range(40):
        (*_, terminated, truncated, _), (*_, expected, cut, _) = (e.step(x.act()) for e, x in zip((envs, others), experts, strict=True))
        assert np.array_equal(terminated, expected) and np.array_equal(truncated, cut)


def test_each_env_can_be_drawn_by_a_camera_of_its_own() -> None:
    envs = made("EFM-InsertEE-v0", render_mode="rgb_array", render_size=(24, 24))
    envs.set_attr("render_camera", ["top", "angle", "top", "table"])
    pictures = envs.render()
    for picture, again in zip(pictures, envs.call("render"), strict=True):
        assert np.array_equal(picture, again)
    single = gym.make("EFM-InsertEE-v0", render_mode="rgb_array", render_size=(24, 24), render_camera="table")
    single.reset(seed=3)
    assert np.array_equal(pictures[3], single.render())
    envs.close()
    single.close()


def test_what_all_envs_share_can_be_asked_of_each() -> None:
    envs = made(obs_mode="flat")
    single = envs.get_attr("observation_space")
    assert single == (envs.single_observation_space,) * NUM_ENVS and envs.get_attr("obs_mode") == ("flat",) * NUM_ENVS
    assert envs.call("elapsed_steps") == (0,) * NUM_ENVS and envs.get_attr("spec")[0].id == POINT_MASS


def test_before_the_first_reset_there_is_no_goal_and_no_picture() -> None:
    envs = gym.make_vec(POINT_MASS, num_envs=2, render_mode="rgb_array")
    assert envs.call("task_description") == ("", "")
    for call in (lambda: envs.get_attr("goals"), lambda: envs.get_attr("scenario"), envs.render, lambda: envs.call("render")):
        with pytest.raises(gym.error.ResetNeeded):
            call()


def test_attributes_of_ones_own_are_kept() -> None:
    envs = made()
    envs.set_attr("level", ("easy", "easy", "hard", "hard"))
    envs.set_attr("weight", 0.5)
    assert envs.get_attr("level") == ("easy", "easy", "hard", "hard") and envs.get_attr("weight") == (0.5,) * NUM_ENVS


def test_what_cannot_be_set_is_refused_and_changes_nothing() -> None:
    envs = made()
    for name in ("goals", "obs_mode", "task", "elapsed_steps", "render", "image_size", "signal", "physics", "reward_model", "num_envs"):
        with pytest.raises(EFMError, match=f"'{name}' .* cannot be set. These can: render_camera, step_limit, terminate_on"):
            envs.set_attr(name, 1)
    with pytest.raises(EFMError, match="one value, or one for each of 4 envs; got 2 of step_limit"):
        envs.set_attr("step_limit", [1, 2])
    with pytest.raises(EFMError, match="step_limit is a whole number, at least 1; got 0"):
        envs.set_attr("step_limit", [1, 2, 3, 0])
    with pytest.raises(UnknownNameError, match="unknown terminate_on: 'sucess'"):
        envs.set_attr("terminate_on", "sucess")
    assert envs.get_attr("step_limit") == (140,) * NUM_ENVS and envs.get_attr("terminate_on") == ("predicted",) * NUM_ENVS
    with pytest.raises(AttributeError, match=r"no attribute 'steplimit'. It has: .*step_limit"):
        envs.get_attr("steplimit")


# -- videos -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_recording_has_every_picture_of_one_env(mode: AutoresetMode, tmp_path: Path) -> None:
    envs = made(autoreset_mode=mode, step_limit=2, terminate_on="never", render_size=(16, 16))
    seen = [envs.render_env(1)]
    with envs.unwrapped.record(tmp_path / "new" / "video.gif", row=1) as recording:
        for _ in range(4):
            step(envs)
            seen.append(envs.render_env(1))
    step(envs)
    # start and two steps; then NextStep: start, step; SameStep: start, two steps, start; Disabled: nothing more
    expected = {AutoresetMode.NEXT_STEP: 5, AutoresetMode.SAME_STEP: 7, AutoresetMode.DISABLED: 3}[mode]
    assert recording.pictures == expected and not recording.is_open
    pictures = iio.imread(tmp_path / "new" / "video.gif", index=None)
    assert pictures[0].shape[:2] == (16, 16) and np.abs(pictures[0][..., :3].astype(int) - seen[0]).max() < 40
    envs.close()


def test_a_recording_can_begin_before_the_first_reset_and_ends_with_the_envs(tmp_path: Path) -> None:
    envs = gym.make_vec(POINT_MASS, num_envs=NUM_ENVS, render_size=(16, 16))
    recording = envs.unwrapped.record(tmp_path / "video.mp4", row=3)
    envs.reset(seed=0)
    step(envs)
    envs.close()
    assert recording.pictures == 2 and not recording.is_open and (tmp_path / "video.mp4").stat().st_size > 0


def test_bad_recordings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    envs = made()
    with pytest.raises(EFMError, match=r"a video is a file .mp4 or .gif; got .*video.avi"):
        envs.unwrapped.record(tmp_path / "video.avi")
    for row in (-1, NUM_ENVS, True, "first"):
        with pytest.raises(EFMError, match=f"row is the number of an env, 0 to 3; got {row!r}"):
            envs.unwrapped.record(tmp_path / "video.gif", row=row)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[agents\]"):
        envs.unwrapped.record(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
