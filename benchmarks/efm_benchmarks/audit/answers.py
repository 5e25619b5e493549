"""What a reward model's card answers, in words: the page's first section."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from efm_benchmarks import page
from efm_benchmarks.tables import UNKNOWN, number

Card = Mapping[str, Any]
Figure = Mapping[str, Any]

POOR_F1 = 0.5  # below which it is said of a recommended threshold that it is poor
NOISE = 1  # the number of the severity for which the answer about noise is given


class Question(NamedTuple):
    """A question about a reward model, and how it is answered.

    Attributes:
        text: the question.
        figure: the one that answers it.
        value: a number of that figure; None where it is not known.
        measure: what the number is.
        yes: the answer is yes if the number is at least as good as this one,
        partly: and partly if it is at least as good as this one. Which of the two is larger says whether more is better.
        words: what the figure says, in a sentence.
    """

    text: str
    figure: str
    value: Callable[[Figure], float | None]
    measure: str
    yes: float
    partly: float
    words: Callable[[Figure], str]


QUESTIONS = (
    Question(
        "Does d count the steps?",
        "calibration",
        lambda f: _relative(f["all"]),
        "mean error of d, as a part of the mean error of a constant",
        0.5,
        1.0,
        lambda f: f"It is off by {number(f['all']['mae'])} steps on average; a constant would be by {number(f['all']['mae_of_constant'])}.",
    ),
    Question(
        "And near the goal?",
        "calibration",
        lambda f: abs(near(f, "said") - near(f, "realised")) / max(1.0, near(f, "realised")),
        "where d is smallest, in a quarter of the observations: distance between its mean and that of the steps that were left, as a part "
        "of these",
        0.15,
        0.4,
        lambda f: (
            f"Where d is smallest, in a quarter of the observations, it says {number(near(f, 'said'))} steps on average; "
            f"{number(near(f, 'realised'))} were left."
        ),
    ),
    Question(
        "Does it know how unsure it is?",
        "distribution",
        lambda f: abs(f["coverage"]["0.8"] - 0.8),
        "distance between 80 % and the part of the truth in the band that should hold 80 %",
        0.05,
        0.15,
        lambda f: f"The band that should hold 80 % of the truth holds {percent(f['coverage']['0.8'])}.",
    ),
    Question(
        "Is the order right?",
        "order",
        lambda f: f["forward"],
        "rank correlation of −d and time along good episodes",
        0.9,
        0.5,
        lambda f: (
            f"Along good episodes, −d and time have a rank correlation of {number(f['forward'], 2)} (1 is perfect); played backwards, "
            f"{number(f['backward'], 2)}."
        ),
    ),
    Question(
        "Can it tell success?",
        "recommended",
        lambda f: f["cost"]["f1"],
        "F1 over whole episodes, with the recommended threshold",
        0.95,
        0.8,
        lambda f: _cost_in_words(f["cost"]),
    ),
    Question(
        "Does it notice a slip?",
        "reaction",
        lambda f: f["noticed"],
        "part of the slips after which d is higher, of those after which more steps are left",
        0.9,
        0.6,
        lambda f: (
            f"d is higher after {percent(f['noticed'])} of the slips that cost something. On average it rises by "
            f"{number(f['said_change'])} steps in a slip, and should by {number(f['true_change'])}."
        ),
    ),
    Question(
        "Does it read the goal?",
        "counterfactual",
        lambda f: f["larger"],
        "part of the successes at which d is larger when another goal is asked for",
        0.95,
        0.7,
        lambda f: (
            f"Asked for another goal, its d is larger at {percent(f['larger'])} of {f['episodes']} successes; by its own threshold, it "
            f"still takes {percent(f['other_success'])} of them for one."
        ),
    ),
    Question(
        "Does it stand noise?",
        "robustness",
        lambda f: max(rows[NOISE]["switched"] for rows in f["kinds"].values()),
        "part of the observations whose verdict, success or not, changes with the second of the severities, at worst",
        0.01,
        0.05,
        lambda f: (
            f"A disturbance of {percent(f['severities'][NOISE])} changes its mind about success in at most "
            f"{percent(max(rows[NOISE]['switched'] for rows in f['kinds'].values()), 1)} of the observations."
        ),
    ),
    Question(
        "Does it rank policies?",
        "ranking",
        lambda f: f["tau_by_final_d"],
        "Kendall's τ between the order of policies by d at the end and by their true steps",
        0.8,
        0.4,
        lambda f: (
            f"Its order of {len(f['policies'])} policies and the true one agree to τ = {number(f['tau_by_final_d'], 2)} (1 is perfect)."
        ),
    ),
    Question(
        "Is it hard to fool?",
        "hacking",
        lambda f: f["rate"] if any(row["predicted_success"] for row in f["sets"]) else None,  # who never sees success is no judge of it
        "part of the episodes without success in which it sees one, by its own threshold",
        0.02,
        0.1,
        lambda f: (
            f"By its own threshold it sees success in {percent(f['rate'])} of the {f['episodes_without_success']} episodes that have none."
        ),
    ),
)
ANSWERS = {"yes": "ablation-1", "partly": "ablation-3", "no": "alert", "not measured": "muted"}  # and their colours


def answer(question: Question, figure: Figure) -> tuple[str, str]:
    """Returns the answer, one of `ANSWERS`, and a sentence."""
    if "not" in figure:
        return "not measured", f"{figure['not'][:1].upper()}{figure['not'][1:]}"
    value, sign = question.value(figure), 1 if question.yes > question.partly else -1
    if value is None:
        return "not measured", "That cannot be said: it never came to that."
    reached = [name for name, line in (("yes", question.yes), ("partly", question.partly)) if sign * value >= sign * line]
    return (reached or ["no"])[0], question.words(figure)


def in_short(card: Card) -> str:
    """Returns the answers, and the recommended threshold with its cost."""
    found = {**card["figures"], "recommended": card["recommended"] or {"not": "no threshold detects any success."}}
    items = []
    for question in QUESTIONS:
        said, words = answer(question, found[question.figure])
        items.append(
            f"<div><dt>{page.key(f'{question.text} {said.capitalize()}.', ANSWERS[said], 'dot')}</dt><dd>{page.text(words)}</dd></div>"
        )
    return f"<dl>{''.join(items)}</dl>" + _recommendation(card) + page.details("What counts as yes?", _lines())


def _lines() -> str:
    terms = {}
    for question in QUESTIONS:
        side = "at least" if question.yes > question.partly else "at most"
        measure = f"{question.measure[0].upper()}{question.measure[1:]}"
        terms[question.text] = f"{measure}: yes if it is {side} {question.yes:g}, partly if {side} {question.partly:g}."
    words = "The lines are drawn by hand, and the same for every model: they are for reading, and decide nothing."
    return page.paragraph(words) + page.definitions(terms)


def _recommendation(card: Card) -> str:
    recommended, own = card["recommended"], card["protocol"]["success_threshold"]
    if recommended is None:
        return page.alert("No threshold is recommended.", "With none, and with none of the windows, is any success told from the rest.")
    k, n = recommended["success_k_of_n"]
    word = "Recommended" if recommended["cost"]["f1"] >= POOR_F1 else "No threshold does well. The best"
    options = f"success_threshold={recommended['success_threshold']:.3g}, success_k_of_n=({k}, {n})"
    return (
        page.paragraph(
            f"{word}: success where {_rule(recommended)}. {_cost_in_words(recommended['cost'])} The model comes with s = {own:.3g}."
        )
        + page.code(f'gym.make("{card["env"]}", reward_model=…, {options})')
        + page.paragraph(f"Why: {recommended['reason']}", "muted")
    )


def _rule(detector: Figure) -> str:
    """Returns what a threshold and a window say, in words."""
    k, n = detector["success_k_of_n"]
    within = "" if n == 1 else f" in {k} of the last {n} observations"
    return f"d ≤ {detector['success_threshold']:.3g}{within}"


def _cost_in_words(found: Figure) -> str:
    return (
        f"It catches {rate(found['recall'])} of the successes, {number(found['delay'])} steps late on average; it fires too early in "
        f"{rate(found['early'])}, and in {rate(found['false_alarms'])} of the episodes without success."
    )


def rate(found: Figure) -> str:
    """Returns a rate with its interval."""
    return f"{percent(found['rate'])} [{number(100 * found['low'], 0)}, {number(100 * found['high'], 0)}]"


def near(calibration: Figure, name: str) -> float:
    """Returns the mean of "said" or "realised" over the first quarter of the bins, which hold equal numbers of observations."""
    bins = calibration["bins"][: max(1, len(calibration["bins"]) // 4)]
    return float(sum(found[name] for found in bins) / len(bins))


def _relative(errors: Figure) -> float | None:
    return errors["mae"] / errors["mae_of_constant"] if errors["mae_of_constant"] else None


def percent(part: float | None, digits: int = 0) -> str:
    """Returns a part of 1 as text; what is unknown is a dash."""
    return UNKNOWN if part is None else f"{number(100 * part, digits)}\N{NO-BREAK SPACE}%"
