"""The ALOHA station's demonstrators: they do it, without a memory or with habits, and say what went wrong."""

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_agents.demonstrations import collect
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.errors import EFMError, UnknownNameError, UnknownOptionError
from efm_envs.experts.aloha import Habits
from efm_envs.experts.base import expert_knobs, load_expert
from efm_envs.registration import registration
from efm_envs.rollout import rollout
from efm_envs.tasks.aloha.insert import Insert

IDS = efm_envs.ids(tags=["aloha"])
STYLES = ("clean", "human", "with_failures")


def made(aloha_id: str, **kwargs: Any) -> Any:
    return gym.make(aloha_id, **{"terminate_on": "true", "disable_env_checker": True, **kwargs}).unwrapped


@functools.cache
def episodes_of(aloha_id: str, style: str) -> list[Episode]:
    policy = functools.partial(efm_envs.make_expert, style=style)
    return list(rollout(policy, aloha_id, range(10 if style == "clean" else 6), terminate_on="true"))


def heights(episode: Episode) -> np.ndarray:
    """(T+1, objects): of each object above where it lay."""
    z = episode.observations["environment_state"][:, 2::9]
    return np.asarray(z - z[0])


def control_dt_s(aloha_id: str) -> float:
    return 0.02 if registration(aloha_id).task_options["control"] == "joints" else 0.1


# -- they do it --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aloha_id", IDS)
def test_the_clean_expert_always_succeeds(aloha_id: str) -> None:
    assert [episode.end_reason for episode in episodes_of(aloha_id, "clean")] == ["terminated"] * 10


@pytest.mark.parametrize("style", ["human", "with_failures"])
@pytest.mark.parametrize("aloha_id", IDS)
def test_who_is_like_a_person_mostly_succeeds_and_takes_longer(aloha_id: str, style: str) -> None:
    episodes = episodes_of(aloha_id, style)
    assert sum(bool(episode.is_success[-1]) for episode in episodes) >= 5
    assert np.mean([len(e) for e in episodes]) > 1.1 * np.mean([len(e) for e in episodes_of(aloha_id, "clean")[:6]])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("aloha_id", IDS)
def test_actions_are_inside_the_action_space_and_depend_on_the_seed_alone(aloha_id: str, style: str) -> None:
    first = episodes_of(aloha_id, style)[2]
    policy = functools.partial(efm_envs.make_expert, style=style)
    space = made(aloha_id).action_space
    assert all(space.contains(action) for action in first.actions)
    (again,) = rollout(policy, aloha_id, [2], num_envs=2, terminate_on="true")
    np.testing.assert_array_equal(again.actions, first.actions)


@pytest.mark.parametrize("aloha_id", IDS)
def test_another_seed_of_a_person_is_another_demonstration_and_of_the_clean_expert_the_same(aloha_id: str) -> None:
    for style, is_same in (("clean", True), ("human", False), ("with_failures", False)):
        env = made(aloha_id)
        experts = [efm_envs.make_expert(env, style, seed=seed) for seed in (0, 1)]
        env.reset(seed=0)
        for _ in range(3):
            actions = [expert.act() for expert in experts]
            assert np.array_equal(actions[0], actions[1]) == is_same
            env.step(actions[0])


@pytest.mark.parametrize("aloha_id", IDS)
@pytest.mark.parametrize("before", ["clean", "human"])
def test_the_clean_expert_has_no_memory(aloha_id: str, before: str) -> None:
    """A fresh one that takes over in mid-episode, whoever acted before, acts as one that was there all the time."""
    env = made(aloha_id)
    env.reset(seed=1)
    acting, there = efm_envs.make_expert(env, before), efm_envs.make_expert(env)
    for _ in range(round(1.8 / env.task.control_dt_s)):
        there.act()
        env.step(acting.act())
    fresh = efm_envs.make_expert(env)
    for _ in range(10):
        action = there.act()
        np.testing.assert_array_equal(fresh.act(), action)
        env.step(action)


@pytest.mark.parametrize("aloha_id", ["EFM-Insert-v0", "EFM-TransferCubeEE-v0"])
def test_the_clean_expert_finishes_what_a_person_began(aloha_id: str) -> None:
    env = made(aloha_id)
    env.reset(seed=3)
    person, clean = efm_envs.make_expert(env, "with_failures"), efm_envs.make_expert(env)
    ended, steps = False, 0
    while not ended:
        _, _, terminated, truncated, info = env.step((person if steps < 2.0 / env.task.control_dt_s else clean).act())
        ended, steps = terminated or truncated, steps + 1
    assert info["is_success"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("joints", "ee"), [("EFM-Insert-v0", "EFM-InsertTight-v0"), ("EFM-TransferCube-v0", "EFM-TransferCubeEE-v0")])
def test_one_expert_serves_both_ways_of_control(joints: str, ee: str, style: str) -> None:
    experts = [load_expert(made(aloha_id).task, style) for aloha_id in (joints, ee)]
    assert type(experts[0]) is type(experts[1]) and experts[0].habits == experts[1].habits
    seconds = [np.mean([len(e) for e in episodes_of(aloha_id, style)]) * control_dt_s(aloha_id) for aloha_id in (joints, ee)]
    assert seconds[0] == pytest.approx(seconds[1], rel=0.35)


@pytest.mark.parametrize("clearance_m", [0.001, 0.01])
@pytest.mark.parametrize("control", ["joints", "ee"])
def test_the_clean_expert_inserts_whatever_the_clearance(control: str, clearance_m: float) -> None:
    (episode,) = rollout(efm_envs.make_expert, "EFM-Insert-v0", [0], control=control, clearance_m=clearance_m, terminate_on="true")
    assert episode.is_success[-1]


# -- what may be placed by hand, or asked for, is to be done -----------------------------------------------------------------------


def solves(env: Any, options: dict[str, Any]) -> bool:
    expert = efm_envs.make_expert(env)
    env.reset(seed=0, options=options)
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(expert.act())
        ended = terminated or truncated
    return bool(info["is_success"])


@pytest.mark.parametrize("aloha_id", ["EFM-InsertEE-v0", "EFM-InsertTight-v0"])
def test_the_clean_expert_fetches_a_peg_from_wherever_it_may_be_placed(aloha_id: str) -> None:
    env = made(aloha_id)
    for x, y in ((0.05, 0.37), (0.0, 0.63), (0.23, 0.37), (0.23, 0.63)):
        for yaw in (-0.4, 0.4):
            assert solves(env, {"peg": (x, y, yaw), "socket": (-0.15, 0.5)}), (x, y, yaw)


@pytest.mark.parametrize(
    "place",
    [
        (-0.03, 0.37),
        (-0.03, 0.63),
        (0.215, 0.37),
        (0.215, 0.63),
        (0.1, 0.5, 0.3),
        (0.1, 0.5, -0.3),
    ],
    ids=str,
)
def test_the_clean_expert_fetches_a_cube_from_wherever_it_may_be_placed(place: tuple[float, ...]) -> None:
    assert solves(made("EFM-TransferCubeEE-v0"), {"cube": place})


def test_a_cube_that_was_dropped_and_taken_askew_is_handed_over_all_the_same() -> None:
    policy = functools.partial(efm_envs.make_expert, style="with_failures")
    (episode,) = rollout(policy, "EFM-TransferCubeEE-v0", [224], terminate_on="true")
    assert episode.is_success[-1]


@pytest.mark.parametrize(
    ("clearance_m", "yaw"),
    [
        (0.002, 0.4),
        (0.008, 0.4),
        (0.01, 0.4),
    ],
)
def test_the_clean_expert_fetches_a_socket_turned_as_it_may_be(clearance_m: float, yaw: float) -> None:
    env = made("EFM-InsertEE-v0", clearance_m=clearance_m)
    assert all(solves(env, {"socket": (-0.15, 0.5, way * yaw)}) for way in (-1.0, 1.0))


# -- knobs -------------------------------------------------------------------------------------------------------------------------


def test_pauses_are_off_by_default() -> None:
    task = Insert()
    for style in ("human", "with_failures"):
        assert expert_knobs(task, style)["pauses_per_s"] == 0.0
    assert expert_knobs(task, "human") == vars(Habits()) and expert_knobs(task, "clean") == {}
    assert {*expert_knobs(task, "with_failures")} - {*expert_knobs(task, "human")} == {"drops", "misses"}


@pytest.mark.parametrize("aloha_id", ["EFM-InsertEE-v0", "EFM-TransferCube-v0"])
def test_who_pauses_takes_longer(aloha_id: str) -> None:
    pausing = functools.partial(efm_envs.make_expert, style="human", pauses_per_s=0.5, pause_s=[0.5, 1.0])
    slow = list(rollout(pausing, aloha_id, range(4), terminate_on="true"))
    quick = episodes_of(aloha_id, "human")[:4]
    assert [e.seed for e in slow] == [e.seed for e in quick]
    seconds = [control_dt_s(aloha_id) * np.mean([len(e) for e in episodes]) for episodes in (slow, quick)]
    assert seconds[0] > seconds[1] + 0.5


def test_a_person_without_habits_is_the_clean_expert() -> None:
    plain: dict[str, Any] = {"speed_spread": 0.0, "grasp_m": 0.0, "meeting_m": 0.0, "noise_m": 0.0, "detours": 0}
    (person,) = rollout(functools.partial(efm_envs.make_expert, style="human", **plain), "EFM-InsertEE-v0", [0], terminate_on="true")
    np.testing.assert_array_equal(person.actions, episodes_of("EFM-InsertEE-v0", "clean")[0].actions)


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        *((knob, -0.1, f"{knob} is at least 0, and finite; got -0.1") for knob in ("speed_spread", "grasp_m", "meeting_m", "noise_m")),
        *((knob, float("nan"), f"{knob} is at least 0, and finite; got nan") for knob in ("detour_m", "pauses_per_s")),
        ("detours", -1, "detours is at least 0, and finite; got -1"),
        ("noise_m", float("inf"), "noise_m is at least 0, and finite; got inf"),
        ("noise_s", 0.0, "noise_s is more than 0, and finite; got 0.0"),
        ("noise_s", float("inf"), "noise_s is more than 0, and finite; got inf"),
        *(
            ("pause_s", value, r"pause_s is \(shortest, longest\) in seconds; got")
            for value in ([0.5, 0.2], (-1.0, 1.0), (0.0, float("inf")))
        ),
        ("pause_s", 0.5, r"pause_s of expert 'human' of Insert is of the kind of its default, \(0.2, 0.8\); got 0.5"),
        ("pause_s", [0.1, 0.2, 0.3], "pause_s of expert 'human' of Insert is of the kind of its default"),
        ("detours", 1.5, "detours of expert 'human' of Insert is of the kind of its default, 1; got 1.5"),
        ("detours", True, "detours of expert 'human' of Insert is of the kind of its default, 1; got True"),
        ("noise_m", "much", "noise_m of expert 'human' of Insert is of the kind of its default, 0.004; got 'much'"),
        ("noise_m", None, "noise_m of expert 'human' of Insert is of the kind of its default, 0.004; got None"),
    ],
)
def test_a_knob_that_cannot_be_is_refused(knob: str, value: Any, message: str) -> None:
    with pytest.raises(EFMError, match=message):
        load_expert(Insert(), "human", **{knob: value})


@pytest.mark.parametrize("knobs", [{"drops": 0, "misses": 0}, {"drops": -1}, {"misses": -2}, {"drops": 2, "misses": -1}], ids=str)
def test_who_fails_fails_at_least_once(knobs: dict[str, int]) -> None:
    with pytest.raises(EFMError, match="drops and misses are at least 0, and one of them more; got"):
        load_expert(Insert(), "with_failures", **knobs)


def test_unknown_knobs_and_styles_list_the_valid_ones() -> None:
    with pytest.raises(UnknownOptionError, match=r"expert 'human' of Insert: 'noise'\. Did you mean 'noise_[ms]'\? Valid: .*'detours'"):
        load_expert(Insert(), "human", noise=0.1)
    with pytest.raises(UnknownOptionError, match=r"expert 'clean' of Insert: 'detours'\. Valid: none"):
        load_expert(Insert(), "clean", detours=1)
    with pytest.raises(UnknownOptionError, match=r"expert 'human' of Insert: 'drops'\. .*Valid: 'detour_m'"):
        load_expert(Insert(), "human", drops=1)
    with pytest.raises(UnknownNameError, match=r"expert style of Insert: 'failing'.* Valid: 'clean', 'human', 'with_failures'"):
        load_expert(Insert(), "failing")


def test_lists_from_json_are_as_good_as_tuples() -> None:
    assert load_expert(Insert(), "human", pause_s=[0.1, 0.2]).habits == load_expert(Insert(), "human", pause_s=(0.1, 0.2)).habits
    assert load_expert(Insert(), "human", noise_m=0, detours=np.int64(2)).habits.detours == 2


# -- notes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["clean", "human"])
@pytest.mark.parametrize("aloha_id", IDS)
def test_who_makes_no_mistakes_on_purpose_says_no_more_than_the_style(aloha_id: str, style: str) -> None:
    assert all(episode.notes == {"expert": style} for episode in episodes_of(aloha_id, style))


@pytest.mark.parametrize("aloha_id", IDS)
def test_every_mistake_is_noted_with_its_step_also_on_disk(aloha_id: str, tmp_path: Path) -> None:
    episodes = episodes_of(aloha_id, "with_failures")
    kinds = set()
    for episode in episodes:
        assert list(episode.notes) == ["expert", "mistakes"] and episode.notes["expert"] == "with_failures"
        steps, what = zip(*episode.notes["mistakes"], strict=True)
        assert all(type(step) is int and 0 < step < len(episode) for step in steps)
        assert list(steps) == sorted(steps)
        kinds |= set(what)
        assert what.count("drop") <= 1 and what.count("miss") <= 1
    assert kinds == {"drop", "miss"}
    save_episodes(tmp_path / "e.npz", episodes)
    assert [e.notes for e in load_episodes(tmp_path / "e.npz")[0]] == [e.notes for e in episodes]


@functools.cache
def failing(aloha_id: str, drops: int, misses: int) -> list[Episode]:
    policy = functools.partial(efm_envs.make_expert, style="with_failures", drops=drops, misses=misses)
    return list(rollout(policy, aloha_id, range(4), terminate_on="true"))


@pytest.mark.parametrize("aloha_id", IDS)
def test_what_was_dropped_lay_on_the_table_again_and_was_lifted_again(aloha_id: str) -> None:
    for episode in failing(aloha_id, drops=1, misses=0):
        ((step, what),) = episode.notes["mistakes"]
        assert what == "drop"
        height, second = heights(episode), round(1.0 / control_dt_s(aloha_id))
        dropped = [
            i
            for i in range(height.shape[1])
            if height[step, i] > 0.015 and height[step : step + second + 1, i].min() < 3e-3 and height[-1, i] > 0.05
        ]
        assert dropped, "nothing that was in the air then was on the table within a second"
        assert episode.is_success[-1]


@pytest.mark.parametrize("aloha_id", IDS)
def test_who_only_misses_drops_nothing_and_notices(aloha_id: str) -> None:
    """A miss comes late: what stands in the air then stays there, and it takes a second longer."""
    for episode, plain in zip(failing(aloha_id, drops=0, misses=1), episodes_of(aloha_id, "human"), strict=False):
        ((step, what),) = episode.notes["mistakes"]
        assert what == "miss" and episode.seed == plain.seed
        assert heights(episode)[step:].min() > 0.02
        assert not episode.is_success[: step + 1].any()
    assert sum(bool(e.is_success[-1]) for e in failing(aloha_id, drops=0, misses=1)) >= 3


def test_who_has_not_acted_yet_has_made_no_mistakes() -> None:
    env = made("EFM-Insert-v0")
    assert efm_envs.make_expert(env, "with_failures").notes() == {"expert": "with_failures"}


def test_in_a_new_episode_there_are_no_mistakes_yet() -> None:
    env = made("EFM-InsertEE-v0")
    expert, ended = efm_envs.make_expert(env, "with_failures"), False
    env.reset(seed=0)
    while not ended:
        _, _, terminated, truncated, _ = env.step(expert.act())
        ended = terminated or truncated
    env.reset(seed=1)
    assert expert.notes() == {"expert": "with_failures"}


def test_several_mistakes_of_a_kind_can_be_asked_for() -> None:
    counts = [[kind for _, kind in e.notes["mistakes"]].count("drop") for e in failing("EFM-InsertEE-v0", drops=3, misses=0)]
    assert max(counts) >= 2 and min(counts) >= 1


def test_demonstrations_do_not_depend_on_the_number_of_workers() -> None:
    one, two = (collect("EFM-TransferCubeEE-v0", 17, style="with_failures", workers=workers) for workers in (1, 2))
    assert [e.notes for e in one] == [e.notes for e in two] and all(e.notes["mistakes"] for e in one)
    for a, b in zip(one, two, strict=True):
        assert a.seed == b.seed
        np.testing.assert_array_equal(a.actions, b.actions)
        for name, value in a.observations.items():
            np.testing.assert_array_equal(value, b.observations[name])
