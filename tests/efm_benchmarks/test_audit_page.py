"""A card's page and figures, of a card that is made by hand."""

import copy
import re
from typing import Any

import numpy as np
import pytest

from efm_benchmarks import plots
from efm_benchmarks.audit import Judged, finite
from efm_benchmarks.audit.answers import ANSWERS, QUESTIONS, answer
from efm_benchmarks.audit.page import card_page
from efm_benchmarks.audit.plots import strip_figure
from efm_benchmarks.audit.strips import Strip
from efm_envs.data import Episode
from efm_envs.relabelling import Judgement
from efm_envs.rewards import metrics
from tests.efm_benchmarks.test_report import Elements

STEPS = 20  # of each episode
EVIL = "<script>alert('no')</script>"


def said_along(rng: np.random.Generator, succeeds: bool) -> tuple[np.ndarray, np.ndarray]:
    """d of a model that is nearly right, and the truth."""
    left = np.maximum(STEPS - 5.0 - np.arange(STEPS + 1), 0) if succeeds else np.full(STEPS + 1, 12.0)
    return np.maximum(left + rng.normal(0, 1, STEPS + 1), 0), (left == 0) & succeeds


def make_card() -> dict[str, Any]:
    """A card on which everything was measured."""
    rng = np.random.default_rng(0)
    episodes = [said_along(rng, number % 3 > 0) for number in range(12)]
    curve = metrics.operating_curve(episodes, metrics.candidate_thresholds(episodes), [(1, 1), (2, 3)])
    recommended = metrics.recommend(curve)
    assert recommended is not None
    errors = vars(metrics.errors(np.arange(9.0), np.arange(9.0) + 1))
    pairs = {"own": rng.uniform(0, 1, 5), "other": rng.uniform(5, 9, 5)}
    rates = {"success": 1.0, "predicted_success": 0.75, "fooled": 0.0, "early": 0.25}
    figures = {
        "calibration": {
            "all": errors,
            "late_third": errors,
            "bins": [{"said": x, "realised": x + 1, "low": x, "high": x + 3, "n": 9} for x in (1.0, 4.0, 9.0)],
        },
        "distribution": {"coverage": {"0.5": 0.45, "0.8": 0.76, "0.9": 0.9}, "crps": 2.5, "crps_of_d_alone": 3.5},
        "hitting_times": {
            "states": [
                {"said": x, "mean": x + 1, "low": x - 1, "high": x + 4, "said_low": x - 2, "said_high": x + 2, "reached": 1.0}
                for x in (3.0, 8.0, 15.0)
            ],
            **{"rollouts": 16, "limit": 140, "reached": 1.0, "errors": errors, "correlation": 1.0, "standard_error": 0.4},
            **{"crps": 2.0, "crps_of_d_alone": 3.0, "crps_of_truth": 1.5, "coverage": {"0.8": 0.7}},
        },
        "order": {"set": "clean", "episodes": 8, "forward": 0.97, "backward": -0.97, "lowest": 0.9},
        "success": {
            **{"sets": ["policy", "random"], "successes": curve.successes, "failures": curve.failures, "judged_on": 20, "auroc": 0.97},
            "own": {"success_threshold": 0.5, "success_k_of_n": [1, 1], "cost": curve.at(0, 0)},
            "thresholds": curve.thresholds,
            "windows": [
                {
                    "success_k_of_n": list(window),
                    **{name: getattr(curve, name)[w] for name in ("precision", "recall", "f1", "early", "false_alarms", "delay")},
                }
                for w, window in enumerate(curve.windows)
            ],
        },
        "reaction": {
            **{"slips": 9, "slip_steps": 3, "said_change": 4.0, "true_change": 5.0, "correlation": 0.6, "noticed": 0.95},
            **{"recovery_noticed": 1.0, "offsets": np.arange(-3, 9), "said": rng.normal(size=12), "true": rng.normal(size=12)},
        },
        "counterfactual": {
            **{"episodes": 5, "threshold": 0.5, "own_d": 0.5, "other_d": 7.0, "own_success": 0.6, "other_success": 0.0},
            **{"reads_the_goal": 1.0, "larger": 1.0, **pairs},
        },
        "robustness": {
            "severities": [0.02, 0.05, 0.1],
            "kinds": {"noise on the numbers": [{"moved": x, "switched": x / 100} for x in (0.1, 0.6, 1.5)]},
        },
        "ranking": {
            "policies": [
                {"policy": name, "steps": x, "final_d": x / 9, "progress": 3.0, **rates} for name, x in {"clean": 12, "policy": 60}.items()
            ],
            **{"tau_by_final_d": 0.8, "tau_by_predicted_success": 0.6},
        },
        "hacking": {
            "sets": [{"set": name, "episodes": 9, **rates} for name in ("clean", "random")],
            **{"rate": 0.3, "episodes_without_success": 19},
        },
        "cost": {"latency_ms_1": 0.07, "latency_ms_64": 3.04, "memory_mib": 0.4},
    }
    sets = {"policy": {"what": EVIL, "episodes": 9}, "random": {"what": "random actions", "episodes": 9}}
    card = {
        **{"format": "efm.card/1", "env": "EFM-PointMass-v0", "kind": "steps", "fingerprint": "eff593600e0b8e0d", "policy": "expert:human"},
        **{"reward": {"id": "noisy", "std": 4.0}, "versions": {"python": "3.11", "numpy": "2.4"}, "command": "efm audit --reward noisy"},
        "protocol": {"episodes": 9, "sets": sets, "success_threshold": 0.5, "success_k_of_n": [1, 1]},
        "figures": figures,
        "recommended": vars(recommended),
    }
    return dict(finite(card))


def make_strip(succeeds: bool, frames: int = 8, has_band: bool = True, notes: dict[str, Any] | None = None) -> Strip:
    """An episode with pictures of noise."""
    rng = np.random.default_rng(1)
    d, is_success = said_along(rng, succeeds)
    left = np.where(d > 0, STEPS - 5.0 - np.arange(STEPS + 1), 0.0)
    episode = Episode(
        "EFM-PointMass-v0", 0, {}, np.zeros((STEPS, 2), np.float32), -np.diff(left), left, is_success, is_success,
        end_reason="truncated", notes=notes or {},
    )  # fmt: skip
    judged = Judged(episode, Judgement(-np.diff(d), d, d <= 0.5, None, None), np.where(left >= 0, left, np.nan))
    times = np.linspace(0, STEPS, frames).round().astype(int)
    low, high = (d - 1, d + 1) if has_band else (None, None)
    return Strip(f"policy: {EVIL}", judged, low, high, times, rng.integers(0, 255, (frames, 16, 16, 3), np.uint8))


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return make_card()


@pytest.fixture(scope="module")
def text(card: dict[str, Any]) -> str:
    slip = {"error_begins": 4, "error_ends": 7}
    return card_page(card, [make_strip(True, notes=slip), make_strip(False, has_band=False)])


@pytest.fixture(scope="module")
def text_of_nothing(card: dict[str, Any]) -> str:
    """Nothing could be measured, for a reason."""
    empty = {name: {"not": f"the {name} is away."} for name in card["figures"]}
    return card_page({**card, "figures": empty, "recommended": None}, [])


def test_page_needs_no_other_file_and_no_network(text: str) -> None:
    elements = Elements(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in elements.found}
    references = [value for name in ("href", "xlink:href", "src") for value in elements.values(name)]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_every_reference_has_its_target(text: str) -> None:
    elements = Elements(text)
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    wanted = [v for name in ("href", "xlink:href") for v in elements.values(name) if v.startswith("#")]
    assert {value.removeprefix("#") for value in [*wanted, *re.findall(r"url\((#[^)]*)\)", text)]} <= set(ids)


def test_every_picture_says_what_it_shows_and_takes_its_colours_from_the_readers_mode(text: str) -> None:
    pictures = [attributes for tag, attributes in Elements(text).found if tag == "svg"]
    assert len(pictures) == 13
    assert all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20 for attributes in pictures)
    body = text.split("</style>", 1)[1]
    assert not any(on_light in body for on_light, _ in plots.PALETTE.values())


def test_every_frame_is_in_the_page(text: str) -> None:
    assert text.count("data:image/png;base64,") == 16


def test_text_is_escaped(text: str) -> None:
    assert "&lt;script&gt;" in text and EVIL not in text


def test_numbers_of_the_page_are_those_of_the_card(card: dict[str, Any], text: str) -> None:
    recommended = card["recommended"]
    k, n = recommended["success_k_of_n"]
    assert f"success_threshold={recommended['success_threshold']:.3g}, success_k_of_n=({k}, {n})" in text
    recall = recommended["cost"]["recall"]
    assert f"{100 * recall['rate']:.0f}\N{NO-BREAK SPACE}% [{100 * recall['low']:.0f}, {100 * recall['high']:.0f}]" in text
    assert "of the 19 episodes that have none" in text and "eff593600e0b8e0d" in text and "efm audit --reward noisy" in text


def test_what_was_not_measured_says_why(card: dict[str, Any], text_of_nothing: str) -> None:
    for name in card["figures"]:
        assert f"Not measured: the {name} is away." in text_of_nothing
    assert "No threshold is recommended." in text_of_nothing and "No episode could be drawn." in text_of_nothing
    assert "<svg" not in text_of_nothing


@pytest.mark.parametrize(
    "unknown",
    [
        ("calibration", "all", "slope"),
        ("reaction", "noticed"),
        ("hacking", "rate"),
        ("success", "auroc"),
        ("ranking", "tau_by_final_d"),
        ("cost", "memory_mib"),
    ],
    ids=".".join,
)
def test_what_is_not_known_is_a_dash(card: dict[str, Any], unknown: tuple[str, ...]) -> None:
    changed = copy.deepcopy(card)
    *path, last = unknown
    place = changed["figures"]
    for name in path:
        place = place[name]
    place[last] = None
    text = card_page(changed, [])
    assert "–" in text and "None" not in text and "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(("rate", "said"), [(0.0, "yes"), (0.02, "yes"), (0.03, "partly"), (0.5, "no"), (None, "not measured")])
def test_an_answer_depends_on_which_side_of_the_lines_the_figure_is(rate: float | None, said: str) -> None:
    fooled = next(question for question in QUESTIONS if question.figure == "hacking")
    assert answer(fooled, {"rate": rate, "episodes_without_success": 9, "sets": [{"predicted_success": 0.5}]})[0] == said


def test_who_never_sees_success_is_not_praised_for_it() -> None:
    fooled = next(question for question in QUESTIONS if question.figure == "hacking")
    assert answer(fooled, {"rate": 0.0, "episodes_without_success": 9, "sets": [{"predicted_success": 0.0}]})[0] == "not measured"


def test_a_poor_threshold_is_called_poor(card: dict[str, Any], text: str) -> None:
    poor = copy.deepcopy(card)
    poor["recommended"]["cost"]["f1"] = 0.1
    assert "No threshold does well." in card_page(poor, []) and "No threshold does well." not in text


@pytest.mark.parametrize(("correlation", "said"), [(1.0, "yes"), (0.7, "partly"), (-1.0, "no")])
def test_of_some_figures_more_is_better(correlation: float, said: str) -> None:
    order = next(question for question in QUESTIONS if question.figure == "order")
    assert answer(order, {"forward": correlation, "backward": -correlation})[0] == said


def test_every_question_is_answered_by_a_figure_and_every_answer_has_a_colour(card: dict[str, Any]) -> None:
    found = {**card["figures"], "recommended": card["recommended"]}
    assert {answer(question, found[question.figure])[0] for question in QUESTIONS} <= set(ANSWERS)


@pytest.mark.parametrize("frames", [3, 8, 10])
def test_a_strip_has_every_frame_above_the_plot_and_a_line_from_each_to_its_time(frames: int) -> None:
    figure = strip_figure([make_strip(True, frames), make_strip(False, frames)])
    pictures, plot, *_ = figure.axes
    assert len(figure.axes) == 4 and len(pictures.images) == frames
    assert pictures.get_position().y0 > plot.get_position().y1
    ends = [line.xy2[0] for line in pictures.patches]  # type: ignore[attr-defined]
    assert ends == make_strip(True, frames).times.tolist()


def test_a_strip_for_the_gallery_is_opaque_and_has_a_legend() -> None:
    figure = strip_figure([make_strip(True)])
    assert figure.get_facecolor() == (1, 1, 1, 1)
    (legend,) = figure.subfigs[0].legends
    assert "steps that were left" in {entry.get_text() for entry in legend.get_texts()}
    assert not any(part.legends for part in strip_figure([make_strip(True)], legend=False).subfigs)
