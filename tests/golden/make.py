"""Writes the fingerprint of every id, or of those named: what a learner meets under it.

    python -m tests.golden.make [ID …]

A fingerprint that changes means another learning problem. Give it a new version of the id; write over the old file only while
that version was never released.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import efm_envs
from efm_envs.observations import OBS_MODES

FOLDER = Path(__file__).parent
STEPS = 30


def fingerprint(env_id: str) -> dict[str, Any]:
    """Returns, as JSON has it, an id's spaces, time, first scenarios, and one episode of fixed actions."""
    env = gym.make(env_id, reward_model="oracle", terminate_on="never").unwrapped
    made: dict[str, Any] = {
        "id": env_id,
        "step_limit": env.step_limit,  # type: ignore[attr-defined]
        "control_dt_s": env.task.control_dt_s,  # type: ignore[attr-defined]
        "substeps": env.task.substeps,  # type: ignore[attr-defined]
        "action_space": _space(env.action_space),
        "observation_spaces": {mode: _space(gym.make(env_id, obs_mode=mode).observation_space) for mode in OBS_MODES},
        "scenarios": [_scenario(env, seed) for seed in range(3)],
        "episode": _episode(env),
    }
    env.close()
    return json.loads(json.dumps(made))


def path(env_id: str) -> Path:
    """Returns the file of an id."""
    return FOLDER / f"{env_id}.json"


def _space(space: gym.Space[Any]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {name: _space(part) for name, part in space.items()}
    assert isinstance(space, gym.spaces.Box)
    low, high = np.unique(space.low).tolist(), np.unique(space.high).tolist()
    return {"shape": space.shape, "dtype": str(space.dtype), "low": low, "high": high}


def _scenario(env: Any, seed: int) -> dict[str, Any]:
    _, info = env.reset(seed=seed)
    physics = {name: getattr(env.data, name).tolist() for name in ("qpos", "qvel", "mocap_pos")}
    return {**physics, "goal": env.goals.states[0].tolist(), "instruction": info["instruction"], "steps_to_go": info["steps_to_go"]}


def _episode(env: Any) -> dict[str, Any]:
    size = env.action_space.shape[0]
    actions = 0.8 * np.sin(0.7 * np.arange(STEPS)[:, None] + np.arange(size))  # (STEPS, A), the same on every machine
    env.reset(seed=0)
    steps = [env.step(action) for action in actions]
    return {
        "agent_pos": [observation["agent_pos"].tolist() for observation, *_ in steps],
        "rewards": [reward for _, reward, *_ in steps],
        "is_success": [info["is_success"] for *_, info in steps],
    }


if __name__ == "__main__":
    for env_id in sys.argv[1:] or efm_envs.ids():
        path(env_id).write_text(json.dumps(fingerprint(env_id), indent=1) + "\n")
        print(path(env_id))
