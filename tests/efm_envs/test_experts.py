"""What can be set about an expert, by name."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.errors import EFMError, UnknownNameError, UnknownOptionError
from efm_envs.experts.base import expert_knobs, load_expert
from efm_envs.experts.language_table import Habits
from efm_envs.scenarios import draws_at, is_solvable
from tests.efm_envs.fakes import POINT_MASS

LANGUAGE_TABLE = "EFM-LanguageTablePoint-v0"


def task_of(env_id: str) -> Any:
    return gym.make(env_id).unwrapped.task


def test_an_experts_knobs_are_the_fields_of_its_habits_with_their_defaults() -> None:
    task = task_of(LANGUAGE_TABLE)
    assert expert_knobs(task, "human") == vars(Habits()) and expert_knobs(task, "clean") == {}
    with pytest.raises(UnknownNameError, match="'clean', 'human'"):
        expert_knobs(task, "huamn")


def test_every_expert_takes_its_own_defaults(env_id: str) -> None:
    task = task_of(env_id)
    for style in task.experts:
        knobs = expert_knobs(task, style)
        assert vars(load_expert(task, style, **knobs).habits) == knobs


def test_a_knob_changes_what_the_expert_does() -> None:
    def first_actions(**knobs: Any) -> Any:
        env = gym.make(LANGUAGE_TABLE)
        expert = efm_envs.make_expert(env, "human", **knobs)
        env.reset(seed=0)
        actions = []
        for _ in range(5):
            actions.append(expert.act())
            env.step(actions[-1])
        return np.array(actions)

    always = {"detours": 0, "dither_chance": 0.0, "pause_chance": 1.0, "pause_steps": [5, 5]}
    assert first_actions().any() and not first_actions(**always).any()


def test_an_unknown_knob_lists_the_valid_ones() -> None:
    with pytest.raises(
        UnknownOptionError, match=r"unknown option of expert 'human' of .*: 'noize'\. Did you mean 'noise'\? Valid: .*'detours'"
    ):
        efm_envs.make_expert(gym.make(LANGUAGE_TABLE), "human", noize=0.1)


def test_a_style_without_knobs_says_so() -> None:
    for env_id in (POINT_MASS, LANGUAGE_TABLE):
        with pytest.raises(UnknownOptionError, match=r"expert 'clean' of .*: 'detours'\. Valid: none\."):
            efm_envs.make_expert(gym.make(env_id), "clean", detours=4)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("detours", "many"),
        ("detours", 2.5),
        ("detours", True),
        ("noise", [0.1]),
        ("pause_steps", 3),
        ("pause_steps", (1, 2, 3)),
        ("noise", None),
    ],
)
def test_a_knob_of_the_wrong_kind_is_refused(knob: str, value: Any) -> None:
    with pytest.raises(EFMError, match=rf"{knob} of expert 'human' of .* is of the kind of its default, .*; got "):
        efm_envs.make_expert(gym.make(LANGUAGE_TABLE), "human", **{knob: value})


def test_an_episode_tells_how_many_starts_were_drawn_for_it(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(env_id)
    if task.solvable_within is None:
        assert draws_at(task, (0, 0)) == 1
        return
    tried: list[bool] = []
    monkeypatch.setattr("efm_envs.scenarios._solved_draw", {})
    monkeypatch.setattr("efm_envs.scenarios.is_solvable", lambda *start: tried.append(is_solvable(*start)) or len(tried) == 3)
    assert draws_at(task, (0, 0)) == draws_at(task, (0, 0)) == len(tried) == 3
