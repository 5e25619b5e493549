"""The one place of r = d − d′: its law, its masks, and what it refuses."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from efm_envs.errors import EFMError, RewardModelError, UnknownNameError
from efm_envs.rewards import FunctionRewardModel, RewardModel, RewardSignal, StepsToGo
from efm_envs.task import Goal, Goals
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS, Scripted

GOALS = Goals([Goal("a"), Goal("b"), Goal("c")])


def signal(*outputs: Any, **kwargs: Any) -> RewardSignal:
    return RewardSignal(Scripted(*outputs), num_envs=3, **kwargs)


def test_rewards_are_the_differences_of_d() -> None:
    s = signal([3.0, 5.0, 0.0], [2.0, 5.5, 0.0], [0.0, 5.0, 1.0])
    assert s.reset({}, GOALS).reward.tolist() == [0.0, 0.0, 0.0]
    assert s.step({}, GOALS).reward.tolist() == [1.0, -0.5, 0.0]
    assert s.step({}, GOALS).reward.tolist() == [2.0, 0.5, -1.0]


def test_rewards_telescope_for_any_d() -> None:
    d = np.random.default_rng(0).uniform(0, 140, (50, 3))
    s = signal(*d)
    s.reset({}, GOALS)
    total = sum(s.step({}, GOALS).reward for _ in range(49))
    np.testing.assert_allclose(total, d[0] - d[-1])


def test_a_float32_model_gives_float64_rewards_that_telescope() -> None:
    s = signal(*np.random.default_rng(1).uniform(0, 140, (50, 3)).astype(np.float32))
    first = s.reset({}, GOALS).steps_to_go
    outputs = [s.step({}, GOALS) for _ in range(49)]
    assert outputs[0].reward.dtype == np.float64
    np.testing.assert_allclose(sum(o.reward for o in outputs), first - outputs[-1].steps_to_go, atol=1e-12)


def test_resetting_some_envs_leaves_the_others_d_as_it_was() -> None:
    s = signal([3.0, 3.0, 3.0], [9.0, 9.0, 9.0], [1.0, 1.0, 1.0])
    s.reset({}, GOALS)
    out = s.reset({}, GOALS, mask=np.array([False, True, False]))
    assert out.steps_to_go.tolist() == [3.0, 9.0, 3.0] and out.reward.tolist() == [0.0, 0.0, 0.0]
    assert s.step({}, GOALS).reward.tolist() == [2.0, 8.0, 2.0]


def test_a_model_is_told_which_episodes_start() -> None:
    s = signal([1.0] * 3, [1.0] * 3)
    s.reset({}, GOALS)
    s.reset({}, GOALS, mask=np.array([True, False, False]))
    assert s.model.resets == [[True, True, True], [True, False, False]]  # type: ignore[attr-defined]


def test_success_is_d_at_most_the_threshold() -> None:
    s = signal([2.0, 2.001, 1.9], success_threshold=2.0)
    assert s.reset({}, GOALS).predicted_success.tolist() == [True, False, True]


def test_the_threshold_is_the_models_own_unless_told_otherwise() -> None:
    model = FunctionRewardModel(fakes.first_value, success_threshold=7.0)
    assert gym.make(POINT_MASS, reward_model=model).unwrapped.signal.success_threshold == 7.0
    assert gym.make(POINT_MASS, reward_model=model, success_threshold=0).unwrapped.signal.success_threshold == 0.0


@pytest.mark.parametrize("threshold", [-1.0, np.nan, np.inf, "near"])
def test_a_threshold_is_a_number_of_steps(threshold: Any) -> None:
    with pytest.raises(EFMError, match=rf"success_threshold is .*; got {threshold!r}"):
        gym.make(POINT_MASS, success_threshold=threshold)


def test_a_saved_signal_goes_on_where_it_was() -> None:
    s = signal([3.0] * 3, [2.0] * 3, [1.0] * 3)
    s.reset({}, GOALS)
    state = s.get_state()
    s.step({}, GOALS)
    s.set_state(state)
    assert s.step({}, GOALS).reward.tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.ones(2), r"'scripted' \(Scripted\) returned steps-to-go of shape \(2,\) for a batch of 3; expected \(3,\)"),
        (np.ones((3, 1)), r"shape \(3, 1\) for a batch of 3"),
        (1.0, r"shape \(\) for a batch of 3"),
        ([1.0, np.nan, 2.0], r"'scripted' \(Scripted\) returned nan steps-to-go for env 1; expected a finite number, at least 0"),
        ([1.0, 2.0, np.inf], "returned inf steps-to-go for env 2"),
        ([-0.5, 2.0, 3.0], "returned -0.5 steps-to-go for env 0"),
        ("three", r"'scripted' \(Scripted\) returned str; steps_to_go\(\) returns a StepsToGo"),
        (None, "returned NoneType"),
        (["three", "two", "one"], r"'scripted' \(Scripted\) returned steps-to-go .* expected numbers"),
        ([1j, 2j, 3j], r"'scripted' \(Scripted\) returned steps-to-go .* expected numbers"),
    ],
)
def test_a_model_that_returns_what_cannot_be_is_named(output: Any, message: str) -> None:
    with pytest.raises(RewardModelError, match=message):
        signal(output).reset({}, GOALS)


def test_a_function_that_returns_what_cannot_be_is_named_by_the_env() -> None:
    env = gym.make(POINT_MASS, reward_model=lambda observations: np.full(1, np.nan))
    with pytest.raises(RewardModelError, match=r"'function' .* returned nan steps-to-go for env 0"):
        env.reset(seed=0)


def test_a_function_may_return_a_list_or_a_distribution() -> None:
    edges, probs = np.array([0.0, 2.0, 4.0]), np.array([[0.5, 0.5]])
    for output in ([2.0], StepsToGo(np.array([2.0]), edges, probs)):
        env = gym.make(POINT_MASS, reward_model=lambda observations, output=output: output)
        assert env.reset(seed=0)[1]["steps_to_go"] == 2.0


# -- what ends an episode ---------------------------------------------------------------------------------------------------------


def ends(terminate_on: str, d: float, at_goal: bool) -> bool:
    """Whether the first step ends the episode, for a model that says `d`, at the goal or away from it."""
    env = gym.make(POINT_MASS, reward_model=lambda observations: [d], terminate_on=terminate_on, step_limit=5)
    env.reset(seed=0)
    if at_goal:
        env.unwrapped.data.qpos[:] = env.unwrapped.goals.states[0]
    _, _, terminated, truncated, info = env.step(np.zeros(2))
    assert (info["predicted_success"], info["is_success"], truncated) == (d <= 0.5, at_goal, False)
    return terminated


@pytest.mark.parametrize("d", [0.0, 9.0])
@pytest.mark.parametrize("at_goal", [False, True])
def test_terminate_on_says_what_ends_an_episode(d: float, at_goal: bool) -> None:
    assert ends("predicted", d, at_goal) == (d <= 0.5)
    assert ends("true", d, at_goal) == at_goal
    assert not ends("never", d, at_goal)


def test_success_at_the_last_step_is_both_terminated_and_truncated() -> None:
    env = gym.make(POINT_MASS, reward_model=lambda observations: [0.0], step_limit=1)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[2:4] == (True, True)


def test_oracle_predicts_success_exactly_when_it_is_true() -> None:
    env = gym.make(POINT_MASS, terminate_on="never")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        env.unwrapped.data.qpos[:] = env.unwrapped.goals.states[0] + rng.uniform(-0.2, 0.2, 2)
        info = env.step(np.zeros(2))[4]
        assert info["predicted_success"] == info["is_success"]
        seen.add(info["is_success"])
    assert seen == {True, False}


def test_sparse_gives_one_at_success_minus_one_where_it_is_lost_and_else_nothing() -> None:
    env = gym.make(POINT_MASS, reward_model="sparse", terminate_on="never")
    env.reset(seed=0)
    goal, away = env.unwrapped.goals.states[0], np.array([1.2, 1.2])
    rewards = []
    for place in (away, goal, goal, away, away):
        env.unwrapped.data.qpos[:], env.unwrapped.data.qvel[:] = place, 0.0
        rewards.append(env.step(np.zeros(2))[1])
    assert rewards == [0.0, 1.0, 0.0, -1.0, 0.0]


def test_none_gives_nothing_and_never_ends() -> None:
    env = gym.make(POINT_MASS, reward_model="none")
    env.reset(seed=0)
    env.unwrapped.data.qpos[:] = env.unwrapped.goals.states[0]
    _, reward, terminated, _, info = env.step(np.zeros(2))
    assert (reward, terminated, info["is_success"], info["predicted_success"]) == (0.0, False, True, False)


def test_a_model_may_ask_for_what_the_task_adds_to_info() -> None:
    class Stages(RewardModel):
        needs = ("truth/stage",)

        def steps_to_go(self, observations: Mapping[str, np.ndarray], goals: Goals) -> StepsToGo:
            return StepsToGo(4.0 - observations["truth/stage"])

    env = gym.make("EFM-InsertEE-v0", reward_model=Stages())
    _, info = env.reset(seed=0)
    assert Stages().is_privileged and info["steps_to_go"] == 4.0 - info["stage"]
    with pytest.raises(UnknownNameError, match="truth/stage"):
        gym.make("EFM-PointMass-v0", reward_model=Stages())


# -- what a model may ask for -----------------------------------------------------------------------------------------------------


class Listener(Scripted):
    """Keeps the histories that it is shown."""

    needs = ("x",)

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__()
        self.history = {"x": k}
        self.shown: list[list[list[float]]] = []

    def steps_to_go(self, observations: Mapping[str, np.ndarray], goals: Goals) -> StepsToGo:
        self.shown.append(observations["x"].tolist())
        return StepsToGo(np.ones(3))


def x(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values)}


def test_a_history_begins_with_the_first_observation_repeated_and_ends_with_the_present_one() -> None:
    model = Listener(3)
    s = RewardSignal(model, 3)
    s.reset(x(1, 2, 3), GOALS)
    s.step(x(4, 5, 6), GOALS)
    s.step(x(7, 8, 9), GOALS)
    assert model.shown[0] == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    assert model.shown[1][0] == [1, 1, 4] and model.shown[2][0] == [1, 4, 7]


def test_a_new_episode_forgets_the_history_of_the_last_and_of_no_other_env() -> None:
    model = Listener(2)
    s = RewardSignal(model, 3)
    s.reset(x(1, 2, 3), GOALS)
    s.step(x(4, 5, 6), GOALS, starting=np.array([True, False, False]))
    assert model.shown[-1] == [[4, 4], [2, 5], [3, 6]]
    s.reset(x(7, 0, 0), GOALS, mask=np.array([True, False, False]))
    s.step(x(8, 8, 8), GOALS)
    assert model.shown[-1] == [[7, 8], [5, 8], [6, 8]]


def test_where_nothing_happens_or_the_simulation_broke_down_all_stays_as_it_was() -> None:
    s = signal([3.0, 3.0, 3.0], [9.0, 0.0, 1.0], [2.0, 2.0, 2.0], success_k_of_n=(2, 2), success_threshold=5)
    s.reset({}, GOALS)
    out = s.step({}, GOALS, idle=np.array([True, False, False]), lost=np.array([False, True, False]))
    assert out.steps_to_go.tolist() == [3.0, 3.0, 1.0] and out.reward.tolist() == [0.0, 0.0, 2.0]
    assert out.predicted_success.tolist() == [False, False, True]
    assert s.step({}, GOALS).predicted_success.tolist() == [True, True, True]


def test_a_saved_signal_keeps_histories_and_hits() -> None:
    model = Listener(2)
    s = RewardSignal(model, 3, 1.0, (2, 2))
    s.reset(x(1, 2, 3), GOALS)
    state = s.get_state()
    s.step(x(9, 9, 9), GOALS)
    s.set_state(state)
    assert s.step(x(4, 5, 6), GOALS).predicted_success.all()
    assert model.shown[-1] == [[1, 4], [2, 5], [3, 6]]


def test_success_may_have_to_be_seen_in_k_of_the_last_n_observations() -> None:
    column = [0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 0.0]
    s = signal(*([d] * 3 for d in column), success_k_of_n=(2, 3))
    outputs = [s.reset({}, GOALS), *(s.step({}, GOALS) for _ in column[1:])]
    assert [bool(out.predicted_success[0]) for out in outputs] == [False, False, True, False, False, False, True]


def test_hits_of_the_last_episode_do_not_count() -> None:
    s = signal([0.0] * 3, [0.0] * 3, success_k_of_n=(2, 2))
    s.reset({}, GOALS)
    assert s.step({}, GOALS, starting=np.array([True, False, False])).predicted_success.tolist() == [False, True, True]


@pytest.mark.parametrize("value", [(0, 1), (3, 2), (1,), "12", 2, (1.0, 2), None])
def test_k_of_n_is_two_numbers(value: Any) -> None:
    class Wrong(Scripted):
        success_k_of_n = value

    with pytest.raises(EFMError, match="success_k_of_n is two whole numbers"):
        RewardSignal(Wrong(), 1)


def test_k_of_n_is_the_models_own_unless_the_env_is_told_otherwise_and_its_spec_says_so() -> None:
    env = gym.make(POINT_MASS, reward_model="oracle", success_k_of_n=[2, 4])
    assert env.unwrapped.signal.success_k_of_n == (2, 4)
    assert env.spec is not None and "success_k_of_n" in env.spec.to_json()


@pytest.mark.parametrize(
    ("edges", "probs"), [(np.arange(4.0), np.ones((3, 4))), (np.arange(4.0), np.ones((2, 3))), (None, np.ones((3, 3)))]
)
def test_a_distribution_of_the_wrong_shape_is_named(edges: Any, probs: Any) -> None:
    with pytest.raises(RewardModelError, match=r"'scripted' \(Scripted\) returned a distribution of edges .* for a batch of 3"):
        signal(StepsToGo(np.ones(3), edges, probs)).reset({}, GOALS)


def test_what_a_signal_serves_is_of_the_present_episode() -> None:
    spy = fakes.Spy(("*", "action", "control_dt_s", "goal/state"))
    env = gym.make(POINT_MASS, reward_model=spy)
    observation, _ = env.reset(seed=0)
    env.step(np.array([0.5, -2.0], np.float32))
    assert list(spy.seen[0]) == [*observation, "action", "control_dt_s", "goal/state"]
    assert spy.seen[0]["action"].tolist() == [[0.0, 0.0]] and spy.seen[1]["action"].tolist() == [[0.5, -1.0]]
    assert spy.seen[1]["control_dt_s"].tolist() == [env.unwrapped.task.control_dt_s]
    np.testing.assert_array_equal(spy.seen[1]["goal/state"], env.unwrapped.goals.states)


def test_a_model_that_remembers_is_asked_once_about_each_observation_in_order() -> None:
    class Adder(RewardModel):
        """d grows by 1 with every observation of the episode that it is shown."""

        needs, has_memory = (), True

        def __init__(self) -> None:
            self.count = np.zeros(0)

        def reset(self, goals: Goals, mask: np.ndarray) -> None:
            self.count = np.where(mask, 0.0, self.count) if len(self.count) else np.zeros(len(mask))

        def get_state(self) -> dict[str, np.ndarray]:
            return {"count": self.count}

        def set_state(self, state: dict[str, np.ndarray]) -> None:
            self.count = state["count"]

        def steps_to_go(self, observations: Mapping[str, np.ndarray], goals: Goals) -> StepsToGo:
            self.count = self.count + 1.0
            return StepsToGo(self.count)

    model = Adder()
    s, other = RewardSignal(model, 3), RewardSignal(model, 3)
    s.reset({}, GOALS)
    other.reset({}, GOALS)
    other.step({}, GOALS)
    assert s.step({}, GOALS).steps_to_go.tolist() == [2.0, 2.0, 2.0]
    assert s.reset({}, GOALS, mask=np.array([True, False, False])).steps_to_go.tolist() == [1.0, 2.0, 2.0]
    assert s.step({}, GOALS, idle=np.array([False, True, False])).steps_to_go.tolist() == [2.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"history": {"agent_pos": 0}}, "history says of how many"),
        ({"history": {"agent_pos": "3"}}, "history says of how many"),
        ({"history": ["agent_pos"]}, "history says of how many"),
        ({"history": {"pixels/top": 2}}, "reads the history of 'pixels/top', which it does not need"),
        ({"kind": "rank"}, "kind is one of .*; got 'rank'.*is no reward"),
        ({"needs": "agent_pos"}, "needs is a tuple of names"),
    ],
)
def test_declarations_that_cannot_be_are_refused_when_the_env_is_made(declared: dict[str, Any], message: str) -> None:
    model = fakes.Spy(("agent_pos",))
    for name, value in declared.items():
        setattr(model, name, value)
    with pytest.raises(RewardModelError, match=message):
        gym.make(POINT_MASS, reward_model=model)


def test_a_memory_without_rows_is_named() -> None:
    class Forgetful(Scripted):
        has_memory = True

        def get_state(self) -> Any:
            return {"count": np.zeros(2)}

    s = RewardSignal(Forgetful([1.0] * 3, [1.0] * 3), 3)
    s.reset({}, GOALS)
    with pytest.raises(
        RewardModelError, match=r"'scripted' .* has a memory, so get_state\(\) returns its arrays by name, each with a row for each of 3"
    ):
        s.step({}, GOALS, idle=np.array([True, False, False]))
