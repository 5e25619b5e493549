"""Going through a stored episode again: the same start, the same actions, and what else could have been observed."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from efm_envs.data.episode import Episode
from efm_envs.errors import EFMError
from efm_envs.task import Array, Goal, Goals


def replay(
    episode: Episode, names: Collection[str], *, env: "gym.Env[Any, Any] | None" = None, goal: Goal | None = None, **make_kwargs: Any
) -> dict[str, Array]:
    """Returns the named observations along an episode, each (T+1, …), by simulating it once more.

    Args:
        episode: from an env of this project; its seed says how it starts.
        names: of any observations that the env has: pictures of every camera, `truth/…`, `goal/…`, `action`.
        env: made with the episode's options, for who replays many; None makes one.
        goal: sees the episode with another goal, and the same physics: the truth is then that of the other goal.
        **make_kwargs: for `gym.make`, as the episode was made: what changes its start or its pictures.

    Raises:
        UnknownNameError: the env has no such observation.
        EFMError: what is observed now is not what was stored: another version made the episode, or other options.
    """
    if not isinstance(episode, Episode):
        raise EFMError(f"replay() takes an Episode, as load_episodes(path)[0] holds; got {episode!r}.")
    made = env or env_to_replay(episode.env_id, **make_kwargs)
    seen = made.unwrapped
    try:
        seen.observer.check_names(names, "replay()")  # type: ignore[attr-defined]
        return _replay(seen, episode, list(names), goal)
    finally:
        if env is None:
            made.close()


def env_to_replay(env_id: str, **make_kwargs: Any) -> "gym.Env[Any, Any]":
    """Returns an env in which stored episodes can be gone through: it asks no reward model, and ends at nothing."""
    return gym.make(env_id, disable_env_checker=True, **{**make_kwargs, "reward_model": "none", "terminate_on": "never"})


def walk(env: "gym.Env[Any, Any]", episode: Episode) -> Iterator[int]:
    """Goes through an episode in an env made for it; yields t, 0 to T, with the env where the episode was after t control steps."""
    seen: Any = env.unwrapped
    seen.reset(seed=episode.seed)
    yield 0
    for t, action in enumerate(episode.actions, 1):
        seen.advance(action)
        yield t


def _replay(env: Any, episode: Episode, names: list[str], goal: Goal | None) -> dict[str, Array]:
    stored = [name for name in episode.observations if name in env.observer.policy_names]
    goals = None if goal is None else Goals([goal])
    rows = []
    for t in walk(env, episode):
        if t in (0, len(episode)):
            _check(episode, t, env.look(stored))
        rows.append(env.look(names, goals))
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _check(episode: Episode, t: int, now: Mapping[str, Array]) -> None:
    for name, value in now.items():
        then = episode.observations[name][t]
        if then.shape != value.shape or not np.array_equal(then, value):
            raise EFMError(
                f"the episode with seed {episode.seed} of {episode.env_id} cannot be replayed: {name!r} at step {t} of {len(episode)} "
                "is not what was stored. Pass the options that it was made with, and use the version of this project that made it."
            )
