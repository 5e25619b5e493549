"""The report, of recipe folders that are made by hand: networks without training, and a few straight paths."""

import functools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro

from efm_agents.checkpoint import save_checkpoint
from efm_agents.config import ImproveConfig, ModelConfig, SFTConfig
from efm_agents.inputs import Reads
from efm_agents.model import EmbodiedModel, build_model, to_config
from efm_agents.run import to_settings, versions
from efm_benchmarks import plots, report, sections
from efm_benchmarks.config import RecipeConfig
from efm_benchmarks.findings import Calibration, Findings, Practice, in_bins, over_seeds, predict
from efm_benchmarks.recipe import stages, summarise
from efm_benchmarks.video import play
from efm_envs.data import Episode, save_episodes
from efm_envs.errors import RenderingError
from efm_envs.evaluation import EpisodeRecord
from efm_envs.rendering import find_backend
from efm_envs.rewards.metrics import quantiles

ENV_ID = "EFM-PointMass-v0"
READS = Reads(("agent_pos", "environment_state"), (4, 2))
ROUNDS = 4


def small_model() -> EmbodiedModel:
    return build_model(to_config(ModelConfig(backbone="mlp", hidden=(8,), action_bins=5, bins=7), READS, action_size=2, longest=70))


def straight_episode(seed: int, model: EmbodiedModel, succeeds: bool = True) -> Episode:
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(25, 40))
    start, goal = rng.uniform(-1, 1, (2, 2))
    observations = {
        "agent_pos": np.zeros((steps + 1, 4), np.float32),
        "environment_state": np.tile(goal, (steps + 1, 1)).astype(np.float32),
    }
    observations["agent_pos"][:, :2] = np.linspace(start, goal, steps + 1)
    steps_to_go = model.steps_to_go(model.inputs(observations)).mean
    success = np.zeros(steps + 1, bool)
    success[-1] = succeeds
    return Episode(
        ENV_ID, seed, observations, np.zeros((steps, 2), np.float32), -np.diff(steps_to_go), steps_to_go, success, success,
        end_reason="terminated" if succeeds else "truncated",
    )  # fmt: skip


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_recipe(folder: Path, stopped: str = "finished", **settings: Any) -> Path:
    """A finished recipe; in its last stage, training seed 0 stopped after two rounds where `stopped` says so."""
    config = RecipeConfig(**{"seeds": 2, "demonstrations": 4, "episodes": 4, **settings})
    for seed in range(config.seeds):
        make_seed(folder / f"seed-{seed}", config, seed, stopped if seed == 0 else "finished")
    (folder / "versions.json").write_text(json.dumps(versions()))
    (folder / "results.json").write_text(json.dumps(summarise(config, folder)))
    return folder


def make_seed(folder: Path, config: RecipeConfig, seed: int, stopped: str) -> None:
    torch.manual_seed(seed)
    model = small_model()
    facts: dict[str, Any] = {"task": "PointMass", "env_id": ENV_ID}
    facts["model"] = model.config
    path = folder / "sft/checkpoints/steps_to_go.safetensors"
    save_checkpoint(path, "steps_to_go", model.state_dict(), {**facts, "success_threshold": 2.0})
    save_checkpoint(folder / "sft/checkpoints/policy.safetensors", "policy", model.state_dict(), facts)
    save_episodes(folder / "demonstrations.npz", [straight_episode(7, model)], {"min_length": 10})
    improved = [stage for stage in stages(config) if stage.name.startswith("improve") and not stage.name.endswith("-last")]
    for stage in improved:
        why = stopped if stage is improved[-1] else "finished"
        rounds = ROUNDS if why == "finished" else 2
        metrics = {"score": 0.5, "success": 0.5, "predicted_success": 0.6, "steps": 40.0, "entropy": -1.0}
        rows = [{"iteration": k, "practice_episodes": (10 + seed) * k, **metrics} for k in range(1, rounds + 1)]
        write_lines(folder / stage.name / "metrics.jsonl", rows)
        looks = [{"iteration": k, "practice_episodes": 10 * k, "success": 0.5 + 0.1 * k, "steps": 60.0 - k} for k in range(rounds + 1)]
        write_lines(folder / stage.name / "monitoring.jsonl", looks)
        outcome = {"stopped": why, "iterations": rounds, "practice_episodes": (10 + seed) * rounds, "best_iteration": 1}
        path = folder / stage.name / "checkpoints/policy.safetensors"
        save_checkpoint(path, "policy", model.state_dict(), {**facts, **outcome})
    for stage in stages(config):
        episodes = [straight_episode(k, model, succeeds=(k + seed) % 3 > 0) for k in range(config.episodes)]
        save_episodes(folder / f"evaluation/{stage.name}.npz", episodes)
        write_lines(folder / f"evaluation/{stage.name}.jsonl", [asdict(EpisodeRecord.of(episode)) for episode in episodes])


def no_display(*args: Any, **kwargs: Any) -> None:
    raise RenderingError("no display <here>.")


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(name)) is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, two discounts; the second one's first seed collapsed; two files in place of videos."""
    made = make_recipe(tmp_path_factory.mktemp("recipe"), "collapsed", gammas=(0.9, 0.0))
    (made / "videos").mkdir()
    for name in ("sft", "improve"):
        (made / f"videos/{name}.mp4").write_bytes(b"film")
    return made


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    path = report.write_report(folder)
    assert path == folder / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed, one discount, and a style that is no friend of HTML."""
    return make_recipe(tmp_path_factory.mktemp("alone"), seeds=1, style="<script>alert('no')</script>|")


@pytest.fixture(scope="module")
def text_alone(alone: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "play", no_display)
        return report.write_report(alone).read_text()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A discount that is not the paper's, and recorded predictions that are of another model."""
    made = make_recipe(tmp_path_factory.mktemp("odd"), seeds=1, gammas=(0.5,))
    model = small_model()
    save_episodes(made / "seed-0/evaluation/sft.npz", [straight_episode(k, model) for k in range(4)])
    return made


@pytest.fixture(scope="module")
def text_odd(odd: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "play", no_display)
        return report.write_report(odd).read_text()


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_page_needs_no_other_file_and_no_network(text: str) -> None:
    elements = Elements(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in elements.found}
    assert all(value.startswith("data:") for value in elements.values("src"))
    assert all(value.startswith("#") for name in ("href", "xlink:href") for value in elements.values(name))
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6


def test_ids_are_unique_and_every_reference_has_its_target(text: str) -> None:
    elements = Elements(text)
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    wanted = [v for name in ("href", "xlink:href") for v in elements.values(name)] + re.findall(r"url\((#[^)]*)\)", text)
    assert {value.removeprefix("#") for value in wanted} <= set(ids)


def test_every_picture_and_video_says_what_it_shows(text: str) -> None:
    pictures = [attributes for tag, attributes in Elements(text).found if tag in ("svg", "video")]
    assert len(pictures) >= 17
    assert all(len(attributes["aria-label"] or "") > 20 for attributes in pictures)
    assert all(attributes.get("role") == "img" or "controls" in attributes for attributes in pictures)


def test_figures_take_their_colours_from_the_readers_mode(text: str) -> None:
    rules, body = text.split("</style>", 1)
    for name, (on_light, on_dark) in plots.PALETTE.items():
        assert f"--{name}: {on_light}" in rules and f"--{name}: {on_dark}" in rules
        assert on_light not in body
    assert "var(--improve)" in body


def test_numbers_of_the_tables_are_those_of_the_results(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(folder)
    report.print_table(found)
    printed, markdown = capsys.readouterr().out, report.markdown_table(found)
    assert len(found["rows"]) == 7
    for row in found["rows"]:
        success = row["success"]
        interval = f"{100 * success['mean']:.1f} [{100 * success['low']:.1f}, {100 * success['high']:.1f}]"
        for where in (text, printed, markdown):
            assert interval in where and f"{row['steps_to_success']:.1f}" in where and f"{row['steps']:.1f}" in where
        assert f"| {row['title']} | {interval} | {row['steps_to_success']:.1f} | {row['steps']:.1f} |" in markdown


def test_practice_episodes_are_the_mean_over_seeds(folder: Path) -> None:
    column = [line.split(" | ")[-1].rstrip(" |\n") for line in report.markdown_table(results(folder)).splitlines()[2:]]
    assert column == ["–", "0", "42", "42", "32", "32", "–"]  # (40 + 44) / 2; the ablation's first seed stopped at 20


def test_last_rounds_are_listed_only_where_discounts_are_compared(folder: Path, alone: Path) -> None:
    assert report.markdown_table(results(folder)).count("its last round") == 2
    assert "its last round" not in report.markdown_table(results(alone))


def test_early_stop_is_stated_loudly(text: str, text_alone: str) -> None:
    assert text.count('<p class="alert"><strong>Self-Improvement, γ = 0, training seed 0: collapsed after round 2.</strong>') == 2
    assert "No run stopped early." in text_alone and "collapsed" not in text_alone


def test_one_seed_has_no_interval_over_seeds(text_alone: str) -> None:
    assert "not of how seeds differ" in text_alone
    assert "50.0 [–]" in text_alone
    assert "nan" not in text_alone.lower()


def test_text_is_escaped(alone: Path, text_alone: str) -> None:
    assert "&lt;script&gt;alert(&#x27;no&#x27;)&lt;/script&gt;" in text_alone
    assert "script" not in {tag for tag, _ in Elements(text_alone).found}
    assert "</script>\\|)" in report.markdown_table(results(alone))


def test_without_a_way_to_draw_the_page_says_why_there_are_no_videos(text_alone: str) -> None:
    assert "No videos: no display &lt;here&gt;." in text_alone
    assert "<video" not in text_alone


def test_videos_that_are_there_are_shown_as_they_are(text: str) -> None:
    assert text.count("data:video/mp4;base64,ZmlsbQ==") == 2


@pytest.mark.skipif(find_backend() is None, reason="no way to draw on this machine")
def test_videos_are_what_browsers_play(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "play", functools.partial(play, step_limit=8))
    report.write_videos(alone)
    for name in ("sft", "improve"):
        data = (alone / f"videos/{name}.mp4").read_bytes()
        assert data[4:8] == b"ftyp" and b"avc1" in data
    assert len(list((alone / "videos").iterdir())) == 2


def test_predictions_that_are_not_the_recorded_ones_are_stated_loudly(text_odd: str, text: str) -> None:
    assert "These are not the predictions that were recorded." in text_odd
    assert "These are not the predictions" not in text


def test_predictions_computed_again_are_the_recorded_ones(folder: Path) -> None:
    findings = Findings(folder)
    for seed in findings.seeds:
        predictions = predict(findings.reward_model(seed), findings.episodes("sft", seed))
        assert all(p.deviation < 1e-4 and (p.low <= p.high).all() for p in predictions)


def test_command_runs_the_recipe_with_the_same_settings() -> None:
    config = RecipeConfig(
        seeds=5,
        gammas=(0.9, 0.0),
        sft=SFTConfig(model=ModelConfig(backbone="mlp", hidden=(8, 8))),
        improve=ImproveConfig(ratio_clip=0.2, iterations=7),
    )
    words = shlex.split(sections.command(to_settings(config)))
    assert words[:2] == ["efm", "recipe"]
    assert tyro.cli(RecipeConfig, args=words[2:]) == config
    assert sections.command(to_settings(RecipeConfig())) == "efm recipe"


def test_overview_is_opaque_and_as_wide_as_the_readme_needs(folder: Path) -> None:
    figure = report.figure_overview(folder)
    width, height = figure.get_size_inches() * figure.dpi
    assert width == pytest.approx(1200) and 340 <= height <= 440
    assert figure.get_facecolor() == (1, 1, 1, 1)


def test_a_recipe_without_the_papers_discount_has_a_report_too(odd: Path, text_odd: str) -> None:
    assert "Self-Improvement, γ = 0.5" in text_odd
    assert report.figure_overview(odd).axes


def test_stages_keep_one_colour_and_a_last_round_has_that_of_its_best() -> None:
    found = plots.colours(["demonstrations", "sft", "improve", "improve-last", "improve-gamma-0", "improve-gamma-0-last", "direct"])
    assert found["improve-last"] == found["improve"] == "improve"
    assert found["improve-gamma-0-last"] == found["improve-gamma-0"] == "ablation-1"


def test_quantiles_of_a_uniform_distribution_are_its_levels() -> None:
    edges = np.linspace(0.0, 10.0, 6)
    low, high = quantiles(edges, np.full((3, 5), 0.2), (0.1, 0.9))
    np.testing.assert_allclose(low, 1.0)
    np.testing.assert_allclose(high, 9.0)


def test_calibration_line_is_that_of_realised_on_predicted_steps() -> None:
    predicted = np.linspace(0, 50, 11)
    found = Calibration(predicted, 2 * predicted + 3, coverage=0.8)
    assert found.line == pytest.approx((2, 3))
    assert found.bias == pytest.approx(-28) and found.mae == pytest.approx(28)


def test_bins_with_few_observations_are_left_out() -> None:
    x = np.concatenate([np.full(30, 5.0), np.full(3, 15.0)])
    assert in_bins(x, 2 * x, 10).mean.tolist() == [10.0]


def practice(seed: int, episodes: Sequence[int], values: Sequence[float]) -> Practice:
    return Practice(seed, "finished", len(episodes), np.array(episodes), {"success": np.array(values)})


def test_mean_over_seeds_is_at_equal_practice_and_ends_with_the_first_seed() -> None:
    curve = over_seeds([practice(0, [0, 10], [0.0, 1.0]), practice(1, [0, 40], [0.0, 1.0])], "success")
    assert curve.x[-1] == 10
    assert curve.mean[-1] == pytest.approx((1.0 + 0.25) / 2)


def test_interval_over_one_seed_is_unknown() -> None:
    curve = over_seeds([practice(0, [0, 10], [0.0, 1.0])], "success")
    assert np.isnan(curve.low).all() and not np.isnan(curve.mean).any()


def test_practice_starts_with_the_policy_that_has_not_practised(folder: Path) -> None:
    assert [p.episodes.tolist() for p in Findings(folder).practice("improve")] == [[0, 10, 20, 30], [0, 11, 22, 33]]
