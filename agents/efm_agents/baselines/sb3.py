"""PPO, SAC and SAC with hindsight goals, of Stable-Baselines3 (Raffin et al. 2021), from scratch on the task's own reward.

PPO (Schulman et al. 2017) and SAC (Haarnoja et al. 2018) learn from the oracle's r = d(o) − d(o′); SAC with HER (Andrychowicz et al. 2017)
from −1 a step until the goal, in PointMass alone. Their budget is control steps, and they see no demonstrations. Observations are
standardised by running means (`VecNormalize`), without which PointMass's velocities are too small to see.

The checkpoint is no pickle: the weights and the running means as safetensors, and as JSON what makes the same policy again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from efm_agents.baselines.config import SB3Config
from efm_agents.baselines.goal_env import GoalEnv, goal_observation
from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from efm_agents.model import fresh_generator
from efm_agents.run import Report, Run, no_report, to_settings
from efm_envs.env import load_task
from efm_envs.errors import CheckpointError, missing_extra
from efm_envs.registration import registration
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator

try:
    from stable_baselines3 import PPO, SAC, HerReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

    from efm_envs.interop.sb3 import make_vec_env
except ModuleNotFoundError as error:
    raise missing_extra("efm_agents.baselines.sb3", "sb3") from error

KIND = "sb3-policy"
ALGORITHMS: dict[str, tuple[Any, str]] = {"ppo": (PPO, "MlpPolicy"), "sac": (SAC, "MlpPolicy"), "sac-her": (SAC, "MultiInputPolicy")}
OFF_POLICY: dict[str, Any] = {  # an update for every second control step; little entropy at first, in which a small reward would drown
    **{"learning_rate": 1e-3, "learning_starts": 3000, "buffer_size": 100_000, "ent_coef": "auto_0.1"},
    **{"train_freq": 1, "gradient_steps": 4, "policy_kwargs": {"net_arch": [128, 128]}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"gamma": 0.9, "learning_rate": 1e-3, "n_steps": 64, "batch_size": 256, "policy_kwargs": {"log_std_init": -0.7}},
    "sac": {**OFF_POLICY, "gamma": 0.5},  # of a few that were tried; see docs/baselines.md
    "sac-her": {**OFF_POLICY, "gamma": 0.95},
}
GOALS_PER_STEP = 4  # hindsight goals for each that was asked for ("future", k = 4, in the paper of HER)


def train(env_id: str, folder: Path, config: SB3Config, report: Report = no_report, *, options: Mapping[str, Any] | None = None) -> Path:
    """Trains one of the three.

    Args:
        env_id: a registered id; for "sac-her", one of PointMass's.
        folder: of the run.
        config: the settings.
        report: is told about progress.
        options: for `gym.make`, besides those that the algorithm sets.

    Returns:
        The folder.
    """
    algorithm, policy = ALGORITHMS[config.algorithm]
    settings = {**SETTINGS[config.algorithm], **config.settings}
    run = Run(folder, config.algorithm, {**to_settings(config), "settings": settings, "env_id": env_id, "options": dict(options or {})})
    run.forget_after("metrics", "practice_episodes", -1)
    made = {**(options or {}), "obs_mode": "flat", "reward_model": "oracle", "terminate_on": "true"}
    with fresh_generator():  # the library seeds and draws from global generators; torch's is put back
        envs = make_envs(env_id, config, made, settings["gamma"])
        buffer = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": GOALS_PER_STEP}}
        settings |= buffer if config.algorithm == "sac-her" else {}
        seed = int(generator(Stream.TRAINING, config.seed).integers(2**31))
        model = algorithm(policy, envs, device="cpu", seed=seed, **settings)
        envs.seed(next(episode_seeds(EpisodeSet.PRACTICE, config.seed)))  # the line above gave them the learner's
        budget = Budget(run, config, report)
        model.learn(config.env_steps, callback=budget)

    facts: dict[str, Any] = {"task": load_task(registration(env_id).task, registration(env_id).task_options).name, "env_id": env_id}
    facts |= {"options": made, "seed": config.seed, **budget.used()}
    facts |= {"algorithm": config.algorithm, "policy_kwargs": settings.get("policy_kwargs", {})}
    tensors = {f"policy/{name}": value for name, value in model.policy.state_dict().items()}
    seen: Any = envs.obs_rms["observation"] if isinstance(envs.obs_rms, dict) else envs.obs_rms
    tensors |= {"mean": torch.from_numpy(seen.mean), "deviation": torch.from_numpy(np.sqrt(seen.var + envs.epsilon))}
    save_checkpoint(run.checkpoint("policy"), KIND, tensors, {**facts, "clip": envs.clip_obs})
    envs.close()
    return run.folder


def make_envs(env_id: str, config: SB3Config, options: Mapping[str, Any], gamma: float) -> VecNormalize:
    """Returns the envs to learn in. Hindsight computes rewards itself, and puts places where goals were: there neither is scaled."""
    if config.algorithm != "sac-her":
        envs = make_vec_env(env_id, config.num_envs, num_threads=1, **options)
        return VecNormalize(envs, gamma=gamma)
    goal_envs = VecMonitor(DummyVecEnv([lambda: GoalEnv(gym.make(env_id, disable_env_checker=True, **options))] * config.num_envs))
    return VecNormalize(goal_envs, norm_reward=False, norm_obs_keys=["observation"])


class Budget(BaseCallback):
    """Counts whole episodes and all control steps, and writes a row now and then."""

    def __init__(self, run: Run, config: SB3Config, report: Report) -> None:
        super().__init__()
        self._run, self._config, self._report = run, config, report
        self._ended: list[tuple[float, float, float]] = []  # since the last row: length, return, success
        self._episodes, self._written = 0, 0

    def used(self) -> dict[str, int]:
        """Returns the budget used so far; episodes under way at the end count in steps alone."""
        return {"practice_episodes": self._episodes, "env_steps": self.num_timesteps}

    def _on_step(self) -> bool:
        ended = [info for info in self.locals["infos"] if "episode" in info]
        self._ended += [(info["episode"]["l"], info["episode"]["r"], float(info["is_success"])) for info in ended]
        self._episodes += len(ended)
        if self.num_timesteps - self._written >= self._config.log_every:
            self._write()
        return True

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._written:
            self._write()

    def _write(self) -> None:
        steps, returns, successes = np.array(self._ended or [(np.nan,) * 3], float).mean(axis=0).tolist()
        self._run.append("metrics", [{**self.used(), "success": successes, "steps": steps, "reward": returns}])
        self._report(self._config.algorithm, self.num_timesteps, self._config.env_steps, f"success: {successes:.2f}; {steps:.1f} steps")
        self._ended, self._written = [], self.num_timesteps


class SB3Policy:
    """A policy of Stable-Baselines3 that acts on flat observations.

    Args:
        policy: the library's.
        mean: of the observations, (F,), and
        deviation: their standard deviation, (F,), by which they are standardised, and
        clip: the largest that they then are.
        has_goals: whether it reads `goal_observation`s.
        greedy: take the mean instead of sampling.
    """

    def __init__(self, policy: Any, mean: Tensor, deviation: Tensor, clip: float, *, has_goals: bool, greedy: bool) -> None:
        self.policy, self.clip, self.has_goals, self.greedy = policy, clip, has_goals, greedy
        self.mean, self.deviation = mean.numpy(), deviation.numpy()

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns actions (B, A) float32 for flat observations: {"observation": (B, F)}, as `rollout` names what comes in a Box."""
        flat = observations["observation"]
        seen = goal_observation(flat) if self.has_goals else {"observation": flat}
        scaled = np.clip((seen["observation"] - self.mean) / self.deviation, -self.clip, self.clip).astype(np.float32)
        with fresh_generator():
            actions, _ = self.policy.predict({**seen, "observation": scaled} if self.has_goals else scaled, deterministic=self.greedy)
        return np.asarray(actions, np.float32)


def load_sb3_policy(path: Path | str, *, task: str, greedy: bool = True) -> SB3Policy:
    """Returns the policy of a run, for an env with `obs_mode="flat"`.

    Args:
        path: the run's folder, or a checkpoint file.
        task: name of the task that it will act in.
        greedy: take the mean instead of sampling.

    Raises:
        CheckpointError: there is none, or it is damaged, or made for another task.
    """
    file = find_checkpoint(path, "policy")
    tensors, config = load_checkpoint(file, KIND)
    if config["task"] != task:
        raise CheckpointError(f"{file} is a policy for task {config['task']!r}; the env's task is {task!r}.")
    algorithm, name = ALGORITHMS[config["algorithm"]]
    has_goals = config["algorithm"] == "sac-her"
    env = gym.make(config["env_id"], disable_env_checker=True, **config["options"])
    spaces = (GoalEnv(env) if has_goals else env).observation_space, env.action_space
    env.close()
    with fresh_generator():  # fresh weights come from the global generator, which is not ours
        policy = algorithm.policy_aliases[name](*spaces, lambda _: 0.0, **config["policy_kwargs"])
    policy.load_state_dict({name.removeprefix("policy/"): tensor for name, tensor in tensors.items() if name.startswith("policy/")})
    return SB3Policy(policy, tensors["mean"], tensors["deviation"], config["clip"], has_goals=has_goals, greedy=greedy)
