"""The recipe, small, as the command runs it."""

import contextlib
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from efm_agents.run import read_log
from efm_benchmarks.recipe import aggregate
from efm_envs.evaluation import EpisodeRecord
from tests.efm_benchmarks.conftest import EFM, Finished

SEEDS = 2
STAGES = ("demonstrations", "sft", "improve", "improve-last", "direct")
CONFIG = ("--seeds", SEEDS, "--demonstrations", 12, "--episodes", 5)
SFT = ("--sft.steps", 40, "--sft.validate-every", 20, "--sft.batch", 16, "--sft.model.hidden", 16)
IMPROVE = ("--improve.iterations", 4, "--improve.updates", 4, "--improve.batch", 32)
SCORE = ("--improve.score-window", 2, "--improve.monitor-every", 2, "--improve.monitor-episodes", 2)


# The command without its page, which takes longer than all the rest of so small a recipe.
WITHOUT_PAGE = """
from efm_benchmarks import cli, report
report.write_report = lambda folder: folder / "report.html"
cli.main()
"""


def command(folder: Path, workers: int = 2, efm: Sequence[object] = (sys.executable, "-c", WITHOUT_PAGE)) -> list[str]:
    return [str(part) for part in (*efm, "recipe", "--json", "--out", folder, "--workers", workers, *CONFIG, *SFT, *IMPROVE, *SCORE)]


def run(command: Sequence[str]) -> Finished:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts the recipe in a process group of its own, as a shell does; whatever is left of the group in the end is killed."""
    # what runs in the background of a shell ignores SIGINT, and so would all that it starts
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command(folder), stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=hears)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], Any], limit_s: float = 60) -> float:
    """Returns how long it took, in [s]."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - start


def is_group_alive(group: int) -> bool:
    """Whether a process of the group runs (one that ended and was not collected yet does not)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                return True
    return False


def evaluations(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("seed-*/evaluation/*.jsonl"))}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())["rows"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A recipe's folder, and what the installed command printed. Made once, also where tests run in several processes."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, printed = root / "recipe", root / "recipe.json"
    with (root / "recipe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            printed.write_text(json.dumps(run(command(folder, efm=[EFM]))))
    done = Finished(*json.loads(printed.read_text()))
    assert done.code == 0, done.err
    return folder, done


def test_a_recipe_leaves_everything_in_its_folder(finished: tuple[Path, Finished]) -> None:
    folder, _ = finished
    expected = {"config.json", "versions.json", "results.json", "report.html", *(f"seed-{k}" for k in range(SEEDS))}
    assert expected <= {p.name for p in folder.iterdir()}
    for seed in range(SEEDS):
        there = {str(p.relative_to(folder / f"seed-{seed}")) for p in (folder / f"seed-{seed}").rglob("*") if p.is_file()}
        assert {f"evaluation/{stage}.{kind}" for stage in STAGES for kind in ("jsonl", "npz")} <= there
        assert {"demonstrations.npz", "sft/metrics.jsonl", "improve/episodes.jsonl", "improve/checkpoints/last.safetensors"} <= there
    assert not list(folder.rglob(".*")), "temporary files were left"


def test_a_recipe_prints_its_results_as_json_and_nothing_else(finished: tuple[Path, Finished]) -> None:
    folder, done = finished
    assert json.loads(done.out) == json.loads((folder / "results.json").read_text())


def test_results_are_what_the_rows_of_the_episodes_say(finished: tuple[Path, Finished]) -> None:
    folder, _ = finished
    rows = rows_of(folder)
    assert tuple(row["stage"] for row in rows) == STAGES
    for row in rows:
        per_seed = [read_log(folder / f"seed-{seed}/evaluation/{row['stage']}.jsonl") for seed in range(SEEDS)]
        episodes = [episode for of_seed in per_seed for episode in of_seed]
        reached = [e["steps_to_success"] for e in episodes if e["steps_to_success"] is not None]
        assert row["episodes"] == len(episodes) == 5 * SEEDS and row["errors"] == 0
        assert row["success"]["mean"] == pytest.approx(sum(e["success_once"] for e in episodes) / len(episodes))
        assert row["success_per_seed"] == [pytest.approx(sum(e["success_once"] for e in of_seed) / 5) for of_seed in per_seed]
        assert row["steps"] == pytest.approx(sum(e["steps"] for e in episodes) / len(episodes))
        assert row["steps_to_success"] == (pytest.approx(sum(reached) / len(reached)) if reached else None)


def test_every_policy_and_every_seed_is_evaluated_on_the_same_episodes(finished: tuple[Path, Finished]) -> None:
    folder, _ = finished
    seeds = {tuple(row["seed"] for row in read_log(path)) for path in folder.glob("seed-*/evaluation/*.jsonl")}
    assert len(seeds) == 1 and len(set(next(iter(seeds)))) == 5


def test_seeds_have_demonstrations_weights_and_practice_of_their_own(finished: tuple[Path, Finished]) -> None:
    folder, _ = finished
    for file in ("demonstrations.npz", "sft/checkpoints/policy.safetensors", "improve/checkpoints/last.safetensors"):
        assert (folder / "seed-0" / file).read_bytes() != (folder / "seed-1" / file).read_bytes()
    practised = [{row["seed"] for row in read_log(folder / f"seed-{k}/improve/episodes.jsonl")} for k in range(SEEDS)]
    assert not practised[0] & practised[1]


def test_results_do_not_depend_on_how_many_seeds_run_side_by_side(finished: tuple[Path, Finished], tmp_path: Path) -> None:
    assert run(command(tmp_path / "run", workers=1)).code == 0
    assert evaluations(tmp_path / "run") == evaluations(finished[0])


def test_a_finished_recipe_is_not_done_again(finished: tuple[Path, Finished]) -> None:
    folder, first = finished

    def look() -> dict[str, int]:
        there = (*folder.glob("seed-*/evaluation/*"), *folder.glob("seed-*/*/checkpoints/*"), *folder.glob("seed-*/demonstrations.npz"))
        return {str(p): p.stat().st_mtime_ns for p in there}

    before = look()
    again = run(command(folder))
    assert again.code == 0 and again.out == first.out and look() == before and len(before) > 10


def test_a_recipe_with_other_settings_is_refused(finished: tuple[Path, Finished]) -> None:
    done = run([*command(finished[0]), "--style", "clean"])
    assert done.code == 1 and "style: 'human' there, 'clean' wanted" in done.err.splitlines()[-1]


def test_a_recipe_that_was_killed_ends_as_if_it_had_not_been(finished: tuple[Path, Finished], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for file in ("sft/checkpoints/state.safetensors", "improve/metrics.jsonl"):
        with started(folder) as process:
            wait_until(lambda: any(path.exists() for path in folder.glob(f"seed-*/{file}")))  # noqa: B023 (called here and now)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert not (folder / "results.json").exists()
    assert run(command(folder)).code == 0
    assert rows_of(folder) == rows_of(finished[0]) and evaluations(folder) == evaluations(finished[0])
    assert not list(folder.rglob(".*")), "temporary files were left"


@pytest.mark.parametrize("file", ["config.json", "seed-0/improve/metrics.jsonl"])
def test_ctrl_c_ends_all_processes_at_once_with_a_message_and_no_traceback(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(folder) as process:
        wait_until((folder / file).exists)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        out, err = process.communicate(timeout=20)
        took_s = wait_until(lambda: not is_group_alive(process.pid), limit_s=20)
    assert process.returncode == 1 and out == "" and took_s < 5
    assert "Traceback" not in err and "KeyboardInterrupt" not in err, err
    assert err.strip().splitlines()[-1] == "Stopped. The same command goes on from the last checkpoint."


def test_workers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Else the same command, started again, would write into the same folder as they do."""
    folder = tmp_path / "run"
    with started(folder) as process:
        wait_until((folder / "seed-0/sft/config.json").exists)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not is_group_alive(process.pid), limit_s=3)


def test_what_a_seed_raises_ends_the_recipe_with_its_message(tmp_path: Path) -> None:
    done = run([*command(tmp_path / "run"), "--style", "huamn"])
    assert done.code == 1 and "Traceback" not in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: unknown expert style of PointMass: 'huamn'")


# -- rows -------------------------------------------------------------------------------------------------------------------------


def record(steps: int, success: bool, error: str | None = None) -> EpisodeRecord:
    end = "error" if error else "terminated" if success else "truncated"
    return EpisodeRecord("EFM-PointMass-v0", 0, success, success, steps if success else None, steps, 0.0, success, end, error)


def test_a_row_counts_failures_with_their_full_length_and_steps_to_success_without_them() -> None:
    row = aggregate([[record(10, True), record(140, False)], [record(20, True), record(30, True)]])
    assert row["success"]["mean"] == 0.75 and row["success_per_seed"] == [0.5, 1.0]
    assert row["steps_to_success"] == 20.0 and row["steps_to_success_per_seed"] == [10.0, 25.0]
    assert row["steps"] == 50.0 and row["steps_per_seed"] == [75.0, 25.0] and row["episodes"] == 4


def test_a_row_of_failures_has_no_steps_to_success_and_counts_errors() -> None:
    row = aggregate([[record(140, False), record(3, False, "ValueError: no")]])
    assert row["steps_to_success"] is None and row["steps_to_success_per_seed"] == [None] and row["errors"] == 1
    assert row["success"]["mean"] == 0.0 and row["success"]["high"] < 1.0
