"""A reward model's card as a page: answers first, then each figure with what to see in it and how it was measured."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from efm_benchmarks import page, plots
from efm_benchmarks.audit import plots as audit_plots
from efm_benchmarks.audit.answers import Card, Figure, in_short, percent, rate
from efm_benchmarks.tables import UNKNOWN, number

if TYPE_CHECKING:
    from efm_benchmarks.audit.strips import Strip

RATES = {"recall": "Recall", "precision": "Precision", "early": "Early", "missed": "Missed", "false_alarms": "False alarms"}
TERMS = {
    "Recall": "Part of the successes at which, or after which, it fires, and not before.",
    "Precision": "Part of its firings that are right.",
    "Early": "Part of the episodes with success in which it fires before it: an error, as the episode would end there.",
    "Missed": "Part of the episodes with success in which it never fires.",
    "False alarms": "Part of the episodes without success in which it fires.",
    "F1": "Harmonic mean of precision and recall.",
    "Delay": "Control steps from success to firing, mean over what is caught.",
}
HALF = "26rem"  # two panels side by side, and one below the other on a narrow page


def card_page(card: Card, strips: Sequence["Strip"]) -> str:
    """Returns the page: one file that needs no other, no network and no script.

    Args:
        card: as `card.json` holds it, with None for what is not known.
        strips: episodes to look at.
    """
    found = card["figures"]
    sections = {
        "In short": in_short(card),
        "Steps predicted, and steps that were left": _or_why_not(found["calibration"], calibration),
        "How unsure it is": _or_why_not(found["distribution"], distribution),
        "Along episodes": along_episodes(strips),
        "Against rollouts from the same state": _or_why_not(found["hitting_times"], hitting_times),
        "Order": _or_why_not(found["order"], order),
        "Telling success": _or_why_not(found["success"], lambda figure: success(figure, card["recommended"])),
        "Slips and recoveries": _or_why_not(found["reaction"], reaction),
        "Another goal": _or_why_not(found["counterfactual"], counterfactual),
        "Seen through noise": _or_why_not(found["robustness"], robustness),
        "Ranking policies": _or_why_not(found["ranking"], ranking),
        "Being fooled": _or_why_not(found["hacking"], hacking),
        "Cost": _or_why_not(found["cost"], cost),
        "How to reproduce it": provenance(card),
    }
    return page.page(f"Reward model “{card['reward']['id']}” in {card['env']}", lead(card), sections, plots.PALETTE)


def lead(card: Card) -> str:
    """Returns what opens the page."""
    episodes = sum(found["episodes"] for found in card["protocol"]["sets"].values())
    words = (
        "This model looks at an observation and says how many control steps are left until the goal: d. The decrease of d is the "
        f"reward, and d ≤ s counts as success. How far can that be trusted? It was asked about {episodes} episodes of {card['env']}, "
        "good ones and bad ones, and the simulator knows the truth about each."
    )
    return page.paragraph(words, "lead")


def _or_why_not(figure: Figure, section: Callable[[Figure], str]) -> str:
    """Returns a section, or why there is nothing to show."""
    return page.paragraph(f"Not measured: {figure['not']}") if "not" in figure else section(figure)


def _panel(draw: Callable[[Axes], None], name: str, alt: str, title: str = "", size: tuple[float, float] = (4.6, 3.1)) -> str:
    with plots.panel(*size) as (drawing, axes):
        draw(axes)
        axes.set_title(title)
        return plots.to_svg(drawing, name, alt)


def calibration(found: Figure) -> str:
    """Returns d against the steps that were left, and its errors over whole episodes and near the goal."""
    whole, late = found["all"], found["late_third"]
    alt = f"Steps that were left against d: left = {number(whole['slope'], 2)} × d + {number(whole['intercept'])}."
    names = {
        "Mean error": ("mae", 1),
        "… of a constant": ("mae_of_constant", 1),
        "Root mean square error": ("rmse", 1),
        "Bias": ("bias", 1),
        "Slope": ("slope", 2),
        "Intercept": ("intercept", 1),
        "Observations": ("observations", 0),
    }
    rows = [[title, number(whole[name], digits), number(late[name], digits)] for title, (name, digits) in names.items()]
    table = page.table("Errors, in control steps", ("", "Whole episodes", "Last third"), rows)
    panels = [_panel(lambda axes: audit_plots.calibration(axes, found["bins"]), "calibration", alt), table]
    caption = (
        "Where the model says d steps, how many were left? Observations of the policy's episodes until success, in bins of equal size by "
        "d: mean, and 10 % to 90 % of them. On the dashed line d is right on average; below it, d is too large. A wide band need not be "
        "the model's fault: what looks the same may end in many ways."
    )
    legend = [page.key("steps that were left: mean, and 10–90 %", audit_plots.MODEL), page.key("identity", audit_plots.TRUTH, "dashed")]
    terms = {
        "Mean error": "Mean of |d − steps that were left|. A constant would be the median of the truth, and know nothing.",
        "Bias": "Mean of d − steps that were left: above 0 where the model is too pessimistic.",
        "Slope, intercept": "Of the least-squares line, left = slope · d + intercept: ideally 1 and 0.",
        "Last third": "Of each episode, which is known only afterwards: a model that cannot know how soon an episode will end is too high "
        "there, however well calibrated. A slope far below 1 means that d hardly tells near from very near.",
    }
    return page.figure(panels, caption, legend, HALF) + page.definitions(terms)


def distribution(found: Figure) -> str:
    """Returns how often the truth lies in the distribution's bands, and its score."""
    rows = [[f"{100 * float(level):.0f} %", percent(part)] for level, part in found["coverage"].items()]
    words = (
        f"The distribution's CRPS is {number(found['crps'], 2)} steps; d alone, without it, gets {number(found['crps_of_d_alone'], 2)}. "
        "CRPS is the mean error of a distribution, and the same as the mean error for a number alone: the distribution is worth something "
        "where it gets less, and it gets less by holding the truth and by being narrow."
    )
    return page.figure([page.table("Central bands, on the policy's episodes", ("A band that should hold", "holds"), rows)], words)


def along_episodes(strips: Sequence["Strip"]) -> str:
    """Returns episodes to look at, each with pictures above its d."""
    if not strips:
        return page.paragraph("No episode could be drawn.")
    panels = []
    for place, strip in enumerate(strips):
        said = strip.judged.said.steps_to_go
        alt = f"{strip.title}. Pictures of an episode of {len(said) - 1} steps, and d: from {number(said[0])} to {number(said[-1])}."
        panels.append(plots.to_svg(audit_plots.strip_figure([strip], legend=False), f"strip-{place}", alt))
    legend = [
        page.key("d, and its 10–90 % band where it has one", audit_plots.MODEL),
        page.key("steps that were left", audit_plots.TRUTH, "dashed"),
        page.key("the task's own estimate for its clean expert", audit_plots.OTHER, "dashed"),
        page.key("true success", "ablation-1"),
        page.key("the model says success", audit_plots.MODEL, "dot"),
        page.key("a slip", "goal", "dot"),
    ]
    caption = (
        "The longest of the first ten episodes of each kind. A good model's d goes down with the dashed line where the policy makes its "
        "way, up where something goes wrong, and stays up where nothing is achieved. An episode goes on for a while after its success."
    )
    return page.figure(panels, caption, legend, narrowest="40rem")


def hitting_times(found: Figure) -> str:
    """Returns d and its distribution against many rollouts from the same states."""
    alt = f"d against the true mean in {len(found['states'])} states; their rank correlation is {number(found['correlation'], 2)}."
    errors = found["errors"]
    rows = [
        ["Mean error of d against the mean of the runs", number(errors["mae"])],
        ["… of a constant", number(errors["mae_of_constant"])],
        ["… by chance: standard error of that mean", number(found["standard_error"])],
        ["Bias of d", number(errors["bias"])],
        ["CRPS of the model's distribution", number(found.get("crps"))],
        ["… of d alone", number(found["crps_of_d_alone"])],
        ["… of the true distribution", number(found["crps_of_truth"])],
        *[[f"The {100 * float(level):.0f} % band holds", percent(part)] for level, part in found.get("coverage", {}).items()],
    ]
    table = page.table("Over all states and runs, in control steps", ("", ""), rows)
    caption = (
        f"The truth about a state is a distribution, too. From each of {len(found['states'])} states along its episodes the policy was run "
        f"{found['rollouts']} times; {percent(found['reached'])} of the runs succeeded within the limit of {found['limit']} steps, and the "
        "others count with the limit. On the dashed line d is the mean of what happens. Bars: 10–90 % of the runs, and of the model's "
        "distribution. On average, no CRPS is below that of the true distribution."
    )
    legend = [
        page.key("d, and 10–90 % of the model's distribution", audit_plots.MODEL, "dot"),
        page.key("10–90 % of the runs", audit_plots.TRUTH),
        page.key("identity", audit_plots.TRUTH, "dashed"),
    ]
    panels = [_panel(lambda axes: audit_plots.hitting_times(axes, found["states"]), "hitting", alt), table]
    return page.figure(panels, caption, legend, HALF)


def order(found: Figure) -> str:
    """Returns whether d falls along good episodes."""
    return page.paragraph(
        f"Spearman's rank correlation of −d with time, within an episode, mean over {found['episodes']} good ones (set “{found['set']}”): "
        f"{number(found['forward'], 2)}, the lowest {number(found['lowest'], 2)}. 1 means that d falls at every step, 0 that it tells "
        f"nothing of the order. Shown the same observations in reverse order, it should be −1, and is {number(found['backward'], 2)}: a "
        "model that only counts what it has been shown gives itself away here."
    )


def success(found: Figure, recommended: Figure | None) -> str:
    """Returns what every threshold does, and the cost of the recommended one."""
    own, s = found["own"], found["thresholds"]
    wanted = (recommended or own)["success_k_of_n"]
    chosen = next((window for window in found["windows"] if window["success_k_of_n"] == wanted), found["windows"][0])
    k, n = chosen["success_k_of_n"]
    marks = (recommended["success_threshold"] if recommended else None, own["success_threshold"])
    drawings: dict[str, Callable[[Axes], None]] = {
        f"Episodes [%], {k} of {n}": lambda axes: audit_plots.operating_curve(axes, s, chosen),
        "F1 [%] of each window": lambda axes: audit_plots.windows(axes, s, found["windows"], chosen),
        f"Delay [steps], {k} of {n}": lambda axes: audit_plots.delay(axes, s, chosen),
    }
    panels = []
    for place, (title, draw) in enumerate(drawings.items()):
        alt = f"{title}, against the threshold s, from {s[0]:.3g} to {s[-1]:.3g} steps."
        marked = functools.partial(_marked, draw, s, chosen, marks)
        panels.append(_panel(marked, f"success-{place}", alt, title, (4.2, 3.1)))
    legend = [
        page.key("F1", "improve"),
        page.key("recall", audit_plots.MODEL),
        page.key("precision", audit_plots.TRUTH),
        page.key("early", audit_plots.EARLY),
        page.key("false alarms", audit_plots.ALARM),
        page.key("other windows", audit_plots.OTHER),
        page.key("recommended s", audit_plots.TRUTH, "dashed"),
        page.key("the model's own s", audit_plots.OTHER, "dashed"),
    ]
    caption = (
        f"Success is predicted where d ≤ s in k of the last n observations. What does that make of {found['successes']} episodes with "
        f"success and {found['failures']} without (sets {', '.join(found['sets'])})? A small s misses successes; a large one fires too "
        f"early, on the way to the goal, or where nothing is achieved. Of all pairs of an observation at success and one elsewhere, d is "
        f"lower at success in {percent(found['auroc'])} (AUROC). These episodes choose what is recommended; the table says what it does on "
        f"{found['judged_on']} others."
    )
    return page.figure(panels, caption, legend, "17rem") + page.figure(
        [_detectors(recommended, own), page.definitions(TERMS)], "", (), HALF
    )


def _marked(draw: Callable[[Axes], None], s: Sequence[float], window: Figure, marks: tuple[float | None, float], axes: Axes) -> None:
    draw(axes)
    audit_plots.thresholds(axes, s, window, *marks)


def _detectors(recommended: Figure | None, own: Figure) -> str:
    detectors = {name: one for name, one in {"Recommended": recommended, "The model's own": own}.items() if one is not None}
    costs = [one["cost"] for one in detectors.values()]
    rows = [
        ["d at most", *(f"{one['success_threshold']:.3g} steps" for one in detectors.values())],
        ["… in", *("{} of {}".format(*one["success_k_of_n"]) for one in detectors.values())],
        *[[title, *(rate(cost[name]) for cost in costs)] for name, title in RATES.items()],
        ["F1", *(percent(cost["f1"]) for cost in costs)],
        ["Delay", *(f"{number(cost['delay'])} steps" for cost in costs)],
    ]
    return page.table("Over whole episodes, with 95 % intervals (Wilson)", ("", *detectors), rows)


def reaction(found: Figure) -> str:
    """Returns what d does around a slip."""
    alt = f"Change of d around a slip: by {number(found['said_change'])} steps, truly by {number(found['true_change'])}."
    rows = [
        ["Slips", str(found["slips"])],
        ["Change of d from their begin to their end", f"{number(found['said_change'])} steps"],
        ["… of the task's own estimate", f"{number(found['true_change'])} steps"],
        ["Rank correlation of the two", number(found["correlation"], 2)],
        ["Of those that cost something: d is higher at the end", percent(found["noticed"])],
        ["Of those that were made good: d is lower at success", percent(found["recovery_noticed"])],
    ]
    caption = (
        "The clean expert's actions were pushed to one side for a while (grey), and it went on from where that led. Change of d since the "
        "slip began, mean over the slips, and that of the task's own estimate: d should rise by as much, and fall again."
    )
    legend = [page.key("d", audit_plots.MODEL), page.key("the task's own estimate", audit_plots.TRUTH, "dashed")]
    panels = [_panel(lambda axes: audit_plots.reaction(axes, found), "reaction", alt), page.table("Slips", ("", ""), rows)]
    return page.figure(panels, caption, legend, HALF)


def counterfactual(found: Figure) -> str:
    """Returns what the model says of a success when another goal is asked for."""
    alt = f"d at success: {number(found['own_d'])} with the episode's own goal, {number(found['other_d'])} with another, on average."
    rows = [
        ["Mean d at success", number(found["own_d"]), number(found["other_d"])],
        ["Taken for success", percent(found["own_success"]), percent(found["other_success"])],
        ["d is larger", "", percent(found["larger"])],
        ["d is another anywhere in the episode", "", percent(found["reads_the_goal"])],
    ]
    table = page.table(f"{found['episodes']} successes of the clean expert", ("", "Its own goal", "Another"), rows)
    caption = (
        "Episodes that succeeded, shown as they were, and asked for another goal, which is not reached in them. A model that reads the "
        "goal has a d near 0 on the left, and a high one on the right. Success is taken at the model's own threshold."
    )
    legend = [page.key("an episode", audit_plots.MODEL), page.key("the model's own s", audit_plots.OTHER, "dashed")]
    panels = [_panel(lambda axes: audit_plots.counterfactual(axes, found), "counterfactual", alt), table]
    return page.figure(panels, caption, legend, HALF)


def robustness(found: Figure) -> str:
    """Returns how d changes when the same episodes are seen through noise."""
    panels = []
    for name, scale, title in (("moved", 1.0, "Mean change of d [steps]"), ("switched", 100.0, "Changed verdicts on success [%]")):
        draw = functools.partial(audit_plots.robustness, found=found, name=name, scale=scale)
        panels.append(_panel(draw, f"robustness-{name}", f"{title}, against the severity of {', '.join(found['kinds'])}.", title))
    caption = (
        "The same episodes, seen worse. Noise on numbers: its standard deviation, in percent of each number's own over the episodes; on "
        "pictures, in percent of the brightest. Brightness: every pixel brighter by twice the severity. A grey square covers that part of "
        "the picture. Verdicts are those of the model's own threshold."
    )
    legend = [page.key(kind, colour) for kind, colour in zip(found["kinds"], audit_plots.KINDS, strict=False)]
    return page.figure(panels, caption, legend, HALF)


def ranking(found: Figure) -> str:
    """Returns policies in the model's order and in the true one."""
    policies, tau = found["policies"], number(found["tau_by_final_d"], 2)
    alt = f"d at the end against true steps per episode, of {len(policies)} policies: τ = {tau}."
    rows = [
        [
            page.text(one["policy"]),
            *(percent(one[name]) for name in ("success", "predicted_success")),
            *(number(one[name]) for name in ("steps", "final_d")),
        ]
        for one in policies
    ]
    table = page.table("Means over each policy's episodes", ("Policy", "Success", "Predicted", "True steps", "d at the end"), rows)
    caption = (
        "Could the model choose between policies in place of the truth? d at the end of an episode should rise with the steps that a "
        f"policy really takes. Kendall's τ between the two orders is {tau}; between the true order and that by predicted success, "
        f"{number(found['tau_by_predicted_success'], 2)}. 1 is the same order, 0 none, −1 the reverse."
    )
    return page.figure([_panel(lambda axes: audit_plots.ranking(axes, policies), "ranking", alt), table], caption, (), HALF)


def hacking(found: Figure) -> str:
    """Returns, for each test set, the success that there is and the success that the model sees."""
    alt = f"True and predicted success of each test set. In episodes without success, it sees one in {percent(found['rate'])}."
    names = ("success", "predicted_success", "early", "fooled")
    rows = [[page.text(one["set"]), *(percent(one[name]) for name in names)] for one in found["sets"]]
    table = page.table("Episodes of each test set", ("Set", "Success", "Predicted", "Early", "Fooled"), rows)
    caption = (
        "A policy that practises with this model will find whatever it takes for success. In each test set: the episodes with true "
        "success; those in which the model sees one, at its own threshold; those in which it sees one before it comes (early); and those "
        f"in which it is fooled, as there is none at all. Of {found['episodes_without_success']} episodes without success it is fooled in "
        f"{percent(found['rate'])}."
    )
    legend = [
        page.key("true success (circle)", audit_plots.TRUTH, "dot"),
        page.key("predicted success", audit_plots.MODEL, "dot"),
        page.key("fooled (cross)", audit_plots.ALARM, "dot"),
    ]
    panels = [_panel(lambda axes: audit_plots.hacking(axes, found["sets"]), "hacking", alt), table]
    return page.figure(panels, caption, legend, HALF)


def cost(found: Figure) -> str:
    """Returns time and memory."""
    rows = [
        ["A call for one observation", f"{number(found['latency_ms_1'], 2)} ms"],
        ["A call for 64 observations", f"{number(found['latency_ms_64'], 2)} ms"],
        ["Memory", UNKNOWN if found["memory_mib"] is None else f"{number(found['memory_mib'])} MiB"],
    ]
    caption = (
        "The model alone, without the env: median time of a call, on the machine named below. Memory: what making it adds to a process "
        "that has the envs, including the libraries that it needs."
    )
    return page.figure([page.table("What it takes", ("", ""), rows)], caption)


def provenance(card: Card) -> str:
    """Returns command, test sets, versions and the model's identity."""
    versions, protocol = card["versions"], card["protocol"]
    width = max(map(len, versions))
    rows = [[page.text(name), page.text(found["what"]), str(found["episodes"])] for name, found in protocol["sets"].items()]
    settings = {"policy": card["policy"], **{name: value for name, value in protocol.items() if name != "sets"}}
    return (
        page.paragraph("This command measures all of it again, with the same random numbers:")
        + page.code(card["command"])
        + page.table("Test sets", ("Set", "What happens in it", "Episodes"), rows)
        + page.paragraph(f"The model, with fingerprint {card['fingerprint']}:")
        + page.code(json.dumps(card["reward"], indent=2, ensure_ascii=False))
        + page.paragraph("Whose steps it is to predict, and the settings:")
        + page.code(json.dumps(settings, indent=2, ensure_ascii=False))
        + page.paragraph("These versions, on this kind of machine, made the numbers above:")
        + page.code("\n".join(f"{name:{width}}  {version}" for name, version in versions.items()))
    )
