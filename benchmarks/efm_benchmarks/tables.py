"""The result table, for the terminal, for Markdown and for the page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from efm_benchmarks import pages
from efm_benchmarks.config import MAIN_GAMMA
from efm_benchmarks.findings import is_improved, is_last_round

COLUMNS = ("Policy", "Success [%]", "Steps to success", "Steps, all episodes", "Practice episodes")
UNKNOWN = "–"


def print_table(results: Mapping[str, Any]) -> None:
    """Prints the result table to stdout."""
    headers = [
        name.replace("Steps to ", "Steps to\n").replace("Steps, ", "Steps,\n").replace("Practice ", "Practice\n") for name in COLUMNS
    ]
    table = Table(*headers, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in shown_rows(results):
        table.add_row(*(Text(cell) for cell in cells(row, results)))
    Console().print(table)


def markdown_table(results: Mapping[str, Any]) -> str:
    """Returns the result table as GitHub's Markdown."""
    rows = [[cell.replace("|", "\\|") for cell in cells(row, results)] for row in shown_rows(results)]
    return pages.markdown(COLUMNS, rows)


def shown_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of the table; those of last rounds only where discounts are compared."""
    compares = any(gamma != MAIN_GAMMA for gamma in results["config"]["gammas"])
    return [row for row in results["rows"] if compares or not is_last_round(row["stage"])]


def cells(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """Returns the texts of one row of the table, in the order of `COLUMNS`."""
    success = row["success"]
    interval = f"[{number(100 * success['low'])}, {number(100 * success['high'])}]"
    return [
        row["title"],
        f"{number(100 * success['mean'])} {interval}",
        number(row["steps_to_success"]),
        number(row["steps"]),
        practice_episodes(row["stage"], results),
    ]


def number(value: float | None, digits: int = 1) -> str:
    """Returns a number as text; what is unknown is a dash."""
    return UNKNOWN if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def percent(part: float, digits: int = 1) -> str:
    """Returns a part of 1 as text that no line break cuts."""
    return f"{number(100 * part, digits)}\N{NO-BREAK SPACE}%"


def practice_episodes(stage: str, results: Mapping[str, Any]) -> str:
    """Returns how many practice episodes a stage's policy had: those of the whole run, mean over seeds."""
    if not is_improved(stage):
        return "0" if stage == "sft" else UNKNOWN
    gamma = stage.removesuffix("-last").removeprefix("improve").removeprefix("-gamma-") or f"{MAIN_GAMMA:g}"
    return number(float(np.mean(results["practice"][gamma]["practice_episodes"])), 0)
