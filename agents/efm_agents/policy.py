"""A trained policy that acts, from a model or from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efm_agents.checkpoint import find_checkpoint, load_checkpoint
from efm_agents.model import EmbodiedModel, rebuild_model
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.seeding import Stream, generator

EXECUTIONS = ("open-loop", "ensemble")
ENSEMBLE_DECAY = 0.1  # w_i = exp(−0.1 i) of the i-th oldest prediction (ACT, Zhao et al. 2023, uses 0.01 at 50 Hz)


class ModelPolicy:
    """A model that acts: samples from π, or takes its most likely actions.

    Args:
        model: the model. It says one action at a time; for chunks there is `ChunkPolicy`.
        generator: where sampled actions come from; None acts greedily.
    """

    def __init__(self, model: EmbodiedModel, generator: torch.Generator | None) -> None:
        self.model = model
        self.generator = generator

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns actions (B, A) float32 for observations of which each value is (B, …)."""
        return self.say(observations)[:, 0]

    def say(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns whole chunks (B, k, A) float32."""
        return self.model.act(self.model.inputs(observations), self.generator).float().cpu().numpy()


class ChunkPolicy(ModelPolicy):
    """A model that says k actions at once, and remembers them.

    Args:
        model: the model.
        generator: where sampled actions come from; None acts greedily.
        execution: "open-loop" carries out all k before it looks again; "ensemble" looks at every step, and averages what the last k looks
            said about this step, older ones counting more.
    """

    def __init__(self, model: EmbodiedModel, generator: torch.Generator | None, execution: str = "open-loop") -> None:
        super().__init__(model, generator)
        if execution not in EXECUTIONS:
            raise EFMError(f"execution is one of {', '.join(EXECUTIONS)}; got {execution!r}.")
        self.execution = execution
        self._said: np.ndarray | None = None  # (B, k, k, A): by age, what was said; by place in the chunk
        self._chunks: list[list[Any]] = []
        self._age = np.zeros(0, np.int64)  # looks, or steps since the last look, of each env

    def reset(self, mask: np.ndarray) -> None:
        """Forgets what was said in the envs of `mask` (B,), whose episodes start."""
        if len(self._age) != len(mask):
            self._age, self._said, self._chunks = np.zeros(len(mask), np.int64), None, [[] for _ in mask]
        self._age[mask] = 0
        self._chunks = [[] if starts else chunks for starts, chunks in zip(mask, self._chunks, strict=True)]

    def notes(self, row: int) -> dict[str, Any]:
        """Returns the chunks (k, A) that were said in the episode of an env, the last of which was perhaps not carried out to its end."""
        return {"chunks": list(self._chunks[row])}

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns actions (B, A) float32."""
        if not len(self._age):
            self.reset(np.ones(len(next(iter(observations.values()))), bool))
        return self._ensemble(observations) if self.execution == "ensemble" else self._open_loop(observations)

    def _open_loop(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        looking = self._age % self.model.chunk == 0
        if looking.any():
            said = self.say({name: value[looking] for name, value in observations.items()})
            if self._said is None:
                self._said = np.zeros((len(looking), *said.shape[1:]), np.float32)
            self._said[looking] = said
            for row, chunk in zip(np.flatnonzero(looking), said, strict=True):
                self._chunks[row].append(chunk.tolist())
        assert self._said is not None
        actions = self._said[np.arange(len(looking)), self._age % self.model.chunk]
        self._age += 1
        return actions

    def _ensemble(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        said, k = self.say(observations), self.model.chunk
        if self._said is None:
            self._said = np.zeros((len(said), k, *said.shape[1:]), np.float32)
        self._said = np.concatenate([said[:, None], self._said[:, :-1]], axis=1)  # age 0 is the newest
        ages = np.arange(k)
        about_now = self._said[:, ages, ages]  # (B, k, A): what the look `age` steps ago said of this step
        weights = np.where(ages <= self._age[:, None], np.exp(ENSEMBLE_DECAY * ages), 0.0)
        self._age += 1
        averaged: np.ndarray = (weights[..., None] * about_now).sum(axis=1) / weights.sum(axis=1, keepdims=True)
        return averaged.astype(np.float32)


def make_policy(model: EmbodiedModel, generator: torch.Generator | None, execution: str = "open-loop") -> ModelPolicy:
    """Returns what acts with a model."""
    return ModelPolicy(model, generator) if model.chunk == 1 else ChunkPolicy(model, generator, execution)


def load_model(path: Path | str, name: str, task: str | None = None) -> EmbodiedModel:
    """Returns the model of a run's checkpoint `name` ("policy" or "steps_to_go"), to be asked, not trained.

    Raises:
        CheckpointError: there is none, or it is damaged, or made for another task than `task`.
    """
    file = find_checkpoint(path, name)
    tensors, config = load_checkpoint(file, "steps_to_go" if name == "steps_to_go" else "policy")
    if task is not None and config["task"] != task:
        raise CheckpointError(f"{file} is a policy for task {config['task']!r}; the env's task is {task!r}.")
    return rebuild_model(config["model"], tensors).requires_grad_(False)


def load_policy(
    path: Path | str, *, task: str, seed: int = 0, greedy: bool = False, name: str = "policy", execution: str = "open-loop"
) -> ModelPolicy:
    """Returns the policy of a run.

    Args:
        path: a run's folder, or a checkpoint file.
        task: name of the task that it will act in.
        seed: of the sampled actions.
        greedy: take the most likely tokens instead of sampling.
        name: which of the run's policies.
        execution: of chunks, "open-loop" or "ensemble".

    Raises:
        CheckpointError: there is none, or it is damaged, or made for another task.
    """
    return make_policy(load_model(path, name, task), None if greedy else torch_generator(seed, Stream.POLICY), execution)


def torch_generator(seed: int, stream: Stream) -> torch.Generator:
    """Returns torch's generator for a stream and a seed."""
    made = torch.Generator()
    made.manual_seed(int(generator(stream, seed).integers(2**62)))
    return made
