"""The table of experts is what was measured, and what was measured is what `evaluate` says."""

import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import efm_envs
from efm_benchmarks import experts
from efm_envs.data import Episode
from efm_envs.errors import EFMError, UnknownNameError
from efm_envs.evaluation import EpisodeRecord, evaluate
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
POINT_MASS = "EFM-PointMass-v0"
LANGUAGE_TABLE = "EFM-LanguageTablePoint-v0"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/experts.py")


@pytest.fixture(scope="module")
def file(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experts") / "new" / "experts.json"
    script.run((LANGUAGE_TABLE,), episodes=2, workers=1, out=path)
    return path


def evaluated(env_id: str, style: str, episodes: int) -> tuple[list[EpisodeRecord], list[Episode]]:
    shown: list[Episode] = []
    policy = functools.partial(efm_envs.make_expert, style=style)
    return evaluate(policy, env_id, episodes, on_episode=shown.append, reward_model="oracle", terminate_on="true"), shown


def test_what_is_stored_is_what_evaluate_says(file: Path) -> None:
    stored = experts.load(file)[LANGUAGE_TABLE]
    assert list(stored["styles"]) == ["clean", "human"] and stored["step_limit"] == 200 and stored["episodes"] == 2
    for style, numbers in stored["styles"].items():
        records, _ = evaluated(LANGUAGE_TABLE, style, 2)
        steps = [record.steps_to_success for record in records if record.steps_to_success is not None]
        assert numbers["episodes"] == 2 and numbers["errors"] == 0
        assert numbers["successes"] == sum(record.success_once for record in records) == len(steps)
        assert numbers["success"]["mean"] == numbers["successes"] / 2
        assert numbers["steps_to_success"]["mean"] == np.mean(steps) and numbers["steps_to_success"]["longest"] == max(steps)
        assert numbers["steps_to_success"]["p50"] == np.median(steps)


def test_the_oracle_is_measured_on_the_clean_experts_way(file: Path) -> None:
    _, episodes = evaluated(LANGUAGE_TABLE, "clean", 2)
    falls, errors = [], []
    for episode in episodes:
        for t in range(len(episode)):
            falls.append(episode.steps_to_go[t + 1] < episode.steps_to_go[t])
            errors.append(abs(episode.steps_to_go[t] - (len(episode) - t)))
    oracle = experts.load(file)[LANGUAGE_TABLE]["oracle"]
    assert oracle["falls"] == pytest.approx(np.mean(falls)) and oracle["error"] == pytest.approx(np.mean(errors))


def test_starts_are_counted_where_they_must_be_solvable(file: Path) -> None:
    starts = experts.load(file)[LANGUAGE_TABLE]["starts"]
    assert starts["draws"] >= 2 and starts["solved"] == 2 / starts["draws"]


def test_a_result_says_how_it_was_made(file: Path) -> None:
    stored = experts.load(file)[LANGUAGE_TABLE]
    assert stored["command"] == f"python benchmarks/experts.py run --episodes 2 {LANGUAGE_TABLE}"
    assert {"python", "mujoco", "numpy", "efm-envs"} <= stored["versions"].keys()
    assert json.loads(file.read_text())["protocol"] == {"reward_model": "oracle", "terminate_on": "true", "evaluation_seed": 0}


def test_a_run_of_some_ids_leaves_the_others_as_they_are(file: Path, script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "experts.json"
    path.write_bytes(file.read_bytes())
    script.run((POINT_MASS,), episodes=1, workers=1, out=path)
    assert list(experts.load(path)) == [POINT_MASS, LANGUAGE_TABLE]
    assert experts.load(path)[LANGUAGE_TABLE] == experts.load(file)[LANGUAGE_TABLE]
    assert experts.load(path)[POINT_MASS]["starts"] is None
    assert list(experts.load(path)[POINT_MASS]["styles"]) == ["clean", "human"], "other names of the same experts"


def test_the_numbers_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        experts.run(POINT_MASS, 17, tmp_path / str(workers), workers=workers)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_an_unknown_id_is_refused_before_anything_is_run(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown env id: 'EFM-Nothing-v0'"):
        script.run((POINT_MASS, "EFM-Nothing-v0"), episodes=1, out=tmp_path / "experts.json")
    assert not (tmp_path / "experts.json").exists()


def test_an_id_without_experts_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(EFMError, match=r"EFM-DMC-BallInCupCatch-v0 has no experts to measure\. Those that have: EFM-PointMass-v0, "):
        script.run(("EFM-DMC-BallInCupCatch-v0",), episodes=1, out=tmp_path / "experts.json")
    assert not (tmp_path / "experts.json").exists()


def test_an_expert_that_never_succeeds_has_no_steps_to_success() -> None:
    _, (episode,) = evaluated(POINT_MASS, "human", 1)
    failed = Episode(**{**vars(episode), "is_success": np.zeros_like(episode.is_success), "end_reason": "truncated"})
    stored = {"styles": {"clean": experts.results([failed])}, "starts": None, "oracle": experts.oracle_results([failed])}
    assert stored["styles"]["clean"]["steps_to_success"] is None and stored["oracle"]["error"] is None
    assert experts.cells(POINT_MASS, "clean", stored)[3:8] == ["0.0 [0.0, 97.5]", "–", "–", "–", "–"]


# -- tables ------------------------------------------------------------------------------------------------------------------------


def test_a_table_has_a_row_for_each_stored_id_and_style(file: Path) -> None:
    stored: dict[str, Any] = experts.load(file)
    empty = "<!-- begin experts point_mass --><!-- end experts -->"
    page = f"Before\n<!-- begin experts language_table -->\nold\n<!-- end experts -->\nAfter {empty}"
    written = experts.with_tables(page, stored)
    rows = [line.split(" | ")[:2] for line in written.splitlines() if line.startswith("| `")]
    assert rows == [[f"| `{LANGUAGE_TABLE}`", "`clean`"], [f"| `{LANGUAGE_TABLE}`", "`human`"]]
    assert written.startswith("Before\n<!-- begin") and "old" not in written
    assert written.endswith(f"After {empty}"), "nothing is stored for it"
    assert experts.with_tables(written, stored) == written


def test_a_table_of_an_unknown_tag_lists_the_tags() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown tag: 'pointmass'\. Did you mean 'point_mass'"):
        experts.with_tables("<!-- begin experts pointmass --><!-- end experts -->", {})


@pytest.mark.parametrize("page", sorted((ROOT / "docs/envs").glob("*.md")), ids=lambda page: page.stem)
def test_the_docs_tables_are_what_is_stored(page: Path, script: ModuleType) -> None:
    written = experts.with_tables(page.read_text(), experts.load(script.STORED))
    assert written == page.read_text(), "run `python benchmarks/experts.py docs`"
