"""Gymnasium environments whose reward is a reward model.

>>> import gymnasium as gym
>>> import efm_envs
>>> env = gym.make("EFM-PointMass-v0", reward_model="oracle")
>>> observation, info = env.reset(seed=0)
>>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
>>> sorted(info)
['instruction', 'is_success', 'predicted_success', 'steps_to_go']

Importing this package registers the ids and loads neither MuJoCo, nor a GL library, nor torch: those wait until they are needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from efm_envs.registration import ids, register_envs

if TYPE_CHECKING:
    from efm_envs.data.episode import Episode
    from efm_envs.evaluation import EpisodeRecord, evaluate
    from efm_envs.experts.base import make_expert
    from efm_envs.observations import decode_instruction
    from efm_envs.relabelling import relabel
    from efm_envs.replaying import replay
    from efm_envs.rewards.base import RewardModel, StepsToGo
    from efm_envs.rewards.registry import make_reward_model, register_reward_model, reward_models
    from efm_envs.wrappers import StepsToGoReward

__version__ = "0.1.0"

_MODULES = {
    "Episode": "efm_envs.data.episode",
    "EpisodeRecord": "efm_envs.evaluation",
    "RewardModel": "efm_envs.rewards.base",
    "StepsToGo": "efm_envs.rewards.base",
    "StepsToGoReward": "efm_envs.wrappers",
    "decode_instruction": "efm_envs.observations",
    "evaluate": "efm_envs.evaluation",
    "make_expert": "efm_envs.experts.base",
    "make_reward_model": "efm_envs.rewards.registry",
    "register_reward_model": "efm_envs.rewards.registry",
    "relabel": "efm_envs.relabelling",
    "replay": "efm_envs.replaying",
    "reward_models": "efm_envs.rewards.registry",
}

__all__ = [
    "Episode",
    "EpisodeRecord",
    "RewardModel",
    "StepsToGo",
    "StepsToGoReward",
    "decode_instruction",
    "evaluate",
    "ids",
    "make_expert",
    "make_reward_model",
    "register_reward_model",
    "relabel",
    "replay",
    "reward_models",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


register_envs()
