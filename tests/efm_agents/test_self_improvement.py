import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from efm_agents import self_improvement
from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, unpack
from efm_agents.config import ImproveConfig
from efm_agents.model import Policy
from efm_agents.policy import NetworkPolicy, torch_generator
from efm_agents.returns import discounted_returns
from efm_agents.run import read_log
from efm_agents.self_improvement import has_collapsed, practice_score, reinforce_loss
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.rollout import rollout
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds
from efm_envs.tasks.point_mass import PointMass
from tests.efm_agents.runs import assert_a_break_after_any_report_changes_nothing, assert_a_death_at_any_system_call_changes_nothing

TINY = ImproveConfig(iterations=3, updates=4, batch=16, num_envs=2, score_window=1, monitor_every=2, monitor_episodes=1)
numbers = st.floats(-3, 3, width=32)


def weights_of(run: Path, name: str = "policy") -> dict[str, torch.Tensor]:
    return load_checkpoint(find_checkpoint(run, name), "policy")[0]


def is_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- the loss ---------------------------------------------------------------------------------------------------------------------


def gradient(log_prob: Sequence[float], then: Sequence[float], returns: Sequence[float], ratio_clip: float | None) -> np.ndarray:
    leaf = torch.tensor(log_prob, dtype=torch.float64, requires_grad=True)
    reinforce_loss(leaf, torch.tensor(then, dtype=torch.float64), torch.tensor(returns, dtype=torch.float64), ratio_clip).backward()
    return leaf.grad.numpy()


rows_ = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8)


@given(rows_)
def test_the_gradient_of_an_action_is_its_return(rows: list[tuple[float, float, float]]) -> None:
    log_prob, then, returns = zip(*rows, strict=True)
    np.testing.assert_allclose(gradient(log_prob, then, returns, None), -np.array(returns) / len(rows))


@given(rows_, st.floats(0.05, 0.9))
def test_the_clipped_loss_is_the_smaller_of_the_ratio_and_the_clipped_ratio_times_the_return(
    rows: list[tuple[float, float, float]], clip: float
) -> None:
    expected = -np.mean([min(rho * R, max(1 - clip, min(1 + clip, rho)) * R) for p, q, R in rows for rho in [math.exp(p - q)]])
    p, q, R = torch.tensor(rows, dtype=torch.float64).T
    assert reinforce_loss(p, q, R, clip).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(rows_, st.floats(0.05, 0.9))
def test_a_policy_that_has_not_moved_has_the_same_gradient_with_a_clip(rows: list[tuple[float, float, float]], clip: float) -> None:
    log_prob, _, returns = zip(*rows, strict=True)
    np.testing.assert_allclose(gradient(log_prob, log_prob, returns, clip), gradient(log_prob, log_prob, returns, None))


@pytest.mark.parametrize(("moved", "R", "pushes"), [(0.5, 1.0, False), (0.5, -1.0, True), (-0.5, -1.0, False), (-0.5, 1.0, True)])
def test_a_clip_stops_what_has_already_moved_far_enough_and_nothing_else(moved: float, R: float, pushes: bool) -> None:
    expected = -R * math.exp(moved) if pushes else 0.0
    assert gradient([moved], [0.0], [R], 0.2).item() == pytest.approx(expected)


# -- scores -----------------------------------------------------------------------------------------------------------------------


def practised(steps: int, end_reason: str) -> Episode:
    d = np.zeros(steps + 1)
    no = np.zeros(steps + 1, bool)
    return Episode("EFM-PointMass-v0", 0, {}, np.zeros((steps, 2)), np.zeros(steps), d, no, no, end_reason=end_reason)


ends = st.tuples(st.integers(1, 140), st.sampled_from(["success", "truncated", "error"]))


@given(st.lists(ends, min_size=1, max_size=10))
def test_the_practice_score_lies_between_0_and_1_and_rises_with_each_success_and_with_speed(episodes: list[tuple[int, str]]) -> None:
    score = practice_score([practised(*e) for e in episodes])
    assert 0 <= score <= 1 and (score > 0) == any(end == "terminated" for _, end in episodes)
    for i, (steps, end) in enumerate(episodes):
        better = (steps - 1, end) if end == "terminated" else (steps, "terminated")
        if better[0] > 0:
            assert practice_score([practised(*e) for e in (*episodes[:i], better, *episodes[i + 1 :])]) > score


def test_the_practice_score_is_the_mean_of_discounted_successes() -> None:
    episodes = [practised(1, "terminated"), practised(10, "terminated"), practised(140, "truncated"), practised(3, "error")]
    assert practice_score(episodes) == pytest.approx((0.99 + 0.99**10) / 4)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], False),
        ([0.0], False),
        ([1.0, 1.0, 0.0], False),  # shorter than two windows
        ([1.0, 1.0, 0.0, 0.0], True),
        ([0.0, 0.0, 0.0, 0.0], False),  # never was any better
        ([0.0, 0.0, 1.0, 1.0], False),
        ([1.0, 1.0, 0.5, 0.5], False),  # exactly half is not below half
        ([1.0, 1.0, 0.5, 0.49], True),
        ([1.0, 1.0, 0.0, 0.0, 1.0, 1.0], False),  # it recovered
        ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], False),  # noise that the window averages
    ],
)
def test_a_collapse_is_a_window_below_a_part_of_the_best_window(scores: list[float], expected: bool) -> None:
    assert has_collapsed(scores, window=2, ratio=0.5) is expected


def test_without_a_ratio_nothing_is_a_collapse() -> None:
    assert not has_collapsed([1.0] * 5 + [0.0] * 5, window=2, ratio=0.0)


# -- a round ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def minibatches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], list[float]]]:
    """Which rows each update saw, by their (log-probability at the time of practice, return)."""
    seen: list[tuple[list[float], list[float]]] = []

    def spy(log_prob: torch.Tensor, then: torch.Tensor, returns: torch.Tensor, ratio_clip: float | None) -> torch.Tensor:
        seen.append((then.tolist(), returns.tolist()))
        return reinforce_loss(log_prob, then, returns, ratio_clip)

    monkeypatch.setattr(self_improvement, "reinforce_loss", spy)
    return seen


def practice(sft_run: Path, config: ImproveConfig) -> tuple[Policy, list[Episode]]:
    """The first round's policy and episodes, played again."""
    weights, facts = load_checkpoint(find_checkpoint(sft_run, "policy"), "policy")
    policy = Policy.from_config(facts["model"]).requires_grad_(False)
    policy.load_state_dict(weights)
    acting = NetworkPolicy(policy, torch_generator(config.seed, Stream.TRAINING))
    episodes = rollout(
        acting,
        "EFM-PointMass-v0",
        episode_seeds(EpisodeSet.PRACTICE, config.seed),
        num_envs=config.num_envs,
        min_steps=config.updates * config.batch,
        reward_model={"id": "checkpoint", "path": str(sft_run)},
    )
    return policy, list(episodes)


def test_a_round_draws_minibatches_without_replacement_from_whole_episodes_with_their_returns(
    sft_run: Path, tmp_path: Path, minibatches: list[tuple[list[float], list[float]]]
) -> None:
    config = dataclasses.replace(TINY, iterations=1, gamma=0.8, seed=3)
    self_improvement.train(sft_run, tmp_path / "run", config)
    policy, episodes = practice(sft_run, config)
    offered = []
    for episode in episodes:
        features = policy.inputs.features({name: values[:-1] for name, values in episode.observations.items()})
        log_prob = policy.log_prob(features, torch.from_numpy(episode.actions)).tolist()
        offered += list(zip(log_prob, torch.from_numpy(discounted_returns(episode.rewards, 0.8)).float().tolist(), strict=True))
    drawn = [row for then, returns in minibatches for row in zip(then, returns, strict=True)]
    assert [len(then) for then, _ in minibatches] == [config.batch] * config.updates
    nearest = [min(range(len(offered)), key=lambda i: math.dist(offered[i], row)) for row in drawn]
    assert max(math.dist(offered[i], row) for i, row in zip(nearest, drawn, strict=True)) < 1e-3
    assert len(set(nearest)) == config.updates * config.batch < len(offered), "a row was drawn twice"


def test_practice_episodes_are_whole_and_are_started_only_until_there_are_enough_steps(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", TINY)
    rounds = itertools.groupby(read_log(run / "episodes.jsonl"), key=lambda row: row["iteration"])
    for _, rows in rounds:
        episodes = list(rows)
        steps = [row["steps"] for row in episodes]
        assert all(row["end_reason"] == "terminated" or (row["end_reason"] == "truncated" and row["steps"] == 140) for row in episodes)
        assert sum(steps) >= TINY.updates * TINY.batch
        assert sum(steps) - sum(sorted(steps)[-TINY.num_envs :]) < TINY.updates * TINY.batch, "an episode was started too late"


def test_practice_seeds_are_consecutive_over_rounds_and_of_practice_only(sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seed=2)
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    rows = read_log(run / "episodes.jsonl")
    first = next(episode_seeds(EpisodeSet.PRACTICE, 2))
    by_round = [sorted(row["seed"] for row in rows if row["iteration"] == k) for k in (1, 2, 3)]
    assert [seed for seeds in by_round for seed in seeds] == list(range(first, first + len(rows)))
    for other in (EpisodeSet.EVALUATION, EpisodeSet.DEMONSTRATIONS):
        assert not {row["seed"] for row in rows} & set(itertools.islice(episode_seeds(other, 2), 10_000))


def test_looking_on_by_ground_truth_changes_nothing(sft_run: Path, tmp_path: Path) -> None:
    runs = [
        self_improvement.train(sft_run, tmp_path / str(k), dataclasses.replace(TINY, monitor_every=every, monitor_episodes=2))
        for k, every in enumerate((0, 1))
    ]
    for name in ("policy.safetensors", "last.safetensors"):
        assert (runs[0] / "checkpoints" / name).read_bytes() == (runs[1] / "checkpoints" / name).read_bytes()
    assert not (runs[0] / "monitoring.jsonl").exists()
    assert [row["iteration"] for row in read_log(runs[1] / "monitoring.jsonl")] == [0, 1, 2, 3]


def test_practice_leaves_the_global_generators_alone(sft_run: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, iterations=1))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


def test_metrics_describe_the_episodes_of_their_round(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", TINY)
    episodes = read_log(run / "episodes.jsonl")
    metrics = read_log(run / "metrics.jsonl")
    assert [row["iteration"] for row in metrics] == [1, 2, 3]
    for row in metrics:
        of_round = [e for e in episodes if e["iteration"] == row["iteration"]]
        assert row["practice_episodes"] == sum(e["iteration"] <= row["iteration"] for e in episodes)
        assert row["success"] == pytest.approx(np.mean([e["success_once"] for e in of_round]))
        assert row["predicted_success"] == pytest.approx(np.mean([e["predicted_success"] for e in of_round]))
        assert row["steps"] == pytest.approx(np.mean([e["steps"] for e in of_round]))
        assert row["score"] == pytest.approx(np.mean([0.99 ** e["steps"] * (e["end_reason"] == "terminated") for e in of_round]))


def test_the_reward_checkpoint_stays_as_it_is(sft_run: Path, tmp_path: Path) -> None:
    def look() -> dict[str, tuple[bytes, int]]:
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(sft_run.rglob("*")) if p.is_file()}

    before = look()
    self_improvement.train(sft_run, tmp_path / "run", TINY)
    assert look() == before


def test_another_run_may_give_the_reward(sft_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "impatient.safetensors"
    weights, facts = load_checkpoint(find_checkpoint(sft_run, "steps_to_go"), "steps_to_go")
    save_checkpoint(other, "steps_to_go", weights, {**facts, "success_threshold": 1e6})
    run = self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, iterations=1), reward_checkpoint=other)
    assert {row["steps"] for row in read_log(run / "episodes.jsonl")} == {1}


def test_the_threshold_of_the_config_goes_before_that_of_the_checkpoint(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, iterations=1, success_threshold=1e6))
    assert {row["steps"] for row in read_log(run / "episodes.jsonl")} == {1}


@pytest.mark.parametrize(("terminate_on", "uses_truth"), [("predicted", False), ("true", True)])
def test_practice_that_ends_on_predicted_success_learns_the_same_without_ground_truth(
    terminate_on: str, uses_truth: bool, sft_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(TINY, terminate_on=terminate_on)
    with_truth = self_improvement.train(sft_run, tmp_path / "with", config)
    monkeypatch.setattr(PointMass, "is_success", lambda self, physics, goals: np.zeros(len(goals), bool))
    without = self_improvement.train(sft_run, tmp_path / "without", config)
    for name in ("policy", "last"):
        same = find_checkpoint(with_truth, name).read_bytes() == find_checkpoint(without, name).read_bytes()
        assert same is not uses_truth
    assert any(row["success_once"] for row in read_log(with_truth / "episodes.jsonl"))
    assert not any(row["success_once"] for row in read_log(without / "episodes.jsonl"))


# -- which policy is kept ---------------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_holds_the_weights_that_practised_in_the_best_round(sft_run: Path, tmp_path: Path) -> None:
    practised_with = [weights_of(sft_run)]

    def keep(*_: object) -> None:
        state = load_checkpoint(tmp_path / "run/checkpoints/state.safetensors", "improve-state")[0]
        practised_with.append(unpack("policy", state))

    config = dataclasses.replace(TINY, iterations=8, learning_rate=3e-3)
    run = self_improvement.train(sft_run, tmp_path / "run", config, report=keep)
    scores = [row["score"] for row in read_log(run / "metrics.jsonl")]
    best = int(np.argmax(scores))
    facts = load_checkpoint(find_checkpoint(run, "policy"), "policy")[1]
    assert best > 0, f"this run does not tell the rules apart: {scores}"
    assert (facts["best_iteration"], facts["best_score"]) == (best, pytest.approx(scores[best]))
    assert is_same(weights_of(run), practised_with[best])
    assert is_same(weights_of(run, "last"), practised_with[-1]) and not is_same(weights_of(run, "last"), weights_of(run))


def test_a_learning_rate_that_breaks_the_policy_stops_the_run_and_keeps_the_best_policy(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, learning_rate=1e30))
    facts = load_checkpoint(find_checkpoint(run, "policy"), "policy")[1]
    assert (facts["stopped"], facts["best_iteration"]) == ("not finite", 0)
    assert is_same(weights_of(run), weights_of(sft_run))


def test_a_policy_that_breaks_in_the_last_update_of_a_round_stops_the_run_too(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, updates=1, learning_rate=1e30))
    assert load_checkpoint(find_checkpoint(run, "policy"), "policy")[1]["stopped"] == "not finite"
    assert is_same(weights_of(run), weights_of(sft_run))


def test_a_run_that_stopped_stays_stopped(sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, learning_rate=1e30)
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    rows = read_log(run / "metrics.jsonl")
    self_improvement.train(sft_run, run, config)
    assert len(rows) < config.iterations and len(read_log(run / "metrics.jsonl")) == len(rows)


def test_metrics_are_json_even_after_numbers_that_are_not_finite(sft_run: Path, tmp_path: Path) -> None:
    run = self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(TINY, learning_rate=1e30))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_collapse_stops_the_run_and_keeps_the_best_policy(sft_run: Path, tmp_path: Path) -> None:
    """Here the first round that is worse than another before it counts as one."""
    config = dataclasses.replace(TINY, iterations=60, learning_rate=1e-2, collapse_ratio=1.0)
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    facts = load_checkpoint(find_checkpoint(run, "policy"), "policy")[1]
    scores = [row["score"] for row in read_log(run / "metrics.jsonl")]
    assert facts["stopped"] == "collapsed" and facts["iterations"] == len(scores) < 60, facts
    assert scores[-1] < max(scores) and scores[:-1] == sorted(scores[:-1])
    assert facts["best_score"] == max(scores)


# -- resuming ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio_clip", [None, 0.2])
def test_a_run_broken_off_after_any_round_ends_the_same_to_the_last_bit(ratio_clip: float | None, sft_run: Path, tmp_path: Path) -> None:
    def program(folder: Path, **kwargs: object) -> Path:
        return self_improvement.train(sft_run, folder, dataclasses.replace(TINY, ratio_clip=ratio_clip), **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=3)


def test_a_run_that_dies_in_any_write_ends_the_same_to_the_last_bit(sft_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(TINY, iterations=2, batch=8, success_threshold=1e6)  # episodes of one step

    def program(folder: Path) -> Path:
        return self_improvement.train(sft_run, folder, short)

    assert_a_death_at_any_system_call_changes_nothing(program, tmp_path, monkeypatch)


# -- refusals ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("gamma", 0.5), ("seed", 7), ("ratio_clip", 0.2), ("terminate_on", "true")])
def test_a_folder_with_other_settings_is_refused_and_the_setting_is_named(name: str, value: object, sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=1)
    self_improvement.train(sft_run, tmp_path / "run", config)
    with pytest.raises(EFMError, match=rf"other settings \({name}: .* there, .* wanted\)\. Choose another folder"):
        self_improvement.train(sft_run, tmp_path / "run", dataclasses.replace(config, **{name: value}))


def test_the_folder_of_another_program_is_refused(sft_run: Path) -> None:
    with pytest.raises(EFMError, match="program: 'sft' there, 'improve' wanted"):
        self_improvement.train(sft_run, sft_run, TINY)


def test_a_start_without_checkpoints_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EFMError, match=r"no 'policy' checkpoint in .*`efm sft` makes one"):
        self_improvement.train(tmp_path / "nowhere", tmp_path / "run", TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gamma", 2.0, "at most 1"),
        ("gamma", -0.1, "at least 0"),
        ("iterations", 0, "at least 1"),
        ("updates", 0, "at least 1"),
        ("batch", 0, "at least 1"),
        ("num_envs", 0, "at least 1"),
        ("score_window", 0, "at least 1"),
        ("loss_scale", 0.0, "above 0"),
        ("learning_rate", 0.0, "above 0"),
        ("collapse_ratio", 1.5, "at most 1"),
        ("ratio_clip", 0.0, "above 0"),
        ("ratio_clip", -0.2, "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises((EFMError, ValueError), match=rf"ImproveConfig\.{name} must be {expected}.*; got {value!r}"):
        ImproveConfig(**{name: value})
