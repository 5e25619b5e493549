import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from efm_agents import sft
from efm_agents.baselines import config as settings
from efm_agents.baselines import (
    filtered_bc,
    grpo,
    more_demonstrations,
    oracle_reinforce,
    progress_weighted_bc,
    sparse_reinforce,
    success_classifier,
)
from efm_agents.baselines.common import Practice, decisions_of_each
from efm_agents.checkpoint import load_checkpoint
from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.policy import load_policy
from efm_agents.practice import Decisions
from efm_agents.run import no_report, read_log
from efm_envs.data import Episode
from efm_envs.errors import CheckpointError, EFMError
from efm_envs.seeding import EpisodeSet, episode_seeds

POINT_MASS = "EFM-PointMass-v0"
SMALL = SFTConfig(steps=200, model=ModelConfig(backbone="mlp", hidden=(32, 32)), learning_rate=3e-3, validate_every=100)
TINY: dict[str, Any] = {"episodes": 8, "episodes_per_round": 4, "num_envs": 4, "epochs": 1, "terminate_on": "true", "score_window": 1}
STATE = {"agent_pos": np.zeros((3, 4), np.float32), "environment_state": np.ones((3, 2), np.float32)}

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def start(demonstrations: Sequence[Episode], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stage-1 run."""
    return sft.train(demonstrations, tmp_path_factory.mktemp("baselines") / "sft", SMALL, task="PointMass")


PRACTISING: dict[str, tuple[Train, settings.PracticeConfig, bool]] = {  # and whether it is given the demonstrations
    "filtered_bc": (filtered_bc.train, settings.FilteredBCConfig(**TINY), True),
    "filtered_bc, replaced": (filtered_bc.train, settings.FilteredBCConfig(**TINY, with_demonstrations=False), False),
    "progress_weighted_bc": (progress_weighted_bc.train, settings.ProgressWeightedBCConfig(**TINY), False),
    "reinforce": (sparse_reinforce.train, settings.SparseReinforceConfig(**TINY, method="plain", ratio_clip=None, group=2), False),
    "rloo": (sparse_reinforce.train, settings.SparseReinforceConfig(**TINY), False),
    "grpo": (grpo.train, settings.GRPOConfig(**TINY, group=2), False),
    "grpo, dense": (grpo.train, settings.GRPOConfig(**TINY, reward_kind="dense"), False),
    "oracle_reinforce": (oracle_reinforce.train, settings.ReinforceConfig(**TINY), False),
    "success_classifier": (success_classifier.train, settings.SuccessClassifierConfig(**TINY, classifier_steps=20), True),
}


@pytest.fixture(params=sorted(PRACTISING))
def practised(request: pytest.FixtureRequest, start: Path, demonstrations: Sequence[Episode], tmp_path: Path) -> tuple[Path, list[Episode]]:
    """A finished run of each baseline that practises, and all episodes that it practised."""
    train, config, wants_demonstrations = PRACTISING[request.param]
    seen: list[Episode] = []
    rounds = Practice.rounds

    def watched(self: Practice, group: int = 1) -> Any:
        for episodes in rounds(self, group):
            seen.extend(episodes)
            yield episodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Practice, "rounds", watched)
        run = train(start, tmp_path / "run", config, **({"demonstrations": demonstrations} if wants_demonstrations else {}))
    return run, seen


def test_a_baseline_counts_every_episode_and_step_and_learns_and_its_policy_acts(
    practised: tuple[Path, list[Episode]], start: Path
) -> None:
    run, episodes = practised
    rows = read_log(run / "metrics.jsonl")
    assert [row["practice_episodes"] for row in rows] == [4, 8]
    assert [row["env_steps"] for row in rows] == [sum(map(len, episodes[:4])), sum(map(len, episodes))]
    weights, facts = load_checkpoint(run / "checkpoints" / "last.safetensors", "policy")
    assert (facts["practice_episodes"], facts["env_steps"]) == (8, sum(map(len, episodes)))
    assert {"task", "env_id", "options", "model", "seed"} <= facts.keys()
    before = load_checkpoint(start / "checkpoints" / "policy.safetensors", "policy")[0]
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    for name in ("policy", "last"):
        actions = load_policy(run, task="PointMass", name=name).act(STATE)
        assert actions.shape == (3, 2) and np.isfinite(actions).all()


def test_practice_episodes_are_of_the_practice_set_and_those_of_a_group_start_alike(start: Path, tmp_path: Path) -> None:
    config = settings.GRPOConfig(**TINY, seed=3)
    practice = Practice(start, tmp_path / "run", "grpo", config, no_report)
    episodes = [episode for episodes in practice.rounds(group=4) for episode in episodes]
    expected = list(itertools.islice(episode_seeds(EpisodeSet.PRACTICE, 3), 2))
    assert [episode.seed for episode in episodes] == [seed for seed in expected for _ in range(4)]
    first = [episode.observations["agent_pos"][0] for episode in episodes[:4]]
    assert all(np.array_equal(first[0], other) for other in first)
    assert not np.array_equal(episodes[0].actions[0], episodes[1].actions[0])


def test_a_run_that_is_done_again_has_the_same_result(start: Path, tmp_path: Path) -> None:
    config = settings.SparseReinforceConfig(**TINY)
    results = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        run = sparse_reinforce.train(start, folder, config)
        results.append([(run / name).read_bytes() for name in ("metrics.jsonl", "checkpoints/policy.safetensors")])
    assert results[0] == results[1] == results[2]


def test_the_policy_that_is_kept_is_the_one_that_practised_best(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.1])
    monkeypatch.setattr("efm_agents.baselines.common.practice_score", lambda episodes: next(scores))
    config = settings.ReinforceConfig(**{**TINY, "episodes": 12})
    practice = Practice(start, tmp_path / "run", "oracle_reinforce", config, no_report)
    weight = next(iter(practice.model.parameters()))
    for k, _ in enumerate(practice.rounds()):
        torch.nn.init.constant_(weight, float(k))  # the policy that practises in round k + 1
    practice.finish(keep_best=True)
    kept, last = (load_checkpoint(tmp_path / "run" / "checkpoints" / f"{n}.safetensors", "policy")[0] for n in ("policy", "last"))
    name = next(name for name, value in practice.model.named_parameters() if value is weight)
    assert (kept[name].unique().tolist(), last[name].unique().tolist()) == ([0.0], [2.0])


# -- more demonstrations --------------------------------------------------------------------------------------------------------------


def test_more_demonstrations_are_k_times_as_many_the_old_ones_among_them(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = settings.MoreDemonstrationsConfig(times=2, sft=SMALL)
    run = more_demonstrations.train(demonstrations, tmp_path / "run", config, task="PointMass")
    facts = load_checkpoint(run / "checkpoints" / "policy.safetensors", "policy")[1]
    row = read_log(run / "metrics.jsonl")[-1]
    assert facts["demonstrations"] == 2 * len(demonstrations)
    assert row["practice_episodes"] == facts["practice_episodes"] == len(demonstrations)
    assert row["env_steps"] == facts["env_steps"] > 0
    assert load_policy(run, task="PointMass").act(STATE).shape == (3, 2)


def test_demonstrations_of_another_seed_are_refused(demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = settings.MoreDemonstrationsConfig(times=1, seed=1, sft=SMALL)
    with pytest.raises(EFMError, match=r"got others: set seed and style to those they were made with \(now 1, 'human'\)"):
        more_demonstrations.train(demonstrations, tmp_path / "run", config, task="PointMass")


# -- what is learned from -------------------------------------------------------------------------------------------------------------


def practised_episode(steps: int, end_reason: str = "terminated", d: Sequence[float] | None = None) -> Episode:
    seen = {"agent_pos": np.zeros((steps + 1, 4), np.float32), "environment_state": np.zeros((steps + 1, 2), np.float32)}
    told = np.zeros(steps + 1) if d is None else np.array(d)
    no = np.zeros(steps + 1, bool)
    return Episode(POINT_MASS, 0, seen, np.zeros((steps, 2)), -np.diff(told), told, no, no, end_reason=end_reason)  # type: ignore[arg-type]


def test_filtered_cloning_keeps_what_the_detector_saw_and_nothing_else(
    start: Path, demonstrations: Sequence[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned: list[Sequence[Episode]] = []
    of = filtered_bc.Dataset.of
    monkeypatch.setattr(filtered_bc.Dataset, "of", lambda mixture, model: cloned.append(mixture[0].episodes) or of(mixture, model))
    rounds = [[practised_episode(3), practised_episode(4, "truncated")], [practised_episode(5, "error"), practised_episode(6)]]
    monkeypatch.setattr(Practice, "rounds", lambda self: iter(rounds))
    run = filtered_bc.train(start, tmp_path / "add", settings.FilteredBCConfig(**TINY), demonstrations=demonstrations)
    assert [len(e) for e in cloned[-1][len(demonstrations) :]] == [3, 6]
    assert [row["kept"] for row in read_log(run / "metrics.jsonl")] == [1, 2]
    filtered_bc.train(start, tmp_path / "replace", settings.FilteredBCConfig(**TINY, with_demonstrations=False))
    assert [len(e) for e in cloned[-1]] == [3, 6]


def test_of_the_successes_the_fastest_are_cloned_where_that_is_asked_for() -> None:
    episodes = [practised_episode(9), practised_episode(2, "truncated"), practised_episode(3), practised_episode(5), practised_episode(7)]
    assert [len(e) for e in filtered_bc.kept_of(episodes, 0.5)] == [3, 5]
    assert [len(e) for e in filtered_bc.kept_of(episodes, 1.0)] == [9, 3, 5, 7]
    assert [len(e) for e in filtered_bc.kept_of(episodes, 0.01)] == [3]
    assert filtered_bc.kept_of(episodes[1:2], 0.5) == []


def test_successes_cannot_be_added_to_demonstrations_that_are_not_there(start: Path, tmp_path: Path) -> None:
    with pytest.raises(EFMError, match="Pass them, or set it to False"):
        filtered_bc.train(start, tmp_path / "run", settings.FilteredBCConfig(**TINY))


def test_progress_is_what_d_fell_by_within_n_steps_or_to_the_end() -> None:
    episode = practised_episode(4, d=[10.0, 9.0, 9.5, 4.0, 0.0])
    assert progress_weighted_bc.progress(episode, horizon=2, chunk=1).tolist() == [0.5, 5.0, 9.5, 4.0]
    assert progress_weighted_bc.progress(episode, horizon=2, chunk=2).tolist() == [0.5, 9.5]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20))
def test_weights_rise_with_progress_up_to_the_largest(gained: list[float]) -> None:
    config = settings.ProgressWeightedBCConfig(beta=0.2, largest_weight=5.0)
    weights = progress_weighted_bc.weights_of(torch.tensor(gained), config).numpy()
    expected = np.minimum(np.exp(0.2 * (np.array(gained) - np.mean(gained))), 5.0)
    np.testing.assert_allclose(weights, expected, rtol=1e-3)
    assert 0 < progress_weighted_bc.effective_share(weights) <= 1 + 1e-6


groups = st.integers(2, 6).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.lists(st.floats(-9, 9), min_size=k, max_size=k), min_size=1))
)


@given(groups)
def test_leave_one_out_advantages_of_a_group_sum_to_0(drawn: tuple[int, list[list[float]]]) -> None:
    k, returns = drawn
    advantages = sparse_reinforce.leave_one_out(np.array(returns).ravel(), k).reshape(-1, k)
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-9)
    for row, found in zip(returns, advantages, strict=True):
        assert found[0] == pytest.approx(row[0] - np.mean(row[1:]), abs=1e-9)


@given(groups)
def test_normalised_returns_of_a_group_have_mean_0_and_deviation_1_or_are_all_0(drawn: tuple[int, list[list[float]]]) -> None:
    k, returns = drawn
    for row, found in zip(returns, grpo.normalised(np.array(returns).ravel(), k).reshape(-1, k), strict=True):
        assert found.mean() == pytest.approx(0, abs=1e-6)
        assert found.std() == pytest.approx(0 if np.std(row) < grpo.SMALLEST_DEVIATION else 1, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=8))
def test_the_kl_estimate_is_0_where_nothing_has_moved_and_above_elsewhere(rows: list[tuple[float, float]]) -> None:
    now, start = torch.tensor(rows, dtype=torch.float64).T
    assert (grpo.kl_estimate(now, start) >= -1e-12).all()
    assert grpo.kl_estimate(now, now).abs().max().item() == 0


def test_the_kl_estimate_is_the_kl_divergence_on_average() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    assert (p * grpo.kl_estimate(p.log(), q.log())).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)


def test_returns_of_a_group_are_of_success_and_speed_or_of_steps_gained() -> None:
    succeeded, failed = practised_episode(3, d=[9, 6, 5, 1]), practised_episode(3, "truncated", d=[9, 6, 5, 1])
    sparse, dense = settings.GRPOConfig(gamma=0.5), settings.GRPOConfig(gamma=0.5, reward_kind="dense")
    assert [grpo.episode_return(e, sparse) for e in (succeeded, failed)] == [0.25, 0.0]
    assert grpo.episode_return(failed, dense) == 3 + 0.5 * 1 + 0.25 * 4


def test_each_decision_has_the_value_of_its_episode(start: Path) -> None:
    episodes = [practised_episode(2), practised_episode(3)]
    values = decisions_of_each([1.0, 2.0], episodes, chunk=1)
    assert values.tolist() == [1, 1, 2, 2, 2]
    assert len(values) == len(Decisions.of(episodes, load_policy(start, task="PointMass").model, 0.9))
    assert decisions_of_each([1.0, 2.0], episodes, chunk=2).tolist() == [1, 2, 2]


def test_a_classifier_tells_last_observations_from_others(start: Path, demonstrations: Sequence[Episode], tmp_path: Path) -> None:
    config = settings.SuccessClassifierConfig(classifier_steps=200)
    run = success_classifier.train_classifier(start, tmp_path / "classifier", config, demonstrations)
    model = success_classifier.CheckpointRewardModel(str(run))
    d = [model.steps_to_go(episode.observations, None).mean for episode in demonstrations]  # type: ignore[arg-type]
    assert np.mean([each[-1] for each in d]) < np.mean([each[:-20].mean() for each in d if len(each) > 20]) - 0.5
    assert all((each >= 0.5).all() and (each <= 1.5).all() for each in d), "d is ½ + 1 − p"
    assert 0.5 <= model.success_threshold <= 1.5


# -- settings -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: settings.GRPOConfig(episodes=10, group=4), r"GRPOConfig.episodes must be a multiple of group, 4; got 10"),
        (lambda: settings.SparseReinforceConfig(group=1), r"SparseReinforceConfig.group must be at least 2; got 1"),
        (lambda: settings.PracticeConfig(learning_rate=0.0), r"PracticeConfig.learning_rate must be above 0"),
        (lambda: settings.ProgressWeightedBCConfig(horizon=0), r"horizon must be at least 1"),
        (lambda: settings.MoreDemonstrationsConfig(times=0), r"times must be at least 1"),
        (lambda: settings.SB3Config(env_steps=0), r"env_steps must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EFMError, match=message):
        make()


# -- Stable-Baselines3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ppo", "sac", "sac-her"])
def sb3_run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray], Any]:
    """A finished run, some observations, and what its learner did with them."""
    pytest.importorskip("stable_baselines3")
    from efm_agents.baselines import sb3

    learners: list[Any] = []
    small = (
        {"n_steps": 160, "batch_size": 64}
        if request.param == "ppo"
        else {"learning_starts": 300, "gradient_steps": 1, "batch_size": 16, "buffer_size": 1000}
    )
    config = settings.SB3Config(algorithm=request.param, env_steps=320, num_envs=2, log_every=100, settings=small)
    algorithm, policy = sb3.ALGORITHMS[request.param]

    class Kept(algorithm):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            learners.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sb3.ALGORITHMS, request.param, (Kept, policy))
        run = sb3.train(POINT_MASS, tmp_path / "run", config)
    flat = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 6)).astype(np.float32)
    return run, {"observation": flat}, learners[0]


def test_a_reloaded_sb3_policy_does_what_its_learner_did(sb3_run: tuple[Path, dict[str, np.ndarray], Any]) -> None:
    from efm_agents.baselines.goal_env import goal_observation
    from efm_agents.baselines.sb3 import load_sb3_policy

    run, observations, learner = sb3_run
    policy = load_sb3_policy(run, task="PointMass")
    flat = observations["observation"]
    scaled = learner.get_vec_normalize_env().normalize_obs(goal_observation(flat) if policy.has_goals else flat)
    np.testing.assert_allclose(policy.act(observations), learner.predict(scaled, deterministic=True)[0], atol=1e-6)
    with pytest.raises(CheckpointError, match="policy for task 'PointMass'; the env's task is 'Insert'"):
        load_sb3_policy(run, task="Insert")


def test_an_sb3_run_counts_its_steps_and_holds_no_pickle(sb3_run: tuple[Path, dict[str, np.ndarray], Any]) -> None:
    run, _, learner = sb3_run
    rows = read_log(run / "metrics.jsonl")
    facts = load_checkpoint(run / "checkpoints" / "policy.safetensors", "sb3-policy")[1]
    assert rows[-1]["env_steps"] == facts["env_steps"] == learner.num_timesteps == 320
    assert rows[-1]["practice_episodes"] == facts["practice_episodes"] >= 2
    assert [row["env_steps"] for row in rows] == sorted({row["env_steps"] for row in rows})
    assert json.dumps(facts["policy_kwargs"]) is not None
    assert {path.suffix for path in run.rglob("*") if path.is_file()} <= {".json", ".jsonl", ".safetensors"}


# -- the goal env ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def goal_env() -> Any:
    from efm_agents.baselines.goal_env import GoalEnv

    return GoalEnv(gym.make(POINT_MASS, obs_mode="flat", terminate_on="true"))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_goal_env_is_a_gymnasium_env(goal_env: Any) -> None:
    check_env(goal_env, skip_render_check=True)


def test_the_goal_env_rewards_what_compute_reward_says_one_by_one_and_in_a_batch(goal_env: Any) -> None:
    goal_env.action_space.seed(0)
    seen, rewards = [], []
    for seed in range(30):
        observation, _ = goal_env.reset(seed=seed)
        is_over = False
        while not is_over:
            offset = observation["desired_goal"] - observation["achieved_goal"]  # towards the goal
            observation, reward, terminated, truncated, info = goal_env.step(np.clip(offset, -1, 1).astype(np.float32))
            assert reward == goal_env.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
            assert (reward == 0.0) == info["is_success"] == terminated
            is_over = terminated or truncated
            seen.append(observation)
            rewards.append(reward)
    achieved, desired = (np.stack([o[name] for o in seen]) for name in ("achieved_goal", "desired_goal"))
    batch = goal_env.compute_reward(achieved, desired, [{}] * len(seen))
    assert batch.tolist() == rewards and set(rewards) == {0.0, -1.0}


def test_the_goal_env_takes_point_mass_alone() -> None:
    from efm_agents.baselines.goal_env import GoalEnv

    with pytest.raises(EFMError, match='GoalEnv takes EFM-PointMass-v0 with obs_mode="flat"'):
        GoalEnv(gym.make(POINT_MASS))
