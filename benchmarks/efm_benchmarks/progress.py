"""Progress bars on stderr, so that stdout stays for results."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from efm_agents.run import Report
from efm_benchmarks.config import RecipeConfig
from efm_benchmarks.recipe import Event, OnEvent

COLUMNS = ("{task.description}", "{task.completed:.0f}/{task.total:.0f}", "{task.fields[words]}")


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Yields a function that is told (stage, done, total, words) and draws one bar per stage."""
    with _bars() as bars:
        stages: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, words: str) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total, words=words)
            bars.update(stages[stage], completed=done, total=total, words=words)

        yield report


@contextlib.contextmanager
def recipe_progress(config: RecipeConfig) -> Iterator[OnEvent]:
    """Yields a function that is told a recipe's events and draws one bar per training seed, for the stage it is in."""
    with _bars() as bars:
        seeds = [bars.add_task(f"seed {seed}", total=1, words="waits") for seed in range(config.seeds)]

        def on_event(event: Event) -> None:
            seed, stage, done, total, words = event
            bars.update(seeds[seed], description=f"seed {seed}: {stage}", completed=done, total=total, words=words)

        yield on_event


def _bars() -> Progress:
    description, count, words = (TextColumn(column) for column in COLUMNS)
    return Progress(description, BarColumn(20), count, TimeElapsedColumn(), words, console=Console(stderr=True))
