"""The report's figures. One colour per stage, everywhere.

A colour is an entry of `PALETTE`: a figure is drawn in the light ones, and in a page its SVG takes them from CSS variables of the same
names, so that it follows the reader's light or dark mode.
"""

import contextlib
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from efm_benchmarks.findings import Calibration, Curve, Findings, Practice, Prediction, in_bins, over_seeds
from efm_envs.data import Episode
from efm_envs.tasks.point_mass import ARENA_M, SUCCESS_RADIUS_M

PALETTE = {  # name: on a light ground, on a dark ground
    "ink": ("#1d2530", "#e7eaf0"),
    "muted": ("#5f6b7a", "#a2acba"),
    "grid": ("#e2e6eb", "#2b323c"),
    "goal": ("#cbd5df", "#3c4754"),
    "demonstrations": ("#8459c4", "#b698f0"),
    "sft": ("#2a78c4", "#69b0f3"),
    "improve": ("#db5718", "#ff9057"),
    "direct": ("#48525e", "#b4bdc9"),
    "ablation-1": ("#0c8a7d", "#3fc9b8"),
    "ablation-2": ("#b3317f", "#f07fc0"),
    "ablation-3": ("#a07800", "#e0b93c"),
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": PALETTE["ink"][0],
    "axes.edgecolor": PALETTE["muted"][0],
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": PALETTE["grid"][0],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["muted"][0],
    "ytick.color": PALETTE["muted"][0],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "efm",
    "text.usetex": False,
}
PATHS = 8  # trajectories in a panel: more of them hide each other
VIEW_M = 1.02 * ARENA_M  # a little of what is around the arena, so that its border is whole
EDGE = (VIEW_M - ARENA_M) / (2 * VIEW_M)  # where the border is, as a part of the axes' width
OVERVIEW_PX = (1200, 366)


def colours(stages: Sequence[str]) -> dict[str, str]:
    """Returns the name in `PALETTE` of each stage's colour; a last round has that of its best."""
    ablations = iter([f"ablation-{1 + i % 3}" for i in range(len(stages))])
    found: dict[str, str] = {}
    for stage in stages:
        base = stage.removesuffix("-last")
        found[stage] = found.get(base) or (base if base in PALETTE else next(ablations))
    return found


def light(name: str) -> str:
    """Returns a colour on a light ground."""
    return PALETTE[name][0]


@contextlib.contextmanager
def panel(width: float = 4.6, height: float = 3.1) -> Iterator[tuple[Figure, Axes]]:
    """Yields a figure [inches] with one axes, in this module's style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Returns a figure as an SVG element for a page: as wide as its place there, coloured by CSS variables, and with ids of its own.

    Args:
        figure: drawn in the light colours of `PALETTE`.
        name: what its ids begin with, unique in the page.
        alt: what a reader who does not see it should know.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {view_box[0]} role="img" aria-label="{html.escape(alt)}">', svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, (on_light, _) in PALETTE.items():
        svg = svg.replace(on_light, f"var(--{colour})")
    return re.sub(r"\s*\n\s*", "\n", svg)


def trajectories(axes: Axes, episodes: Sequence[Episode], colour: str) -> None:
    """Draws the first episodes from above: start dots, paths, goal discs, and a cross where an episode ended without success."""
    axes.set(xlim=(-VIEW_M, VIEW_M), ylim=(-VIEW_M, VIEW_M), aspect="equal")
    axes.axis("off")
    axes.add_patch(Rectangle((-ARENA_M, -ARENA_M), 2 * ARENA_M, 2 * ARENA_M, fill=False, edgecolor=light("muted"), linewidth=1))
    for episode in episodes[:PATHS]:
        goal = episode.observations["environment_state"][0]
        axes.add_patch(Circle((goal[0], goal[1]), SUCCESS_RADIUS_M, facecolor=light("goal"), edgecolor="none", zorder=1))
    for episode in episodes[:PATHS]:
        path = episode.observations["agent_pos"][:, :2]
        axes.plot(*path.T, color=light(colour), linewidth=1.3, alpha=0.85, zorder=2)
        axes.plot(*path[0], "o", color=light(colour), markersize=4.5, zorder=3)
        if episode.steps_to_success is None:
            axes.plot(*path[-1], "x", color=light("ink"), markersize=6, markeredgewidth=1.6, zorder=4)


def practice_curves(axes: Axes, practice: Mapping[str, Sequence[Practice]], metric: str, scale: float = 1.0, band: bool = True) -> None:
    """Draws a metric over practice episodes: the mean over seeds with its 95 % interval, and each seed as a thin line.

    Args:
        axes: to draw on.
        practice: of each seed, by the name of the colour.
        metric: which one.
        scale: what its values are multiplied by.
        band: whether the interval is drawn.
    """
    for colour, seeds in practice.items():
        if len(seeds) > 1:
            for one in seeds:
                axes.plot(one.episodes, scale * one.metrics[metric], color=light(colour), linewidth=0.8, alpha=0.45)
        curve = over_seeds(seeds, metric)
        axes.plot(curve.x, scale * curve.mean, color=light(colour), linewidth=2.2, zorder=3)
        if band:
            _band(axes, curve, colour, scale)
        for one in seeds:
            if one.stopped != "finished":
                axes.plot(
                    one.episodes[-1], scale * one.metrics[metric][-1], "x", color=light("ink"), markersize=8, markeredgewidth=2, zorder=5
                )
    everything = [scale * one.metrics[metric] for seeds in practice.values() for one in seeds]
    low, high = min(0.0, *(v.min() for v in everything)), max(0.0, *(v.max() for v in everything))
    axes.set_xlim(left=0)
    axes.set_ylim(1.08 * low, 1.08 * high if high > low else 1.0)  # not the bands': those of few seeds may reach far beyond


def level(axes: Axes, value: float, colour: str) -> None:
    """Draws a reference level."""
    axes.axhline(value, color=light(colour), linewidth=1.4, linestyle=(0, (5, 3)), zorder=2)


def steps_left(axes: Axes, prediction: Prediction, colour: str) -> None:
    """Draws predicted steps-to-go along an episode, with its 10–90 % band, against the truth."""
    time = np.arange(len(prediction.mean))
    axes.fill_between(time, prediction.low, prediction.high, color=light(colour), alpha=0.2, linewidth=0)
    axes.plot(time, prediction.mean, color=light(colour), linewidth=1.8)
    axes.plot(time, prediction.realised, color=light("ink"), linewidth=1.3, linestyle=(0, (5, 3)))
    axes.set_xlim(0, max(1, len(time) - 1))
    axes.set_ylim(bottom=0)


def calibration(axes: Axes, found: Calibration, given: str, width: float) -> None:
    """Draws predicted and realised steps-to-go against each other: the mean of one in bins of the other, with its 10–90 % range.

    Args:
        axes: to draw on.
        found: what to draw.
        given: "predicted": realised steps in bins of predicted ones, which is calibration; "realised": the other way round.
        width: of a bin, in [control steps].
    """
    x, y = (found.predicted, found.realised) if given == "predicted" else (found.realised, found.predicted)
    top = float(max(x.max(), 1.0))
    axes.plot([0, top], [0, top], color=light("ink"), linewidth=1.3, linestyle=(0, (5, 3)))
    curve = in_bins(x, y, width)
    _band(axes, curve, "demonstrations", 1.0)
    axes.plot(curve.x, curve.mean, "o-", color=light("demonstrations"), linewidth=1.8, markersize=4.5)
    axes.set_xlim(0, top)
    axes.set_ylim(bottom=0)


def overview(findings: Findings) -> Figure:
    """Returns the picture that tells the whole story: three stages from above, and the learning curve."""
    with matplotlib.rc_context({**STYLE, "font.size": 12, "axes.titlesize": 14}):
        figure = Figure((OVERVIEW_PX[0] / 100, OVERVIEW_PX[1] / 100), facecolor="white", dpi=100)
        found = colours([*findings.improved, "demonstrations", "sft"])
        titles = {"demonstrations": "Demonstrations", "sft": "SFT", findings.main_stage: "Self-Improvement"}
        for i, (stage, title) in enumerate(titles.items()):
            axes = figure.add_axes((0.004 + 0.25 * i, 0.005, 0.2375, 0.779))
            trajectories(axes, findings.episodes(stage), colour := found[stage])
            axes.set_title(title, color=light(colour), pad=23, x=EDGE)
            axes.text(EDGE, 1.015, _in_short(findings.row(stage)), transform=axes.transAxes, color=light("muted"))
        _overview_curves(figure, findings)
    return figure


def _overview_curves(figure: Figure, findings: Findings) -> None:
    upper = figure.add_axes((0.795, 0.51, 0.193, 0.27))
    lower = figure.add_axes((0.795, 0.145, 0.193, 0.27))
    practice = {colours(list(findings.improved))[findings.main_stage]: findings.learning(findings.main_stage)}
    practice_curves(upper, practice, "success", 100)
    practice_curves(lower, practice, "steps")
    direct = findings.row("direct")["steps"]
    level(lower, direct, "direct")
    lower.annotate(
        "straight to the goal", (0.36, direct), xycoords=lower.get_yaxis_transform(), xytext=(0, 9), textcoords="offset points", fontsize=10
    )
    upper.set(ylim=(0, 104), yticks=(0, 50, 100), xticklabels=())
    lower.set_xlabel("practice episodes")
    upper.set_title("Learning curve", pad=23)
    upper.text(0, 1.05, "success [%]", transform=upper.transAxes, color=light("muted"))
    lower.text(0, 1.05, "steps per episode", transform=lower.transAxes, color=light("muted"))


def _in_short(row: Mapping[str, object]) -> str:
    success, steps = row["success"], row["steps"]
    assert isinstance(success, Mapping) and isinstance(steps, float)
    return f"{100 * success['mean']:.0f} % success, {steps:.0f} steps"


def _band(axes: Axes, curve: Curve, colour: str, scale: float) -> None:
    if np.isfinite(curve.low).any():
        axes.fill_between(curve.x, scale * curve.low, scale * curve.high, color=light(colour), alpha=0.14, linewidth=0)
