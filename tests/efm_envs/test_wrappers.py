"""StepsToGoReward around envs that are not ours."""

import threading
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import efm_envs
from efm_envs import StepsToGoReward
from efm_envs.errors import RewardModelError, UnknownNameError
from efm_envs.rewards import FunctionRewardModel
from efm_envs.task import Goal
from tests.efm_envs import fakes
from tests.efm_envs.fakes import CounterEnv, Spy

FOREIGN = ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "MountainCarContinuous-v0"]


def episode(env: gym.Env[Any, Any], steps: int = 20, seed: int = 0) -> tuple[dict[str, Any], list[Any]]:
    env.action_space.seed(seed)
    _, info = env.reset(seed=seed)
    results = []
    for _ in range(steps):
        results.append(env.step(env.action_space.sample()))
        if results[-1][2] or results[-1][3]:
            break
    return info, results


@pytest.mark.parametrize("name", FOREIGN)
def test_rewards_telescope_around_anybodys_env(name: str) -> None:
    first, results = episode(StepsToGoReward(gym.make(name), fakes.first_value))
    assert sum(r[1] for r in results) == pytest.approx(first["steps_to_go"] - results[-1][4]["steps_to_go"])


@pytest.mark.parametrize("name", FOREIGN)
def test_everything_but_the_reward_is_the_envs_own(name: str) -> None:
    _, plain = episode(gym.make(name))
    _, wrapped = episode(StepsToGoReward(gym.make(name), fakes.first_value, terminate_on="never"))
    assert len(plain) == len(wrapped)
    for (o, r, *ends, info), (o2, r2, *ends2, info2) in zip(plain, wrapped, strict=True):
        np.testing.assert_array_equal(o, o2)
        assert ends == ends2 and info2["env_reward"] == r and isinstance(r2, float)
        assert {**info2, **info} == info2


@pytest.mark.parametrize("name", FOREIGN)
def test_gymnasiums_checker_accepts_the_wrapped_env(name: str) -> None:
    env = StepsToGoReward(gym.make(name), fakes.first_value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        warnings.filterwarnings("ignore", message=".*Box observation space")  # Pendulum's and FrozenLake's own
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")  # Pendulum's own action space
        check_env(env, skip_render_check=True, skip_close_check=True)
    env.close()


def test_a_dict_env_is_seen_by_its_own_names_and_another_as_observation() -> None:
    for env, name in ((CounterEnv(), "left"), (gym.make("CartPole-v1"), "observation")):
        model = fakes.Spy(needs=None)
        observation, _ = StepsToGoReward(env, model).reset(seed=0)
        assert list(model.seen[0]) == [name]
        np.testing.assert_array_equal(model.seen[0][name][0], observation[name] if name == "left" else observation)


def test_predicted_success_ends_an_episode_if_it_may() -> None:
    model = FunctionRewardModel(lambda o: o["left"][:, 0], success_threshold=1.0)
    for terminate_on, ends in {"predicted": [False, True, True], "true": [False, False, True], "never": [False] * 3}.items():
        env = StepsToGoReward(CounterEnv(), model, terminate_on=terminate_on)  # type: ignore[arg-type]
        env.reset()
        assert [env.step(1)[2] for _ in range(3)] == ends


@pytest.mark.parametrize("key", ["success", "is_success"])
def test_sparse_reads_the_envs_own_success(key: str) -> None:
    env = StepsToGoReward(CounterEnv(key), "sparse")
    env.reset()
    assert [env.step(1)[1:3] for _ in range(3)] == [(0.0, False), (0.0, False), (1.0, True)]


@pytest.mark.parametrize("env", [CounterEnv(None), CounterEnv(at_reset=False)], ids=["never", "not at reset"])
def test_sparse_needs_an_env_that_reports_its_success(env: CounterEnv) -> None:
    with pytest.raises(RewardModelError, match=r"'sparse' needs 'truth/is_success': this env .*is_success.* at reset and at every step"):
        StepsToGoReward(env, "sparse").reset()


def test_oracle_needs_an_env_of_this_project() -> None:
    with pytest.raises(UnknownNameError, match=r"observation that reward model 'oracle' needs: 'truth/steps_to_go'\. .*Valid: .*'left'"):
        StepsToGoReward(CounterEnv(), "oracle").reset()


def test_a_model_that_needs_nothing_is_shown_nothing() -> None:
    model = fakes.Spy(needs=())
    StepsToGoReward(CounterEnv(), model).reset()
    assert model.seen == [{}]


def test_the_goal_is_the_envs_instruction_or_what_a_function_says() -> None:
    class Reader(fakes.Spy):
        def steps_to_go(self, observations: Any, goals: Any) -> Any:
            self.seen.append(goals.instructions)
            return super().steps_to_go(observations, goals)

    read: list[Any] = []
    for env, goal in (
        (gym.make("EFM-PointMass-v0"), None),
        (CounterEnv(), None),
        (CounterEnv(), lambda observation, info: Goal(f"count {observation['left'][0]:.0f} down")),
    ):
        model = Reader(needs=())
        StepsToGoReward(env, model, goal=goal).reset(seed=0)
        read.append(model.seen[0])
    assert read == [["Move the point to the goal."], [""], ["count 3 down"]]


def test_around_our_own_env_it_is_the_same_as_inside() -> None:
    inside = gym.make("EFM-PointMass-v0", reward_model=fakes.first_value)
    outside = StepsToGoReward(gym.make("EFM-PointMass-v0", reward_model="none"), fakes.first_value)
    (first, a), (first2, b) = episode(inside), episode(outside)
    assert first["steps_to_go"] == first2["steps_to_go"]
    assert [(r[1], r[2], r[4]["steps_to_go"]) for r in a] == [(r[1], r[2], r[4]["steps_to_go"]) for r in b]


def test_the_spec_records_the_wrapper_and_rebuilds_it() -> None:
    env = StepsToGoReward(gym.make("CartPole-v1"), {"id": "none"}, terminate_on="never", success_threshold=2.0)
    assert env.spec is not None
    wrapper = env.spec.additional_wrappers[-1]
    assert wrapper.entry_point == "efm_envs.wrappers:StepsToGoReward"
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, StepsToGoReward)
    assert (again.signal.model.id, again.terminate_on, again.signal.success_threshold) == ("none", "never", 2.0)


def test_a_model_that_cannot_be_copied_is_not_copied() -> None:
    model = fakes.Spy(needs=())
    model.lock = threading.Lock()  # type: ignore[attr-defined]
    env = StepsToGoReward(CounterEnv(), model)
    env.reset()
    assert env.signal.model is model


def test_a_bad_option_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown terminate_on: 'always'"):
        StepsToGoReward(CounterEnv(), "none", terminate_on="always")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown reward model: 'nobody'"):
        StepsToGoReward(CounterEnv(), "nobody")


def test_it_works_in_a_vector_env() -> None:
    envs = gym.make_vec(
        "CartPole-v1", num_envs=3, vectorization_mode="sync", wrappers=[lambda env: efm_envs.StepsToGoReward(env, fakes.first_value)]
    )
    _, info = envs.reset(seed=0)
    d = info["steps_to_go"]
    _, reward, *_, info = envs.step(np.zeros(3, int))
    np.testing.assert_allclose(reward, d - info["steps_to_go"])


def test_a_model_is_served_the_action_the_control_period_and_its_history() -> None:
    spy = Spy(("observation", "action", "control_dt_s"))
    spy.history = {"observation": 2}
    env = StepsToGoReward(gym.make("Pendulum-v1"), spy, control_dt_s=0.05)
    first, _ = env.reset(seed=0)
    second = env.step(np.array([1.5], np.float32))[0]
    np.testing.assert_array_equal(spy.seen[1]["observation"], [[first, second]])
    assert spy.seen[0]["action"].tolist() == [[0.0]] and spy.seen[1]["action"].tolist() == [[1.5]]
    assert spy.seen[1]["control_dt_s"].tolist() == [0.05]


def test_an_env_that_does_not_tell_its_control_period_is_named() -> None:
    env = StepsToGoReward(gym.make("CartPole-v1"), Spy(("control_dt_s",)))
    with pytest.raises(RewardModelError, match=r"'spy' needs the control period, .* pass control_dt_s="):
        env.reset(seed=0)
