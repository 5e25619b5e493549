"""PointMass as a goal env: what hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495) needs to know of a task."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError
from efm_envs.tasks.point_mass import SUCCESS_RADIUS_M

Array = np.ndarray
FLAT_SIZE = 6  # PointMass's flat observation: position [m], velocity [m per substep], goal [m], two numbers each


def goal_observation(flat: Array) -> dict[str, Array]:
    """Returns PointMass's flat observation (…, 6) in three parts, which share no memory with it."""
    return {"observation": flat[..., :4].copy(), "achieved_goal": flat[..., :2].copy(), "desired_goal": flat[..., 4:].copy()}


class GoalEnv(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """PointMass with the place it is at and the place it should be at beside the observation, and a sparse reward.

    The reward is 0 within the task's success radius of the goal, and −1 elsewhere. An episode ends at success, as the env below has it.

    Args:
        env: EFM-PointMass with `obs_mode="flat"`.

    Attributes:
        observation_space: a Dict of `observation` (4,), `achieved_goal` (2,) [m] and `desired_goal` (2,) [m].

    >>> import efm_envs
    >>> env = GoalEnv(gym.make("EFM-PointMass-v0", obs_mode="flat", terminate_on="true"))
    >>> sorted(env.reset(seed=0)[0])
    ['achieved_goal', 'desired_goal', 'observation']
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.shape != (FLAT_SIZE,):
            raise EFMError(f'GoalEnv takes EFM-PointMass-v0 with obs_mode="flat", a Box of shape ({FLAT_SIZE},); got {space}.')
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        low, high = goal_observation(space.low), goal_observation(space.high)
        self.observation_space = spaces.Dict({name: spaces.Box(low[name], high[name], dtype=np.float32) for name in low})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
        """Starts an episode."""
        flat, info = self.env.reset(seed=seed, options=options)
        return goal_observation(flat), info

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """Runs one control step."""
        flat, _, terminated, truncated, info = self.env.step(action)
        observation = goal_observation(flat)
        reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
        return observation, float(reward), terminated, truncated, info

    def compute_reward(self, achieved: Array, desired: Array, info: Any) -> Array:
        """Returns rewards (…,) float32 for places (…, 2) and goals (…, 2) in [m]; `info` is not looked at."""
        offset = np.asarray(achieved, np.float64) - desired
        is_near = (offset**2).sum(axis=-1) <= SUCCESS_RADIUS_M**2
        return np.asarray(is_near, np.float32) - np.float32(1.0)
