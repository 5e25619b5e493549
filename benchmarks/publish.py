"""Stores a finished recipe's results in the repository, and writes README's table from what is stored.

python benchmarks/publish.py store runs/point-mass-5 point_mass    # results, episodes' records and pictures of one recipe
python benchmarks/publish.py readme [--check]                      # README's tables; --check only says whether they are current
"""

import gzip
import json
from pathlib import Path
from typing import Annotated

import tyro

from efm_benchmarks import pages, policies, report, sections, speed, video
from efm_envs.seeding import EpisodeSet, episode_seeds

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "assets"
README = ROOT / "README.md"

app = tyro.extras.SubcommandApp()


@app.command
def store(run: tyro.conf.Positional[Path], name: tyro.conf.Positional[str]) -> None:
    """Copy a recipe's results into benchmarks/results/NAME, and draw its pictures."""
    results = json.loads((run / "results.json").read_text())
    results = {"command": sections.command(results["config"]), **results}
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    rows = "".join(path.read_text() for path in sorted(run.glob("seed-*/evaluation/*.jsonl")))
    (folder / "episodes.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
    report.figure_overview(run).savefig(PICTURES / "overview.png", dpi=200)
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_gif(results["env"], PICTURES / f"{name}.gif")
    readme()


@app.command
def readme(check: Annotated[bool, tyro.conf.arg(help="Change nothing; fail if README is not current.")] = False) -> None:
    """Write README's tables from the stored results."""
    stale = "README.md's tables are not those of benchmarks/results: run `make readme`."
    pages.renew(README, with_tables(README.read_text()), check=check, stale=stale)


def with_tables(text: str) -> str:
    """Returns README's text with the table of each stored result between its markers."""
    for results in sorted(RESULTS.glob("*/results.json")):
        table = report.markdown_table(json.loads(results.read_text()))
        text = pages.with_block(text, f"results/{results.parent.name}", table)
    return pages.with_block(text, "results/speed", speed.readme_table(speed.load(RESULTS / "speed.json")))


def draw_gif(env_id: str, path: Path) -> None:
    """Draws two episodes of the demonstrator, then two of the clean expert."""
    seeds = episode_seeds(EpisodeSet.EVALUATION, 0)
    shown = [next(seeds) for _ in range(4)]
    frames = [
        frame
        for style, episodes in (("human", shown[2:3]), ("clean", shown))
        for frame in video.record(policies.make_policy(f"expert:{style}", env_id), env_id, episodes, render_size=(200, 200))[0]
    ]
    video.write_video(path, frames, fps=10)


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="publish.py", description="Store results; write README's tables."))
