"""The ALOHA station's physics as it is published: stored numbers, their table, and the claims that hang on them."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import efm_envs
from efm_agents.run import no_report
from efm_benchmarks import aloha_physics
from tests.scripts import load_script

EE, JOINTS = "EFM-TransferCubeEE-v0", "EFM-Insert-v0"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/aloha_physics.py")


@pytest.fixture(scope="module")
def stored(script: ModuleType) -> dict[str, Any]:
    return json.loads(script.STORED.read_text())


def test_the_table_is_what_is_stored(script: ModuleType, stored: dict[str, Any]) -> None:
    page = script.PAGE.read_text()
    assert aloha_physics.with_table(page, stored) == page, "run `python benchmarks/aloha_physics.py docs`"
    assert all(f"| `{env_id}` |" in page for env_id in stored["envs"])


def test_every_id_of_the_station_was_measured_and_holds(stored: dict[str, Any]) -> None:
    assert list(stored["envs"]) == efm_envs.ids(tags=["aloha"])
    assert stored["random"] >= 1000 and stored["episodes"] >= 200
    for measured in stored["envs"].values():
        assert measured["slip_m"] <= 1e-3
        assert measured["penetration_m"]["clean"]["deepest"] <= 5e-4
        assert measured["penetration_m"]["human"]["median"] <= 5e-4
        assert measured["random"]["errors"] == 0


def test_the_numbers_do_not_depend_on_the_number_of_workers() -> None:
    asked = {"holds": 2, "episodes": 2, "random": 2, "report": no_report}
    one, two = (aloha_physics.measure(EE, workers=workers, **asked) for workers in (1, 2))
    assert one == two
    assert 0.0 < one["slip_m"] < 1e-3 and one["random"]["errors"] == 0


def test_random_actions_move_the_tools() -> None:
    is_sound, fastest_object, fastest_tool = aloha_physics.flail(JOINTS, seed=0)
    assert is_sound and fastest_tool > 1.0 and fastest_object >= 0.0


def test_nonsense_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must be at least 1; got 0, 200 and 1000"):
        script.run(holds=0, out=tmp_path / "x.json")
    assert not list(tmp_path.iterdir())
