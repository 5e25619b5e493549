"""The report of a recipe: a table for the terminal and the README, the README's picture, and one self-contained HTML page."""

import os
from itertools import islice
from pathlib import Path

from matplotlib.figure import Figure

from efm_agents.checkpoint import write_atomically
from efm_benchmarks import page, plots, sections
from efm_benchmarks.findings import Findings
from efm_benchmarks.policies import make_policy
from efm_benchmarks.tables import markdown_table, print_table
from efm_benchmarks.video import play
from efm_envs.errors import EFMError
from efm_envs.seeding import EpisodeSet, episode_seeds

__all__ = ["figure_overview", "markdown_table", "print_table", "write_report", "write_videos"]

VIDEO_EPISODES = 3
VIDEO_SIZE = (240, 240)


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a finished recipe's folder: one file that needs no other, and no network.

    Returns:
        Its path.
    """
    findings = Findings(folder)
    content = {
        "Results": sections.results(findings),
        "Learning curve": sections.learning_curve(findings),
        "Trajectories": sections.trajectories(findings),
        "Steps-to-go along an episode": sections.along_an_episode(findings),
        "Calibration of steps-to-go": sections.calibration(findings),
        "What practice looked like": sections.practice(findings),
        "Videos": sections.videos(findings, reason=_make_missing_videos(findings)),
        "How to reproduce it": sections.provenance(findings),
    }
    path = findings.folder / "report.html"
    title = f"Self-Improvement on {findings.config['env']}"
    write_atomically(path, page.page(title, sections.lead(findings), content, plots.PALETTE).encode())
    return path


def figure_overview(folder: Path) -> Figure:
    """Returns the README's picture of a finished recipe; `savefig(path, dpi=200)` writes it sharp enough for any screen."""
    return plots.overview(Findings(folder))


def write_videos(folder: Path) -> None:
    """Writes videos/sft.mp4 and videos/improve.mp4: the first evaluation episodes, as the first training seed's policies act in them.

    Raises:
        RenderingError: there is no way to draw on this machine.
    """
    findings = Findings(folder)
    for name, stage in {"sft": "sft", "improve": findings.main_stage}.items():
        target = findings.folder / "videos" / f"{name}.mp4"
        unfinished = target.with_name(f".{target.name}")
        seeds = islice(episode_seeds(EpisodeSet.EVALUATION, 0), VIDEO_EPISODES)
        policy = make_policy(str(findings.folder / "seed-0" / stage), findings.config["env"])
        play(policy, findings.config["env"], seeds, unfinished, render_size=VIDEO_SIZE, terminate_on="true")
        os.replace(unfinished, target)


def _make_missing_videos(findings: Findings) -> str | None:
    """Returns None once the videos are there, or else why they cannot be."""
    if all((findings.folder / f"videos/{name}.mp4").is_file() for name in ("sft", "improve")):
        return None
    try:
        write_videos(findings.folder)
    except EFMError as error:
        return str(error)
    return None
