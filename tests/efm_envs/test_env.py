"""EFMEnv: seeding, counters, saved states, copies, and bad input."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import efm_envs
from efm_envs.errors import EFMError, InvalidActionError, InvalidStateError, RewardModelError, UnknownNameError, UnknownOptionError
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS, Spy


def start(env: gym.Env[Any, Any], **kwargs: Any) -> list[float]:
    env.reset(**kwargs)
    return [*env.unwrapped.data.qpos, *env.unwrapped.goals.states[0]]  # type: ignore[attr-defined]


# -- seeding ----------------------------------------------------------------------------------------------------------------------


def test_a_reset_without_a_seed_starts_the_next_episode_of_the_last_seed() -> None:
    env = gym.make(POINT_MASS)
    first = [start(env, seed=3), start(env), start(env)]
    assert [env.unwrapped.episode_key, len({tuple(s) for s in first})] == [(3, 2), 3]
    assert [start(env, seed=3), start(env), start(env)] == first


def test_another_seed_in_between_changes_nothing() -> None:
    env = gym.make(POINT_MASS)
    first = [start(env, seed=3), start(env)]
    start(env, seed=4)
    assert [start(env, seed=3), start(env)] == first


def test_envs_that_were_never_seeded_start_differently() -> None:
    starts = [start(gym.make(POINT_MASS)) for _ in range(3)]
    assert len({tuple(s) for s in starts}) == 3


def test_sampling_the_action_space_does_not_move_the_scenarios() -> None:
    env = gym.make(POINT_MASS)
    expected = [start(env, seed=1), start(env)]
    start(env, seed=1)
    env.unwrapped.np_random.random(100)
    env.action_space.sample()
    assert start(env) == expected[1]


# -- exact counters ---------------------------------------------------------------------------------------------------------------


def counts(**make_kwargs: Any) -> tuple[int, int, int]:
    """Physics steps, reward-model calls and pictures of one reset and 5 steps."""
    env = gym.make(POINT_MASS, **make_kwargs)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(2, np.float32))
    env.close()
    return tuple(env.unwrapped.counts.values())  # type: ignore[return-value]


def test_a_step_is_ten_physics_steps_one_call_of_the_model_and_no_picture() -> None:
    assert counts() == (50, 6, 0)
    assert counts(obs_mode="flat", render_mode="rgb_array") == (50, 6, 0)


@pytest.mark.parametrize("mode", ["pixels", "pixels_state"])
def test_a_camera_that_is_asked_for_is_drawn_once_an_observation(mode: str) -> None:
    assert counts(obs_mode=mode, image_size=(16, 16)) == (50, 6, 6)


def test_a_model_that_needs_pixels_gets_them_and_the_policy_does_not() -> None:
    model = Spy(needs=("pixels/top",))
    env = gym.make(POINT_MASS, reward_model=model, image_size=(16, 24))
    observation, _ = env.reset(seed=0)
    env.step(np.zeros(2))
    assert sorted(observation) == ["agent_pos", "environment_state", "instruction"]
    assert [list(seen) for seen in model.seen] == [["pixels/top"]] * 2
    assert model.seen[0]["pixels/top"].shape == (1, 16, 24, 3)
    assert env.unwrapped.counts["renders"] == 2
    env.close()


def test_policy_and_model_share_one_picture() -> None:
    assert counts(obs_mode="pixels", image_size=(16, 16), reward_model=Spy(needs=("pixels/top", "agent_pos")))[2] == 6


def test_a_model_without_needs_sees_what_the_policy_sees() -> None:
    for obs_mode, names in {"state": ["agent_pos", "environment_state", "instruction"], "flat": ["flat"]}.items():
        model = Spy(needs=None)
        env = gym.make(POINT_MASS, reward_model=model, obs_mode=obs_mode)
        observation, _ = env.reset(seed=0)
        assert list(model.seen[0]) == names
        for name in names:
            np.testing.assert_array_equal(model.seen[0][name][0], observation if obs_mode == "flat" else observation[name])


def test_a_model_sees_only_what_it_asks_for() -> None:
    model = Spy(needs=("environment_state",))
    gym.make(POINT_MASS, reward_model=model).reset(seed=0)
    assert list(model.seen[0]) == ["environment_state"]


# -- time -------------------------------------------------------------------------------------------------------------------------


def test_gymnasiums_limit_may_shorten_an_episode() -> None:
    env = gym.make(POINT_MASS, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]


def test_lerobot_finds_its_attributes() -> None:
    env = gym.make(POINT_MASS).unwrapped
    env.reset(seed=0)
    assert (env._max_episode_steps, env.task_description) == (140, "Move the point to the goal.")


# -- saved states and copies ------------------------------------------------------------------------------------------------------


def run(env: Any, steps: int = 6) -> list[Any]:
    results = [env.step(np.full(2, 0.3 * (-1) ** i)) for i in range(steps)]
    return [(r[0]["agent_pos"].tolist(), r[1], r[4]) for r in results]


def test_a_state_survives_a_pickle_and_belongs_to_nobody() -> None:
    env, other = gym.make(POINT_MASS).unwrapped, gym.make(POINT_MASS).unwrapped
    env.reset(seed=0), other.reset(seed=9)
    run(env, 3)
    state = pickle.loads(pickle.dumps(env.get_state()))
    expected = run(env)
    other.set_state(state)
    assert run(other) == expected
    env.set_state(state)
    assert run(env) == expected


def test_a_restored_state_keeps_its_time() -> None:
    env = gym.make(POINT_MASS, step_limit=5, terminate_on="never").unwrapped
    env.reset(seed=0)
    run(env, 3)
    state = env.get_state()
    env.reset(seed=1)
    env.set_state(state)
    assert [env.step(np.zeros(2))[3] for _ in range(2)] == [False, True]


def test_an_expert_goes_to_the_restored_episodes_goal() -> None:
    env = gym.make(POINT_MASS)
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    expert = efm_envs.make_expert(env, style="waypoints")
    expected = expert.act()
    env.reset(seed=1)
    expert.act()
    env.unwrapped.set_state(state)
    np.testing.assert_array_equal(expert.act(), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_a_copy_of_an_env_goes_on_alone(copied: Any) -> None:
    env = gym.make(POINT_MASS).unwrapped
    env.reset(seed=0)
    run(env, 2)
    other = copied(env)
    expected = run(env)
    assert run(other) == expected


def test_a_state_of_another_task_is_refused(register: Any) -> None:
    other = gym.make(register(task=fakes.UnwalledTask)).unwrapped
    other.reset(seed=0)
    env = gym.make(POINT_MASS).unwrapped
    with pytest.raises(InvalidStateError, match=r"state is of task '.*:UnwalledTask' .* this env's is '.*:PointMass'"):
        env.set_state(other.get_state())


@pytest.mark.parametrize("state", [None, {}, np.zeros(3)])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises(InvalidStateError, match=rf"takes what get_state\(\) returned; got {type(state).__name__}"):
        gym.make(POINT_MASS).unwrapped.set_state(state)


# -- bad actions ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"has shape \(2,\); got \(3,\)"),
        (np.zeros((1, 2)), r"has shape \(2,\); got \(1, 2\)"),
        (0.5, r"has shape \(2,\); got \(\)"),
        ([0.0, np.nan], r"must be finite; element 1 is nan"),
        ([-np.inf, 0.0], r"must be finite; element 0 is -inf"),
        ("left", r"an action is \(2,\) numbers; got 'left'"),
        (["up", "down"], r"an action is \(2,\) numbers"),
        ({"x": 1.0}, r"an action is \(2,\) numbers"),
        ([[1.0], [1.0, 2.0]], r"an action is \(2,\) numbers"),
        (None, r"has shape \(2,\); got \(\)"),
    ],
)
def test_a_bad_action_is_refused_and_the_env_stays_as_it_was(action: Any, message: str) -> None:
    env, other = gym.make(POINT_MASS).unwrapped, gym.make(POINT_MASS).unwrapped
    env.reset(seed=0), other.reset(seed=0)
    run(env, 2), run(other, 2)
    before = env.get_state()
    with pytest.raises(InvalidActionError, match=message):
        env.step(action)
    after = env.get_state()
    np.testing.assert_array_equal(before.physics, after.physics)
    assert (before.elapsed_steps, before.signal) == (after.elapsed_steps, after.signal)
    assert run(env) == run(other)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_an_action_may_have_any_dtype_of_numbers(dtype: Any) -> None:
    env = gym.make(POINT_MASS)
    env.reset(seed=0)
    env.step(np.ones(2, dtype))
    env.step([1, 0])


# -- bad options ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"reward": "oracle"},
            UnknownOptionError,
            r"unknown option of this env: 'reward'\. Did you mean 'reward_model'\? Valid: 'cameras'",
        ),
        ({"obs_mode": "pixel"}, UnknownNameError, r"unknown obs_mode: 'pixel'\. Did you mean 'pixels'\? Valid: 'flat', 'pixels'"),
        ({"cameras": ["side"]}, UnknownNameError, r"unknown camera: 'side'\. Valid: 'top'"),
        ({"cameras": "top"}, EFMError, r"cameras is a sequence of names.* got 'top'"),
        ({"render_camera": "side"}, UnknownNameError, "unknown camera: 'side'"),
        ({"terminate_on": "success"}, UnknownNameError, r"unknown terminate_on: 'success'\. Valid: 'never', 'predicted', 'true'"),
        ({"image_size": 64}, EFMError, r"image_size is \(height, width\) in pixels; got 64"),
        ({"image_size": (64, 0)}, EFMError, "image_size is a whole number, at least 1; got 0"),
        ({"image_size": (64.0, 64)}, EFMError, "image_size is a whole number, at least 1; got 64.0"),
        ({"image_size": (64, 5000)}, EFMError, r"image_size .*at most 1280 × 1280 .* got \(64, 5000\)"),
        ({"step_limit": 0}, EFMError, "step_limit is a whole number, at least 1; got 0"),
        ({"step_limit": True}, EFMError, "step_limit is a whole number, at least 1; got True"),
        ({"reward_model": "orakle"}, UnknownNameError, r"unknown reward model: 'orakle'\. Did you mean 'oracle'\?"),
        ({"reward_model": Spy(("pixels/side",))}, UnknownNameError, r"observation that reward model 'spy' needs: 'pixels/side'"),
        ({"reward_model": None}, RewardModelError, "reward_model is a name .* got None"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_bad_option_of_gym_make_is_refused(kwargs: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        gym.make(POINT_MASS, **kwargs)


@pytest.mark.filterwarnings("ignore:.*render_mode")  # Gymnasium warns first
def test_a_bad_render_mode_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown render_mode: 'ansi'\. Valid: 'human', 'rgb_array'"):
        gym.make(POINT_MASS, render_mode="ansi")


def test_a_model_made_for_another_task_is_refused() -> None:
    model = Spy(())
    model.task = "LanguageTable"
    with pytest.raises(RewardModelError, match="'spy' was made for task 'LanguageTable'; this env's task is 'PointMass'"):
        gym.make(POINT_MASS, reward_model=model)


def test_reset_refuses_an_option_that_the_task_does_not_have() -> None:
    env = gym.make(POINT_MASS)
    with pytest.raises(EFMError, match=r"unknown option of PointMass's reset\(\): 'goal'. Valid: 'scenario'"):
        env.reset(options={"goal": 1})
    env.reset(options={})


@pytest.mark.parametrize("method", [lambda env: env.step(np.zeros(2)), lambda env: env.get_state()], ids=["step", "get_state"])
def test_nothing_comes_before_reset(method: Any) -> None:
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before"):
        method(gym.make(POINT_MASS).unwrapped)


def test_an_instruction_that_does_not_fit_is_refused(register: Any) -> None:
    with pytest.raises(EFMError, match="at most 128 bytes of UTF-8, no NUL; got 300: 'go go"):
        gym.make(register(task=fakes.LongNameTask)).reset(seed=0)


# -- ids --------------------------------------------------------------------------------------------------------------------------


def test_ids_are_selected_by_all_their_tags() -> None:
    assert POINT_MASS in efm_envs.ids() and POINT_MASS in efm_envs.ids(tags=["point_mass", "teaching"])
    assert efm_envs.ids(tags="teaching") == efm_envs.ids(tags=["teaching"])


def test_an_unknown_tag_lists_the_tags() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown tag: 'teachin'\. Did you mean 'teaching'\? Valid: "):
        efm_envs.ids(tags=["teachin"])


def test_an_unknown_id_lists_the_ids() -> None:
    from efm_envs.registration import registration

    assert registration(POINT_MASS).step_limit == 140
    with pytest.raises(UnknownNameError, match=r"unknown env id: 'EFM-PointMass'\. Did you mean 'EFM-PointMass-v0'\?"):
        registration("EFM-PointMass")


def test_a_seed_below_zero_and_options_that_are_no_dict_are_refused() -> None:
    env = gym.make(POINT_MASS)
    with pytest.raises(EFMError, match="a seed is a whole number, 0 or more; got -1"):
        env.reset(seed=-1)
    with pytest.raises(EFMError, match=r"options is a dict.*got \[1\]"):
        env.reset(options=[1])  # type: ignore[arg-type]


def test_no_camera_at_all_is_refused() -> None:
    with pytest.raises(EFMError, match=r'cameras names at least one of top; for no pictures, obs_mode="state"'):
        gym.make(POINT_MASS, obs_mode="pixels", cameras=[])


def test_an_unknown_option_is_told_in_pythons_words_too() -> None:
    """TorchRL's GymEnv tries frameskip= first, and goes on without where it reads this."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        gym.make(POINT_MASS, frameskip=1)
