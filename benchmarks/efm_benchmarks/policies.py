"""Policies and reward models by name, as the command line takes them: `expert:STYLE`, `random`, `oracle`, or the folder of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from efm_envs.env import load_task
from efm_envs.errors import EFMError
from efm_envs.experts import make_expert
from efm_envs.registration import registration
from efm_envs.rewards import reward_models
from efm_envs.rollout import PolicyOrFactory
from efm_envs.seeding import Stream, generator
from efm_envs.task import Task

EXPERT = "expert:"


class RandomPolicy:
    """Actions uniform in [-1, 1]."""

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], seed: int) -> None:
        self._shape = (len(envs), *(envs[0].action_space.shape or ()))
        self._rng = generator(Stream.POLICY, seed)

    def act(self, observations: Any) -> np.ndarray:
        """Returns actions (B, A)."""
        return self._rng.uniform(-1.0, 1.0, self._shape).astype(np.float32)


def task_of(env_id: str) -> Task:
    """Returns the task of a registered id."""
    row = registration(env_id)
    return load_task(row.task, row.task_options)


def env_for(name: str, env_id: str | None, options: Mapping[str, Any], default: str) -> tuple[str, dict[str, Any]]:
    """Returns the id and the options of the env that a policy is to act in: those that a run's was trained with, but for what is given.

    Args:
        name: of the policy.
        env_id: given, or None.
        options: for `gym.make`, given.
        default: the id for an expert and for random actions, which any env will do for.
    """
    if name.startswith(EXPERT) or not Path(name).exists():
        return env_id or default, dict(options)
    from efm_agents.checkpoint import find_checkpoint, load_checkpoint

    trained = load_checkpoint(find_checkpoint(name, "policy"), "policy")[1]
    return env_id or trained["env_id"], {**trained.get("options", {}), **options}


def reward_spec(text: str) -> Any:
    """Returns what `make_reward_model` takes, from a name, from JSON, or from the folder (or checkpoint file) of a run.

    Raises:
        EFMError: text that begins like JSON and is none, or a path at which nothing is.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise EFMError(f"""a reward model's JSON is an object like '{{"id": "noisy", "std": 3}}'; got {text!r} ({error}).""") from error
    if Path(text).exists():
        return {"id": "checkpoint", "path": text}
    if "/" in text:
        raise EFMError(f"no run's folder or checkpoint at {text}. By name there are: {', '.join(reward_models())}.")
    return text


def make_policy(name: str, env_id: str, *, seed: int = 0, greedy: bool = False) -> PolicyOrFactory:
    """Returns the policy (or what makes it from the envs) that `name` stands for.

    Args:
        name: "expert:STYLE", "random", or the path of a run or of a policy checkpoint.
        env_id: the env that it will act in.
        seed: of the policy's own choices.
        greedy: a trained policy takes its most likely action instead of sampling.

    Raises:
        EFMError: there is no such policy.
    """
    task = task_of(env_id)
    if name.startswith(EXPERT):
        style = name.removeprefix(EXPERT)
        return lambda envs: make_expert(list(envs), style, seed)
    if name == "random":
        return lambda envs: RandomPolicy(envs, seed)
    if not Path(name).exists():
        names = ", ".join([*(f"{EXPERT}{style}" for style in sorted(task.experts)), "random"])
        raise EFMError(f"no policy {name!r}: neither a run's folder nor a checkpoint is there. By name there are: {names}.")
    from efm_agents.policy import load_policy

    return load_policy(name, task=task.name, seed=seed, greedy=greedy)
