import json
from pathlib import Path
from typing import Any

import pytest

from efm_agents.checkpoint import load_checkpoint
from efm_benchmarks.suites import DECODINGS, Suite, better_decoding, evaluation_file, load_evaluations, run_seed, success_within, summarise
from efm_envs.errors import EFMError

SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"
TINY: dict[str, Any] = {
    "id": "T",
    "version": 1,
    "title": "a tiny suite",
    "env": "EFM-PointMass-v0",
    "sft": {
        "preset": "point-mass",
        "runs": [
            {"name": "1x", "demonstrations": [{"count": 6}], "settings": {"steps": 20, "batch": 8, "model": {"hidden": [8]}}},
            {"name": "2x", "demonstrations": [{"count": 12}], "settings": {"steps": 20, "batch": 8, "model": {"hidden": [8]}}},
        ],
    },
    "arms": [
        {"name": "efficient", "preset": "efficient", "settings": {"step_limit": 20}, "starts": {"1x": [3, 5]}},
        {"name": "paper", "preset": "paper", "settings": {"step_limit": 20, "batch": 8, "updates": 4}, "starts": {"1x": [5], "2x": [4]}},
    ],
    "training_seeds": [0, 1],
    "evaluation": {"episodes": 6, "seed": 0, "limits": [20, 40], "headline_limit": 40},
    "claims": [{"better": "efficient/1x+5", "than": "sft/2x", "within": 40}],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "suite.json"
    path.write_text(json.dumps({**TINY, **changes}))
    return path


def no_report(*_: Any) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    folder = tmp_path_factory.mktemp("suite")
    suite = Suite.load(write(folder))
    for seed in suite.training_seeds:
        run_seed(suite, folder, seed, no_report)
    return suite, folder


def test_every_policy_is_evaluated_on_the_same_episodes_with_either_decoding(finished: tuple[Suite, Path]) -> None:
    suite, folder = finished
    found = load_evaluations(suite, folder)
    assert list(found) == ["sft/1x", "sft/2x", "efficient/1x+3", "efficient/1x+5", "paper/1x+5", "paper/2x+4"]
    for by_decoding in found.values():
        assert list(by_decoding) == list(DECODINGS)
        assert all([len(seed) for seed in seeds] == [6, 6] for seeds in by_decoding.values())


def test_a_policy_has_practised_on_no_more_episodes_than_its_name_says(finished: tuple[Suite, Path]) -> None:
    _, folder = finished
    for seed in (0, 1):
        for n in (3, 5):
            facts = load_checkpoint(folder / f"seed-{seed}/efficient/1x/checkpoints/episodes-{n}.safetensors", "policy")[1]
            assert facts["episodes"] == n
        for run in (folder / f"seed-{seed}/paper").iterdir():
            for file in run.glob("checkpoints/episodes-*.safetensors"):
                assert load_checkpoint(file, "policy")[1]["episodes"] <= int(file.stem.removeprefix("episodes-"))


def test_what_is_finished_is_not_done_again(finished: tuple[Suite, Path]) -> None:
    suite, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    missing = evaluation_file(folder / "seed-0", "sft/1x", "greedy")
    expected = missing.read_bytes()
    missing.unlink()
    run_seed(suite, folder, 0, no_report)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {missing} and missing.read_bytes() == expected


def test_smaller_sets_of_demonstrations_are_the_beginning_of_larger_ones(finished: tuple[Suite, Path]) -> None:
    _, folder = finished
    assert len(list(folder.glob("seed-0/demonstrations-*.npz"))) == 1


def test_success_counts_within_the_limit_only() -> None:
    steps = [10, None, 60, 61]
    assert [success_within(steps, limit) for limit in (9, 10, 60, 61, 1000)] == [0.0, 0.25, 0.5, 0.75, 0.75]


def test_each_method_is_scored_with_its_better_decoding_over_all_seeds() -> None:
    assert better_decoding({"sampled": [[5, None], [5, 5]], "greedy": [[5, 5], [None, None]]}, 10) == "sampled"
    assert better_decoding({"sampled": [[50, None], [50, 50]], "greedy": [[5, 5], [None, None]]}, 10) == "greedy"


def test_a_claim_holds_where_the_interval_of_the_paired_difference_is_above_zero(tmp_path: Path) -> None:
    suite = Suite.load(write(tmp_path))
    worse, better = [1, None, None, None, None, None], [1, 1, 1, 1, None, None]
    found = {name: {d: [worse, worse] for d in DECODINGS} for name in suite.policies()}
    found["efficient/1x+5"] = {"sampled": [better, [1, 1, 1, None, None, None]], "greedy": [worse, worse]}
    (claim,) = summarise(suite, found)["claims"]
    assert claim["decodings"] == ["sampled", "sampled"]
    assert claim["difference"]["mean"] == pytest.approx(2.5 / 6) and not claim["holds"], "two seeds are too few for this interval"
    found["efficient/1x+5"]["sampled"] = [better, better]
    assert summarise(suite, found)["claims"][0]["holds"]


def test_a_changed_protocol_is_another_suite(tmp_path: Path) -> None:
    assert Suite.load(write(tmp_path)).fingerprint != Suite.load(write(tmp_path, title="another")).fingerprint


@pytest.mark.parametrize("change", [{"arms": [{"name": "a"}]}, {"claims": [{"better": "x"}]}, {"evaluation": {}}])
def test_a_file_that_is_no_suite_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EFMError, match="is not a suite"):
        Suite.load(write(tmp_path, **change))


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.json")), ids=lambda path: path.stem)
def test_stored_suites_can_be_run_and_claim_what_they_evaluate(path: Path) -> None:
    suite = Suite.load(path)
    names = set(suite.policies())
    stages = {stage.name for stage in suite.stages}
    assert all({claim.better, claim.than} <= names and claim.within in suite.limits for claim in suite.claims)
    for stage in suite.stages:
        suite.sft_config(stage, 0)
    for arm in suite.arms:
        assert {*arm.starts, *([arm.reward_from] if arm.reward_from else [])} <= stages
        for start in arm.starts:
            suite.improve_config(arm, start, 0)
