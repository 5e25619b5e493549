"""Episodes as a video file, or in a window."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np

from efm_envs.rollout import PolicyOrFactory

END_PAUSE_S = 0.5  # the last picture stays for a moment


def play(policy: PolicyOrFactory, env_id: str, seeds: Iterable[int], video: Path | None, **make_kwargs: Any) -> list[dict[str, Any]]:
    """Runs whole episodes to be looked at.

    Args:
        policy: a policy, or a function that makes one from the list of envs.
        env_id: a registered id.
        seeds: reset seeds.
        video: the file to write (.mp4 or .gif); None opens a window.
        **make_kwargs: for `gym.make`.

    Returns:
        The last `info` of each episode.
    """
    if video is None:
        return record(policy, env_id, seeds, render_mode="human", **make_kwargs)[1]
    frames, infos = record(policy, env_id, seeds, **make_kwargs)
    write_video(video, frames, gym.make(env_id).unwrapped.metadata["render_fps"])
    return infos


def record(
    policy: PolicyOrFactory, env_id: str, seeds: Iterable[int], render_mode: str = "rgb_array", **make_kwargs: Any
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Runs whole episodes; returns the pictures (H, W, 3) uint8 before each action and at the end, and the last `info` of each."""
    env = gym.make(env_id, render_mode=render_mode, **make_kwargs)
    acting = policy if hasattr(policy, "act") else policy([env])
    infos, frames = [], []
    try:
        for seed in seeds:
            observation, info = env.reset(seed=seed)
            ended = False
            while not ended:
                frames.append(env.render())
                observation, _, terminated, truncated, info = env.step(acting.act(_batch_of_one(observation))[0])
                ended = terminated or truncated
            infos.append(info)
            frames += [env.render()] * round(END_PAUSE_S * env.metadata["render_fps"])
    finally:
        env.close()
    return frames, infos


def write_video(path: Path, frames: Sequence[Any], fps: int) -> None:
    """Writes pictures (H, W, 3) uint8 to a .mp4 or .gif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        imageio.mimsave(path, list(frames), duration=1000 / fps, loop=0)
        return
    with imageio.get_writer(path, fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=2) as writer:
        for frame in frames:
            writer.append_data(frame)  # type: ignore[attr-defined]


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: value[None] for name, value in observation.items()}
    return np.asarray(observation)[None]
