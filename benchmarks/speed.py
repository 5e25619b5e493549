"""Measures speed with the suite in benchmarks/perf, and writes the tables of docs/performance.md and README.md from what is stored.

python benchmarks/speed.py run [IDS ...] [--only PATTERN]     # about 45 minutes for all ids on two quiet cores
python benchmarks/speed.py peers --python ../peers/bin/python # other projects' envs: see benchmarks/perf/test_peers.py
python benchmarks/speed.py docs [--check]                     # --check only says whether the tables are current
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from efm_benchmarks import pages, speed
from efm_envs.registration import ids, registration

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "performance.md"
PERF = "benchmarks/perf"

app = tyro.extras.SubcommandApp()


@app.command
def run(
    env_ids: Positional[tuple[str, ...]] = (),
    *,
    only: Annotated[str, arg(help="Of the measurements, those that pytest's -k selects by this.")] = "",
    out: Annotated[Path, arg(help="The file to write; what is there of other measurements stays.")] = STORED,
) -> None:
    """Measure these ids, or all, and store what comes of it. Let nothing else run meanwhile."""
    chosen = [registration(env_id).id for env_id in env_ids]
    selection = [PERF, f"--ignore={PERF}/test_peers.py", *(["-k", only] if only else []), *(["--ids", *chosen] if chosen else [])]
    _measure(selection, out, sys.executable, ["run", *env_ids, *(["--only", only] if only else [])])
    if not only:
        speed.measure_profile(out, chosen or ids())
        speed.measure_memory(out, chosen or ids())


@app.command
def peers(
    *,
    python: Annotated[str, arg(help="The interpreter of an environment that has them.")],
    out: Annotated[Path, arg(help="The file to write.")] = STORED,
) -> None:
    """Measure other projects' envs, and ours beside them where that environment can run them."""
    _measure([f"{PERF}/test_peers.py"], out, python, ["peers", "--python", _shown(python)])


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if the page is not current.")] = False) -> None:
    """Write the tables from what is stored; README's too (`make readme` does that alone)."""
    stale = f"{PAGE.name}'s tables are not those of {STORED.name}: run `python benchmarks/speed.py docs`."
    pages.renew(PAGE, speed.with_tables(PAGE.read_text(), speed.load(STORED)), check=check, stale=stale)


def _measure(selection: list[str], out: Path, python: str, arguments: list[str]) -> None:
    try:
        speed.measure(ROOT, out, selection, python=python, command=f"python benchmarks/speed.py {shlex.join(arguments)}")
    except RuntimeError as error:
        sys.exit(f"error: {error}")


def _shown(python: str) -> str:
    """Returns an interpreter's path as it is typed where environments lie beside the repository."""
    path = Path(python)
    return str(Path("..", *path.parts[-3:])) if path.is_absolute() else python


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="speed.py", description="Measure speed; write its tables."))
