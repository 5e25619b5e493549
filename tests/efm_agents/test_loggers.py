import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from efm_agents import sft
from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.loggers import TrackerLogger, figures, make_loggers
from efm_agents.run import Run, read_log
from efm_envs.data import Episode
from efm_envs.errors import MissingExtraError, UnknownNameError

CONFIG = SFTConfig(steps=6, validate_every=2, batch=8, model=ModelConfig(backbone="mlp", hidden=(8,)))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show."""
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loading.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_the_runs_own_log_says(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    run = sft.train(demonstrations, tmp_path, CONFIG, task="PointMass", loggers=["tensorboard"])
    shown, rows = scalars(run), read_log(run / "metrics.jsonl")
    assert {"metrics/loss", "metrics/validation/policy", "metrics/validation/steps_to_go"} <= set(shown)
    for name, values in shown.items():
        expected = [(row["step"], row[name.removeprefix("metrics/")]) for row in rows]
        assert [step for step, _ in values] == [2, 4, 6]
        assert [value for _, value in values] == pytest.approx([value for _, value in expected])


def test_a_logger_changes_nothing_about_a_run_and_may_come_or_go(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    with_one = sft.train(demonstrations, tmp_path / "with", CONFIG, task="PointMass", loggers=["tensorboard"])
    without = sft.train(demonstrations, tmp_path / "without", CONFIG, task="PointMass")
    for name in ("config.json", "metrics.jsonl", "checkpoints/policy.safetensors"):
        assert (with_one / name).read_bytes() == (without / name).read_bytes()
    sft.train(demonstrations, without, CONFIG, task="PointMass", loggers=["tensorboard"])


class FakeTracker(types.ModuleType):
    """The calls that trackio and wandb have in common."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.seen: list[Any] = []

    def init(self, **settings: Any) -> "FakeTracker":
        self.seen.append(settings)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.seen.append((step, values))

    def finish(self) -> None:
        self.seen.append("finished")


def test_a_tracker_gets_the_settings_the_figures_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    run = Run(tmp_path / "mine", "improve", {"seed": 3}, ["wandb"])
    run.append("metrics", [{"iteration": 1, "success": 0.5}])
    run.append("episodes", [{"iteration": 1, "steps": 7}])
    run.close()
    settings, figure, end = tracker.seen
    assert settings == {"project": "efm-envs", "name": "mine", "config": {"program": "improve", "seed": 3}}
    assert figure == (1, {"metrics/iteration": 1.0, "metrics/success": 0.5}) and end == "finished"


def test_only_numbers_are_figures() -> None:
    assert figures({"a": 1, "b": 0.5, "c": "x", "d": None, "e": True}, "m") == {"m/a": 1.0, "m/b": 0.5}


def test_an_unknown_logger_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'tensorboard', 'trackio', 'wandb'"):
        Run(tmp_path / "run", "sft", {}, ["tensorbord"])
    assert not (tmp_path / "run").exists()


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "efm-envs\[trackio\]"'):
        make_loggers(["trackio"], tmp_path, {}, 0)
    with pytest.raises(MissingExtraError, match="trackio"):
        TrackerLogger("trackio", tmp_path, json.loads("{}"))
