"""What the baselines that practise share: rounds of practice within a budget, a row for each, and the policy that it came to."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_agents import self_improvement
from efm_agents.baselines.config import PracticeConfig
from efm_agents.checkpoint import copy_weights, find_checkpoint, fingerprint, load_checkpoint, save_checkpoint
from efm_agents.config import ImproveConfig
from efm_agents.model import rebuild_model
from efm_agents.policy import make_policy, torch_generator
from efm_agents.practice import practice_metrics, practice_score
from efm_agents.reward_model import CheckpointRewardModel
from efm_agents.rollout import make_vector_env, rollout
from efm_agents.run import Report, Run, to_settings
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator


class Practice:
    """A policy that practises from a stage-1 run on, with its budget and its run folder.

    A run that was broken off starts again from the beginning: the baselines are short.

    Args:
        start: folder of the stage-1 run.
        folder: of the new run.
        program: name of the baseline.
        config: its settings.
        report: is told about progress.
        reward_model: gives reward and predicted success, an object or what `make_reward_model` takes; None is the stage-1 run's own.

    Attributes:
        model: the policy, which the baseline trains.
        reference: the policy as it started; stays as it is.
        optimizer: of `model`.
        rng: for minibatches.
        episodes: practice episodes so far.
        env_steps: control steps of those episodes.
    """

    def __init__(self, start: Path, folder: Path, program: str, config: PracticeConfig, report: Report, reward_model: Any = None) -> None:
        policy_file = find_checkpoint(start, "policy")
        weights, facts = load_checkpoint(policy_file, "policy")
        reward_model = CheckpointRewardModel(str(find_checkpoint(start, "steps_to_go"))) if reward_model is None else reward_model
        told_by = reward_model if isinstance(reward_model, str) else reward_model.fingerprint
        self.config, self.report, self.program = config, report, program
        self.run = Run(folder, program, {**to_settings(config), "policy": fingerprint(policy_file), "reward_model": told_by})
        self.run.forget_after("metrics", "practice_episodes", -1)
        self.facts = {name: facts.get(name) for name in ("task", "env_id", "options", "model")} | {"seed": config.seed}
        self.model = rebuild_model(facts["model"], weights)
        self.reference = rebuild_model(facts["model"], weights).requires_grad_(False)
        practising = [weight for weight in self.model.practising_parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(practising, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.rng = generator(Stream.TRAINING, config.seed, 1)
        self.episodes = self.env_steps = 0
        self._policy = make_policy(self.model, torch_generator(config.seed, Stream.TRAINING))
        ends = {"terminate_on": config.terminate_on, "success_threshold": config.success_threshold}
        made = {**(facts.get("options") or {}), **ends}
        self._envs = make_vector_env(facts["env_id"], config.num_envs, reward_model=reward_model, **made)
        self._scores: list[float] = []
        self._best = (-1.0, copy_weights(self.model))

    def rounds(self, group: int = 1) -> Iterator[list[Episode]]:
        """Yields the episodes of each round, in the order of their seeds, until the budget is spent.

        Args:
            group: K: each K episodes in a row start alike, from one seed; what is drawn are their actions.
        """
        while self.episodes < self.config.episodes:
            wanted = min(self.config.episodes_per_round, self.config.episodes - self.episodes)
            seeds = islice(episode_seeds(EpisodeSet.PRACTICE, self.config.seed, start=self.episodes // group), wanted // group)
            practised = rollout(self._policy, self._envs, [seed for seed in seeds for _ in range(group)])
            episodes = sorted(practised, key=lambda episode: episode.seed)
            self.episodes += len(episodes)
            self.env_steps += sum(map(len, episodes))
            self._scores.append(practice_score(episodes))
            recent = float(np.mean(self._scores[-self.config.score_window :]))  # one round is too few episodes to choose by
            if len(self._scores) >= self.config.score_window and recent > self._best[0]:
                self._best = (recent, copy_weights(self.model))  # of the policy that has just practised
            yield episodes

    def minibatches(self, n: int) -> Iterator[Tensor]:
        """Yields the rows of each minibatch: all n rows in a new order, `epochs` times."""
        passes = ImproveConfig(epochs=self.config.epochs, batch=self.config.batch)
        yield from self_improvement.minibatches(n, passes, self.rng)

    def update(self, loss: Tensor) -> float:
        """Takes one step down a loss, and returns it.

        Raises:
            EFMError: it is not finite.
        """
        if not torch.isfinite(loss):
            lower = f"lower learning_rate, now {self.config.learning_rate}"
            raise EFMError(f"the loss became {loss.item()} after {self.episodes} practice episodes; expected a number: {lower}.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def log(self, episodes: Sequence[Episode], losses: Sequence[float], **figures: float) -> None:
        """Writes a round's row: the budget used so far, what practice looked like (`success` is ground truth), and the mean loss."""
        metrics = practice_metrics(episodes)
        used = {"practice_episodes": self.episodes, "env_steps": self.env_steps}
        loss = float(np.mean(losses or [0.0]))
        self.run.append("metrics", [{**used, "score": practice_score(episodes), **metrics, "loss": loss, **figures}])
        words = f"success: predicted {metrics['predicted_success']:.2f}, true {metrics['success']:.2f}; {metrics['steps']:.1f} steps"
        self.report(self.program, self.episodes, self.config.episodes, words)

    def finish(self, *, keep_best: bool) -> Path:
        """Writes the policy: the last, or the one with the best practice score, as stage 2 does; returns the run's folder.

        The best is chosen by the detector that ends episodes, not by ground truth. The last stands beside, as checkpoints/last.safetensors.
        """
        self._envs.close()
        last = copy_weights(self.model)
        facts = {**self.facts, "practice_episodes": self.episodes, "env_steps": self.env_steps}
        best = self._best[1] if keep_best and self._best[0] >= 0 else last
        save_checkpoint(self.run.checkpoint("last"), "policy", last, facts)
        save_checkpoint(self.run.checkpoint("policy"), "policy", best, facts)
        return self.run.folder


def decisions_of_each(values: Sequence[float] | np.ndarray, episodes: Sequence[Episode], chunk: int) -> Tensor:
    """Returns (M,) float32: the value of each episode at every decision that was made in it, in the order of `Decisions.of`."""
    counts = [-(-len(episode) // chunk) for episode in episodes]
    return torch.from_numpy(np.repeat(np.asarray(values, np.float32), counts))
