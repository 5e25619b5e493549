"""Cards side by side, as a table. Light: it needs nothing but what is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from efm_benchmarks.audit.answers import near
from efm_benchmarks.pages import markdown

COLUMNS = (
    "Env",
    "Error of d (of a constant)",
    "Slope",
    "Where d is smallest: said, left",
    "80 % band holds",
    "Order",
    "AUROC",
    "F1 at stage 1's s",
    "F1 at the recommended s",
    "Recommended",
    "Delay",
    "Fooled",
    "Wrong goal taken",
    "Policies: τ",
)


def table(cards: Sequence[Mapping[str, Any]]) -> str:
    """Returns cards as GitHub's Markdown, a row each."""
    return markdown(COLUMNS, [row(card) for card in cards])


def row(card: Mapping[str, Any]) -> list[str]:
    """Returns the texts of a card's row, in the order of `COLUMNS`."""
    figures = card["figures"]
    calibration, success = figures["calibration"], figures["success"]
    recommended = card["recommended"]
    k, n = recommended["success_k_of_n"]
    return [
        f"`{card['env']}`",
        f"{calibration['all']['mae']:.1f} ({calibration['all']['mae_of_constant']:.1f})",
        f"{calibration['all']['slope']:.2f}",
        f"{near(calibration, 'said'):.1f}, {near(calibration, 'realised'):.1f}",
        _percent(figures["distribution"].get("coverage", {}).get("0.8")),
        f"{figures['order']['forward']:.2f}",
        f"{success['auroc']:.2f}",
        f"{success['own']['cost']['f1']:.2f}",
        f"{recommended['cost']['f1']:.2f}",
        f"d ≤ {recommended['success_threshold']:.2g}, {k} of {n}",
        f"{recommended['cost']['delay']:.1f}",
        _percent(figures["hacking"]["rate"]),
        _percent(figures["counterfactual"].get("other_success")),
        f"{figures['ranking']['tau_by_final_d']:.2f}",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
