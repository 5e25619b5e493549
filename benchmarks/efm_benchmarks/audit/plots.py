"""The figures of a reward model's card: the model in blue, the truth black and dashed.

Each function draws on axes what an entry of the card's "figures" holds, where None stands for what is not known.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch

from efm_benchmarks.plots import STYLE, light
from efm_envs.task import Array

if TYPE_CHECKING:
    from efm_benchmarks.audit.strips import Strip

MODEL, TRUTH, EARLY, ALARM, OTHER = "sft", "ink", "ablation-3", "ablation-2", "muted"  # names of colours
DASHES = (0, (5, 3))
DOTS = (0, (1, 2))
STEPS = "steps-mid"  # of curves over thresholds: each stands for those half-way to its neighbours
KINDS = ("sft", "improve", "ablation-1", "ablation-2")  # of disturbances, one colour each
KEYS: dict[str, tuple[str, dict[str, Any]]] = {  # what is drawn along an episode
    "d, what the model says": (MODEL, {"linewidth": 1.8}),
    "its 10–90 % band": (MODEL, {"linewidth": 7, "alpha": 0.18}),
    "steps that were left": (TRUTH, {"linewidth": 1.3, "linestyle": DASHES}),
    "the task's estimate for its expert": (OTHER, {"linewidth": 1.2, "linestyle": DOTS}),
    "true success": ("ablation-1", {"linewidth": 1.6}),
    "the model says success": (MODEL, {"linestyle": "", "marker": "o", "markersize": 5}),
    "a slip": ("goal", {"linewidth": 9, "alpha": 0.6}),
}
WIDTH_INCHES, LEGEND_INCHES = 9.6, 0.55
TITLE_INCHES, LINES_INCHES, PLOT_INCHES, AXIS_INCHES = 0.35, 0.25, 1.35, 0.5  # of a strip, from above, but for its pictures
SLOTS = 8  # for frames above a strip, more if there are more
LEFT, RIGHT = 0.06, 0.985  # of the axes, as parts of a strip's width


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Array:
    """Returns one number of each row, NaN where it is not known."""
    return numbers(row.get(name) for row in rows)


def numbers(values: Any) -> Array:
    """Returns numbers as an array, NaN where one is not known."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def calibration(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    """Draws the steps that were left, mean and 10–90 % of the observations, against d."""
    said, realised, low, high = (column(bins, name) for name in ("said", "realised", "low", "high"))
    axes.fill_between(said, low, high, color=light(MODEL), alpha=0.16, linewidth=0)
    axes.plot(said, realised, "o-", color=light(MODEL), linewidth=1.8, markersize=4.5)
    _identity(axes, max(np.nanmax(said), np.nanmax(high), 1.0))
    axes.set(xlabel="d, the steps that the model says", ylabel="steps that were left")


def hitting_times(axes: Axes, states: Sequence[Mapping[str, Any]]) -> None:
    """Draws d against the mean of the rollouts from each state; bars are the 10–90 % of both distributions."""
    said, mean = column(states, "said"), column(states, "mean")
    axes.hlines(said, column(states, "low"), column(states, "high"), color=light(TRUTH), linewidth=1, alpha=0.35)
    axes.vlines(mean, column(states, "said_low"), column(states, "said_high"), color=light(MODEL), linewidth=2.6, alpha=0.35)
    axes.plot(mean, said, "o", color=light(MODEL), markersize=5)
    _identity(axes, max(np.nanmax(np.concatenate([said, column(states, "high"), column(states, "said_high")])), 1.0))
    axes.set(xlabel="steps that the policy needed, mean of its rollouts", ylabel="d")


def _identity(axes: Axes, top: float) -> None:
    axes.plot([0, top], [0, top], color=light(TRUTH), linewidth=1.3, linestyle=DASHES)
    axes.set(xlim=(0, top), ylim=(0, top))


def operating_curve(axes: Axes, thresholds: Sequence[float], window: Mapping[str, Any]) -> None:
    """Draws what share of the episodes turns out how, for each threshold s."""
    for name, colour in {"recall": MODEL, "precision": TRUTH, "early": EARLY, "false_alarms": ALARM}.items():
        axes.plot(thresholds, 100 * numbers(window[name]), color=light(colour), linewidth=1.6, drawstyle=STEPS)
    axes.plot(thresholds, 100 * numbers(window["f1"]), color=light("improve"), linewidth=2.6, drawstyle=STEPS)
    axes.set(ylim=(0, 103), xlabel="threshold s [steps]")


def delay(axes: Axes, thresholds: Sequence[float], window: Mapping[str, Any]) -> None:
    """Draws how many steps after success it is told."""
    axes.plot(thresholds, numbers(window["delay"]), color=light(MODEL), linewidth=1.8, drawstyle=STEPS)
    axes.set(xlabel="threshold s [steps]")
    axes.set_ylim(bottom=0)


def windows(axes: Axes, thresholds: Sequence[float], found: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> None:
    """Draws F1 for each window, the chosen one above the others."""
    for window in found:
        axes.plot(thresholds, 100 * numbers(window["f1"]), color=light(OTHER), linewidth=1, alpha=0.7, drawstyle=STEPS)
    axes.plot(thresholds, 100 * numbers(chosen["f1"]), color=light("improve"), linewidth=2.6, drawstyle=STEPS)
    axes.set(ylim=(0, 103), xlabel="threshold s [steps]")


def thresholds(axes: Axes, s: Sequence[float], window: Mapping[str, Any], recommended: float | None, own: float) -> None:
    """Marks the recommended threshold and the model's own, and shows what is around them and around good F1."""
    f1 = np.nan_to_num(numbers(window["f1"]))
    marks = [own, *([] if recommended is None else [recommended])]
    axes.axvline(own, color=light(OTHER), linewidth=1.2, linestyle=DOTS)
    if recommended is not None:
        axes.axvline(recommended, color=light(TRUTH), linewidth=1.2, linestyle=DASHES)
    after = min(int(np.flatnonzero(f1 >= f1.max() / 2)[-1]) + 1, len(s) - 1)
    axes.set_xlim(0, 1.1 * max(s[after], *marks, 1e-3))


def reaction(axes: Axes, found: Mapping[str, Any]) -> None:
    """Draws how d and the true d change around a slip, mean over the slips."""
    axes.axvspan(0, found["slip_steps"], color=light("goal"), alpha=0.5, linewidth=0)
    axes.plot(found["offsets"], numbers(found["true"]), color=light(TRUTH), linewidth=1.3, linestyle=DASHES)
    axes.plot(found["offsets"], numbers(found["said"]), color=light(MODEL), linewidth=2)
    axes.set(xlim=(found["offsets"][0], found["offsets"][-1]), xlabel="control steps since the slip began", ylabel="change of d")


def counterfactual(axes: Axes, found: Mapping[str, Any]) -> None:
    """Draws d at success, with the episode's own goal and with another: a line for each episode."""
    pairs = np.stack([numbers(found["own"]), numbers(found["other"])])
    axes.plot([0, 1], pairs, "o-", color=light(MODEL), linewidth=0.8, markersize=4, alpha=0.55)
    axes.axhline(found["threshold"], color=light(OTHER), linewidth=1.2, linestyle=DOTS)
    axes.set(xlim=(-0.3, 1.3), xticks=(0, 1), xticklabels=("its own goal", "another goal"), ylabel="d at success")
    axes.set_ylim(bottom=0)


def robustness(axes: Axes, found: Mapping[str, Any], name: str, scale: float) -> None:
    """Draws "moved" or "switched" against severity, a line for each kind of disturbance."""
    for colour, rows in zip(KINDS, found["kinds"].values(), strict=False):
        axes.plot(100 * numbers(found["severities"]), scale * column(rows, name), "o-", color=light(colour), linewidth=1.8, markersize=4.5)
    axes.set_xlabel("severity [%]")
    axes.set_ylim(bottom=0)


def ranking(axes: Axes, policies: Sequence[Mapping[str, Any]]) -> None:
    """Draws each policy's mean final d against the steps that it really takes."""
    steps, final = column(policies, "steps"), column(policies, "final_d")
    axes.plot(steps, final, "o", color=light(MODEL), markersize=6)
    for place, number in enumerate(np.argsort(final)):  # names of neighbours one above, one below
        x, side = steps[number], "right" if steps[number] > np.nanmean(steps) else "left"
        offset = (7 if side == "left" else -7, 5 if place % 2 else -5)
        name = policies[number]["policy"]
        axes.annotate(name, (x, final[number]), xytext=offset, textcoords="offset points", ha=side, va="center", fontsize=9)
    axes.margins(0.12)
    axes.set(xlabel="true steps per episode (a failure counts whole)", ylabel="d at the end")
    axes.set_ylim(bottom=0)


def hacking(axes: Axes, sets: Sequence[Mapping[str, Any]]) -> None:
    """Draws true and predicted success of each test set, joined by a line, and where the model was fooled."""
    places = np.arange(len(sets))[::-1]
    true, predicted, fooled = (100 * column(sets, name) for name in ("success", "predicted_success", "fooled"))
    axes.hlines(places, true, predicted, color=light(OTHER), linewidth=1)
    axes.plot(true, places, "o", markerfacecolor="none", markeredgecolor=light(TRUTH), markersize=9, markeredgewidth=1.5, clip_on=False)
    axes.plot(predicted, places, "o", color=light(MODEL), markersize=5, clip_on=False)
    axes.plot(fooled, places, "x", color=light(ALARM), markersize=7, markeredgewidth=2, clip_on=False)
    axes.set(xlim=(0, 100), ylim=(-0.6, len(sets) - 0.4), yticks=places, yticklabels=[row["set"] for row in sets], xlabel="episodes [%]")


# -- strips ------------------------------------------------------------------------------------------------------------------------------


def strip_figure(strips: Sequence["Strip"], legend: bool = True) -> Figure:
    """Returns episodes below each other: pictures, and below them d along the episode, its 10–90 % band, and the truth."""
    frames = [_frames_inches(strip) for strip in strips]
    heights = [LEGEND_INCHES if legend else 0.0, *(TITLE_INCHES + inches + LINES_INCHES + PLOT_INCHES + AXIS_INCHES for inches in frames)]
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH_INCHES, sum(heights)), facecolor="white")
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, strip, inches, whole in zip(parts[1:], strips, frames, heights[1:], strict=True):
            below = AXIS_INCHES + PLOT_INCHES + LINES_INCHES
            upper = part.add_axes((LEFT, below / whole, RIGHT - LEFT, inches / whole))
            lower = part.add_axes((LEFT, AXIS_INCHES / whole, RIGHT - LEFT, PLOT_INCHES / whole))
            upper.set_title(strip.title, pad=5, fontweight="normal")
            _steps_to_go(lower, strip)
            _frames(upper, lower, strip)
        if legend:
            parts[0].legend(handles=_handles(), loc="upper center", ncols=4, frameon=False)
    return figure


def _frames_inches(strip: "Strip") -> float:
    """Returns how high the pictures are that stand side by side."""
    height, width = strip.frames.shape[1:3]
    return WIDTH_INCHES * (RIGHT - LEFT) / max(len(strip.frames), SLOTS) * height / width


def _handles() -> list[Artist]:
    lines = {name: {"color": light(colour), **style} for name, (colour, style) in KEYS.items()}
    return [Line2D([], [], label=name, **style) for name, style in lines.items()]


def _frames(axes: Axes, below: Axes, strip: "Strip") -> None:
    """Draws pictures side by side, and from each a line to its time in the plot below."""
    count, (height, width) = len(strip.frames), strip.frames.shape[1:3]
    middle, half = count / 2, max(count, SLOTS) / 2
    axes.set(xlim=(middle - half, middle + half), ylim=(0, height / width), aspect="equal", anchor="S")
    axes.axis("off")
    for place, (frame, time) in enumerate(zip(strip.frames, strip.times, strict=True)):
        axes.imshow(frame, extent=(place + 0.02, place + 0.98, 0.0, height / width - 0.04), interpolation="none")
        below.axvline(time, color=light("grid"), linewidth=0.8, zorder=0.5)
        line = ConnectionPatch((place + 0.5, 0), (time, 1), axes.transData, below.get_xaxis_transform(), color=light(OTHER), linewidth=0.8)
        axes.add_artist(line)


def _steps_to_go(axes: Axes, strip: "Strip") -> None:
    episode, said = strip.judged.episode, strip.judged.said
    time = np.arange(len(said.steps_to_go))
    if {"error_begins", "error_ends"} <= episode.notes.keys():
        axes.axvspan(episode.notes["error_begins"], episode.notes["error_ends"], color=light("goal"), alpha=0.6, linewidth=0)
    if strip.low is not None and strip.high is not None:
        axes.fill_between(time, strip.low, strip.high, color=light(MODEL), alpha=0.18, linewidth=0)
    axes.plot(time, episode.steps_to_go, color=light(OTHER), linewidth=1.2, linestyle=DOTS)
    axes.plot(time, strip.judged.realised, color=light(TRUTH), linewidth=1.3, linestyle=DASHES)
    axes.plot(time, said.steps_to_go, color=light(MODEL), linewidth=1.8)
    fired = time[said.predicted_success]
    axes.plot(fired, np.zeros(len(fired)), "o", color=light(MODEL), markersize=5, clip_on=False, zorder=4)
    if episode.steps_to_success is not None:
        axes.axvline(episode.steps_to_success, color=light("ablation-1"), linewidth=1.6)
    axes.set(xlim=(0, max(1, len(time) - 1)), xlabel="control step", ylabel="steps to go")
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
