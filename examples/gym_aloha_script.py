"""A loop as code for gym-aloha has it; two lines are other than there: docs/coming_from_gym_aloha.md.

python examples/gym_aloha_script.py
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import efm_envs
from efm_envs.interop import gym_aloha  # there: import gymnasium as gym; import gym_aloha


def run_episode(env: Any, policy: Callable[[dict[str, Any]], np.ndarray], seed: int) -> tuple[float, bool, int]:
    """Returns the highest reward of an episode, whether it succeeded, and how many steps it took."""
    observation, info = env.reset(seed=seed)
    rewards, ended = [], False
    while not ended:
        action = policy({"picture": observation["pixels"]["top"], "positions": observation["agent_pos"]})
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        ended = terminated or truncated
    return max(rewards), info["is_success"], len(rewards)


def main(**kwargs: Any) -> list[bool]:
    """Runs two policies: one that stays where it is, and the env's own expert in gym-aloha's units. Returns which of them succeeded."""
    env = gym_aloha.make("gym_aloha/AlohaInsertion-v0", obs_type="pixels_agent_pos", **kwargs)  # there: gym.make(…)
    expert = efm_envs.make_expert(env)
    results = [run_episode(env, policy, seed=0) for policy in (lambda o: o["positions"], lambda o: gym_aloha.aloha_actions(expert.act()))]
    for name, (reward, is_success, steps) in zip(("stays", "expert"), results, strict=True):
        print(f"{name}: highest reward {reward:g} of 4, success {is_success}, {steps} steps")
    env.close()
    return [is_success for _, is_success, _ in results]


if __name__ == "__main__":
    main()
