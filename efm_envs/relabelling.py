"""What a reward model says of stored episodes, bit for bit as if it had been their reward."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from efm_envs.data.episode import Episode
from efm_envs.errors import EFMError
from efm_envs.observations import FLAT
from efm_envs.replaying import env_to_replay, replay
from efm_envs.rewards.base import ACTION, TRUE_SUCCESS, needed_names
from efm_envs.rewards.registry import make_reward_model
from efm_envs.rewards.signal import RewardSignal
from efm_envs.simulation import DIVERGENCE
from efm_envs.task import Array, Goals


@dataclass(frozen=True)
class Judgement:
    """What a signal says along an episode of T control steps.

    Attributes:
        rewards: (T,) float64.
        steps_to_go: (T+1,) float64, d in [control steps].
        predicted_success: (T+1,) bool.
        edges: (K+1,) in [control steps], and
        probs: (T+1, K): the distribution, for a model that has one; else None.
    """

    rewards: Array
    steps_to_go: Array
    predicted_success: Array
    edges: Array | None
    probs: Array | None


def judge(signal: RewardSignal, length: int, observations: Mapping[str, Array], goals: Goals, *, is_lost: bool = False) -> Judgement:
    """Returns what a signal of one env says along an episode, asked about one observation after another, as an env would.

    Args:
        signal: with num_envs = 1.
        length: T, control steps.
        observations: what its model needs, by name, each (T+1, …).
        goals: the goal, as a batch of one.
        is_lost: the simulation broke down at the last one, and it means nothing.
    """
    outputs, predictions = [], []
    for t in range(length + 1):
        now = {name: values[t : t + 1] for name, values in observations.items()}
        lost = np.ones(1, bool) if is_lost and t == length else None
        outputs.append(signal.step(now, goals, lost=lost) if t else signal.reset(now, goals))
        assert signal.prediction is not None
        predictions.append(signal.prediction)
    probs = None if predictions[0].probs is None else np.concatenate([p.probs for p in predictions if p.probs is not None])
    reward, steps_to_go, predicted = (np.concatenate(column) for column in zip(*outputs, strict=True))
    return Judgement(reward[1:], steps_to_go, predicted, predictions[0].edges, probs)


def relabel(
    episodes: Iterable[Episode],
    model: Any,
    *,
    success_threshold: float | None = None,
    success_k_of_n: Sequence[int] | None = None,
    **make_kwargs: Any,
) -> Iterator[Episode]:
    """Yields each episode with the d, rewards and predicted success that a model gives it; nothing else changes, its length included.

    It is asked as a single env would ask it, one observation at a time, and what it says is the same to the last bit. Of what it needs,
    what was not stored is seen again by simulating the episode once more.

    Args:
        episodes: of envs of this project.
        model: as in `gym.make(..., reward_model=…)`.
        success_threshold: s in predicted success 1[d ≤ s], in [control steps]; None takes the model's own.
        success_k_of_n: (k, n); None takes the model's own.
        **make_kwargs: for `gym.make`, as the episodes were made.

    Raises:
        EFMError: the model needs what was not stored, and the episode cannot be simulated again as it was.
        RewardModelError: the model returned what is no steps-to-go.
    """
    signal = RewardSignal(make_reward_model(model), 1, success_threshold, success_k_of_n)
    envs: dict[str, gym.Env[Any, Any]] = {}
    try:
        for episode in episodes:
            if not isinstance(episode, Episode):
                raise EFMError(f"relabel() takes episodes, as load_episodes(path)[0] holds; got {episode!r} among them.")
            if episode.env_id not in envs:
                envs[episode.env_id] = env_to_replay(episode.env_id, **make_kwargs)
            goals = goal_of(episode, envs[episode.env_id])
            needed = observations_for(signal.model, episode, envs[episode.env_id])
            judged = judge(signal, len(episode), needed, goals, is_lost=episode.error == DIVERGENCE)
            yield dataclasses.replace(
                episode, rewards=judged.rewards, steps_to_go=judged.steps_to_go, predicted_success=judged.predicted_success
            )
    finally:
        for env in envs.values():
            env.close()


def goal_of(episode: Episode, env: "gym.Env[Any, Any]") -> Goals:
    """Returns an episode's goal, as a batch of one; `env` is one like that it is from.

    Raises:
        EFMError: the env's episode with this seed is another.
    """
    env.reset(seed=episode.seed)
    goals: Goals = env.unwrapped.goals  # type: ignore[attr-defined]
    if goals.instructions[0] != episode.instruction:
        raise EFMError(
            f"the episode with seed {episode.seed} of {episode.env_id} asks for {episode.instruction!r}, and this version's, with these "
            f"options, for {goals.instructions[0]!r}. Pass the options that it was made with."
        )
    return goals


def observations_for(model: Any, episode: Episode, env: "gym.Env[Any, Any]") -> dict[str, Array]:
    """Returns what a model needs of an episode, by name, each (T+1, …): what was stored, and the rest by simulating it again."""
    there = {FLAT if name == "observation" else name: values for name, values in episode.observations.items()}
    needed = needed_names(model, env.unwrapped.observer.policy_names)  # type: ignore[attr-defined]
    there[TRUE_SUCCESS] = episode.is_success
    there[ACTION] = actions_before(episode)
    missing = [name for name in needed if name not in there]
    if missing:
        there |= replay(episode, missing, env=env)
    return {name: there[name] for name in needed}


def actions_before(episode: Episode) -> Array:
    """Returns (T+1, A) float64 in [-1, 1]: the action that led to each observation; zeros at the first."""
    actions = np.clip(np.asarray(episode.actions, np.float64), -1.0, 1.0)
    return np.concatenate([np.zeros((1, *actions.shape[1:])), actions])
