"""Collecting demonstrations with a task's scripted expert."""

import functools
from pathlib import Path

from efm_agents.run import Report, no_report
from efm_envs.data import Episode, save_episodes
from efm_envs.errors import EFMError
from efm_envs.experts import make_expert
from efm_envs.registration import registration
from efm_envs.rollout import rollout
from efm_envs.seeding import EpisodeSet, episode_seeds

MAX_ATTEMPTS = 5  # episodes tried for each demonstration wanted, before giving up
ROUND = 64  # episodes between two looks at how many were kept


def collect(
    env_id: str,
    episodes: int,
    *,
    style: str = "human",
    seed: int = 0,
    min_length: int = 10,
    report: Report = no_report,
) -> list[Episode]:
    """Returns successful demonstrations, in the order of their seeds.

    Args:
        env_id: a registered id.
        episodes: how many demonstrations are wanted.
        style: the expert's style.
        seed: which demonstrations; none of them is an evaluation or practice episode.
        min_length: shorter ones are discarded, as the paper's notebook does.
        report: is told about progress.

    Raises:
        EFMError: the expert fails too often.
    """
    registration(env_id)  # refuses an unknown one
    kept: list[Episode] = []
    seeds = episode_seeds(EpisodeSet.DEMONSTRATIONS, seed)
    attempts = 0
    while len(kept) < episodes:
        if attempts >= MAX_ATTEMPTS * max(episodes, ROUND):
            raise EFMError(f"only {len(kept)} of {attempts} episodes of expert {style!r} succeeded with at least {min_length} steps.")
        batch = [next(seeds) for _ in range(ROUND)]
        attempts += ROUND
        done = rollout(functools.partial(make_expert, style=style), env_id, batch, reward_model="none", terminate_on="true")
        kept += [e for e in done if e.end_reason == "terminated" and len(e) >= min_length]
        report("demos", min(len(kept), episodes), episodes, f"{attempts} episodes tried")
    return kept[:episodes]


def collect_file(
    path: Path, env_id: str, episodes: int, *, style: str = "human", seed: int = 0, min_length: int = 10, report: Report = no_report
) -> list[Episode]:
    """As `collect`, and writes the demonstrations to a file."""
    demonstrations = collect(env_id, episodes, style=style, seed=seed, min_length=min_length, report=report)
    save_episodes(path, demonstrations, {"style": style, "seed": seed, "min_length": min_length})
    return demonstrations
