"""The episodes that an audit judges a reward model on: good ones, bad ones, and ones that go wrong on purpose.

All are made by a task's own experts, with errors added: whoever adds an env adds nothing here. Each set has reset seeds of its own, which
are no other set's, and no training's, practice's or evaluation's. Truth is the task's: `Episode.steps_to_go` is the oracle's d.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from efm_agents.run import Report, no_report
from efm_benchmarks.policies import EXPERT, RandomPolicy
from efm_envs.data import Episode, load_episodes, save_episodes
from efm_envs.errors import CheckpointError
from efm_envs.experts import make_expert
from efm_envs.rollout import Policy, PolicyOrFactory, rollout
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator
from efm_envs.task import Array

TAIL_S = 1.0  # an episode goes on so long after its success, to see whether, and how late, a model notices
SLIP = (0.2, 0.6)  # a slip begins at a random part of the clean expert's median length,
SLIP_LENGTH, SHORTEST_SLIP = 0.25, 3  # and lasts for such a part of it, and for so many control steps at least
GIVING_UP = (0.3, 0.8)  # who fails gives up at a random part of that length
HOLD = 10  # control steps for which a wandering policy keeps an action
FAILING_TRIES = 4  # episodes tried for each failure wanted: some succeed by chance
MIXES = (0.25, 0.5)  # parts of random actions in the policies between the demonstrator and chance

Envs = Sequence[gym.Env[Any, Any]]
Make = Callable[[Envs], Policy]


@dataclass(frozen=True)
class TestSet:
    """A kind of episodes.

    Attributes:
        name: of the set.
        words: what happens in it, for people.
        make: makes its policy from the envs; takes the clean expert's median length in [control steps], too.
        keeps: which of its episodes count.
    """

    name: str
    words: str
    make: Callable[[Envs, int], Policy]
    keeps: Callable[[Episode], bool] = lambda episode: True


class EndAfterSuccess(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode some time after its true success."""

    def __init__(self, env: gym.Env[Any, Any], tail: int) -> None:
        super().__init__(env)
        self._tail = tail

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        observation, info = self.env.reset(**kwargs)
        self._left = self._tail if info["is_success"] else None
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Counts down from the first success."""
        observation, reward, _, truncated, info = self.env.step(action)
        if self._left is not None:
            self._left -= 1
        elif info["is_success"]:
            self._left = self._tail
        return observation, reward, self._left == 0, truncated, info


class Erring:
    """An expert that errs for a while: its actions are pushed to one side. It then goes on from where that has led.

    Args:
        envs: one env.
        style: of the expert.
        window: draws from a generator when the error begins and ends, in [control steps]; None as the end is for ever.
        salt: tells the generators of different sets apart.
    """

    def __init__(self, envs: Envs, style: str, window: Callable[[np.random.Generator], tuple[int, int | None]], salt: int) -> None:
        self._env: Any = envs[0].unwrapped
        self._expert = make_expert(list(envs), style)
        self._window, self._salt = window, salt
        self._episode = -1

    def act(self, observations: Any) -> Array:
        """Returns actions (1, A)."""
        if self._episode != self._env.episode_count:
            self._episode = self._env.episode_count
            self._rng = generator(Stream.POLICY, *self._env.episode_key, self._salt)
            self._begin, self._end = self._window(self._rng)
        t, action = self._env.elapsed_steps, self._expert.act()
        if t < self._begin or (self._end is not None and t >= self._end):
            return action
        if (t - self._begin) % HOLD == 0:
            self._push = self._rng.uniform(-1.0, 1.0, action.shape)
        pushed = self._push if self._end is None else np.clip(action + 2.0 * self._push, -1.0, 1.0)
        return pushed.astype(np.float32)

    def notes(self, i: int) -> dict[str, Any]:
        """Returns when it erred."""
        return {"error_begins": self._begin, **({} if self._end is None else {"error_ends": self._end})}


class Wanderer:
    """Random actions, each kept for a while, so that it gets about: of every two episodes one, the other is white noise."""

    def __init__(self, envs: Envs) -> None:
        self._env: Any = envs[0].unwrapped
        self._noise = RandomPolicy(envs, 0)
        self._episode = -1

    def act(self, observations: Any) -> Array:
        """Returns actions (1, A)."""
        if self._episode != self._env.episode_count:
            self._episode, self._rng = self._env.episode_count, generator(Stream.POLICY, *self._env.episode_key)
            self._holds = bool(self._rng.integers(2))
        if not self._holds:
            return self._noise.act(observations)
        if self._env.elapsed_steps % HOLD == 0:
            self._action = self._rng.uniform(-1.0, 1.0, (1, *self._env.action_space.shape)).astype(np.float32)
        return self._action


class Mixed:
    """An expert of whose actions some part is replaced by random ones."""

    def __init__(self, envs: Envs, style: str, part: float) -> None:
        self._expert, self._noise = make_expert(list(envs), style), RandomPolicy(envs, 0)
        self._part, self._rng = part, generator(Stream.POLICY, round(100 * part))

    def act(self, observations: Any) -> Array:
        """Returns actions (1, A)."""
        action, other = self._expert.act(), self._noise.act(observations)
        return other if self._rng.random() < self._part else action


def test_sets(policy: PolicyOrFactory | None, demonstrator: str | None, policy_name: str | None = None) -> list[TestSet]:
    """Returns the sets for an env: those that need an expert only where there is one.

    Args:
        policy: whose steps the reward model is to predict; None leaves its set out.
        demonstrator: style of the expert that acts as demonstrators do; None where the task has no experts.
        policy_name: for people.
    """
    sets = []
    if policy is not None:
        words = f"{policy_name or 'the policy'}, whose steps the model is to predict"
        sets.append(TestSet("policy", words, lambda envs, length: _bound(policy, envs)))
    if demonstrator is not None:
        sets += _expert_sets(demonstrator)
    sets.append(TestSet("random", "random actions, some of them kept for a while", lambda envs, length: Wanderer(envs)))
    if demonstrator is not None and policy_name != f"{EXPERT}{demonstrator}":
        words = f"the {demonstrator} expert, as demonstrations are made"
        sets.append(TestSet("demonstrations", words, lambda envs, length: make_expert(list(envs), demonstrator)))
    return sets


def _expert_sets(demonstrator: str) -> list[TestSet]:
    def gives_up(envs: Envs, length: int) -> Policy:
        return Erring(envs, demonstrator, lambda rng: (round(rng.uniform(*GIVING_UP) * length), None), salt=1)

    def slips(envs: Envs, length: int) -> Policy:
        def window(rng: np.random.Generator) -> tuple[int, int | None]:
            begin = round(rng.uniform(*SLIP) * length)
            return begin, begin + max(SHORTEST_SLIP, round(SLIP_LENGTH * length))

        return Erring(envs, "clean", window, salt=2)

    mixed = [
        TestSet(
            f"mixed-{round(100 * part)}",
            f"the {demonstrator} expert, {round(100 * part)} % of its actions random",
            functools.partial(_mixed, demonstrator, part),
        )
        for part in MIXES
    ]
    return [
        TestSet("clean", "the clean expert", lambda envs, length: make_expert(list(envs), "clean")),
        TestSet("recoveries", "the clean expert slips once, and goes on", slips),
        TestSet(
            "failures", f"the {demonstrator} expert gives up and wanders; episodes that succeed all the same are left out", gives_up, _fails
        ),
        *mixed,
    ]


def collect_sets(
    env_id: str,
    sets: Sequence[TestSet],
    episodes: int,
    folder: Path,
    *,
    seed: int,
    options: Mapping[str, Any],
    described: Mapping[str, Any],
    report: Report = no_report,
) -> dict[str, list[Episode]]:
    """Returns the episodes of each set, by name, in the order of their seeds; those that an earlier run stored are taken from there.

    Args:
        env_id: a registered id.
        sets: which ones.
        episodes: how many of each.
        folder: gets a file for each set.
        seed: which evaluation episodes.
        options: for `gym.make`.
        described: JSON-able, what else decides the episodes: a file that says otherwise is made anew.
        report: is told about progress.
    """
    found: dict[str, list[Episode]] = {}
    length = 0
    for number, test_set in enumerate(sets):
        meta = {"env_id": env_id, "episodes": episodes, "seed": seed, "number": number, "options": dict(options), **described}
        path = folder / f"{test_set.name}.npz"
        stored = _stored(path, meta)
        if stored is None:
            if not length:
                length = _clean_length(env_id, options, seed)
            tell = functools.partial(report, test_set.name)
            stored = _collect(env_id, test_set, episodes, _seeds(seed, number), length, options, tell)
            if stored:
                save_episodes(path, stored, meta)
        report(test_set.name, episodes, episodes, f"{len(stored)} episodes")
        found[test_set.name] = stored
    return found


def _collect(
    env_id: str,
    test_set: TestSet,
    episodes: int,
    seeds: Sequence[int],
    length: int,
    options: Mapping[str, Any],
    report: Callable[[int, int, str], None],
) -> list[Episode]:
    env = _env(env_id, options)
    kept: list[Episode] = []
    try:
        tried = seeds[: FAILING_TRIES * episodes]
        for episode in rollout(lambda envs: test_set.make(envs, length), env_id, tried, envs=[env]):
            if test_set.keeps(episode) and episode.end_reason != "error":
                kept.append(episode)
            report(len(kept), episodes, "")
            if len(kept) == episodes:
                break
    finally:
        env.close()
    return kept


def _env(env_id: str, options: Mapping[str, Any]) -> gym.Env[Any, Any]:
    made = {**options, "reward_model": "oracle", "terminate_on": "never"}
    env = gym.make(env_id, disable_env_checker=True, **made)
    return EndAfterSuccess(env, max(2, round(TAIL_S / env.unwrapped.task.control_dt_s)))  # type: ignore[attr-defined]


def _clean_length(env_id: str, options: Mapping[str, Any], seed: int) -> int:
    """Returns the clean expert's median length in [control steps]; where there is none, nobody asks."""
    env = _env(env_id, options)
    try:
        if not env.unwrapped.task.experts:  # type: ignore[attr-defined]
            return 0
        seeds = _seeds(seed, 99)[:8]
        runs = list(rollout(lambda envs: make_expert(list(envs), "clean"), env_id, seeds, envs=[env]))
        return int(np.median([episode.steps_to_success or len(episode) for episode in runs]))
    finally:
        env.close()


def _seeds(seed: int, number: int) -> list[int]:
    """Returns the reset seeds of a set: none is another set's."""
    return list(islice(episode_seeds(EpisodeSet.AUDIT, seed, start=number * 10_000), 10_000))


def _stored(path: Path, meta: Mapping[str, Any]) -> list[Episode] | None:
    try:
        episodes, there = load_episodes(path)
    except CheckpointError:
        return None
    return episodes if there == meta else None


def _bound(policy: PolicyOrFactory, envs: Envs) -> Policy:
    return policy if hasattr(policy, "act") else policy(envs)


def _mixed(style: str, part: float, envs: Envs, length: int) -> Policy:
    return Mixed(envs, style, part)


def _fails(episode: Episode) -> bool:
    return not episode.is_success.any()
