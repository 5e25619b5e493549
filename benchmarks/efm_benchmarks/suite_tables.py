"""A suite's tables: success within T control steps for every policy and either decoding, and the claims."""

from collections.abc import Mapping
from typing import Any

from efm_benchmarks import pages

UNKNOWN = "–"


def columns(results: Mapping[str, Any]) -> list[str]:
    """Returns the heads of the table of success rates."""
    limits = list(results["rows"][0]["within"])
    return ["Policy", "Actions", *(f"T = {limit}" for limit in limits), "Steps to success"]


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Returns the cells of the table of success rates in percent: mean and interval at the headline limit, means elsewhere."""
    headline = str(results["headline"])
    found = []
    for row in results["rows"]:
        rates = [_rate(estimate, limit == headline) for limit, estimate in row["within"].items()]
        steps = row["steps_to_success"]
        found.append([row["policy"], row["decoding"], *rates, UNKNOWN if steps is None else f"{steps:.1f}"])
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """Returns both tables as GitHub's Markdown."""
    first = pages.markdown(columns(results), rows(results), words=2)
    return f"{first}\n{pages.markdown(CLAIM_COLUMNS, claims(results), words=2)}" if results["claims"] else first


CLAIM_COLUMNS = ("Claim", "Actions", "Difference [points]", "Holds")


def claims(results: Mapping[str, Any]) -> list[list[str]]:
    """Returns the cells of the table of claims: the mean paired difference over training seeds, and its 95 % interval."""
    found = []
    for claim in results["claims"]:
        d = claim["difference"]
        text = f"{claim['better']} > {claim['than']}, T = {claim['within']}"
        interval = _points(d["mean"]) + (f" [{_points(d['low'])}, {_points(d['high'])}]" if d["low"] == d["low"] else "")
        found.append([text, " / ".join(claim["decodings"]), interval, "yes" if claim["holds"] else "no"])
    return found


def print_tables(results: Mapping[str, Any]) -> None:
    """Prints both tables to stdout."""
    from rich.console import Console
    from rich.table import Table

    for heads, cells in ((columns(results), rows(results)), (CLAIM_COLUMNS, claims(results))):
        table = Table(*heads, box=None, pad_edge=False)
        for column in table.columns[2:]:
            column.justify, column.no_wrap = "right", True
        for row in cells:
            table.add_row(*row)
        if cells:
            Console().print(table)


def _rate(estimate: Mapping[str, float], with_interval: bool) -> str:
    text = f"{100 * estimate['mean']:.1f}"
    return f"{text} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]" if with_interval else text


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
