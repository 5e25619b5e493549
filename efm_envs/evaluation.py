"""The official score: one record per episode, by ground truth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from efm_envs.data.episode import EndReason, Episode
from efm_envs.rollout import PolicyOrFactory, rollout
from efm_envs.seeding import EpisodeSet, episode_seeds


@dataclass(frozen=True)
class EpisodeRecord:
    """What counts of one episode.

    Attributes:
        env_id: the registered id.
        seed: `env.reset(seed=seed)` starts the same episode again.
        success_once: ground truth said success at some time.
        success_at_end: ground truth said success at the end.
        steps_to_success: control steps until the first success, or None.
        steps: control steps of the episode.
        return_: sum of the env's rewards.
        predicted_success: what the reward model said at the end.
        end_reason: "terminated", "truncated" or "error".
        error: what went wrong, if that ended it (counts as a failure).
    """

    env_id: str
    seed: int
    success_once: bool
    success_at_end: bool
    steps_to_success: int | None
    steps: int
    return_: float
    predicted_success: bool
    end_reason: EndReason
    error: str | None = None

    @classmethod
    def of(cls, episode: Episode) -> "EpisodeRecord":
        """Returns the record of an episode; one that broke off is a failure."""
        failed = episode.error is not None
        return cls(
            env_id=episode.env_id,
            seed=episode.seed,
            success_once=bool(episode.is_success.any()) and not failed,
            success_at_end=bool(episode.is_success[-1]) and not failed,
            steps_to_success=None if failed else episode.steps_to_success,
            steps=len(episode),
            return_=float(episode.rewards.sum()),
            predicted_success=bool(episode.predicted_success[-1]),
            end_reason=episode.end_reason,
            error=episode.error,
        )


def evaluate(
    policy: PolicyOrFactory,
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 16,
    on_episode: Callable[[Episode], None] | None = None,
    **make_kwargs: Any,
) -> list[EpisodeRecord]:
    """Runs a policy on the evaluation episodes of `seed`: the same for every policy, and none that demonstrations or practice use.

    Args:
        policy: acts on a batch of observations; or a function that makes such a policy from the list of envs, for example
            `functools.partial(efm_envs.make_expert, style="clean")`.
        env_id: a registered id.
        episodes: how many.
        seed: which set of evaluation episodes.
        num_envs: how many run side by side; changes speed, and which of a sampling policy's random numbers fall to which episode.
        on_episode: is shown each whole episode as it ends, for progress, plots and videos.
        **make_kwargs: for `gym.make`.

    Returns:
        One record per episode, in the order of their seeds.
    """
    records = []
    seeds = episode_seeds(EpisodeSet.EVALUATION, seed)
    wanted = [next(seeds) for _ in range(episodes)]
    for episode in rollout(policy, env_id, wanted, num_envs=max(1, min(num_envs, episodes)), **make_kwargs):
        records.append(EpisodeRecord.of(episode))
        if on_episode is not None:
            on_episode(episode)
    return sorted(records, key=lambda record: record.seed)
