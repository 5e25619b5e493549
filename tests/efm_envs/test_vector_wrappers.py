"""Gymnasium's own vector wrappers around a batch: what they make of it is what they make of as many single envs."""

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics as OfOneEnv
from gymnasium.wrappers import vector as wrappers

from tests.efm_envs.fakes import POINT_MASS
from tests.efm_envs.test_vector_env import assert_same, random_actions

NUM_ENVS, LIMIT, STEPS = 4, 6, 20
LIMITS = [LIMIT - i for i in range(NUM_ENVS)]
IDS = (POINT_MASS, "EFM-LanguageTable4-v0", "EFM-InsertEE-v0")
RESTARTING = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]


def pair(made_id: str, mode: AutoresetMode, limits: list[int] = LIMITS, **options: Any) -> tuple[Any, Any]:
    """Returns our batch and Gymnasium's vector env over single envs; `limits` are the step limits of each env."""
    ours = gym.make_vec(made_id, num_envs=NUM_ENVS, autoreset_mode=mode, **options)
    kwargs = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
    theirs = gym.make_vec(made_id, num_envs=NUM_ENVS, **kwargs, **options)
    for envs in (ours, theirs):
        envs.set_attr("step_limit", limits)
    return ours, theirs


def run(envs: Any) -> list[Any]:
    """Returns what every reset and step returned; in the mode "Disabled", an env is reset when its episode has ended.

    Copied: RecordEpisodeStatistics writes to `infos["_episode"]` at the next reset.
    """
    seen = [envs.reset(seed=3)]
    for actions in random_actions(envs, STEPS):
        seen.append(copy.deepcopy(envs.step(actions)))
        ended = seen[-1][2] | seen[-1][3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            seen.append(envs.reset(options={"reset_mask": ended}))
    return seen


def assert_same_runs(ours: Any, theirs: Any) -> None:
    for call, (a, b) in enumerate(zip(run(ours), run(theirs), strict=True)):
        assert_same(*((*returned[:-1], without_times(returned[-1])) for returned in (a, b)), f"call {call}")


def without_times(infos: Any) -> Any:
    """Returns `infos` without how long episodes took, which no two runs share."""
    return {**infos, "episode": {name: infos["episode"][name] for name in ("r", "l")}} if "episode" in infos else infos


@pytest.mark.parametrize("mode", RESTARTING)
@pytest.mark.parametrize("made_id", IDS)
def test_episodes_have_the_same_returns_and_lengths(made_id: str, mode: AutoresetMode) -> None:
    ours, theirs = (wrappers.RecordEpisodeStatistics(envs) for envs in pair(made_id, mode))
    assert_same_runs(ours, theirs)
    assert list(ours.return_queue) == list(theirs.return_queue) and ours.episode_count == theirs.episode_count
    assert ours.episode_count >= 2 * NUM_ENVS and set(ours.length_queue) >= set(LIMITS)


@pytest.mark.parametrize("made_id", IDS)
def test_episodes_have_the_same_returns_where_all_are_reset_at_once(made_id: str) -> None:
    envs = pair(made_id, AutoresetMode.DISABLED, [LIMIT] * NUM_ENVS, terminate_on="never")
    ours, theirs = map(wrappers.RecordEpisodeStatistics, envs)
    assert_same_runs(ours, theirs)
    assert list(ours.return_queue) == list(theirs.return_queue) and list(ours.length_queue) == [LIMIT] * 3 * NUM_ENVS


@pytest.mark.parametrize("made_id", IDS)
def test_a_masked_reset_leaves_the_count_of_the_other_episodes_alone(made_id: str) -> None:
    """Over SyncVectorEnv it does not: that takes `reset_mask` out of the options, and the wrapper then forgets all episodes."""
    envs = wrappers.RecordEpisodeStatistics(pair(made_id, AutoresetMode.DISABLED)[0])
    counted: list[list[tuple[float, int]]] = [[] for _ in range(NUM_ENVS)]
    for *_, infos in run(envs):
        for i in np.flatnonzero(infos.get("_episode", [])):
            counted[i].append((infos["episode"]["r"][i], infos["episode"]["l"][i]))
    for i, episodes in enumerate(counted):
        assert episodes == [(pytest.approx(r, abs=1e-9), length) for r, length in alone(made_id, i)]
        assert len(episodes) >= STEPS // LIMITS[i]


def alone(made_id: str, row: int) -> list[tuple[float, int]]:
    """Returns the returns and lengths of one env's episodes, by Gymnasium's wrapper for single envs."""
    env = OfOneEnv(gym.make(made_id, step_limit=LIMITS[row]))
    env.reset(seed=3 + row)
    for actions in random_actions(pair(made_id, AutoresetMode.DISABLED)[0], STEPS):
        *_, terminated, truncated, _ = env.step(actions[row])
        if terminated or truncated:
            env.reset()
    return list(zip(env.return_queue, env.length_queue, strict=True))


def test_a_return_is_how_far_d_fell() -> None:
    envs = wrappers.RecordEpisodeStatistics(gym.make_vec(POINT_MASS, num_envs=NUM_ENVS, autoreset_mode="SameStep", step_limit=LIMIT))
    _, infos = envs.reset(seed=0)
    first = infos["steps_to_go"].copy()
    for actions in random_actions(envs, LIMIT):
        *_, infos = envs.step(actions)
    assert infos["_episode"].all()
    np.testing.assert_allclose(infos["episode"]["r"], first - infos["final_info"]["steps_to_go"], atol=1e-9)


OTHERS: dict[str, Callable[[Any], Any]] = {
    "NormalizeObservation": wrappers.NormalizeObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "ClipReward": lambda envs: wrappers.ClipReward(envs, -1.0, 1.0),
    "all": lambda envs: wrappers.RecordEpisodeStatistics(wrappers.NormalizeReward(wrappers.NormalizeObservation(envs))),
}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("wrapper", OTHERS)
def test_other_wrappers_return_the_same_or_refuse_both(wrapper: str, mode: AutoresetMode) -> None:
    """In Gymnasium 1.4, observations are normalised in the mode "NextStep" only."""
    ours, theirs = pair("EFM-LanguageTable4-v0", mode, [LIMIT] * NUM_ENVS, obs_mode="flat")
    if wrapper in ("NormalizeObservation", "all") and mode is not AutoresetMode.NEXT_STEP:
        for envs in (ours, theirs):
            with pytest.raises(ValueError, match="autoreset_mode"):
                OTHERS[wrapper](envs)
    else:
        assert_same_runs(OTHERS[wrapper](ours), OTHERS[wrapper](theirs))


def test_named_observations_can_be_joined() -> None:
    ours, theirs = (wrappers.FlattenObservation(envs) for envs in pair("EFM-LanguageTable4-v0", AutoresetMode.NEXT_STEP))
    assert ours.observation_space == theirs.observation_space
    assert_same_runs(ours, theirs)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_infos_can_be_listed(mode: AutoresetMode) -> None:
    ours, theirs = (wrappers.DictInfoToList(envs) for envs in pair("EFM-InsertEE-v0", mode, [LIMIT] * NUM_ENVS))
    for call, (a, b) in enumerate(zip(run(ours), run(theirs), strict=True)):
        assert_same(tuple(a[-1]), tuple(b[-1]), f"call {call}")
