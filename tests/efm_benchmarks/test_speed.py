"""Speed: what is measured is stored as rates, tables are looked up from them, and the pages show what is stored."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import efm_envs
from efm_benchmarks import pages, speed
from tests.scripts import ROOT, load_script

PAGE, STORED = ROOT / "docs/performance.md", ROOT / "benchmarks/results/speed.json"


def test_a_measurement_is_stored_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    speed.store(path, {**speed.load(path), "rows": [{"what": "signal", "id": "all", "num_envs": 7, "per_s": 1.0}]})
    for _ in range(2):  # again replaces
        speed.measure(ROOT, path, ["benchmarks/perf/test_signal.py", "-k", "plain and 64"], command="test")
    stored = json.loads(path.read_text())
    assert [(row["what"], row["num_envs"]) for row in stored["rows"]] == [("signal", 7), ("signal", 64)]
    assert stored["rows"][1]["per_s"] > 1000.0 and stored["runs"]["test"]["versions"]["mujoco"] and "×" in stored["runs"]["test"]["machine"]


def test_what_cannot_be_measured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        speed.measure(ROOT, tmp_path / "speed.json", ["benchmarks/perf/no_such_file.py"], command="test")


def test_rates_are_looked_up_by_their_facts() -> None:
    row: dict[str, Any] = {"what": "vector:sync", "id": "A"}
    rates = speed.Rates({"rows": [{**row, "num_envs": 1, "per_s": 5.0}, {**row, "num_envs": 16, "per_s": 9.0}]})
    assert rates.of("vector:sync", "A") == 9.0 and rates.of("vector:sync", "A", num_envs=1) == 5.0
    assert rates.of("vector:sync", "B") is None and rates.best(["vector:sync", "vector:async"], "A") == 9.0


@pytest.mark.parametrize(("rate", "text"), [(None, "–"), (123456.0, "123,000"), (98.76, "99")])
def test_rates_are_shown_to_three_digits(rate: float | None, text: str) -> None:
    assert speed.per_s(rate) == text


def test_ratios_that_are_not_known_are_dashes() -> None:
    assert speed.times(None, 1.0) == speed.share(1.0, None) == "–"
    assert speed.times(3.0, 2.0) == "1.50×" and speed.times(500.0, 2.0) == "250×" and speed.share(3.0, 4.0) == "75 %"


def test_a_clock_counts_every_moment_once() -> None:
    def inner() -> None:
        time.sleep(0.002)

    part = SimpleNamespace(inner=inner)
    part.outer = lambda: (time.sleep(0.001), part.inner())
    clock = speed.Clock()
    clock.watch(part, "inner", "inner")
    clock.watch(part, "outer", "outer")
    for _ in range(3):
        clock.round(part.outer)
    took = clock.medians_us()
    assert took["inner"] >= 2000.0 and took["outer"] >= 1000.0 and took["outer"] < took["inner"]
    assert took["whole"] == pytest.approx(sum(took[name] for name in ("inner", "outer", "everything else")), rel=0.2)


def test_a_profile_has_every_part_of_a_step() -> None:
    for num_envs in (1, 3):
        took = speed.profile("EFM-InsertEE-v0", num_envs, steps=3)
        assert set(took) == {"physics", "apply", "observe", "truth", "reward", "everything else", "whole"}
        assert took["physics"] > took["observe"] > 0.0


def test_pages_show_what_is_stored() -> None:
    assert speed.with_tables(PAGE.read_text(), speed.load(STORED)) == PAGE.read_text(), "run `python benchmarks/speed.py docs`"


ALWAYS = ("single:bare", "single:none", "single:oracle", "vector:bare", "vector:oracle", "vector:sync", "vector:async", "reset:single")
OF_THE_SHOWN = ("single expert:oracle", "pixels:bare", "pixels:batch", "pixels:processes", "looks:none", "reset:one of 64")


def test_every_id_was_measured() -> None:
    rates = speed.Rates(speed.load(STORED))
    for env_id in efm_envs.ids():
        for what in (*ALWAYS, *(OF_THE_SHOWN if env_id in speed.SHOWN else ())):
            assert rates.of(what, env_id), (env_id, what)


def test_a_page_without_the_place_for_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no <!-- begin x -->"):
        pages.with_block("# Page", "x", "table")


def test_an_interpreter_is_shown_as_it_is_typed() -> None:
    script = load_script("benchmarks/speed.py")
    assert script._shown("/somewhere/peers/bin/python") == "../peers/bin/python" and script._shown("../a/bin/python") == "../a/bin/python"
