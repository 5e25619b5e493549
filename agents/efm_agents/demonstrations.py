"""Collecting demonstrations with a task's scripted expert."""

import contextlib
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efm_agents.parallel import number_of_workers, rollout_in_order
from efm_agents.run import Report, no_report
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.env import load_task
from efm_envs.errors import EFMError
from efm_envs.experts import make_expert
from efm_envs.experts.base import checked_knobs
from efm_envs.registration import registration
from efm_envs.seeding import EpisodeSet, episode_seeds

MAX_ATTEMPTS = 5  # episodes tried for each demonstration wanted, before giving up
FEWEST_ATTEMPTS = 320  # an expert is not judged by fewer


def collect(
    env_id: str,
    episodes: int,
    *,
    style: str = "human",
    knobs: Mapping[str, Any] | None = None,
    seed: int = 0,
    min_length: int | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    report: Report = no_report,
) -> list[Episode]:
    """Returns successful demonstrations, in the order of their seeds.

    Args:
        env_id: a registered id.
        episodes: how many demonstrations are wanted.
        style: the expert's style.
        knobs: what is set about the expert, by name; `efm envs ID` lists them.
        seed: which demonstrations; none of them is an evaluation or practice episode.
        min_length: shorter ones are discarded; None is what the id's registration says.
        options: for `gym.make`, for example `{"instructions": "held_out"}`.
        workers: processes that run episodes; changes nothing but the time it takes. 0 is one for each processor; 1 starts none.
        report: is told about progress.

    Raises:
        EFMError: no such id, style or knob; or the expert fails too often.
    """
    row = registration(env_id)
    expert = functools.partial(make_expert, style=style, **checked_knobs(load_task(row.task, row.task_options), style, knobs or {}))
    min_length = row.shortest_demonstration if min_length is None else min_length
    limit = max(MAX_ATTEMPTS * episodes, FEWEST_ATTEMPTS)
    seeds = itertools.islice(episode_seeds(EpisodeSet.DEMONSTRATIONS, seed), limit)
    workers = number_of_workers(workers, episodes)
    kept: list[Episode] = []
    made = {"reward_model": "none", "terminate_on": "true", **(options or {})}
    with contextlib.closing(rollout_in_order(expert, env_id, seeds, workers=workers, **made)) as done:
        for attempts, episode in enumerate(done, 1):
            if episode.end_reason == "terminated" and len(episode) >= min_length:
                kept.append(episode)
            report("demos", len(kept), episodes, f"{attempts} episodes tried")
            if len(kept) >= episodes:
                return kept[:episodes]
    raise EFMError(f"only {len(kept)} of {limit} episodes of expert {style!r} succeeded with at least {min_length} steps.")


def collect_file(
    path: Path,
    env_id: str,
    episodes: int,
    *,
    style: str = "human",
    knobs: Mapping[str, Any] | None = None,
    seed: int = 0,
    min_length: int | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    report: Report = no_report,
) -> list[Episode]:
    """As `collect`, and writes the demonstrations to a file: the same bytes for the same arguments, whatever the number of workers.

    Demonstrations that are there already, made the same way, are taken as they are.

    Raises:
        EFMError: the file holds others.
    """
    min_length = registration(env_id).shortest_demonstration if min_length is None else min_length
    how = {"style": style, "knobs": dict(knobs or {}), "seed": seed, "min_length": min_length, "options": dict(options or {})}
    if path.exists():
        there, meta = load_episodes(path)
        if (there[0].env_id, len(there), meta) == (env_id, episodes, how):
            return there
        other = f"{len(there)} other demonstrations, of {there[0].env_id} ({meta})"
        raise EFMError(f"{path} holds {other}. Write to another file, or delete that one first.")
    path.parent.mkdir(parents=True, exist_ok=True)  # now, rather than when all are collected
    demonstrations = collect(env_id, episodes, **how, workers=workers, report=report)  # type: ignore[arg-type]
    save_episodes(path, demonstrations, how)
    return demonstrations
