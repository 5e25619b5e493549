"""Runs a suite: an experiment whose protocol, benchmarks/suites/NAME.json, was written down before it was run.

python benchmarks/suite.py run NAME [--workers 0] [--seeds 0 1]   # resumable; NAME is r1, r2, …
python benchmarks/suite.py show NAME                              # the tables of a finished suite
python benchmarks/suite.py store NAME                             # the records of its episodes into benchmarks/results/suites
python benchmarks/suite.py docs [--check]                         # the tables of docs/results.md
"""

import functools
import gzip
import json
import os
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from efm_benchmarks import pages, suite_tables
from efm_benchmarks.suites import Suite, load_evaluations, run_seed, summarise

ROOT = Path(__file__).resolve().parents[1]
SUITES = ROOT / "benchmarks" / "suites"
PAGE = ROOT / "docs" / "results.md"
STORED = ROOT / "benchmarks" / "results" / "suites"

app = tyro.extras.SubcommandApp()


@app.command
def run(
    name: Positional[str],
    *,
    seeds: Annotated[tuple[int, ...], arg(help="Training seeds; none means those of the protocol.")] = (),
    workers: Annotated[int, arg(help="Training seeds side by side, one thread each; 0 is one per processor.")] = 0,
    folder: Annotated[Path, arg(help="For runs.")] = Path("runs/suites"),
) -> None:
    """Run, or go on with, a suite."""
    from efm_agents.parallel import in_order
    from efm_benchmarks.progress import progress

    suite = load(name)
    wanted = seeds or suite.training_seeds
    side_by_side = min(workers or os.cpu_count() or 1, len(wanted))
    if side_by_side == 1:
        with progress() as report:
            for seed in wanted:
                run_seed(suite, folder / name, seed, report)
        return
    for seed in in_order(functools.partial(_run_seed, name, folder / name), wanted, side_by_side):
        print(f"training seed {seed} is finished", flush=True)


@app.command
def show(name: Positional[str], *, folder: Annotated[Path, arg(help="Of the runs.")] = Path("runs/suites")) -> None:
    """Print the tables of a finished suite."""
    suite = load(name)
    suite_tables.print_tables(summarise(suite, load_evaluations(suite, folder / name)))


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if the page is not current.")] = False) -> None:
    """Write the tables of docs/results.md from what is stored."""
    pages.renew(PAGE, with_tables(PAGE.read_text()), check=check, stale="docs/results.md is not that of benchmarks/results/suites.")


def with_tables(text: str) -> str:
    """Returns the page's text with the tables of each stored suite between its markers."""
    for path in sorted(STORED.glob("*.json")):
        text = pages.with_block(text, f"results/{path.stem}", suite_tables.markdown(json.loads(path.read_text())))
    return text


@app.command
def store(name: Positional[str], *, folder: Annotated[Path, arg(help="Of the runs.")] = Path("runs/suites")) -> None:
    """Store the records of a finished suite, and what they come to."""
    suite = load(name)
    found = load_evaluations(suite, folder / name)
    command = f"python benchmarks/suite.py run {name} && python benchmarks/suite.py store {name}"
    STORED.mkdir(parents=True, exist_ok=True)
    (STORED / f"{name}.steps.json.gz").write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))
    (STORED / f"{name}.json").write_text(json.dumps({"command": command, **summarise(suite, found)}, indent=1) + "\n")


def load(name: str) -> Suite:
    """Returns the suite of a name."""
    path = SUITES / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no suite {name!r}. There are: {', '.join(sorted(p.stem for p in SUITES.glob('*.json')))}.")
    return Suite.load(path)


def _run_seed(name: str, folder: Path, seed: int) -> int:
    run_seed(load(name), folder, seed, lambda stage, done, total, words: _log(folder, seed, stage, done, total, words))
    return seed


def _log(folder: Path, seed: int, stage: str, done: int, total: int, words: str) -> None:
    """Keeps the newest line of each training seed's progress in a file: `tail -n +1 runs/suites/NAME/*.progress`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{seed}.progress").write_text(f"{stage} {done}/{total} {words}\n")


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="suite.py", description="Run, store and show a suite."))
