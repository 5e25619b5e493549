"""Every preset trains on demonstrations of the env that it is made for."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import efm_envs
from efm_agents import demonstrations as program
from efm_agents import self_improvement, sft
from efm_agents.policy import load_policy
from efm_agents.presets import IMPROVE_PRESETS, SFT_PRESETS, preset_for
from efm_agents.run import read_log
from efm_envs.data import Episode
from efm_envs.env import load_task
from efm_envs.registration import registration

MADE_FOR = {
    "default": "EFM-PointMass-v0",
    "point-mass": "EFM-PointMass-v0",
    "language-table-cpu": "EFM-LanguageTable4-v0",
    "insert-cpu": "EFM-InsertEE-v0",
}


def task_of(env_id: str) -> str:
    row = registration(env_id)
    return load_task(row.task, row.task_options).name


@cache
def few(env_id: str) -> Sequence[Episode]:
    return program.collect(env_id, 3)


def test_every_preset_is_tried() -> None:
    assert MADE_FOR.keys() == SFT_PRESETS.keys() and {"paper", "efficient"} == IMPROVE_PRESETS.keys()


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_preset_of_stage_1_trains_and_its_policy_acts(name: str, tmp_path: Path) -> None:
    env_id = MADE_FOR[name]
    shown = few(env_id)
    config = dataclasses.replace(SFT_PRESETS[name], steps=2, validate_every=1)
    run = sft.train(shown, tmp_path, config, task=task_of(env_id))
    rows = read_log(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and all(None not in row.values() for row in rows)
    actions = load_policy(run, task=task_of(env_id)).act(shown[0].observations)
    assert actions.shape == (len(shown[0]) + 1, shown[0].actions.shape[1]) and np.isfinite(actions).all()


@pytest.mark.parametrize("name", IMPROVE_PRESETS)
@pytest.mark.parametrize("start", ["point-mass", "language-table-cpu"])
def test_a_preset_of_stage_2_practises(name: str, start: str, tmp_path: Path) -> None:
    env_id = MADE_FOR[start]
    first = sft.train(few(env_id), tmp_path / "sft", dataclasses.replace(SFT_PRESETS[start], steps=2), task=task_of(env_id))
    smaller = {"updates": 2} if name == "paper" else {}
    config = dataclasses.replace(IMPROVE_PRESETS[name], iterations=2, monitor_episodes=2, step_limit=10, **smaller)
    run = self_improvement.train(first, tmp_path / "improve", config)
    rows = read_log(run / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2]
    assert all(value is not None for row in rows for value in row.values())
    assert rows[-1]["practice_episodes"] == 64 if name == "efficient" else rows[-1]["practice_episodes"] >= 2 * 2 * 64 / 10


def test_stage_1_of_an_env_is_trained_with_the_settings_that_were_made_for_it() -> None:
    assert all(preset_for(env_id) == name for name, env_id in MADE_FOR.items() if name != "default")
    assert {preset_for(env_id) for env_id in efm_envs.ids()} == SFT_PRESETS.keys()
    assert preset_for("Reacher-v5") == "default"


def test_the_settings_of_an_env_tell_steps_up_to_its_step_limit() -> None:
    for name, env_id in MADE_FOR.items():
        told = SFT_PRESETS[name].model.max_steps_to_go
        assert told is None or told >= registration(env_id).step_limit
