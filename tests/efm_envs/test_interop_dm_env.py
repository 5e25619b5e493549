"""Our envs as dm_env environments: dm_env's own test, the env's own timesteps, and physics that shows the simulation and moves it."""

import importlib
import json
import subprocess
import sys
import unittest
from collections.abc import Iterator
from typing import Any, ClassVar

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from dm_env import specs, test_utils

import efm_envs
from efm_envs.errors import EFMError, InvalidActionError, MissingExtraError
from efm_envs.interop.dm_env import to_dm_env
from tests.efm_envs.test_window import run

MIRRORED = ["EFM-LanguageTable4-v0", "EFM-BananaTable-v0", "EFM-Insert-v0"]  # what is drawn is another model than what is simulated
LOOKED_AT = ["EFM-PointMass-v0", *MIRRORED, "EFM-DMC-ManipulatorInsertPeg-v0"]


class _Conforms(test_utils.EnvironmentTestMixin):
    id: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    def make_object_under_test(self) -> dm_env.Environment:
        return to_dm_env(gym.make(self.id, step_limit=4, **self.options))

    def make_action_sequence(self) -> Iterator[Any]:
        rng, spec = np.random.default_rng(0), self.environment.action_spec()
        for _ in range(12):  # three episodes are over
            yield rng.uniform(spec.minimum, spec.maximum).astype(spec.dtype)

    def test_episodes_end(self) -> None:
        kinds = [self.step_environment(action).step_type for action in self.make_action_sequence()]
        assert kinds.count(dm_env.StepType.LAST) == 2 and kinds[0] == kinds[5] == dm_env.StepType.FIRST


class TestPointMass(_Conforms, unittest.TestCase):
    id = "EFM-PointMass-v0"


class TestLanguageTable(_Conforms, unittest.TestCase):
    id = "EFM-LanguageTable4-v0"


class TestInsertEE(_Conforms, unittest.TestCase):
    id = "EFM-InsertEE-v0"


class TestPixels(_Conforms, unittest.TestCase):
    id, options = "EFM-PointMass-v0", {"obs_mode": "pixels", "image_size": (24, 32)}


class TestFlat(_Conforms, unittest.TestCase):
    id, options = "EFM-LanguageTable-v0", {"obs_mode": "flat"}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)


def some_actions(env: gym.Env, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(count)]


def test_specs_are_the_spaces(env_id: str, obs_mode: str) -> None:
    env = gym.make(env_id, obs_mode=obs_mode)
    environment = to_dm_env(env)
    observed, space = environment.observation_spec(), env.observation_space
    pairs = [(observed, space, "observation")] if obs_mode == "flat" else [(observed[key], space[key], key) for key in space]
    assert obs_mode == "flat" or list(observed) == list(space)
    for spec, box, name in [*pairs, (environment.action_spec(), env.action_space, "action")]:
        assert type(spec) is specs.BoundedArray and (spec.shape, spec.dtype, spec.name) == (box.shape, box.dtype, name)
        assert np.array_equal(spec.minimum, box.low) and np.array_equal(spec.maximum, box.high)
    assert environment.reward_spec() == specs.Array((), np.float64)
    assert environment.discount_spec() == specs.BoundedArray((), np.float64, 0.0, 1.0)
    environment.close()


def test_timesteps_are_the_envs_own() -> None:
    env, environment = gym.make("EFM-LanguageTable-v0", step_limit=8), to_dm_env(gym.make("EFM-LanguageTable-v0", step_limit=8), seed=7)
    for seed in (7, None, None):
        observation, info = env.reset(seed=seed)
        timestep = environment.reset()
        assert same(timestep.observation, observation) and environment.info == info
        for action in some_actions(env, 8):
            observation, reward, _, truncated, info = env.step(action)
            timestep = environment.step(action)
            assert same(timestep.observation, observation) and timestep.reward == reward and environment.info == info
            assert timestep.last() == truncated and timestep.discount == 1.0
    assert truncated and {"is_success", "predicted_success", "steps_to_go", "instruction"} <= set(environment.info)


def test_success_has_discount_0_and_the_next_step_begins_the_next_episode() -> None:
    env = gym.make("EFM-PointMass-v0")
    environment, expert = to_dm_env(env, seed=0), efm_envs.make_expert(env)
    timestep = environment.reset()
    while not timestep.last():
        timestep = environment.step(expert.act())
    assert environment.info["is_success"] and timestep.discount == 0.0
    first = environment.step(expert.act())
    assert first.first() and env.unwrapped.episode_key == (0, 1) and env.unwrapped.elapsed_steps == 0


def test_both_ends_at_once_are_a_termination() -> None:
    env = gym.make("EFM-PointMass-v0", step_limit=1, reward_model=lambda observations: np.zeros(1))
    environment = to_dm_env(env, seed=0)
    environment.reset()
    timestep = environment.step(np.zeros(2))
    assert env.unwrapped.elapsed_steps == 1 and timestep.last() and timestep.discount == 0.0


def test_a_bad_action_changes_nothing() -> None:
    environment = to_dm_env(gym.make("EFM-PointMass-v0", disable_env_checker=True), seed=0)
    environment.reset()
    environment.physics  # noqa: B018 (what keeps it up to date is in the way of the error)
    with pytest.raises(InvalidActionError, match=r"shape \(2,\)"):
        environment.step(np.zeros(3))
    assert environment.step(np.zeros(2)).mid() and environment.env.unwrapped.elapsed_steps == 1


def test_wrapped_envs_and_those_of_others() -> None:
    environment = to_dm_env(gym.wrappers.TimeLimit(gym.make("EFM-PointMass-v0"), 3), seed=0)
    kinds = [environment.step(np.zeros(2)).step_type for _ in range(5)]
    assert kinds == [dm_env.StepType.FIRST, *[dm_env.StepType.MID] * 2, dm_env.StepType.LAST, dm_env.StepType.FIRST]
    cart = efm_envs.StepsToGoReward(gym.make("CartPole-v1"), lambda o: np.abs(o["observation"][:, 0]), success_threshold=0.0)
    environment = to_dm_env(cart, seed=0)
    assert environment.action_spec() == specs.DiscreteArray(2, np.int64) and environment.observation_spec().name == "observation"
    environment.reset()
    environment.observation_spec().validate(environment.step(environment.action_spec().validate(1)).observation)
    with pytest.raises(EFMError, match=r"physics needs one of our envs, for example EFM-PointMass-v0; got .*CartPole"):
        environment.physics  # noqa: B018


def test_a_space_without_bounds_and_one_that_does_not_begin_at_0() -> None:
    env = gym.make("EFM-PointMass-v0")
    env.action_space = gym.spaces.Discrete(3, start=-1)
    env.observation_space = gym.spaces.Dict({"a": gym.spaces.Box(-np.inf, np.inf, (2,)), "b": gym.spaces.Box(0.0, np.inf, (2,))})
    environment = to_dm_env(env)
    assert environment.action_spec() == specs.BoundedArray((), np.int64, -1, 1)
    free, half = environment.observation_spec().values()
    assert type(free) is specs.Array and type(half) is specs.BoundedArray and np.isinf(half.maximum).all()


def test_what_is_not_one_env_is_refused() -> None:
    envs = gym.make_vec("EFM-PointMass-v0", num_envs=2)
    with pytest.raises(EFMError, match=r"takes one env, as gym.make\(\) returns it; got EFMVectorEnv. Of many, convert each"):
        to_dm_env(envs)
    envs.close()
    with pytest.raises(EFMError, match="got str"):
        to_dm_env("EFM-PointMass-v0")
    env = gym.make("EFM-PointMass-v0")
    env.action_space = gym.spaces.Tuple([env.action_space])
    with pytest.raises(EFMError, match=r"no spec for the action Tuple\(Box"):
        to_dm_env(env)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = to_dm_env(gym.make("EFM-PointMass-v0"))
    monkeypatch.setitem(sys.modules, "dm_control.mujoco", None)
    with pytest.raises(MissingExtraError, match=r'pip install "efm-envs\[dm-control\]"'):
        environment.physics  # noqa: B018
    monkeypatch.setitem(sys.modules, "dm_env", None)
    monkeypatch.delitem(sys.modules, "efm_envs.interop.dm_env")
    with pytest.raises(MissingExtraError, match=r"efm_envs.interop.dm_env needs the extra \[dm-control\]"):
        importlib.import_module("efm_envs.interop.dm_env")


def test_dm_control_is_loaded_for_physics_only() -> None:
    code = """
import json, sys, gymnasium as gym
from efm_envs.interop.dm_env import to_dm_env
environment = to_dm_env(gym.make("efm_envs:EFM-PointMass-v0"))
environment.reset(), environment.step(environment.action_spec().generate_value())
before = "dm_control" in sys.modules
environment.physics
print(json.dumps([before, "dm_control" in sys.modules]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout) == [False, True]


# -- physics -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looked_at", LOOKED_AT)
def test_looking_moves_nothing(looked_at: str) -> None:
    ends = []
    for is_seen in (False, True):
        environment = to_dm_env(gym.make(looked_at, reward_model="none"), seed=3)
        for action in some_actions(environment.env, 25):
            if is_seen:
                environment.physics.forward()  # so does the viewer while it is paused
            environment.step(action)
        ends.append(environment.env.unwrapped.get_state().physics)
        environment.close()
    assert np.array_equal(*ends)


@pytest.mark.parametrize("looked_at", LOOKED_AT)
def test_physics_is_up_to_date_after_whatever_moves_the_env(looked_at: str) -> None:
    env = gym.make(looked_at)
    environment, base = to_dm_env(env, seed=0), env.unwrapped
    physics = environment.physics  # before the first episode, as the viewer has it

    def is_current() -> bool:
        shared = [name for name in joints(base.task.model) if name in joints(base.task.drawn_model)]
        assert shared and physics.time() == base.data.time
        return all(np.array_equal(physics.data.ptr.joint(n).qpos, base.data.joint(n).qpos) for n in shared)

    environment.reset()
    assert is_current() and physics.time() == 0.0
    state, place = base.get_state(), physics.position()
    for action in some_actions(env, 10):
        environment.step(action)
        assert is_current() and physics.time() > 0.0
    assert not np.array_equal(physics.position(), place)
    base.set_state(state)
    assert environment.physics is physics and is_current() and np.array_equal(physics.position(), place)
    environment.close()
    assert environment.physics is not physics and environment.step(action).mid()


def joints(model: Any) -> list[str]:
    return [model.joint(i).name for i in range(model.njnt)]


@pytest.mark.parametrize("looked_at", ["EFM-PointMass-v0", "EFM-Insert-v0"])
def test_physics_draws_what_the_env_draws(looked_at: str) -> None:
    env = gym.make(looked_at, render_mode="rgb_array", render_size=(120, 160), obs_mode="pixels")
    environment = to_dm_env(env, seed=0)
    for action in some_actions(env, 5):
        environment.step(action)
    ours, theirs = env.render(), environment.physics.render(120, 160, camera_id=env.unwrapped.task.cameras[0])
    assert ours.std() > 10 and np.percentile(np.abs(ours.astype(int) - theirs), 90) < 10
    environment.close()


def drag(environment: Any, body: str, action: Any, *, paused: bool) -> None:
    """Drags a body as dm_control's viewer does when its mouse moves, upwards or sideways."""
    from dm_control.viewer import renderer

    physics = environment.physics
    camera = renderer.SceneCamera(physics.model, physics.data, renderer.RenderSettings())
    camera.render()
    body_id = physics.model.name2id(body, "body")
    hand = camera.new_perturbation(body_id)
    hand.start_move(action, physics.data.xpos[body_id])
    for _ in range(10):
        hand.tick_move((0.0, -0.02))
        with hand.apply(paused):
            if paused:
                physics.forward()
            else:
                environment.step(np.zeros(environment.env.action_space.shape))
    hand.end_move()


@pytest.mark.parametrize(
    ("seen", "body", "action"),
    [("EFM-LanguageTable4-v0", "red_moon", "MOVE_H"), ("EFM-Insert-v0", "peg", "MOVE_V"), ("EFM-PointMass-v0", "point", "MOVE_H")],
)
@pytest.mark.filterwarnings("ignore::glfw.GLFWError")  # no display
def test_the_viewers_mouse_moves_the_simulation(seen: str, body: str, action: str) -> None:
    import mujoco

    environment = to_dm_env(gym.make(seen, reward_model="none", terminate_on="never"), seed=0)
    environment.reset()
    data, model = environment.env.unwrapped.data, environment.env.unwrapped.task.model
    for _ in range(2):
        environment.step(np.zeros(environment.env.action_space.shape))
    place = data.body(body).xpos.copy()
    drag(environment, body, getattr(mujoco.mjtMouse, f"mjMOUSE_{action}"), paused=False)
    mujoco.mj_kinematics(model, data)
    assert np.linalg.norm(data.body(body).xpos - place) > 0.02
    assert not data.xfrc_applied.any(), "the hand has let go"


def test_forces_on_what_is_drawn_end_with_the_episode() -> None:
    environment = to_dm_env(gym.make("EFM-Insert-v0", terminate_on="never"), seed=0)
    environment.reset()
    data = environment.env.unwrapped.data
    height = data.body("peg").xpos[2]
    environment.physics.data.ptr.body("peg").xfrc_applied[2] = 1.0  # 50 g weigh half of it
    for _ in range(5):
        environment.step(np.zeros(14))
    assert data.body("peg").xpos[2] > height + 0.01
    environment.reset()
    for _ in range(5):
        environment.step(np.zeros(14))
    assert data.body("peg").xpos[2] == pytest.approx(height, abs=1e-3)


@pytest.mark.filterwarnings("ignore::glfw.GLFWError")
def test_what_is_placed_by_hand_while_paused_stays_there() -> None:
    import mujoco

    environment = to_dm_env(gym.make("EFM-Insert-v0", terminate_on="never"), seed=0)
    environment.reset()
    data = environment.env.unwrapped.data
    socket, peg = data.body("socket").xpos.copy(), data.body("peg").xpos.copy()
    drag(environment, "peg", mujoco.mjtMouse.mjMOUSE_MOVE_H, paused=True)
    environment.step(np.zeros(14))
    assert np.linalg.norm((data.body("peg").xpos - peg)[:2]) > 0.02 and np.allclose(data.body("socket").xpos, socket, atol=1e-4)


# -- the viewer ----------------------------------------------------------------------------------------------------------------------------

VIEWER = """
import glfw
from OpenGL import GL
from dm_control.viewer import application
from efm_envs.interop.dm_env import to_dm_env

def launch(env, at_frame, policy):
    '''Runs the viewer for 40 frames, from the third one on not paused; returns what was in its window at last.'''
    app, seen = application.Application("test", 320, 240), []
    update, swap = app._window.update, glfw.swap_buffers

    def look_and_swap(window):
        pixels = GL.glReadPixels(0, 0, 320, 240, GL.GL_RGB, GL.GL_UNSIGNED_BYTE)
        seen.append(np.frombuffer(pixels, np.uint8).reshape(240, 320, 3)[::-1])
        swap(window)

    def update_and_act(tick):
        if len(seen) == 2:
            app._window.keyboard._handle_key_event(None, glfw.KEY_SPACE, 0, glfw.PRESS, 0)
        at_frame(len(seen), app)
        time.sleep(0.01)  # at least 0.4 s in all
        update(tick)
        if len(seen) >= 40:
            glfw.set_window_should_close(app._window._context.window, True)

    app._window.update, glfw.swap_buffers = update_and_act, look_and_swap
    app.launch(to_dm_env(env, seed=0), policy=policy)
    return seen[-1]
"""


@pytest.mark.parametrize("mode", ["state", "pixels"])
def test_the_viewer_shows_an_expert_at_work(xvfb: str, mode: str) -> None:
    shown = run(
        xvfb,
        VIEWER
        + f"""
env = gym.make("EFM-Insert-v0", obs_mode={mode!r}, image_size=(32, 32), disable_env_checker=True)
expert, observed = efm_envs.make_expert(env), []

def policy(timestep):
    observed.append(timestep.observation["agent_pos"])
    return expert.act()

pixels = launch(env, lambda frame, app: None, policy)[:150].astype(int)  # without the viewer's own text
print(env.unwrapped.elapsed_steps == len(observed) > 3, (observed[0] != observed[-1]).any())
red, green, blue = pixels.transpose(2, 0, 1)
print(((red > 2 * green) & (red > 2 * blue)).sum(), (red > blue + 40).sum(), (pixels.max(axis=2) < 80).sum())  # peg, table, arms
""",
        PYOPENGL_PLATFORM="",
    )
    worked, counts = shown.splitlines()
    peg, table, arms = map(int, counts.split())
    assert worked == "True True" and peg > 5 and table > 1000 and arms > 500


def test_the_viewers_mouse_picks_up_a_peg_and_backspace_starts_again(xvfb: str) -> None:
    printed = run(
        xvfb,
        VIEWER
        + """
env = gym.make("EFM-Insert-v0")
data, heights = env.unwrapped.data, []

def act(frame, app):
    mouse, height = app._window.mouse, data.body("peg").xpos[2]
    if frame == 5:
        body = app._environment.physics.model.name2id("peg", "body")
        pixels = [(x, y) for x in range(0, 320, 2) for y in range(0, 240, 2)]
        on_peg = [pixel for pixel in pixels if app._viewer.camera.raycast(app._viewport, pixel)[0] == body]
        act.place = on_peg[len(on_peg) // 2]
        mouse._handle_move(None, *act.place)
    if frame == 7:
        for action in (glfw.PRESS, glfw.RELEASE) * 2:
            mouse._handle_button(None, glfw.MOUSE_BUTTON_LEFT, action, 0)
    if frame == 9:
        mouse._handle_button(None, glfw.MOUSE_BUTTON_RIGHT, glfw.PRESS, glfw.MOD_CONTROL)
    if 10 <= frame < 25:
        mouse._handle_move(None, act.place[0], act.place[1] - 4 * (frame - 9))
    if frame == 30:
        app._window.keyboard._handle_key_event(None, glfw.KEY_BACKSPACE, 0, glfw.PRESS, 0)
    heights.append(height)

launch(env, act, None)
print(heights[9], max(heights[:30]), *env.unwrapped.episode_key)
""",
        PYOPENGL_PLATFORM="",
    )
    before, after, *key = map(float, printed.split())
    assert after > before + 0.01 and key == [0, 1]


def test_an_env_that_draws_leaves_the_physics_of_another_one_alone(xvfb: str) -> None:
    """Both with GLFW, in one thread: dm_control does not notice when somebody else takes the GL context."""
    difference = run(
        xvfb,
        """
from efm_envs.interop.dm_env import to_dm_env
point = to_dm_env(gym.make("EFM-PointMass-v0"), seed=0)
blocks = to_dm_env(gym.make("EFM-LanguageTable4-v0", obs_mode="pixels", image_size=(32, 32), disable_env_checker=True), seed=0)
point.reset(), blocks.reset()
before = point.physics.render(60, 80, camera_id="top").astype(int)
picture = blocks.step(np.zeros(2)).observation["pixels/front"]
assert before.std() > 10 and picture.std() > 10
print(np.abs(before - point.physics.render(60, 80, camera_id="top")).max())
point.close(), blocks.close()
""",
    )
    assert difference == "0\n"
