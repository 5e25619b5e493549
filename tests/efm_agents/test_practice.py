"""What a round is made into: decisions, their returns, what was expected of them, and when there is no more to gain."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from efm_agents.baseline import RIDGE, Baseline, explained
from efm_agents.inputs import NUMBERS
from efm_agents.practice import Decisions, has_levelled_off, moving_means, practice_metrics, sparse_rewards
from efm_envs.data import Episode
from tests.efm_agents.small import Says, episode


def practised(length: int, seed: int = 0, k: int = 1, end_reason: str = "terminated") -> Episode:
    """Its d and its rewards are all different; its chunks are numbered."""
    rng = np.random.default_rng(seed)
    d = rng.uniform(0, 50, length + 1)
    chunks = [[[100.0 * seed + t + 0.1 * i] for i in range(k)] for t in range(0, length, k)]
    return episode(length, seed, steps_to_go=d, rewards=-np.diff(d), end_reason=end_reason, notes={"chunks": chunks})


def by_hand(rewards: Sequence[float], gamma: float) -> list[float]:
    return [sum(gamma**i * r for i, r in enumerate(rewards[t:])) for t in range(len(rewards))]


# -- decisions ----------------------------------------------------------------------------------------------------------------------


def test_with_one_action_at_a_time_every_step_is_a_decision() -> None:
    episodes = [practised(4), practised(1, 1), practised(3, 2, end_reason="truncated")]
    decisions = Decisions.of(episodes, Says(1), 0.8)
    assert len(decisions) == 8 and decisions.inputs[NUMBERS][:, 0].tolist() == [0, 1, 2, 3, 100, 200, 201, 202]
    assert decisions.actions.shape == (8, 1, 1) and torch.equal(decisions.actions[:, 0], decisions.inputs[NUMBERS] + 0.5)
    np.testing.assert_allclose(decisions.returns, np.concatenate([by_hand(e.rewards, 0.8) for e in episodes]), rtol=1e-5)
    np.testing.assert_allclose(decisions.d, np.concatenate([e.steps_to_go[:-1] for e in episodes]), rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7])
def test_a_chunk_is_one_decision_whose_reward_is_the_sum_of_its_steps(length: int) -> None:
    """The last chunk was perhaps not carried out to its end: what was not done brought nothing, but was decided."""
    first, other = practised(length, k=3), practised(5, 1, k=3)
    decisions = Decisions.of([first, other], Says(3), 0.5)
    n = -(-length // 3)
    sums = [sum(first.rewards[t : t + 3]) for t in range(0, length, 3)]
    assert len(decisions) == n + 2 and decisions.inputs[NUMBERS][:, 0].tolist() == [3.0 * t for t in range(n)] + [100, 103]
    np.testing.assert_allclose(decisions.returns[:n], by_hand(sums, 0.5), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decisions.d, [*first.steps_to_go[:-1:3], *other.steps_to_go[:-1:3]], rtol=1e-6)
    np.testing.assert_allclose(decisions.actions, [*first.notes["chunks"], *other.notes["chunks"]], rtol=1e-6)


@given(st.integers(1, 15), st.integers(1, 4))
def test_without_discount_the_first_return_is_the_fall_of_d_whatever_the_chunk(length: int, k: int) -> None:
    e = practised(length, k=k)
    decisions = Decisions.of([e], Says(k), 1.0)
    assert decisions.returns[0].item() == pytest.approx(e.steps_to_go[0] - e.steps_to_go[-1], abs=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_sparse_returns_are_discounted_from_the_decision_that_ended_in_success(k: int) -> None:
    episodes = [practised(7, 0, k), practised(4, 1, k, "truncated"), practised(2, 2, k, "error")]
    decisions = Decisions.of(episodes, Says(k), 0.5, "sparse")
    n = -(-7 // k)
    assert decisions.returns[:n].tolist() == [0.5 ** (n - 1 - t) for t in range(n)] and not decisions.returns[n:].any()


@pytest.mark.parametrize(("end_reason", "last"), [("terminated", 1.0), ("truncated", 0.0), ("error", 0.0)])
def test_a_sparse_reward_is_1_where_the_detector_ended_the_episode(end_reason: str, last: float) -> None:
    assert sparse_rewards(practised(3, end_reason=end_reason)).tolist() == [0, 0, last]


def test_metrics_of_practice_are_means_over_episodes() -> None:
    seen = np.array([False, True, False])
    episodes = [episode(2, is_success=seen, predicted_success=~seen, rewards=np.array([1.0, 4.0])), practised(4, 1)]
    metrics = practice_metrics(episodes)
    assert (metrics["success"], metrics["predicted_success"], metrics["steps"]) == (1.0, 0.5, 3.0)
    assert metrics["reward"] == pytest.approx((5.0 + episodes[1].rewards.sum()) / 2)


# -- when there is no more to gain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], False),
        ([1.0, 0.0, 0.0], False),  # the best window is the last but one
        ([1.0, 1.0, 0.0, 0.0], True),
        ([1.0, 1.0, 0.5], False),  # one round old
        ([0.0, 0.0, 1.0, 1.0], False),
        ([1.0, 1.0, 0.9, 0.9, 1.0, 1.0], True),  # as good is no better
        ([1.0, 1.0, 0.9, 0.9, 1.0, 1.1], False),
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.1, 0.2, 0.3, 0.4, 0.5], False),
    ],
)
def test_a_run_has_levelled_off_where_the_best_window_is_so_many_rounds_old(scores: list[float], expected: bool) -> None:
    assert has_levelled_off(scores, window=2, rounds=2) is expected


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 5))
def test_with_0_rounds_nothing_levels_off(scores: list[float], window: int) -> None:
    assert not has_levelled_off(scores, window, 0)


@given(st.lists(st.integers(0, 4), max_size=30), st.sampled_from([1, 2, 4]), st.integers(1, 6))  # whose means have no rounding
def test_a_run_levels_off_exactly_where_no_later_window_is_better(scores: list[int], window: int, rounds: int) -> None:
    means = [sum(scores[i : i + window]) for i in range(len(scores) - window + 1)]
    expected = len(means) > rounds and max(means[:-rounds]) >= max(means[-rounds:])
    assert has_levelled_off([s / 4 for s in scores], window, rounds) is expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_moving_means_are_means_of_so_many_scores_in_a_row(scores: list[float], window: int) -> None:
    if window <= len(scores):
        expected = [np.mean(scores[i : i + window]) for i in range(len(scores) - window + 1)]
        np.testing.assert_allclose(moving_means(scores, window), expected, atol=1e-12)


# -- what was to be expected ----------------------------------------------------------------------------------------------------------

Round = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def rounds_of(n: int, rows: int = 40, features: int = 3) -> list[Round]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        x, d = rng.normal(size=(rows + i, features)), rng.uniform(0, 100, rows + i)
        returns = x @ [2.0, -1.0, 0.5][:features] + 0.05 * d + rng.normal(size=rows + i) if features else 0.05 * d
        made.append(tuple(torch.from_numpy(part).float() for part in (x, d, returns)))
    return made


def ridge(shown: list[Round]) -> np.ndarray:
    """The closed form in numpy, for the rows of the last round: an intercept that isn't punished, and standardised columns that are."""
    columns = [
        np.column_stack([x, d, np.square(d)]).astype(np.float64) for x, d, _ in (tuple(p.double().numpy() for p in r) for r in shown)
    ]
    rows, y = np.concatenate(columns), np.concatenate([r[2].double().numpy() for r in shown])
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    design = np.column_stack([np.ones(len(rows)), scaled])
    punished = RIDGE * len(rows) * np.diag([0.0] + [1.0] * scaled.shape[1])
    weights = np.linalg.inv(design.T @ design + punished) @ design.T @ y
    return (design @ weights)[-len(columns[-1]) :]


def test_what_is_expected_is_ridge_regression_on_features_d_and_its_square() -> None:
    (shown,) = rounds_of(1)
    np.testing.assert_allclose(Baseline(3).expected(*shown), ridge([shown]), rtol=1e-4, atol=1e-4)


def test_a_model_without_features_is_regressed_on_d_alone() -> None:
    (shown,) = rounds_of(1, features=0)
    np.testing.assert_allclose(Baseline(3).expected(*shown), ridge([shown]), rtol=1e-4, atol=1e-4)


def test_it_remembers_so_many_rounds_and_no_more() -> None:
    baseline, rounds = Baseline(2), rounds_of(4)
    for i, shown in enumerate(rounds):
        np.testing.assert_allclose(baseline.expected(*shown), ridge(rounds[max(0, i - 1) : i + 1]), rtol=1e-4, atol=1e-4)
    assert len(baseline.memory) == 2


@pytest.mark.parametrize("shift", [-50.0, 3.0, 1000.0])
def test_advantages_do_not_change_where_all_returns_are_shifted(shift: float) -> None:
    plain, shifted = Baseline(2), Baseline(2)
    for x, d, returns in rounds_of(3):
        advantages = returns - plain.expected(x, d, returns)
        np.testing.assert_allclose(returns + shift - shifted.expected(x, d, returns + shift), advantages, atol=1e-3)


def test_the_units_of_features_and_of_d_make_no_difference() -> None:
    (x, d, returns), baseline = rounds_of(1)[0], Baseline(1)
    expected = baseline.expected(x, d, returns)
    np.testing.assert_allclose(Baseline(1).expected(100.0 * x + 7.0, 3.0 * d, returns), expected, rtol=1e-3, atol=1e-3)


def test_features_that_never_vary_and_features_that_are_many_do_no_harm() -> None:
    (x, d, returns) = rounds_of(1)[0]
    still = torch.cat([x, torch.full((len(x), 1), 5.0)], dim=1)
    np.testing.assert_allclose(Baseline(1).expected(still, d, returns), Baseline(1).expected(x, d, returns), atol=1e-4)
    many = torch.randn(len(x), 200, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(Baseline(1).expected(many, d, returns)).all()
    assert torch.isfinite(Baseline(1).expected(x, torch.zeros(len(d)), torch.zeros(len(d)))).all()


def test_what_it_remembers_goes_on_bit_for_bit() -> None:
    whole, rounds = Baseline(2), rounds_of(4)
    for shown in rounds[:3]:
        whole.expected(*shown)
    again = Baseline(2)
    again.from_tensors(whole.to_tensors())
    assert torch.equal(whole.expected(*rounds[3]), again.expected(*rounds[3]))
    fresh = Baseline(2)
    fresh.from_tensors(Baseline(2).to_tensors())
    assert fresh.memory == []


def test_what_is_explained_is_the_share_of_the_variance_that_was_expected() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained(returns, returns) == 1.0 and explained(returns, torch.full((4,), 2.0)) == pytest.approx(0.0)
    assert explained(returns, -returns) == pytest.approx(-3.0) and np.isnan(explained(torch.ones(4), returns))
