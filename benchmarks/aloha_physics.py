"""Measures how well the ALOHA station's physics holds, and writes the table of docs/envs/insert.md from what is stored.

python benchmarks/aloha_physics.py run [--holds 20] [--episodes 200] [--random 1000] [--workers 0]
python benchmarks/aloha_physics.py docs [--check]    # --check only says whether the table is current
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from efm_benchmarks import aloha_physics, pages

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "aloha_physics.json"
PAGE = ROOT / "docs" / "envs" / "insert.md"

app = tyro.extras.SubcommandApp()


@app.command
def run(
    *,
    holds: Annotated[int, arg(help="Holds of each object.")] = 20,
    episodes: Annotated[int, arg(help="Evaluation episodes of each style of expert.")] = 200,
    random: Annotated[int, arg(help="Episodes of random actions.")] = 1000,
    workers: Annotated[int, arg(help="Processes; 0 is one per processor. The numbers do not depend on it.")] = 0,
    out: Annotated[Path, arg(help="The file to write.")] = STORED,
) -> None:
    """Measure, and store what comes of it."""
    from efm_benchmarks.progress import progress  # not above: it brings torch, and every worker imports this file again

    if min(holds, episodes, random) < 1:
        sys.exit(f"--holds, --episodes and --random must be at least 1; got {holds}, {episodes} and {random}.")
    with progress() as report:
        aloha_physics.run(out, holds=holds, episodes=episodes, random=random, workers=workers, report=report)


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if the page is not current.")] = False) -> None:
    """Write the table from what is stored."""
    text = aloha_physics.with_table(PAGE.read_text(), json.loads(STORED.read_text()))
    stale = f"{PAGE.name}'s table is not that of {STORED.name}: run `python benchmarks/aloha_physics.py docs`."
    pages.renew(PAGE, text, check=check, stale=stale)


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="aloha_physics.py", description="Measure the ALOHA station's physics; write its table."))
