"""Rollouts and the official score: the same episodes for everybody, whatever runs beside them."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import efm_envs
from efm_envs.data import Episode
from efm_envs.errors import EFMError, InvalidActionError, RewardModelError, UnknownNameError
from efm_envs.evaluation import EpisodeRecord
from efm_envs.rollout import rollout
from efm_envs.seeding import EpisodeSet, episode_seeds
from tests.efm_envs import fakes
from tests.efm_envs.fakes import POINT_MASS

human = functools.partial(efm_envs.make_expert, style="human")
Register = Callable[..., str]


def collect(policy: Any, seeds: Any, num_envs: int, env_id: str = POINT_MASS, **kwargs: Any) -> dict[int, Episode]:
    return {episode.seed: episode for episode in rollout(policy, env_id, seeds, num_envs=num_envs, **kwargs)}


def assert_same(a: Episode, b: Episode) -> None:
    for name in ("actions", "rewards", "steps_to_go", "is_success", "predicted_success"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in a.observations:
        np.testing.assert_array_equal(a.observations[name], b.observations[name])
    assert (a.end_reason, a.error, a.instruction) == (b.end_reason, b.error, b.instruction)


# -- episodes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [human, fakes.GoStraight()], ids=["expert", "policy"])
def test_episodes_do_not_depend_on_how_many_run_side_by_side(policy: Any) -> None:
    seeds = list(range(6))
    alone = collect(policy, seeds, num_envs=1)
    for num_envs in (4, 8):
        together = collect(policy, reversed(seeds), num_envs=num_envs)
        assert sorted(together) == seeds
        for seed in seeds:
            assert_same(alone[seed], together[seed])


def test_another_expert_seed_gives_another_demonstration_of_the_same_episode() -> None:
    first = collect(human, [0], 1)[0]
    other = collect(functools.partial(efm_envs.make_expert, style="human", seed=1), [0], 1)[0]
    np.testing.assert_array_equal(first.observations["agent_pos"][0], other.observations["agent_pos"][0])
    assert len(first) != len(other) or not np.array_equal(first.actions, other.actions)


def test_an_episode_holds_what_happened() -> None:
    episode = collect(fakes.GoStraight(), [3], 1)[3]
    steps = len(episode)
    env = gym.make(POINT_MASS)
    observation, info = env.reset(seed=3)
    for t in range(steps):
        np.testing.assert_array_equal(episode.observations["agent_pos"][t], observation["agent_pos"])
        assert (episode.steps_to_go[t], episode.is_success[t], episode.predicted_success[t]) == (
            info["steps_to_go"],
            info["is_success"],
            info["predicted_success"],
        )
        observation, reward, terminated, _, info = env.step(episode.actions[t])
        assert (reward, terminated) == (episode.rewards[t], t == steps - 1)
    assert episode.end_reason == "terminated" and episode.steps_to_success == steps
    assert {name: len(value) for name, value in episode.observations.items()} == dict.fromkeys(observation, steps + 1)
    assert len(episode.rewards) == steps and episode.instruction == info["instruction"]


def test_a_stored_episodes_actions_play_it_again_bit_for_bit() -> None:
    """Also if the policy acts in float64, as this one does, and beyond the action space."""

    class Double(fakes.GoStraight):
        def act(self, observations: Any) -> np.ndarray:
            return 3.0 * super().act({name: value.astype(np.float64) for name, value in observations.items()})

    episode = collect(Double(), [5], 1)[5]
    env = gym.make(POINT_MASS)
    env.reset(seed=5)
    positions = [env.step(action)[0]["agent_pos"] for action in episode.actions]
    np.testing.assert_array_equal(positions, episode.observations["agent_pos"][1:])


def test_the_time_limit_and_the_goal_end_episodes_and_say_which() -> None:
    stay = collect(fakes.constant_policy(np.zeros(2)), [0], 1)[0]
    assert (stay.end_reason, len(stay), stay.steps_to_success) == ("truncated", 140, None)
    there = collect(fakes.GoStraight(), [0], 1)[0]
    assert (there.end_reason, there.steps_to_success) == ("terminated", len(there))


def test_more_envs_than_seeds_is_no_harm() -> None:
    for policy in (efm_envs.make_expert, human, fakes.GoStraight()):
        assert sorted(collect(policy, [1, 2], num_envs=5)) == [1, 2]
    assert collect(efm_envs.make_expert, [], num_envs=2) == {}


def test_min_steps_finishes_what_is_under_way() -> None:
    seeds = episode_seeds(EpisodeSet.PRACTICE, 0)
    episodes = list(rollout(fakes.GoStraight(), POINT_MASS, seeds, num_envs=4, min_steps=60))
    assert sum(map(len, episodes)) >= 60
    assert all(episode.end_reason == "terminated" for episode in episodes)


def test_a_policy_with_memory_is_told_which_episodes_start() -> None:
    policy = fakes.Recorder()
    episodes = collect(policy, range(3), num_envs=2)
    assert policy.masks[0] == [True, True]
    assert np.sum(policy.masks) == len(episodes) == 3


def test_an_env_with_a_box_has_one_observation() -> None:
    episode = collect(efm_envs.make_expert, [0], 1, obs_mode="flat")[0]
    assert {name: value.shape for name, value in episode.observations.items()} == {"observation": (len(episode) + 1, 6)}


def test_a_policy_of_the_wrong_shape_is_told() -> None:
    with pytest.raises(InvalidActionError, match=r"has shape \(2,\); got \(3,\)"):
        collect(fakes.constant_policy(np.zeros(3)), [0], 1)


def test_a_bad_reward_model_is_an_error_and_no_failed_episode() -> None:
    with pytest.raises(RewardModelError, match="nan steps-to-go"):
        collect(fakes.GoStraight(), [0], 1, reward_model=lambda observations: [np.nan])


# -- evaluation -------------------------------------------------------------------------------------------------------------------


def test_evaluation_does_not_depend_on_the_number_of_envs() -> None:
    first, *others = (efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, episodes=9, num_envs=n) for n in (1, 4, 30))
    assert all(records == first for records in others)
    assert [record.seed for record in first] == sorted(record.seed for record in first)


def test_evaluation_takes_a_policy_or_what_makes_one_from_the_envs() -> None:
    made = efm_envs.evaluate(lambda envs: fakes.GoStraight(), POINT_MASS, episodes=3)
    assert made == efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, episodes=3)
    assert all(r.success_once for r in efm_envs.evaluate(efm_envs.make_expert, POINT_MASS, episodes=3))


def test_evaluation_seeds_are_nobody_elses() -> None:
    evaluated = {record.seed for record in efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, episodes=20)}
    for other in (EpisodeSet.DEMONSTRATIONS, EpisodeSet.PRACTICE):
        for seed in (0, 1):
            seeds = episode_seeds(other, seed)
            assert evaluated.isdisjoint(next(seeds) for _ in range(1000))


def test_another_evaluation_seed_is_other_episodes() -> None:
    runs = [{r.seed for r in efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, 5, seed=seed)} for seed in (0, 1)]
    assert runs[0].isdisjoint(runs[1])


def test_the_score_is_ground_truth_whatever_the_model_says() -> None:
    """A model that is always sure ends every episode at once, and none of them counts."""
    (sure,) = efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, 1, reward_model=lambda observations: [0.0])
    assert (sure.success_once, sure.success_at_end, sure.predicted_success, sure.steps) == (False, False, True, 1)


def test_success_once_and_at_the_end_are_told_apart() -> None:
    """A push in one direction goes through some goals and on."""
    records = efm_envs.evaluate(fakes.constant_policy(np.array([0.3, 0.0])), POINT_MASS, 100, terminate_on="never")
    passed = [r for r in records if r.success_once and not r.success_at_end]
    assert passed
    assert all(r.steps_to_success < r.steps == 140 and r.end_reason == "truncated" for r in passed)


def test_a_simulation_that_diverges_is_a_failure_with_its_error(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log

    class Breaking:
        def __init__(self, envs: Any) -> None:
            self.env = envs[0].unwrapped

        def act(self, observations: Any) -> np.ndarray:
            if self.env.elapsed_steps == 2:
                self.env.physics.qvel[:] = np.nan
            return np.zeros((1, 2), np.float32)

    (episode,) = rollout(lambda envs: Breaking(envs), POINT_MASS, [0], num_envs=1)
    record = EpisodeRecord.of(episode)
    assert episode.end_reason == "error" and "the simulation diverged" in str(record.error) and not record.success_once
    assert len(episode) == 3 and episode.rewards[-1] == 0.0


def test_an_env_that_raises_is_a_failure_with_its_error_and_the_others_go_on(register: Register) -> None:
    env_id = register(fakes.FailingEnv, step_limit=60)
    for num_envs in (1, 3):
        records = efm_envs.evaluate(fakes.GoStraight(), env_id, episodes=6, num_envs=num_envs)
        failed, fine = [r for r in records if r.seed % 2], [r for r in records if not r.seed % 2]
        assert len(failed) == len(fine) == 3
        assert all(r.success_at_end and r.error is None for r in fine)
        for r in failed:
            assert (r.error, r.end_reason, r.steps) == ("RuntimeError: the gripper came off", "error", 2)
            assert not r.success_once and not r.success_at_end and r.steps_to_success is None


def test_every_episode_is_shown_as_it_ends() -> None:
    shown: list[Episode] = []
    records = efm_envs.evaluate(fakes.GoStraight(), POINT_MASS, 5, num_envs=2, on_episode=shown.append)
    assert sorted(map(EpisodeRecord.of, shown), key=lambda r: r.seed) == records
    assert [r.return_ for r in records] == pytest.approx([r.steps for r in records])  # oracle, straight: one a step


# -- experts ----------------------------------------------------------------------------------------------------------------------


def test_an_expert_acts_in_one_env_or_in_many() -> None:
    env = gym.make(POINT_MASS)
    env.reset(seed=0)
    assert efm_envs.make_expert(env).act().shape == (2,)
    envs = gym.make_vec(POINT_MASS, num_envs=3, vectorization_mode="sync")
    envs.reset(seed=0)
    actions = efm_envs.make_expert(envs).act()
    assert actions.shape == (3, 2) and envs.action_space.contains(actions)
    np.testing.assert_array_equal(actions[0], efm_envs.make_expert(env).act())


def test_an_expert_solves_every_env_that_has_one(solved_id: str) -> None:
    records = efm_envs.evaluate(efm_envs.make_expert, solved_id, episodes=20)
    assert all(record.success_at_end for record in records)


def test_every_style_of_every_env_acts_inside_the_action_space(env_id: str) -> None:
    env = gym.make(env_id)
    for style in env.unwrapped.task.experts:
        expert = efm_envs.make_expert(env, style=style)
        for seed in range(3):
            env.reset(seed=seed)
            for _ in range(20):
                action = expert.act()
                assert env.action_space.contains(action)
                env.step(action)


def test_an_unknown_style_lists_the_styles() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown expert style of PointMass: 'strait'\. .*Valid: 'clean', 'direct', 'human', 'waypoints'"
    ):
        efm_envs.make_expert(gym.make(POINT_MASS), style="strait")


def test_an_expert_needs_an_env_of_this_project_within_reach() -> None:
    with pytest.raises(EFMError, match=r"needs an env of this project.*has no task"):
        efm_envs.make_expert(gym.make("CartPole-v1"))
    with pytest.raises(EFMError, match=r"takes an EFM env, a sequence of them, or a vector env .* not 3"):
        efm_envs.make_expert(3)
