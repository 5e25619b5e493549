"""PPO in one file, in the manner of CleanRL's scripts: one vector env, one network, one loop. Needs torch and tyro, the extra [agents].

python examples/ppo.py --env-id EFM-PointMass-v0
"""

import dataclasses
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Normal

import efm_envs


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is made of. A rollout is `num_envs` × `rollout_steps` control steps."""

    env_id: str = "EFM-PointMass-v0"
    reward_model: str = "oracle"
    seed: int = 0
    steps: int = 65_536  # control steps in all
    num_envs: int = 16
    num_threads: int = 0  # that step the simulations; 0 is one for each processor
    rollout_steps: int = 32
    epochs: int = 10
    minibatches: int = 4
    learning_rate: float = 1e-3  # at the start; falls to 0
    discount: float = 0.9
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    max_grad_norm: float = 0.5
    first_std: float = 0.5  # of the actions
    test_episodes: int = 100


class Agent(nn.Module):
    """A Gaussian policy and a value, of observations that are scaled by their running mean and variance."""

    def __init__(self, observation_size: int, action_size: int, first_std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(observation_size))
        self.register_buffer("variance", torch.ones(observation_size))
        self.register_buffer("count", torch.tensor(1e-4))
        self.policy, self.value_head = network(observation_size, action_size, 0.01), network(observation_size, 1, 1.0)
        self.log_std = nn.Parameter(torch.full((action_size,), float(np.log(first_std))))

    def scaled(self, observations: torch.Tensor) -> torch.Tensor:
        """Returns observations (…, N) with mean 0 and variance 1."""
        return ((observations - self.mean) / (self.variance + 1e-8).sqrt()).clamp(-10, 10)

    def watch(self, observations: torch.Tensor) -> None:
        """Takes observations (B, N) into the running mean and variance."""
        number, offset = len(observations), observations.mean(0) - self.mean
        total = self.count + number
        spread = self.variance * self.count + observations.var(0, correction=0) * number + offset**2 * self.count * number / total
        self.mean, self.variance, self.count = self.mean + offset * number / total, spread / total, total

    def actions(self, observations: torch.Tensor) -> Normal:
        """Returns the distribution of actions."""
        return Normal(self.policy(self.scaled(observations)), self.log_std.exp())

    def value(self, observations: torch.Tensor) -> torch.Tensor:
        """Returns the expected discounted return of each observation."""
        return self.value_head(self.scaled(observations)).squeeze(-1)

    @torch.no_grad()
    def act(self, observations: Any) -> np.ndarray:
        """Returns the mean actions (B, A): what `efm_envs.evaluate` calls."""
        return self.actions(torch.as_tensor(observations["observation"])).mean.numpy()


def network(inputs: int, outputs: int, last_gain: float) -> nn.Sequential:
    """Returns an MLP with orthogonal weights."""
    sizes, layers = (inputs, 64, 64, outputs), []
    for i, gain in enumerate((2**0.5, 2**0.5, last_gain)):
        linear = nn.Linear(sizes[i], sizes[i + 1])
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Rollouts:
    """Steps the envs, from one rollout to the next without a reset."""

    def __init__(self, settings: Settings, envs: Any, agent: Agent) -> None:
        self.settings, self.envs, self.agent = settings, envs, agent
        self.observations = torch.as_tensor(envs.reset(seed=settings.seed)[0])
        agent.watch(self.observations)
        self.successes: list[bool] = []  # of the episodes that have ended

    @torch.no_grad()
    def collect(self) -> tuple[torch.Tensor, ...]:
        """Returns observations, actions, log-probabilities, advantages and returns of one rollout, each (T·B, …)."""
        steps, ends = [], []
        for _ in range(self.settings.rollout_steps):
            seen = self.observations
            policy = self.agent.actions(seen)
            actions = policy.sample()
            observations, rewards, terminated, truncated, infos = self.envs.step(actions.numpy())
            self.observations = torch.as_tensor(observations)
            steps.append((seen, actions, policy.log_prob(actions).sum(-1)))
            ends.append((torch.as_tensor(rewards, dtype=torch.float32), *self.after(terminated, truncated, infos)))
        return *(torch.cat(part) for part in zip(*steps, strict=True)), *self.advantages([seen for seen, *_ in steps], ends)

    def after(self, terminated: np.ndarray, truncated: np.ndarray, infos: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the value of what follows each step (B,), and where the episode goes on (B,).

        Nothing follows success. After the step limit the value of the last observation does: the world goes on, only the episode ends.
        """
        ended = terminated | truncated
        following = self.agent.value(self.observations)
        following[torch.as_tensor(terminated)] = 0.0
        cut = np.flatnonzero(truncated & ~terminated)
        if len(cut):
            following[cut] = self.agent.value(torch.as_tensor(np.stack(infos["final_obs"][cut])))
        if ended.any():
            self.successes += infos["final_info"]["is_success"][ended].tolist()
        return following, torch.as_tensor(~ended)

    def advantages(self, seen: list[torch.Tensor], ends: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns generalised advantages (T·B,), and returns (T·B,)."""
        later, backwards = torch.zeros(self.settings.num_envs), []
        values = [self.agent.value(observations) for observations in seen]
        for value, (rewards, following, goes_on) in zip(reversed(values), reversed(ends), strict=True):
            later = rewards + self.settings.discount * (following + self.settings.gae_lambda * goes_on * later) - value
            backwards.append(later)
        advantages = torch.cat(backwards[::-1])
        return advantages, advantages + torch.cat(values)


def improve(settings: Settings, agent: Agent, optimizer: torch.optim.Optimizer, rollout: tuple[torch.Tensor, ...]) -> None:
    """Takes PPO's gradient steps on one rollout."""
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(rollout[0])).chunk(settings.minibatches):
            observations, actions, before, advantages, returns = (part[rows] for part in rollout)
            policy = agent.actions(observations)
            ratio = (policy.log_prob(actions).sum(-1) - before).exp()
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            gain = torch.minimum(ratio * advantages, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantages).mean()
            error = (agent.value(observations) - returns).square().mean()
            loss = settings.value_weight * error - gain - settings.entropy_weight * policy.entropy().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), settings.max_grad_norm)
            optimizer.step()


def train(settings: Settings) -> Agent:
    """Returns the trained agent; prints how often episodes succeed."""
    torch.manual_seed(settings.seed)
    kwargs = {"num_threads": settings.num_threads, "reward_model": settings.reward_model, "obs_mode": "flat"}
    envs = gym.make_vec(settings.env_id, num_envs=settings.num_envs, autoreset_mode="SameStep", **kwargs)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0], settings.first_std)
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    rollouts, start = Rollouts(settings, envs, agent), time.perf_counter()
    updates = settings.steps // (settings.num_envs * settings.rollout_steps)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - update / updates)
        rollout = rollouts.collect()
        improve(settings, agent, optimizer, rollout)
        agent.watch(rollout[0])
        if (update + 1) % 16 == 0 and rollouts.successes:
            steps, recent = (update + 1) * settings.num_envs * settings.rollout_steps, rollouts.successes[-100:]
            print(f"{steps:>9} steps, {time.perf_counter() - start:5.1f} s: {np.mean(recent):4.0%} of {len(recent)} episodes succeed")
    envs.close()
    return agent


def main(settings: Settings) -> float:
    """Trains and tests; returns the share of test episodes that succeed, by ground truth."""
    torch.set_num_threads(1)  # for networks this small, threads cost more than they bring
    agent = train(settings)
    records = efm_envs.evaluate(agent, settings.env_id, settings.test_episodes, settings.seed, obs_mode="flat")
    success = float(np.mean([record.success_once for record in records]))
    print(f"test: {success:.0%} of {len(records)} episodes succeed, {np.mean([record.steps for record in records]):.1f} steps each")
    return success


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
