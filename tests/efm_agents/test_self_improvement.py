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

from efm_agents import self_improvement, sft
from efm_agents.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, unpack
from efm_agents.config import ImproveConfig
from efm_agents.model import EmbodiedModel, rebuild_model
from efm_agents.policy import make_policy, torch_generator
from efm_agents.practice import has_collapsed, practice_score
from efm_agents.presets import IMPROVE_PRESETS
from efm_agents.returns import discounted_returns
from efm_agents.reward_model import CheckpointRewardModel
from efm_agents.rollout import make_vector_env, rollout
from efm_agents.run import read_log
from efm_agents.self_improvement import episodes_of_round, minibatches, reinforce_loss
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds
from efm_envs.tasks.point_mass import PointMass
from tests.efm_agents.runs import assert_a_break_after_any_report_changes_nothing, assert_a_death_at_any_system_call_changes_nothing
from tests.efm_agents.small import TINY_MODEL, TINY_SFT, is_same

TINY = ImproveConfig(iterations=3, updates=4, batch=16, num_envs=2, score_window=1, collapse_ratio=0.0, monitor_every=2, monitor_episodes=1)
numbers = st.floats(-3, 3, width=32)


def weights_of(run: Path, name: str = "policy") -> dict[str, torch.Tensor]:
    return load_checkpoint(find_checkpoint(run, name), "policy")[0]


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
def seen_by_updates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], list[float]]]:
    """Which rows each update saw, by their (log-probability at the time of practice, return)."""
    seen: list[tuple[list[float], list[float]]] = []

    def spy(log_prob: torch.Tensor, then: torch.Tensor, returns: torch.Tensor, ratio_clip: float | None) -> torch.Tensor:
        seen.append((then.tolist(), returns.tolist()))
        return reinforce_loss(log_prob, then, returns, ratio_clip)

    monkeypatch.setattr(self_improvement, "reinforce_loss", spy)
    return seen


def practice(sft_run: Path, config: ImproveConfig) -> tuple[EmbodiedModel, list[Episode]]:
    """The first round's policy and episodes, played again."""
    weights, facts = load_checkpoint(find_checkpoint(sft_run, "policy"), "policy")
    model = rebuild_model(facts["model"], weights).requires_grad_(False)
    acting = make_policy(model, torch_generator(config.seed, Stream.TRAINING))
    envs = make_vector_env("EFM-PointMass-v0", config.num_envs, reward_model={"id": "checkpoint", "path": str(sft_run)})
    seeds = episode_seeds(EpisodeSet.PRACTICE, config.seed)
    return model, list(rollout(acting, envs, seeds, min_steps=config.updates * config.batch))


def test_a_round_draws_minibatches_without_replacement_from_whole_episodes_with_their_returns(
    sft_run: Path, tmp_path: Path, seen_by_updates: list[tuple[list[float], list[float]]]
) -> None:
    config = dataclasses.replace(TINY, iterations=1, gamma=0.8, seed=3)
    self_improvement.train(sft_run, tmp_path / "run", config)
    model, episodes = practice(sft_run, config)
    offered = []
    for episode in episodes:
        inputs = model.inputs({name: values[:-1] for name, values in episode.observations.items()})
        log_prob = model.log_prob(inputs, torch.from_numpy(episode.actions).unsqueeze(1)).tolist()
        offered += list(zip(log_prob, torch.from_numpy(discounted_returns(episode.rewards, 0.8)).float().tolist(), strict=True))
    drawn = [row for then, returns in seen_by_updates for row in zip(then, returns, strict=True)]
    assert [len(then) for then, _ in seen_by_updates] == [config.batch] * config.updates
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


# -- rounds, budgets and snapshots ------------------------------------------------------------------------------------------------


@st.composite
def budgets(draw: st.DrawFn) -> ImproveConfig:
    snapshots = tuple(draw(st.lists(st.integers(1, 300), max_size=4)))
    budget = draw(st.none() | st.integers(1, 300))
    return ImproveConfig(
        iterations=draw(st.integers(1, 400)), episodes=budget, episodes_per_round=draw(st.integers(1, 40)), snapshots=snapshots
    )


@given(budgets())
def test_rounds_end_exactly_at_snapshots_and_at_the_budget_and_are_else_of_full_size(config: ImproveConfig) -> None:
    progress, ends = {"iteration": 0, "episodes": 0}, [0]
    while wanted := episodes_of_round(config, progress):
        progress = {"iteration": progress["iteration"] + 1, "episodes": progress["episodes"] + wanted}
        ends.append(progress["episodes"])
    due = {n for n in (*config.snapshots, config.episodes) if n is not None}
    assert len(ends) - 1 <= config.iterations and (config.episodes is None or ends[-1] <= config.episodes)
    assert {n for n in due if n <= ends[-1]} <= set(ends), "a round went past what was due"
    assert len(ends) - 1 == config.iterations or ends[-1] == config.episodes, "it ended early"
    for before, after in itertools.pairwise(ends):
        assert after - before == config.episodes_per_round or (after - before < config.episodes_per_round and after in due)


def test_without_a_size_a_round_goes_on_until_there_are_enough_transitions_and_the_budget_ends_the_run() -> None:
    config = ImproveConfig(episodes=10, iterations=5)
    assert episodes_of_round(config, {"iteration": 0, "episodes": 0}) is None
    assert episodes_of_round(config, {"iteration": 3, "episodes": 9}) is None
    assert episodes_of_round(config, {"iteration": 3, "episodes": 10}) == 0
    assert episodes_of_round(config, {"iteration": 5, "episodes": 1}) == 0


def test_a_snapshot_is_the_policy_after_exactly_so_many_episodes(sft_run: Path, tmp_path: Path) -> None:
    after = {}

    def keep(*_: object) -> None:
        state, facts = load_checkpoint(tmp_path / "run/checkpoints/state.safetensors", "improve-state")
        after[facts["progress"]["episodes"]] = unpack("policy", state)

    config = dataclasses.replace(TINY, iterations=99, episodes=9, episodes_per_round=4, snapshots=(3, 9), epochs=1, step_limit=20)
    run = self_improvement.train(sft_run, tmp_path / "run", config, report=keep)
    assert list(after) == [3, 7, 9] and [row["practice_episodes"] for row in read_log(run / "metrics.jsonl")] == [3, 7, 9]
    assert sorted(path.stem for path in (run / "checkpoints").glob("episodes-*")) == ["episodes-3", "episodes-9"]
    for n in (3, 9):
        assert is_same(weights_of(run, f"episodes-{n}"), after[n])
        facts = load_checkpoint(find_checkpoint(run, f"episodes-{n}"), "policy")[1]
        assert facts["episodes"] == n and facts["task"] == "PointMass"
    counts = [sum(1 for _ in rows) for _, rows in itertools.groupby(read_log(run / "episodes.jsonl"), key=lambda row: row["iteration"])]
    assert counts == [3, 4, 2]


def test_where_rounds_are_as_long_as_they_come_a_snapshot_has_learned_from_no_more_than_it_says(sft_run: Path, tmp_path: Path) -> None:
    after = {0: weights_of(sft_run)}

    def keep(*_: object) -> None:
        state, facts = load_checkpoint(tmp_path / "run/checkpoints/state.safetensors", "improve-state")
        after[facts["progress"]["episodes"]] = unpack("policy", state)

    config = dataclasses.replace(TINY, snapshots=tuple(range(1, 40)), step_limit=20)
    run = self_improvement.train(sft_run, tmp_path / "run", config, report=keep)
    kept = {int(path.stem.removeprefix("episodes-")) for path in (run / "checkpoints").glob("episodes-*")}
    assert kept == set(range(1, max(after) + 1)) and len(after) == 4 and len(kept) > 6
    for n in kept:
        assert is_same(weights_of(run, f"episodes-{n}"), after[max(learned for learned in after if learned <= n)])


def test_snapshots_do_not_depend_on_how_far_the_run_goes_on(sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=99, episodes_per_round=4, snapshots=(4,), epochs=1, step_limit=20)
    runs = [self_improvement.train(sft_run, tmp_path / str(budget), dataclasses.replace(config, episodes=budget)) for budget in (4, 8)]
    assert is_same(*(weights_of(run, "episodes-4") for run in runs)) and not is_same(*(weights_of(run, "last") for run in runs))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 8), st.integers(0, 3))
def test_minibatches_of_a_round_hold_no_row_twice(n: int, batch: int, updates: int, seed: int) -> None:
    config = ImproveConfig(batch=batch, updates=updates)
    drawn = list(minibatches(n, config, np.random.default_rng(seed)))
    rows = torch.cat(drawn).tolist()
    assert len(rows) == len(set(rows)) == min(n, batch * updates) and set(rows) <= set(range(n))
    assert [len(part) for part in drawn[:-1]] == [batch] * (len(drawn) - 1)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 4), st.integers(0, 3))
def test_with_epochs_every_row_comes_once_in_each_in_parts_of_about_the_size_of_a_batch(n: int, batch: int, epochs: int, seed: int) -> None:
    drawn = list(minibatches(n, ImproveConfig(batch=batch, epochs=epochs), np.random.default_rng(seed)))
    each = len(drawn) // epochs
    assert len(drawn) == each * epochs == epochs * max(1, round(n / batch))
    for i in range(epochs):
        assert sorted(torch.cat(drawn[i * each : (i + 1) * each]).tolist()) == list(range(n))
    sizes = {len(part) for part in drawn}
    assert max(sizes) - min(sizes) <= 1
    orders = [torch.cat(drawn[i * each : (i + 1) * each]).tolist() for i in range(epochs)]
    assert n < 9 or epochs == 1 or len({tuple(order) for order in orders}) == epochs, "an epoch has the order of another"


def test_step_limit_shortens_practice_and_monitoring(sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=1, step_limit=7, success_threshold=0.0, monitor_episodes=4)
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    assert {row["steps"] for row in read_log(run / "episodes.jsonl")} == {7}
    assert all(row["steps"] <= 7 for row in read_log(run / "monitoring.jsonl"))


# -- baseline, reward and its model ------------------------------------------------------------------------------------------------


def test_with_a_baseline_the_advantage_is_the_return_less_what_was_expected(
    sft_run: Path, tmp_path: Path, seen_by_updates: list[tuple[list[float], list[float]]]
) -> None:
    shapes = {"iterations": 1, "epochs": 1, "episodes_per_round": 6, "batch": 10_000, "step_limit": 30, "monitor_every": 0}
    for rounds in (0, 2):
        config = dataclasses.replace(TINY, **shapes, baseline_rounds=rounds)
        self_improvement.train(sft_run, tmp_path / str(rounds), config)
    (then, returns), (then_too, advantages) = seen_by_updates
    assert then == then_too and returns != advantages
    (row,) = read_log(tmp_path / "2/metrics.jsonl")
    share = 1 - np.var(advantages) / np.var(returns)
    assert row["explained"] == pytest.approx(share, abs=1e-3) and share > 0.1
    assert "explained" not in read_log(tmp_path / "0/metrics.jsonl")[0]


def test_a_sparse_reward_gives_returns_of_predicted_success_alone(
    sft_run: Path, tmp_path: Path, seen_by_updates: list[tuple[list[float], list[float]]]
) -> None:
    config = dataclasses.replace(
        TINY, iterations=1, epochs=1, episodes_per_round=6, batch=10_000, gamma=0.5, reward_kind="sparse", success_threshold=45.0
    )
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    expected = []
    for row in read_log(run / "episodes.jsonl"):
        succeeded = row["end_reason"] == "terminated"
        expected += [succeeded * 0.5 ** (row["steps"] - 1 - t) for t in range(row["steps"])]
    assert any(expected)
    np.testing.assert_allclose(sorted(seen_by_updates[0][1]), sorted(expected), atol=1e-6)


@pytest.fixture
def reward_models(monkeypatch: pytest.MonkeyPatch) -> list[CheckpointRewardModel]:
    """The reward models of the runs."""
    made: list[CheckpointRewardModel] = []

    class Watched(CheckpointRewardModel):
        def __init__(self, path: str, audited: bool = True) -> None:
            super().__init__(path, audited)
            made.append(self)

    monkeypatch.setattr(self_improvement, "CheckpointRewardModel", Watched)
    return made


def test_the_reward_model_is_frozen_unless_it_is_renewed(
    demonstrations: Sequence[Episode], tmp_path: Path, reward_models: list[CheckpointRewardModel]
) -> None:
    """In a model whose weights are shared, practice moves what it says of the steps left, too."""
    sft_config = dataclasses.replace(TINY_SFT, model=TINY_MODEL)
    sft_run = sft.train(demonstrations[:10], tmp_path / "sft", sft_config, task="PointMass")
    start = load_checkpoint(find_checkpoint(sft_run, "steps_to_go"), "steps_to_go")[0]
    config, ends = dataclasses.replace(TINY, iterations=3, step_limit=30, monitor_every=0), {}
    for every in (0, 2, 3):
        practised = {}

        def keep(*_: object, run: Path = tmp_path / str(every), practised: dict[int, object] = practised) -> None:
            state, facts = load_checkpoint(run / "checkpoints/state.safetensors", "improve-state")
            practised[facts["progress"]["iteration"]] = unpack("policy", state)

        run = self_improvement.train(sft_run, tmp_path / str(every), dataclasses.replace(config, reward_update_rounds=every), report=keep)
        now = reward_models[-1].model.state_dict()
        assert is_same(now, practised[every] if every else start)
        ends[every] = weights_of(run, "last")
    assert not is_same(ends[0], ends[2]), "what was practised does not depend on the renewed model"
    assert is_same(ends[0], ends[3]), "it was renewed before its round"


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
        return self_improvement.train(sft_run, folder, dataclasses.replace(TINY, ratio_clip=ratio_clip, step_limit=40), **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=3)


EFFICIENT = dataclasses.replace(
    IMPROVE_PRESETS["efficient"],
    iterations=3,
    episodes_per_round=4,
    num_envs=3,
    epochs=2,
    batch=32,
    baseline_rounds=2,
    step_limit=15,
    score_window=1,
    collapse_ratio=0.0,
    monitor_every=2,
    monitor_episodes=1,
)


@pytest.mark.parametrize(
    "settings", [{"snapshots": (6,), "episodes": 11}, {"reward_update_rounds": 2}, {"plateau_rounds": 1, "iterations": 30}], ids=str
)
def test_an_efficient_run_broken_off_after_any_round_ends_the_same_to_the_last_bit(
    settings: dict[str, object], sft_run: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(EFFICIENT, **settings)
    rounds = len(read_log(self_improvement.train(sft_run, tmp_path / "first", config) / "metrics.jsonl"))
    assert rounds == 3 if "plateau_rounds" not in settings else 1 < rounds < 8, "this run tells the rules apart no more"

    def program(folder: Path, **kwargs: object) -> Path:
        return self_improvement.train(sft_run, folder, config, **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path / "broken", reports=rounds)


def test_a_run_of_chunks_broken_off_after_any_round_ends_the_same_to_the_last_bit(
    demonstrations: Sequence[Episode], tmp_path: Path
) -> None:
    model = dataclasses.replace(TINY_MODEL, chunk=3, action_head="autoregressive")
    sft_config = dataclasses.replace(TINY_SFT, steps=10, model=model)
    start = sft.train(demonstrations[:10], tmp_path / "sft", sft_config, task="PointMass")
    config = dataclasses.replace(EFFICIENT, iterations=2)

    def program(folder: Path, **kwargs: object) -> Path:
        return self_improvement.train(start, folder, config, **kwargs)

    assert_a_break_after_any_report_changes_nothing(program, tmp_path, reports=2)
    assert not is_same(weights_of(start), weights_of(tmp_path / "whole", "last"))


def test_a_run_that_levels_off_stops_and_keeps_the_best_policy(sft_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=60, learning_rate=3e-3, plateau_rounds=2, step_limit=60, monitor_every=0)
    run = self_improvement.train(sft_run, tmp_path / "run", config)
    facts = load_checkpoint(find_checkpoint(run, "policy"), "policy")[1]
    scores = [row["score"] for row in read_log(run / "metrics.jsonl")]
    assert facts["stopped"] == "levelled off" and facts["iterations"] == len(scores) < 60
    assert len(scores) - 1 - int(np.argmax(scores)) == 2 and facts["best_iteration"] == int(np.argmax(scores))


def test_a_run_that_dies_in_any_write_ends_the_same_to_the_last_bit(sft_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(TINY, iterations=2, batch=8, success_threshold=1e6, step_limit=2)  # practice episodes of one step

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
