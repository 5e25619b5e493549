"""Episodes to look at: pictures, and what is said along them."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from efm_benchmarks.audit.asking import BAND, Audit, Judged
from efm_envs.rewards import metrics
from efm_envs.task import Array

FRAMES, FRAME_HEIGHT = 8, 144  # above each strip, in [pixels]
STRIP_SETS = ("policy", "clean", "recoveries", "failures")  # of which an episode is shown


class Strip(NamedTuple):
    """An episode to look at.

    Attributes:
        title: what it is.
        judged: what is said along it.
        low, high: (T+1,) the band of the distribution; None for a model without one.
        times: (F,) control steps at which
        frames: (F, H, W, 3) uint8 were drawn.
    """

    title: str
    judged: Judged
    low: Array | None
    high: Array | None
    times: Array
    frames: Array


def strips(one: Audit) -> list[Strip]:
    """Returns an episode of each of some test sets, with pictures."""
    found = []
    for name in STRIP_SETS:
        judged = max(one.judged.get(name, [])[:10], key=_length, default=None)
        if judged is not None:
            words = next(s.words for s in one.sets if s.name == name)
            found.append(_strip(one, f"{name}: {words}", judged))
    return found


def _length(judged: Judged) -> int:
    return len(judged.episode)


def _strip(one: Audit, title: str, judged: Judged) -> Strip:
    said, last = judged.said, len(judged.episode)
    low, high = (None, None) if said.probs is None or said.edges is None else metrics.quantiles(said.edges, said.probs, BAND)
    times = np.unique(np.linspace(0, last, FRAMES).round().astype(int))
    return Strip(title, judged, low, high, times, _frames(one, judged, times))


def _frames(one: Audit, judged: Judged, times: Array) -> Array:
    """Returns pictures (F, H, W, 3) of an episode at some times."""
    height, width = one.task.render_size
    size = (FRAME_HEIGHT, round(FRAME_HEIGHT * width / height))
    drawn = {"reward_model": "none", "render_mode": "rgb_array", "render_size": size}
    env = gym.make(one.config.env, disable_env_checker=True, **{**one.config.options, **drawn})
    seen: Any = env.unwrapped
    frames = []
    try:
        seen.reset(seed=judged.episode.seed)
        for t in range(len(judged.episode) + 1):
            if t:
                seen.advance(judged.episode.actions[t - 1])
            if t in times:
                frames.append(seen.render())
    finally:
        env.close()
    return np.array(frames)
