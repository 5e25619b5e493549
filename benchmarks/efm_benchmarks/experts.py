"""How well each style of expert does in each env, on the evaluation episodes: measured, stored, and written as tables.

Only light imports up here: every worker makes them, too.
"""

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from efm_agents.parallel import batches, in_order, number_of_workers
from efm_benchmarks import pages
from efm_benchmarks.policies import task_of
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.evaluation import EpisodeRecord
from efm_envs.experts import make_expert
from efm_envs.registration import ids, registration
from efm_envs.rollout import rollout
from efm_envs.scenarios import draws_at
from efm_envs.seeding import EpisodeSet, episode_seeds
from efm_envs.task import Array, Task

if TYPE_CHECKING:
    from efm_agents.run import Report

EVALUATION_SEED = 0
PROTOCOL: dict[str, Any] = {"reward_model": "oracle", "terminate_on": "true"}
VERSIONED = ("python", "machine", "efm-envs", "mujoco", "numpy")
CLEAN = "clean"

COLUMNS = (
    "Env",
    "Expert",
    "Episodes",
    "Success [%]",
    "Steps to success",
    "5, 50, 95 %",
    "Longest",
    "Starts solved [%]",
    "d falls [%]",
    "Error of d",
)
LEGEND = (
    "Evaluation episodes, success by ground truth within the step limit, with its 95 % interval (Clopper and Pearson). Steps to\n"
    "success: mean, percentiles and longest of the successful episodes. Starts solved: share of the starts drawn that the clean expert\n"
    "solves; the others are drawn again. d is the oracle's steps-to-go along the clean expert's way: on how many of the steps it falls,\n"
    "and by how many steps it is wrong, on average, about what was really left. From `benchmarks/results/experts.json`;\n"
    "`python benchmarks/experts.py run` measures anew."
)


class Tried(NamedTuple):
    """What came of some episodes.

    Attributes:
        draws: starts that were drawn for them, all in all.
        episodes: by style, in the order of their seeds.
    """

    draws: int
    episodes: dict[str, list[Episode]]


def run(env_id: str, episodes: int, path: Path, *, workers: int = 1, report: "Report | None" = None) -> None:
    """Measures an id's experts and stores that in a file, in which other ids stay as they are."""
    from efm_agents.checkpoint import write_atomically
    from efm_agents.run import no_report, versions

    made = versions()
    measured = {
        "command": f"python benchmarks/experts.py run --episodes {episodes} {env_id}",
        "versions": {name: made[name] for name in VERSIONED},
        **measure(env_id, episodes, workers=workers, report=report or no_report),
    }
    envs = {**load(path), env_id: measured}
    stored = {"protocol": {**PROTOCOL, "evaluation_seed": EVALUATION_SEED}, "envs": {name: envs[name] for name in ids() if name in envs}}
    write_atomically(path, (json.dumps(stored, indent=1) + "\n").encode())


def load(path: Path) -> dict[str, Any]:
    """Returns what is stored, by id; nothing where there is no file."""
    stored: dict[str, Any] = json.loads(path.read_text())["envs"] if path.is_file() else {}
    return stored


# -- measuring ---------------------------------------------------------------------------------------------------------------------


def measure(env_id: str, episodes: int, *, workers: int, report: "Report") -> dict[str, Any]:
    """Returns the numbers of every style of an id's expert, JSON-able.

    Args:
        env_id: a registered id.
        episodes: evaluation episodes of each style; the same for all of them.
        workers: processes; changes nothing but the time it takes. 0 is one for each processor.
        report: is told (stage, done, total, words).

    Raises:
        EFMError: the id has no experts.
    """
    task = task_of(env_id)
    if not task.experts:
        raise EFMError(f"{env_id} has no experts to measure. Those that have: {', '.join(with_experts())}.")
    draws, tried = 0, {style: list[Episode]() for style in styles(task)}
    seeds = itertools.islice(episode_seeds(EpisodeSet.EVALUATION, EVALUATION_SEED), episodes)
    jobs = in_order(functools.partial(_try, env_id), batches(seeds), number_of_workers(workers, episodes))
    with contextlib.closing(jobs) as batches_done:
        for batch in batches_done:
            draws += batch.draws
            for style, done in batch.episodes.items():
                tried[style] += done
            report(env_id, len(tried[CLEAN]), episodes, "")
    return {
        "step_limit": registration(env_id).step_limit,
        "episodes": episodes,
        "starts": None if task.solvable_within is None else {"draws": draws, "solved": episodes / draws},
        "styles": {style: results(done) for style, done in tried.items()},
        "oracle": oracle_results(tried[CLEAN]),
    }


def with_experts() -> list[str]:
    """Returns the ids that have experts."""
    return [env_id for env_id in ids() if task_of(env_id).experts]


def styles(task: Task) -> list[str]:
    """Returns the names of a task's experts; of several names for one expert the first."""
    first: dict[str, str] = {}
    for style, expert in task.experts.items():
        first.setdefault(expert, style)
    return list(first.values())


def _try(env_id: str, seeds: Sequence[int]) -> Tried:
    """Runs every style on the same episodes, in one process, which so tries each start once."""
    task = task_of(env_id)
    episodes = {style: list(rollout(functools.partial(make_expert, style=style), env_id, seeds, **PROTOCOL)) for style in styles(task)}
    return Tried(sum(draws_at(task, (seed, 0)) for seed in seeds), episodes)


def results(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Returns how often and how soon an expert succeeded."""
    from efm_benchmarks.statistics import clopper_pearson

    records = [EpisodeRecord.of(episode) for episode in episodes]
    steps = [record.steps_to_success for record in records if record.steps_to_success is not None]
    successes = sum(record.success_once for record in records)
    return {
        "episodes": len(records),
        "successes": successes,
        "success": clopper_pearson(successes, len(records))._asdict(),
        "errors": sum(record.error is not None for record in records),
        "steps_to_success": _spread(steps) if steps else None,
    }


def oracle_results(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Returns how well the oracle's d [control steps] told the clean expert's way, over all steps of all episodes.

    `falls` is the share of steps on which d decreased; `error` the mean of |d − steps that were really left|, known where the episode
    ended with success.
    """
    falls = [np.diff(episode.steps_to_go) < 0.0 for episode in episodes]
    errors = [np.abs(e.steps_to_go[:-1] - np.arange(len(e), 0, -1)) for e in episodes if e.end_reason == "terminated"]
    return {"falls": _mean(falls), "error": _mean(errors)}


def _spread(steps: Sequence[int]) -> dict[str, float]:
    percentiles = {f"p{p}": float(np.percentile(steps, p)) for p in (5, 50, 95)}
    return {"mean": float(np.mean(steps)), **percentiles, "longest": max(steps)}


def _mean(per_episode: Sequence[Array]) -> float | None:
    values = np.concatenate([np.empty(0), *per_episode])
    return float(values.mean()) if len(values) else None


# -- tables ------------------------------------------------------------------------------------------------------------------------


def with_tables(page: str, stored: Mapping[str, Any]) -> str:
    """Returns a page with a table between each `<!-- begin experts TAG -->` and `<!-- end experts -->`: the ids that have the tag.

    A table of which nothing is stored yet stays as it is.

    Raises:
        UnknownNameError: no id has the tag.
    """

    def filled(found: re.Match[str]) -> str:
        shown = {env_id: stored[env_id] for env_id in ids(tags=[found["tag"]]) if env_id in stored}
        return f"{found['begin']}\n{markdown_table(shown)}\n{LEGEND}\n{found['end']}" if shown else found[0]

    return re.sub(r"(?P<begin><!-- begin experts (?P<tag>\S+) -->).*?(?P<end><!-- end experts -->)", filled, page, flags=re.DOTALL)


def markdown_table(stored: Mapping[str, Any]) -> str:
    """Returns a row for each id and style, as GitHub's Markdown."""
    rows = [cells(env_id, style, stored[env_id]) for env_id in stored for style in stored[env_id]["styles"]]
    return pages.markdown(COLUMNS, rows, words=2)


def cells(env_id: str, style: str, measured: Mapping[str, Any]) -> list[str]:
    """Returns the texts of one row, in the order of `COLUMNS`."""
    from efm_benchmarks.tables import UNKNOWN, number

    def percent(share: float | None) -> str:
        return number(None if share is None else 100 * share)

    row, starts, oracle = measured["styles"][style], measured["starts"], measured["oracle"]
    steps = row["steps_to_success"]
    of_clean = [percent(starts and starts["solved"]), percent(oracle["falls"]), number(oracle["error"])]
    return [
        f"`{env_id}`",
        f"`{style}`",
        str(row["episodes"]),
        f"{percent(row['success']['mean'])} [{percent(row['success']['low'])}, {percent(row['success']['high'])}]",
        *([number(steps["mean"]), ", ".join(number(steps[p], 0) for p in ("p5", "p50", "p95"))] if steps else [UNKNOWN, UNKNOWN]),
        str(steps["longest"]) if steps else UNKNOWN,
        *(of_clean if style == CLEAN else [UNKNOWN] * len(of_clean)),
    ]
