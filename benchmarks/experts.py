"""Measures every style of expert in every env, and writes the tables of docs/envs from what is stored.

python benchmarks/experts.py run [--episodes 200] [--workers 0] [ID …]    # all ids with experts, or only these
python benchmarks/experts.py docs [--check]                               # the tables; --check only says whether they are current
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from efm_benchmarks import experts, pages
from efm_envs.registration import registration

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "experts.json"
PAGES = ROOT / "docs" / "envs"

app = tyro.extras.SubcommandApp()


@app.command
def run(
    env_ids: Positional[tuple[str, ...]] = (),
    *,
    episodes: Annotated[int, arg(help="Evaluation episodes of each style of each id.")] = 200,
    workers: Annotated[int, arg(help="Processes; 0 is one per processor. The numbers do not depend on it.")] = 0,
    out: Annotated[Path, arg(help="The file to write.")] = STORED,
) -> None:
    """Run the experts and store what comes of it, id by id."""
    from efm_benchmarks.progress import progress  # not above: it brings torch, and every worker imports this file again

    if episodes < 1:
        sys.exit(f"--episodes must be at least 1; got {episodes}.")
    for env_id in env_ids:
        registration(env_id)  # refuses an unknown one before the first is run
    with progress() as report:
        for env_id in env_ids or experts.with_experts():
            experts.run(env_id, episodes, out, workers=workers, report=report)


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if a page is not current.")] = False) -> None:
    """Write the tables of docs/envs from what is stored."""
    stored = experts.load(STORED)
    for page in sorted(PAGES.glob("*.md")):
        stale = f"{page.name}'s tables are not those of {STORED.name}: run `python benchmarks/experts.py docs`."
        pages.renew(page, experts.with_tables(page.read_text(), stored), check=check, stale=stale)


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="experts.py", description="Measure experts; write the tables of docs/envs."))
