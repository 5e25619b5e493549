"""Episodes to look at: pictures, and what is said along them."""

from typing import Any, NamedTuple

import numpy as np

from efm_benchmarks.audit.asking import BAND, Audit, Judged
from efm_envs.replaying import env_to_replay, walk
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
    env = env_to_replay(one.config.env, **{**one.config.options, "render_mode": "rgb_array", "render_size": size})
    seen: Any = env.unwrapped  # Gymnasium's own checks want a step before a picture
    try:
        return np.array([seen.render() for t in walk(env, judged.episode) if t in times])
    finally:
        env.close()
