"""Episodes in a vector env are those that single envs have."""

import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from efm_agents.rollout import make_vector_env, rollout
from efm_envs.data import Episode
from efm_envs.rollout import rollout as rollout_in_single_envs
from efm_envs.vector import EFMVectorEnv

POINT_MASS, LANGUAGE_TABLE = "EFM-PointMass-v0", "EFM-LanguageTable4-v0"
SEEDS = [1, 2, 3, 5, 8, 13, 21]
ENDING: dict[str, dict[str, Any]] = {
    POINT_MASS: {"reward_model": "oracle", "terminate_on": "true"},
    LANGUAGE_TABLE: {"reward_model": "oracle", "terminate_on": "predicted", "success_threshold": 5.3, "step_limit": 25},
    "ends where success is predicted": {"reward_model": "oracle", "terminate_on": "predicted", "success_threshold": 4.0},
    "never ends by itself": {"reward_model": "none", "terminate_on": "never", "step_limit": 20},
    "says nothing but the reward": {"reward_model": "sparse", "terminate_on": "true", "step_limit": 30},
}
Made = Callable[..., EFMVectorEnv]


class Reflex:
    """Its action is a function of the observation before it and of nothing else."""

    def __init__(self) -> None:
        self.rows: list[int] = []  # of each batch that it saw

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        state = np.concatenate([observations["agent_pos"], observations["environment_state"]], axis=1)
        self.rows.append(len(state))
        if state.shape[1] == 6:  # PointMass: towards the goal, not quite
            position, velocity, goal = state[:, :2], state[:, 2:4], state[:, 4:]
            return np.clip(4.0 * (goal - position) - 60.0 * velocity, -1, 1).astype(np.float32)
        return np.sin(40.0 * state[:, :2] + 7.0 * state[:, 4:6] + state[:, 6:8]).astype(np.float32)


class Remembering(Reflex):
    """The same, with a memory: which rows were started, and the number of its steps in each."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.starts: list[list[bool]] = []
        self.steps = np.zeros(size, int)

    def reset(self, mask: np.ndarray) -> None:
        self.starts.append(mask.tolist())
        self.steps[mask] = 0

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        self.steps += 1
        return super().act(observations)

    def notes(self, row: int) -> dict[str, Any]:
        return {"row": row, "steps": int(self.steps[row])}


def content(episode: Episode) -> dict[str, Any]:
    """Everything of an episode but its notes, with the bytes of its arrays."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(episode):
        value = getattr(episode, field.name)
        for name, part in value.items() if field.name == "observations" else [("", value)]:
            key = f"{field.name}/{name}" if name else field.name
            found[key] = (part.dtype.str, part.shape, part.tobytes()) if isinstance(part, np.ndarray) else part
    del found["notes"]
    return found


def by_seed(episodes: Sequence[Episode]) -> dict[int, dict[str, Any]]:
    found = {episode.seed: content(episode) for episode in episodes}
    assert len(found) == len(episodes), "a seed was played twice"
    return found


def alone(env_id: str, seeds: Sequence[int] = SEEDS, **options: Any) -> dict[int, dict[str, Any]]:
    return by_seed(list(rollout_in_single_envs(Reflex(), env_id, seeds, **options)))


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes vector envs that are closed at the end."""
    envs: list[EFMVectorEnv] = []

    def make(env_id: str, num_envs: int, **options: Any) -> EFMVectorEnv:
        envs.append(make_vector_env(env_id, num_envs, **options))
        return envs[-1]

    yield make
    for each in envs:
        each.close()


@pytest.mark.parametrize("num_envs", [1, 3, 10])
@pytest.mark.parametrize("case", list(ENDING))
def test_episodes_are_those_of_single_envs(case: str, num_envs: int, made: Made) -> None:
    """More seeds than envs, and fewer."""
    env_id, options = case if case.startswith("EFM") else POINT_MASS, ENDING[case]
    expected = alone(env_id, **options)
    assert by_seed(list(rollout(Reflex(), made(env_id, num_envs, **options), SEEDS))) == expected
    assert len({e["rewards"][1] for e in expected.values()}) > 1 or "never" in case, "episodes of one length tell nothing apart"


@pytest.mark.parametrize("mode", ["pixels_state", "flat"])
def test_episodes_are_those_of_single_envs_whatever_is_observed(mode: str, made: Made) -> None:
    class Same:
        def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
            first = next(iter(observations.values())).reshape(len(next(iter(observations.values()))), -1)[:, :2]
            return np.cos(first.astype(np.float32) + 0.1)

    options = {"obs_mode": mode, "step_limit": 8, "terminate_on": "true", "image_size": (16, 16)}
    single = by_seed(list(rollout_in_single_envs(Same(), POINT_MASS, SEEDS[:3], **options)))
    assert by_seed(list(rollout(Same(), made(POINT_MASS, 2, **options), SEEDS[:3]))) == single


def test_each_instruction_is_that_of_its_episode(made: Made) -> None:
    options = ENDING[LANGUAGE_TABLE]
    episodes = list(rollout(Reflex(), made(LANGUAGE_TABLE, 2, **options), SEEDS))
    assert len({e.instruction for e in episodes}) > 3
    for episode in episodes:
        assert bytes(episode.observations["instruction"][0]).rstrip(b"\0").decode() == episode.instruction
        assert (episode.observations["instruction"] == episode.observations["instruction"][0]).all()


def test_a_vector_env_can_be_used_again_also_after_a_rollout_that_was_left(made: Made) -> None:
    expected, envs = alone(POINT_MASS, **ENDING[POINT_MASS]), made(POINT_MASS, 3, **ENDING[POINT_MASS])
    for _ in range(2):
        assert by_seed(list(rollout(Reflex(), envs, SEEDS))) == expected
    left = rollout(Reflex(), envs, range(100, 200))
    next(left), next(left)
    left.close()
    assert by_seed(list(rollout(Reflex(), envs, SEEDS[:2]))) == {seed: expected[seed] for seed in SEEDS[:2]}
    assert by_seed(list(rollout(Reflex(), envs, SEEDS))) == expected


@pytest.mark.parametrize("min_steps", [0, 1, 60, 150, 10_000])
def test_once_there_are_enough_steps_no_episode_is_started_and_those_under_way_are_finished(min_steps: int, made: Made) -> None:
    options = ENDING[POINT_MASS]
    expected = list(rollout_in_single_envs(Reflex(), POINT_MASS, SEEDS, num_envs=2, min_steps=min_steps, **options))
    episodes = list(rollout(Reflex(), made(POINT_MASS, 2, **options), SEEDS, min_steps=min_steps))
    assert [content(e) for e in episodes] == [content(e) for e in expected]
    assert sum(map(len, episodes)) >= min_steps or len(episodes) == len(SEEDS)


def test_seeds_are_read_one_at_a_time_as_an_env_falls_free(made: Made) -> None:
    seeds = itertools.count(1)
    episodes = rollout(Reflex(), made(POINT_MASS, 3, **ENDING[POINT_MASS]), seeds)
    first = next(episodes)
    assert 1 <= first.seed <= 3 and next(seeds) == 4


def test_without_seeds_nothing_happens(made: Made) -> None:
    policy = Remembering(2)
    assert list(rollout(policy, made(POINT_MASS, 2, **ENDING[POINT_MASS]), [])) == []
    assert policy.rows == [] and policy.starts == []


def test_a_policy_that_remembers_nothing_is_asked_only_about_episodes_under_way(made: Made) -> None:
    policy = Reflex()
    episodes = list(rollout(policy, made(POINT_MASS, 3, **ENDING[POINT_MASS]), SEEDS))
    assert sum(policy.rows) == sum(map(len, episodes)) and max(policy.rows) == 3 and 0 not in policy.rows


@pytest.mark.parametrize("num_envs", [3, 10])
def test_a_policy_that_remembers_sees_all_rows_is_told_what_starts_and_is_asked_for_its_notes(num_envs: int, made: Made) -> None:
    policy = Remembering(num_envs)
    episodes = list(rollout(policy, made(POINT_MASS, num_envs, **ENDING[POINT_MASS]), SEEDS))
    assert by_seed(episodes) == alone(POINT_MASS, **ENDING[POINT_MASS])
    assert set(policy.rows) == {num_envs} and np.sum(policy.starts) == len(SEEDS)
    assert [e.notes["steps"] for e in episodes] == [len(e) for e in episodes], "a row was not told of the episode that began there"
    assert len({e.notes["row"] for e in episodes}) == min(num_envs, len(SEEDS))


class Witness(Reflex):
    """Knows which of the observations that it was shown still exist."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[weakref.ref[np.ndarray]] = []

    def reset(self, mask: np.ndarray) -> None:
        """It is shown whole batches, as they are, because it has this."""

    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        self.shown.append(weakref.ref(observations["agent_pos"]))
        return super().act(observations)


def test_observations_of_episodes_that_are_over_are_let_go(made: Made) -> None:
    """A thousand episodes of pictures would not fit into memory."""
    witness, longest, alive = Witness(), 0, 0
    for episode in rollout(witness, made(POINT_MASS, 2), range(40)):
        longest = max(longest, len(episode))
        alive = max(alive, sum(shown() is not None for shown in witness.shown))
    assert len(witness.shown) > 4 * longest and alive <= 2 * longest + 2
