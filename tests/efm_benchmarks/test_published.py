"""What the repository publishes is what was measured: stored results, README's table, and the claims that hang on them."""

import gzip
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from efm_benchmarks import audit, recipe
from efm_benchmarks.config import RecipeConfig
from efm_envs.evaluation import EpisodeRecord
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "benchmarks/results/point_mass"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((STORED / "results.json").read_text())


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((STORED / "episodes.jsonl.gz").read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    return load_script("benchmarks/publish.py")


def row(results: dict[str, Any], stage: str) -> dict[str, Any]:
    return next(row for row in results["rows"] if row["stage"] == stage)


def test_stored_numbers_are_those_of_the_stored_episodes(results: dict[str, Any], records: list[dict[str, Any]]) -> None:
    for stored in results["rows"]:
        of_stage = [r for r in records if r["stage"] == stored["stage"]]
        seeds = [[r for r in of_stage if r["training_seed"] == seed] for seed in range(results["config"]["seeds"])]
        names = EpisodeRecord.__dataclass_fields__
        numbers = recipe.aggregate([[EpisodeRecord(**{k: r[k] for k in names}) for r in of_seed] for of_seed in seeds])
        for name, number in numbers.items():
            assert stored[name] == pytest.approx(number), (stored["stage"], name)


def test_every_policy_met_the_same_scenarios(records: list[dict[str, Any]]) -> None:
    seen: dict[tuple[str, int], list[int]] = {}
    for record in records:
        seen.setdefault((record["stage"], record["training_seed"]), []).append(record["seed"])
    assert len({tuple(seeds) for seeds in seen.values()}) == 1


def test_readme_shows_the_stored_results(publish: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert "<!-- begin results/point_mass -->\n|" in readme, "README has no table"
    assert publish.with_tables(readme) == readme, "run `make readme`"


def test_results_were_made_with_the_settings_that_are_the_defaults_now(results: dict[str, Any]) -> None:
    now = json.loads(json.dumps(recipe.to_settings(RecipeConfig())))
    of_this_run = {"seeds", "gammas"}
    stored = {name: value for name, value in results["config"].items() if name not in of_this_run}
    assert stored == {name: value for name, value in now.items() if name not in of_this_run}
    assert results["command"] == "efm recipe --seeds 5 --gammas 0.9 0.0 1.0"


def test_every_seed_improves_itself(results: dict[str, Any]) -> None:
    sft, improved = row(results, "sft"), row(results, "improve")
    assert all(0.6 <= rate <= 0.9 for rate in sft["success_per_seed"])
    assert all(65 <= steps <= 90 for steps in sft["steps_per_seed"])
    assert all(rate >= 0.98 for rate in improved["success_per_seed"])
    assert all(steps <= 16 for steps in improved["steps_to_success_per_seed"])


def test_no_discounting_and_no_future_are_worse(results: dict[str, Any]) -> None:
    improved, one_step, undiscounted = (row(results, stage) for stage in ("improve", "improve-gamma-0", "improve-gamma-1"))
    assert all(a < b for a, b in zip(improved["steps_per_seed"], one_step["steps_per_seed"], strict=True))
    assert all(a < b / 2 for a, b in zip(improved["steps_per_seed"], undiscounted["steps_per_seed"], strict=True))


def test_stored_cards_are_of_learned_models_and_the_page_shows_them() -> None:
    cards = {path.stem: json.loads(path.read_text()) for path in (ROOT / "benchmarks/results/cards").glob("*.json")}
    assert set(cards) == {"EFM-PointMass-v0", "EFM-LanguageTable4-v0", "EFM-InsertEE-v0"}
    for env_id, card in cards.items():
        assert card["env"] == env_id and card["format"] == audit.FORMAT and card["command"].endswith(env_id)
        own, recommended = card["figures"]["success"]["own"], card["recommended"]
        assert recommended["cost"]["f1"] > own["cost"]["f1"] and own["success_threshold"] != recommended["success_threshold"]
    load_script("benchmarks/cards.py").docs(check=True)
