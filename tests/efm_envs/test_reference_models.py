"""Models whose faults are known have these faults, and no others; models around models keep what they promise."""

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards import FunctionRewardModel, RewardModel, RewardSignal, StepsToGo, make_reward_model
from efm_envs.task import Array, Goal, Goals
from tests.efm_envs.fakes import POINT_MASS, Spy

ROWS = 4000


def says(d: Array) -> RewardModel:
    """A model that says `d`, whatever it is shown."""
    return FunctionRewardModel(lambda observations: d, needs=("x",))


def rows(number: int = ROWS) -> tuple[dict[str, Array], Goals]:
    """Returns different observations, and goals."""
    return {"x": np.arange(number, dtype=np.float64)[:, None]}, Goals([Goal("go")] * number)


def d_of(name: str, d: Array, **options: Any) -> Array:
    model = make_reward_model({"id": name, "model": says(d), **options})
    observations, goals = rows(len(d))
    model.reset(goals, np.ones(len(d), bool))
    return np.asarray(model.steps_to_go(observations, goals).mean)


def test_noise_has_the_bias_the_scale_and_the_variance_that_were_asked_for() -> None:
    error = d_of("noisy", np.full(ROWS, 100.0), bias=3.0, scale=1.5, std=4.0) - 150.0
    assert abs(error.mean() - 3.0) < 4 * 4.0 / np.sqrt(ROWS)
    assert abs(error.std() - 4.0) < 4 * 4.0 / np.sqrt(2 * ROWS)


def test_noise_is_normal() -> None:
    error = np.sort(d_of("noisy", np.full(ROWS, 100.0), std=1.0) - 100.0)
    for sigmas, below in ((-1.0, 0.1587), (0.0, 0.5), (2.0, 0.9772)):
        assert abs(np.mean(error < sigmas) - below) < 4 * 0.5 / np.sqrt(ROWS)


def test_the_error_of_an_episode_stays_and_that_of_an_observation_does_not() -> None:
    env = gym.make(POINT_MASS, reward_model={"id": "noisy", "model": {"id": "constant", "value": 50.0}, "episode_std": 5.0})
    firsts = []
    for seed in range(20):
        _, info = env.reset(seed=seed)
        firsts.append(info["steps_to_go"])
        assert all(env.step(env.action_space.sample())[4]["steps_to_go"] == firsts[-1] for _ in range(5))
    assert len(set(firsts)) == 20 and 2.0 < np.std(firsts) < 9.0


def test_another_seed_gives_other_errors() -> None:
    d = np.full(50, 20.0)
    same, other = d_of("noisy", d, std=1.0), d_of("noisy", d, std=1.0, seed=1)
    np.testing.assert_array_equal(same, d_of("noisy", d, std=1.0))
    assert np.abs(np.corrcoef(same, other)[0, 1]) < 0.6 and (same != other).all()


def test_noise_never_makes_d_negative() -> None:
    assert d_of("noisy", np.zeros(100), std=5.0, bias=-5.0).min() == 0.0


def test_the_distribution_is_as_wide_as_the_errors() -> None:
    model = make_reward_model({"id": "noisy", "model": says(np.full(ROWS, 100.0)), "std": 4.0, "distribution": True})
    said = model.steps_to_go(*rows())
    assert said.edges is not None and said.probs is not None
    centres = (said.edges[1:] + said.edges[:-1]) / 2
    mean = said.probs @ centres
    np.testing.assert_allclose(said.probs.sum(axis=1), 1.0)
    np.testing.assert_allclose(mean, said.mean, atol=0.02)
    np.testing.assert_allclose(np.sqrt(said.probs @ centres**2 - mean**2), 4.0, rtol=0.02)


def test_constant_inverted_and_quantised_are_what_their_names_say() -> None:
    d = np.array([0.0, 1.0, 9.0, 10.0, 250.0])
    assert d_of("inverted", d, max_steps_to_go=200).tolist() == [200.0, 199.0, 191.0, 190.0, 0.0]
    assert d_of("quantised", d, step=10).tolist() == [0.0, 10.0, 10.0, 10.0, 250.0]
    assert make_reward_model({"id": "constant", "value": 7}).steps_to_go(*rows(2)).mean.tolist() == [7.0, 7.0]


def test_hackable_believes_its_region_and_is_right_elsewhere() -> None:
    assert d_of("hackable", np.full(6, 9.0), observation="x", low=2, high=3).tolist() == [9.0, 9.0, 0.0, 0.0, 9.0, 9.0]
    env = gym.make(POINT_MASS, reward_model="hackable", terminate_on="never")
    env.reset(seed=0)
    for place in (-1.0, 0.5, 0.6, 1.4):
        env.unwrapped.data.qpos[:] = place, 1.4
        info = env.step(np.zeros(2))[4]
        assert info["predicted_success"] == (place >= 0.55) and not info["is_success"]


def test_delayed_says_what_was_true_some_steps_ago() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 2))
    d = {}
    for name, model in {"now": "oracle", "late": {"id": "delayed", "model": "oracle", "delay": 3}}.items():
        env = gym.make(POINT_MASS, reward_model=model, terminate_on="never")
        d[name] = [env.reset(seed=2)[1]["steps_to_go"], *(env.step(action)[4]["steps_to_go"] for action in actions)]
    assert d["late"] == [d["now"][0]] * 3 + d["now"][:-3]


def test_cached_asks_once_about_each_observation() -> None:
    asked = []

    def distance(observations: Mapping[str, Array]) -> Array:
        asked.append(len(observations["x"]))
        return observations["x"][:, 0]

    model = make_reward_model({"id": "cached", "model": FunctionRewardModel(distance, needs=("x",)), "size": 3})
    goals = Goals([Goal("go")] * 3)
    for values in ([1, 2, 2], [2, 1, 1], [3, 3, 4], [1, 4, 4]):
        assert model.steps_to_go({"x": np.array(values, float)[:, None]}, goals).mean.tolist() == values
    assert asked == [2, 2, 1] or asked == [2, 2]
    assert (model.hits, model.misses) == (12 - sum(asked), sum(asked))  # type: ignore[attr-defined]


def test_cached_tells_goals_apart_and_keeps_distributions() -> None:
    class Reads(RewardModel):
        needs = ("x",)

        def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
            d = np.array([float(len(sentence)) for sentence in goals.instructions])
            return StepsToGo(d, np.array([0.0, 1.0, 2.0]), np.column_stack([d / 10, 1 - d / 10]))

    model = make_reward_model({"id": "cached", "model": Reads()})
    x = {"x": np.zeros((2, 1))}
    for sentences in (["go", "stop"], ["stop", "go"]):
        said = model.steps_to_go(x, Goals([Goal(sentence) for sentence in sentences]))
        assert said.probs is not None
        assert said.mean.tolist() == [len(s) for s in sentences] and said.probs[:, 0].tolist() == [len(s) / 10 for s in sentences]


def test_a_model_with_a_memory_is_not_cached() -> None:
    with pytest.raises(RewardModelError, match=r"'delayed' remembers .* cannot be cached"):
        make_reward_model({"id": "cached", "model": "delayed"})


def test_slow_takes_its_time_and_only_where_time_does_not_wait() -> None:
    waits: list[float] = []
    model = make_reward_model(
        {"id": "slow", "model": "constant", "latency_s": 0.25, "clock": iter([5.0, 5.1]).__next__, "sleep": waits.append}
    )
    env = efm_envs.StepsToGoReward(gym.make("CartPole-v1"), model)
    env.reset(seed=0)
    assert waits == pytest.approx([0.15])
    with pytest.raises(RewardModelError, match=r'takes 0.25 s a call.*"delayed", "delay": 3'):
        gym.make(POINT_MASS, reward_model={"id": "slow", "latency_s": 0.25})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"id": "delayed", "delay": -1}, "delay is a whole number .* got -1"),
        ({"id": "cached", "size": 0}, "size is a whole number .* got 0"),
        ({"id": "slow", "latency_s": "long"}, "latency_s is a number of seconds"),
        ({"id": "noisy", "std": -1}, "std is at least 0; got -1"),
        ({"id": "noisy", "bias": float("nan")}, "bias is a finite number"),
        ({"id": "noisy", "distribution": True}, "give std, above 0"),
        ({"id": "quantised", "step": 0}, "step is a number of control steps, above 0"),
        ({"id": "constant", "value": True}, "value is a finite number; got True"),
    ],
)
def test_options_that_cannot_be_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(EFMError, match=message):
        make_reward_model(spec)


@pytest.mark.parametrize("name", ["noisy", "inverted", "quantised", "hackable", "delayed", "cached"])
def test_a_spec_rebuilds_the_model_and_what_it_is_around(name: str) -> None:
    model = make_reward_model({"id": name, "model": {"id": "noisy", "std": 2.0}})
    again = make_reward_model(model.spec)
    assert (again.spec, again.fingerprint) == (model.spec, model.fingerprint)
    assert model.spec["model"]["std"] == 2.0
    assert make_reward_model({"id": name, "model": "oracle"}).fingerprint != model.fingerprint


def test_a_wrapper_takes_over_what_its_model_declares() -> None:
    class Declares(Spy):
        history: Any = {"agent_pos": 2}
        task, success_threshold, success_k_of_n, kind = "point_mass", 3.0, (2, 3), "progress"

    model = make_reward_model({"id": "delayed", "model": Declares(("agent_pos",))})
    assert (model.needs, model.history, model.task) == (("agent_pos",), {"agent_pos": 2}, "point_mass")
    assert (model.success_threshold, model.success_k_of_n, model.kind) == (3.0, (2, 3), "progress")


def test_a_memory_goes_on_after_a_copy() -> None:
    model = make_reward_model({"id": "delayed", "model": {"id": "delayed", "model": "oracle", "delay": 1}, "delay": 2})
    s = RewardSignal(model, 2)
    goals = Goals([Goal("a"), Goal("b")])
    seen = [{"truth/steps_to_go": np.array([float(t), 2.0 * t])} for t in range(9)]
    s.reset(seen[0], goals)
    for now in seen[1:5]:
        s.step(now, goals)
    other = copy.deepcopy(s)
    assert [s.step(now, goals).steps_to_go.tolist() for now in seen[5:]] == [
        other.step(now, goals).steps_to_go.tolist() for now in seen[5:]
    ]
