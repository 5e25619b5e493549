"""Reward models and the signal that they drive. Knows nothing of tasks."""

from efm_envs.rewards.adapters import FunctionRewardModel
from efm_envs.rewards.base import RewardModel, StepsToGo
from efm_envs.rewards.hitting_time import HittingTimes, hitting_time
from efm_envs.rewards.registry import make_reward_model, register_reward_model, reward_models
from efm_envs.rewards.signal import RewardSignal, SignalOutput

__all__ = [
    "FunctionRewardModel",
    "HittingTimes",
    "RewardModel",
    "RewardSignal",
    "SignalOutput",
    "StepsToGo",
    "hitting_time",
    "make_reward_model",
    "register_reward_model",
    "reward_models",
]
