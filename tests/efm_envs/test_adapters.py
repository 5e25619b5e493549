"""Other people's models become reward models: each is called as its kind is called, and remembers no more than it must."""

import copy
import functools
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import RewardModelError
from efm_envs.rewards import FunctionRewardModel, RewardModel, RewardSignal, StepsToGo, make_reward_model
from efm_envs.rewards.adapters import (
    ClassifierRewardModel,
    ConvertedRewardModel,
    PairRewardModel,
    ProgressRewardModel,
    TransitionRewardModel,
)
from efm_envs.rewards.content import content_hash
from efm_envs.rewards.kinds import Unit
from efm_envs.task import Array, Goal, Goals
from efm_envs.testing import check_reward_model
from tests.efm_envs.fakes import POINT_MASS

# -- somebody's models ------------------------------------------------------------------------------------------------------------


def distance(observations: Mapping[str, Array]) -> Array:
    """Steps: what is left of the way, at 4 cm a step."""
    return 25.0 * np.abs(observations["environment_state"] - observations["agent_pos"][:, :2]).sum(axis=1)


def approach(state: Array, action: Array, next_state: Array, done: Array) -> Array:
    """A reward like imitation's: by how many steps the last action came nearer to the origin, and a price for acting."""
    assert not done.any() and done.dtype == bool
    return 25.0 * (np.abs(state[:, :2]).sum(axis=1) - np.abs(next_state[:, :2]).sum(axis=1)) - 0.1 * np.abs(action).sum(axis=1)


def brightening(before: Array, after: Array, instructions: list[str]) -> Array:
    """A signed change, a pair of pictures at a time: how much brighter it has become."""
    assert len(instructions) == len(before)
    return (after.astype(int) - before).reshape(len(after), -1).sum(axis=1) / before[0].size


def darkness(frames: Array, instructions: list[str]) -> Array:
    """Progress of every frame of a clip: how dark it is, 0..1."""
    assert frames.dtype == np.uint8 and len(instructions) == len(frames)
    return 1.0 - frames.reshape(*frames.shape[:2], -1).mean(axis=2) / 255.0


def is_near(position: Array) -> Array:
    """A probability: whether it is near the origin."""
    return np.exp(-np.abs(position[:, :2]).sum(axis=1))


class Distance:
    """A callable with a setting."""

    def __init__(self, gain: float = 25.0) -> None:
        self.gain = gain

    def __call__(self, observations: Mapping[str, Array]) -> Array:
        return self.gain * np.abs(observations["agent_pos"][:, 0])

    def doubled(self, observations: Mapping[str, Array]) -> Array:
        return 2.0 * self(observations)


HERE = f"{__name__}:"

MODELS: dict[str, Callable[[], RewardModel]] = {
    "function": lambda: FunctionRewardModel(distance, needs=("agent_pos", "environment_state")),
    "function-seconds": lambda: FunctionRewardModel(distance, kind="seconds"),
    "function-change": lambda: FunctionRewardModel(
        lambda o: -distance({**o, "agent_pos": o["agent_pos"][:, -1]}), history={"agent_pos": 3}, kind="change", horizon_steps=30
    ),
    "progress": lambda: ProgressRewardModel(darkness, horizon_steps=60, frames=3),
    "classifier": lambda: ClassifierRewardModel(is_near, ("agent_pos",)),
    "transition": lambda: TransitionRewardModel(approach, "agent_pos", horizon_steps=40),
    "pair": lambda: PairRewardModel(brightening, horizon_steps=40),
}


def goals(number: int, *sentences: str) -> Goals:
    return Goals([Goal(sentence) for sentence in sentences or ["go"] * number])


def d_of(model: RewardModel, observations: Mapping[str, Array], batch: int = 2) -> list[float]:
    return np.asarray(model.steps_to_go(observations, goals(batch)).mean).tolist()


# -- every adapter ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_keeps_the_laws(name: str) -> None:
    check_reward_model(MODELS[name](), POINT_MASS)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_says_what_single_envs_say(name: str) -> None:
    kwargs = {"reward_model": MODELS[name](), "step_limit": 6, "terminate_on": "never"}
    envs = gym.make_vec(POINT_MASS, num_envs=3, **kwargs)
    singles = [gym.make(POINT_MASS, **kwargs) for _ in range(3)]
    _, infos = envs.reset(seed=5)
    alone = [env.reset(seed=5 + i)[1]["steps_to_go"] for i, env in enumerate(singles)]
    assert infos["steps_to_go"].tolist() == alone
    rng = np.random.default_rng(0)
    is_over = False
    for _ in range(15):  # over two ends of episodes
        actions = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        _, rewards, _, truncated, infos = envs.step(actions)
        if is_over:  # the vector env resets in the step after the last
            single = [(0.0, env.reset()[1]["steps_to_go"]) for env in singles]
        else:
            single = [(r, i["steps_to_go"]) for _, r, _, _, i in (env.step(a) for env, a in zip(singles, actions, strict=True))]
        assert list(zip(rewards.tolist(), infos["steps_to_go"].tolist(), strict=True)) == single
        is_over = bool(truncated.all())
    for env in (envs, *singles):
        env.close()


@pytest.mark.parametrize(
    "spec",
    [
        {"id": "function", "function": HERE + "distance"},
        {"id": "function", "function": HERE + "Distance", "needs": ["agent_pos"], "success_threshold": 2.0, "version": "2"},
        {"id": "function", "function": HERE + "distance", "kind": "seconds", "edges": [0.0, 1.0, 2.0], "logits": True, "scale": 0.5},
        {"id": "function", "function": HERE + "distance", "history": {"agent_pos": 2}, "kind": "change", "horizon_steps": 9},
        {"id": "progress", "function": HERE + "darkness", "horizon_steps": 50, "frames": 2, "observation": "pixels/top"},
        {"id": "classifier", "function": HERE + "is_near", "inputs": ["agent_pos"], "logits": True, "success_threshold": 0.1},
        {"id": "transition", "function": HERE + "approach", "observation": "flat", "horizon_steps": 50, "scale": 2.0},
        {"id": "pair", "function": HERE + "brightening", "horizon_steps": 50, "scale": 0.5, "offset": 0.1, "observation": "pixels/top"},
    ],
)
def test_a_spec_comes_back_from_json(spec: dict[str, Any]) -> None:
    model = make_reward_model(spec)
    again = make_reward_model(json.loads(json.dumps(model.spec)))
    assert again.spec == model.spec and again.fingerprint == model.fingerprint
    assert spec.items() <= model.spec.items()
    assert (again.needs, again.history, again.kind) == (model.needs, model.history, model.kind)


def test_a_model_by_object_is_the_model_by_name() -> None:
    by_name = make_reward_model({"id": "function", "function": HERE + "distance"})
    by_object = make_reward_model(distance)
    assert by_object.spec == by_name.spec and by_object.fingerprint == by_name.fingerprint


@pytest.mark.parametrize("made", [Distance(2.0), Distance(2.0).doubled, lambda observations: 1, functools.partial(distance)])
def test_what_was_made_from_arguments_says_that_its_name_cannot_rebuild_it(made: Any) -> None:
    spec = make_reward_model(made).spec
    with pytest.raises(RewardModelError, match=r"cannot be imported .*made from arguments.*pass the object itself"):
        make_reward_model(spec)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module:thing", "'no_such_module:thing' cannot be imported .No module named"),
        (HERE + "nothing", "cannot be imported .*no attribute 'nothing'"),
        ("distance", 'Expected "module:attribute"'),
        (HERE + "HERE", "is around something to call"),
        (7, "is around something to call, or its .*; got 7"),
    ],
)
def test_a_function_that_is_nowhere_is_refused(function: Any, message: str) -> None:
    with pytest.raises(RewardModelError, match=message):
        make_reward_model({"id": "function", "function": function})


def test_needs_that_are_a_string_are_refused() -> None:
    with pytest.raises(RewardModelError, match=r"'function' .*names, for example \('agent_pos',\); got 'agent_pos'"):
        FunctionRewardModel(distance, needs="agent_pos")


# -- functions --------------------------------------------------------------------------------------------------------------------


def test_a_function_may_read_the_goals() -> None:
    def length(observations: Mapping[str, Array], goals: Goals) -> list[int]:
        return [len(sentence) for sentence in goals.instructions]

    def same(observations: Mapping[str, Array], goals: Goals | None = None) -> list[int]:
        assert goals is not None
        return length(observations, goals)

    def gain(observations: Mapping[str, Array], gain: float = 3.0) -> Array:
        return gain * observations["x"]

    asked = goals(2, "go", "stop")
    assert [make_reward_model(f).steps_to_go({}, asked).mean.tolist() for f in (length, same)] == [[2.0, 4.0]] * 2
    assert make_reward_model(gain).steps_to_go({"x": np.ones(2)}, asked).mean.tolist() == [3.0, 3.0]


def test_a_function_may_return_steps_to_go_or_a_distribution() -> None:
    whole = FunctionRewardModel(lambda o: StepsToGo(o["x"], np.arange(3.0), np.ones((2, 2)) / 2))
    assert whole.steps_to_go({"x": np.ones(2)}, goals(2)).probs is not None
    bins = FunctionRewardModel(lambda o: o["x"], kind="progress", horizon_steps=10, edges=[0, 0.5, 1])
    said = bins.steps_to_go({"x": np.array([[0.0, 1.0], [1.0, 0.0]])}, goals(2))
    assert said.edges is not None and (said.mean.tolist(), said.edges.tolist()) == ([2.5, 7.5], [0.0, 5.0, 10.0])


def test_seconds_are_divided_by_the_envs_control_period() -> None:
    env = gym.make(POINT_MASS, reward_model=FunctionRewardModel(lambda o: np.ones(len(o["agent_pos"])), kind="seconds"))
    dt = env.unwrapped.task.control_dt_s
    assert env.reset(seed=0)[1]["steps_to_go"] == 1.0 / dt


def test_a_history_is_among_the_needs() -> None:
    assert FunctionRewardModel(distance, needs=("flat",), history={"agent_pos": 2}).needs == ("flat", "agent_pos")
    assert FunctionRewardModel(distance, history={"agent_pos": 2}).needs == ("*", "agent_pos")
    assert FunctionRewardModel(distance).needs is None


def test_what_a_function_returns_is_refused_with_the_envs_number() -> None:
    model = FunctionRewardModel(lambda o: o["x"], kind="progress", horizon_steps=10)
    with pytest.raises(RewardModelError, match=r"'function' \(FunctionRewardModel\) returned 3.0 progress for env 1"):
        model.steps_to_go({"x": np.array([0.0, 3.0])}, goals(2))


# -- clips, classifiers, changes --------------------------------------------------------------------------------------------------


def test_progress_is_that_of_the_last_frame() -> None:
    seen: list[tuple[tuple[int, ...], list[str]]] = []

    def of_every_frame(frames: Array, instructions: list[str]) -> Array:
        seen.append((frames.shape, instructions))
        return np.linspace([0.0, 0.5], [0.5, 1.0], frames.shape[1], axis=1)

    frames = {"pixels/side": np.zeros((2, 4, 6, 6, 3), np.uint8)}
    model = ProgressRewardModel(of_every_frame, 100, observation="pixels/side", frames=4)
    assert (model.needs, model.history) == (("pixels/side",), {"pixels/side": 4})
    assert model.steps_to_go(frames, goals(2, "go", "stop")).mean.tolist() == [50.0, 0.0]
    assert seen == [((2, 4, 6, 6, 3), ["go", "stop"])]
    assert d_of(ProgressRewardModel(lambda f, _: [0.25, 1], 100, "pixels/side", 4), frames) == [75.0, 0.0]


def test_progress_may_be_a_distribution_for_every_frame() -> None:
    bins = np.zeros((2, 4, 10))
    bins[:, :, 0] = 1.0
    bins[1, -1] = np.eye(10)[9]
    frames = {"pixels/top": np.zeros((2, 4, 6, 6, 3), np.uint8)}
    for output in (bins, bins[:, -1]):
        model = ProgressRewardModel(lambda f, _, output=output: output, 100, frames=4, edges=np.linspace(0, 1, 11))
        np.testing.assert_allclose(model.steps_to_go(frames, goals(2)).mean, [95.0, 5.0])


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 1), (4,), ()])
def test_progress_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model = ProgressRewardModel(lambda frames, _: np.zeros(shape), 100, frames=4)
    with pytest.raises(RewardModelError, match=r"'progress' .* of shape .* for a batch of 2; expected \(2,\)"):
        model.steps_to_go({"pixels/top": np.zeros((2, 4, 6, 6, 3), np.uint8)}, goals(2))


def test_a_classifier_gets_its_inputs_in_order_and_its_threshold_is_a_probability() -> None:
    model = ClassifierRewardModel(lambda a, b: a - b, ("b", "a"), success_threshold=1 - 0.9)
    signal = RewardSignal(model, 3)
    said = signal.reset({"a": np.zeros(3), "b": np.array([0.89, 0.9, 1.0])}, goals(3))
    np.testing.assert_allclose(said.steps_to_go, [0.11, 0.1, 0.0])
    assert said.predicted_success.tolist() == [False, True, True]


def test_the_reward_of_a_transition_is_the_envs_reward_and_adds_up() -> None:
    env = gym.make(POINT_MASS, reward_model=TransitionRewardModel(approach, "agent_pos", horizon_steps=40, scale=2.0), terminate_on="never")
    observation, info = env.reset(seed=1)
    assert info["steps_to_go"] == 40.0
    total = 0.0
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 2)):
        before, (observation, reward, _, _, info) = observation["agent_pos"], env.step(action)
        expected = 2.0 * approach(before[None], action[None], observation["agent_pos"][None], np.zeros(1, bool))[0]
        assert reward == pytest.approx(expected, rel=1e-9)
        total += reward
    assert total == pytest.approx(40.0 - info["steps_to_go"])


def test_a_change_of_1_between_pictures_is_the_whole_way() -> None:
    model = PairRewardModel(lambda before, after, _: (after - before).mean(axis=(1, 2, 3)), horizon_steps=50)
    model.reset(goals(2), np.ones(2, bool))
    pictures = np.zeros((2, 2, 4, 4, 3))
    assert d_of(model, {"pixels/top": pictures}) == [50.0, 50.0]
    pictures[:, 1] = np.array([0.5, -0.5]).reshape(2, 1, 1, 1)
    assert d_of(model, {"pixels/top": pictures}) == [25.0, 75.0]


def test_a_change_is_added_up_for_each_env_and_an_episode_begins_anew() -> None:
    model = FunctionRewardModel(lambda o: o["gained"], kind="change", horizon_steps=10)
    signal = RewardSignal(model, 3)

    def step(*gained: float, **kwargs: Any) -> list[float]:
        return signal.step({"gained": np.array(gained)}, goals(3), **kwargs).steps_to_go.tolist()

    signal.reset({"gained": np.array([9.0, 9.0, 9.0])}, goals(3))
    assert step(1, 2, -3) == [9.0, 8.0, 13.0]
    assert step(1, 1, 1, starting=np.array([False, True, False])) == [8.0, 10.0, 12.0]
    assert step(1, 1, 1, idle=np.array([True, False, False])) == [8.0, 9.0, 11.0]
    state = signal.get_state()
    assert step(1, 1, 1) == [7.0, 8.0, 10.0]
    signal.set_state(state)
    assert step(2, 2, 2) == [6.0, 7.0, 9.0]


def test_envs_with_one_model_do_not_share_its_memory_but_its_function() -> None:
    held = np.zeros(3)
    model = FunctionRewardModel(lambda o: held[0] + o["gained"], kind="change", horizon_steps=10)
    one, other = RewardSignal(model, 1), RewardSignal(model, 1)
    for signal in (one, other):
        signal.reset({"gained": np.zeros(1)}, goals(1))
    one.step({"gained": np.ones(1)}, goals(1))
    assert other.step({"gained": np.ones(1)}, goals(1)).steps_to_go.tolist() == [9.0]
    assert one.model is not other.model and one.model.function is model.function  # type: ignore[attr-defined]


def test_changes_of_an_episode_that_nobody_began_are_refused() -> None:
    with pytest.raises(RewardModelError, match=r"'pair' .*was told of 0 episodes for a batch of 2: call reset"):
        d_of(PairRewardModel(lambda a, b, _: np.zeros(2), 10), {"pixels/top": np.zeros((2, 2, 1, 1, 3))})


def test_a_subclass_says_its_unit_and_answers() -> None:
    class Levels(ConvertedRewardModel):
        id = "levels"

        def __init__(self) -> None:
            super().__init__(Unit("progress", 0.25, -0.25, horizon_steps=80), needs=("agent_pos",), success_threshold=20.0)

        def ask(self, observations: Mapping[str, Array], goals: Goals) -> Array:
            return 1.0 + np.abs(np.floor(4.0 * np.tanh(observations["agent_pos"][:, 0])))

    check_reward_model(Levels(), POINT_MASS)
    assert (Levels().kind, Levels().needs, Levels().has_memory) == ("progress", ("agent_pos",), False)


def test_an_adapter_works_around_other_peoples_envs() -> None:
    def velocity(state: Array, action: Array, next_state: Array, done: Array) -> Array:
        return np.abs(next_state[:, 1]) - np.abs(state[:, 1])

    env = efm_envs.StepsToGoReward(gym.make("CartPole-v1"), TransitionRewardModel(velocity, "observation", horizon_steps=500))
    before, info = env.reset(seed=0)
    after, reward, *_ = env.step(1)
    assert info["steps_to_go"] == 500.0
    assert reward == pytest.approx(abs(float(after[1])) - abs(float(before[1])))


# -- fingerprints -----------------------------------------------------------------------------------------------------------------

GAIN = 2.0


def _helper(x: Array) -> Array:
    return GAIN * x


def _uses_helper(o: Mapping[str, Array]) -> Array:
    return _helper(o["x"])


def scaled(by: Any) -> Callable[[Mapping[str, Array]], Array]:
    def f(o: Mapping[str, Array]) -> Array:
        return by * o["x"]

    return f


def test_the_fingerprint_is_of_what_a_function_does() -> None:
    def gain(o: Mapping[str, Array], gain: float = 2.0) -> Array:
        return gain * o["x"]

    def other_default(o: Mapping[str, Array], gain: float = 3.0) -> Array:
        return gain * o["x"]

    same = [scaled(2.0), lambda o: 2.0 * o["x"], scaled(np.arange(3.0)), Distance(2.0), Distance(2.0).doubled, gain, _uses_helper]
    others = [scaled(3.0), lambda o: 3.0 * o["x"], scaled(np.arange(3.0) + 1e-9), Distance(3.0), Distance(3.0).doubled, other_default]
    prints = [content_hash(f) for f in same + others]
    assert len(set(prints)) == len(prints)
    again = [scaled(2.0), lambda o: 2.0 * o["x"], scaled(np.arange(3.0)), Distance(2.0), Distance(2.0).doubled, gain, _uses_helper]
    assert [content_hash(f) for f in again] == [content_hash(f) for f in same]


def test_the_fingerprint_counts_neither_names_nor_calls() -> None:
    def one(o: Mapping[str, Array]) -> Array:
        return o["x"] + 1

    def two(others: Mapping[str, Array]) -> Array:
        # the same
        return others["x"] + 1

    assert content_hash(one) == content_hash(two)
    for _ in range(1000):  # the interpreter specialises what it runs often
        one({"x": np.ones(1)})
    assert content_hash(one) == content_hash(two)


@pytest.mark.parametrize("name", ["GAIN", "_helper"])
def test_the_fingerprint_changes_with_what_a_function_reads_of_its_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash(_uses_helper)
    monkeypatch.setitem(globals(), name, 3.0 if name == "GAIN" else lambda x: 5.0 * x)
    assert content_hash(_uses_helper) != before


def test_the_fingerprint_changes_with_a_class_that_an_object_is_of() -> None:
    class Base:
        gain = 2.0

        @property
        def twice(self) -> float:
            return 2 * self.gain

        def __call__(self, o: Mapping[str, Array]) -> Array:
            return self.twice * o["x"]

    class Other(Base):
        gain = 3.0

    class Third(Base):
        @property
        def twice(self) -> float:
            return 3 * self.gain

    class Slotted(Base):
        __slots__ = ("offset",)

        def __init__(self, offset: float) -> None:
            self.offset = offset

    prints = [content_hash(thing) for thing in (Base(), Other(), Third(), Slotted(1.0), Slotted(2.0))]
    assert len(set(prints)) == 5


def test_functions_that_call_each_other_have_a_fingerprint() -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    ring: list[Any] = [1]
    ring.append(ring)
    prints = [content_hash(thing) for thing in (even, odd, scaled(ring), functools.lru_cache(even), functools.partial(even, 2), {}.get)]
    assert len(set(prints)) == len(prints)


def test_other_peoples_code_counts_by_its_name() -> None:
    prints = [content_hash(scaled(by)) for by in (np.linalg.norm, np.linalg.det, np.add, len, np, threading.Lock, {}.get, {"a": 1}.get)]
    assert len(set(prints)) == len(prints)
    assert content_hash(scaled(np.linalg.norm)) == prints[0]


def test_what_cannot_be_read_is_refused_where_nobody_says_a_version() -> None:
    locked = scaled(threading.Lock())
    with pytest.raises(RewardModelError, match=r"'by', which f encloses of '.*scaled.*f' is of type _thread.lock.* Pass version="):
        _ = FunctionRewardModel(locked).fingerprint
    one, two = (FunctionRewardModel(locked, version=version).fingerprint for version in ("1", "2"))
    assert one == FunctionRewardModel(locked, version="1").fingerprint != two


def test_the_fingerprint_counts_the_options() -> None:
    kinds = [{}, {"kind": "seconds"}, {"kind": "progress", "horizon_steps": 5}, {"kind": "progress", "horizon_steps": 6}, {"scale": 2.0}]
    more = [{"needs": ("x",)}, {"success_threshold": 3.0}, {"history": {"x": 2}}, {"edges": [0, 1]}]
    prints = {FunctionRewardModel(distance, **options).fingerprint for options in kinds + more}  # type: ignore[arg-type]
    assert len(prints) == len(kinds) + len(more)
    assert copy.deepcopy(FunctionRewardModel(distance)).fingerprint in prints
