"""Episodes, and how they are stored."""

from efm_envs.data.episode import Episode
from efm_envs.data.store import load_episodes, save_episodes

__all__ = ["Episode", "load_episodes", "save_episodes"]
