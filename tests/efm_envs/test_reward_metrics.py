"""Figures with known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from efm_envs.rewards import metrics
from efm_envs.rewards.signal import RewardSignal
from efm_envs.task import Array, Goal, Goals
from tests.efm_envs.fakes import Scripted


def gaussian(mean: float, std: float) -> tuple[Array, Array]:
    """A normal distribution in fine bins."""
    edges = np.linspace(mean - 8 * std, mean + 8 * std, 1601)
    return edges, np.diff(stats.norm.cdf(edges, mean, std))[None]


def episode(*steps_to_go: float, success: int | None = None) -> tuple[Array, Array]:
    """What a model says along an episode, and the truth, which stays from the first success on."""
    d = np.array(steps_to_go)
    return d, np.arange(len(d)) >= (math.inf if success is None else success)


# -- predicted and true steps


def test_errors_of_a_shifted_and_scaled_truth_are_known() -> None:
    true = np.array([0.0, 10.0, 20.0])
    found = metrics.errors(2 * true + 3, true)
    assert (found.observations, found.bias, found.mae) == (3, 13.0, 13.0)
    assert found.mae_of_constant == pytest.approx(20 / 3)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.5))
    assert found.rmse == pytest.approx(math.sqrt((9 + 169 + 529) / 3))


def test_what_is_not_known_is_not_counted() -> None:
    found = metrics.errors(np.array([1.0, 2.0, 50.0]), np.array([1.0, 3.0, np.nan]))
    assert (found.observations, found.mae) == (2, 0.5)


def test_a_constant_has_no_line_and_nothing_has_no_errors() -> None:
    constant = metrics.errors(np.full(3, 5.0), np.arange(3.0))
    assert np.isnan([constant.slope, constant.intercept]).all() and constant.bias == 4.0
    assert metrics.errors(np.zeros(0), np.zeros(0)).observations == 0


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_the_last_third_of_an_episode_is_a_third_of_it_rounded_up(lengths: list[int]) -> None:
    late = np.split(metrics.in_last_part(lengths), np.cumsum(lengths)[:-1])
    assert [int(flags.sum()) for flags in late] == [math.ceil(n / 3) for n in lengths]
    assert all((np.diff(flags.astype(int)) >= 0).all() for flags in late)


# -- distributions


def test_quantiles_and_coverage_of_a_distribution_in_bins() -> None:
    edges, probs = np.array([0.0, 4.0, 10.0]), np.array([[0.4, 0.6], [0.4, 0.6]])
    np.testing.assert_allclose(metrics.quantiles(edges, probs, (0.1, 0.5, 0.9)), [[1, 1], [5, 5], [9, 9]])
    assert metrics.coverage(edges, probs, np.array([1.5, 9.5]), 0.8) == 0.5
    assert metrics.coverage(edges, probs, np.array([[1.5, 9.5], [2.0, 3.0]]), 0.8) == 0.75


def test_a_right_distribution_covers_as_much_as_it_says_and_its_pit_is_uniform() -> None:
    rng = np.random.default_rng(0)
    edges, probs = gaussian(50.0, 5.0)
    true = rng.normal(50.0, 5.0, (1, 20_000))
    for level in (0.5, 0.8, 0.9):
        assert metrics.coverage(edges, probs, true, level) == pytest.approx(level, abs=0.01)
    assert stats.kstest(metrics.pit(edges, probs, true)[0], "uniform").pvalue > 0.01


@given(st.floats(0.01, 0.99))
def test_pit_undoes_quantiles(level: float) -> None:
    edges, probs = np.array([1.0, 2.0, 2.5, 8.0]), np.array([[0.2, 0.5, 0.3]])
    assert metrics.pit(edges, probs, metrics.quantiles(edges, probs, [level])[0]) == pytest.approx(level)


def test_pit_beyond_the_bins_is_0_and_1() -> None:
    assert metrics.pit(np.array([1.0, 2.0]), np.ones((3, 1)), np.array([0.0, 2.0, 9.0])).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("off", [-12.0, 0.0, 3.0, 100.0])
def test_the_crps_of_a_normal_distribution_is_its_closed_form(off: float) -> None:
    edges, probs = gaussian(50.0, 5.0)
    z = off / 5.0  # Gneiting and Raftery 2007, eq. 21
    expected = 5.0 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    assert metrics.crps(edges, probs, np.array([50.0 + off]))[0] == pytest.approx(expected, abs=1e-4)


@given(st.floats(-2, 3))
def test_the_crps_of_a_uniform_distribution_is_its_closed_form(y: float) -> None:
    inside = min(max(y, 0.0), 1.0)  # Jordan, Krüger and Lerch 2019: |y − x| + x² − x + 1/3, where x is y within 0..1
    expected = abs(y - inside) + inside**2 - inside + 1 / 3
    assert metrics.crps(np.array([0.0, 0.25, 1.0]), np.array([[0.25, 0.75]]), np.array([y]))[0] == pytest.approx(expected)


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_crps_of_who_is_sure_is_the_absolute_error(said: float, true: float) -> None:
    sure = metrics.crps(np.array([said, said]), np.ones((1, 1)), np.array([true]))
    assert sure == pytest.approx(abs(said - true)) == metrics.crps_of_point(np.array([said]), np.array([true]))


@given(st.lists(st.floats(0, 12), min_size=2, max_size=6), st.floats(1, 15), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_the_crps_is_the_integral_that_it_is_said_to_be(samples: list[float], limit: float, weights: list[float]) -> None:
    edges, probs = np.array([0.0, 2.0, 3.0, 9.0]), np.array([weights]) / np.sum(weights)
    z = np.linspace(-1, limit, 20_001)
    cdf = np.interp(z, edges, np.concatenate([[0.0], np.cumsum(probs)]))
    expected = np.mean([np.trapezoid((cdf - (z >= y)) ** 2, z) for y in samples])
    assert metrics.crps(edges, probs, np.array([samples]), limit)[0] == pytest.approx(expected, abs=5e-3)


def test_what_is_only_known_to_lie_beyond_the_limit_counts_as_there() -> None:
    edges, probs = np.array([0.0, 10.0, 20.0]), np.array([[0.5, 0.5]])
    never, there = np.array([[4.0, np.inf]]), np.array([[4.0, 15.0]])
    assert metrics.crps(edges, probs, never, 15.0) == pytest.approx(metrics.crps(edges, probs, there, 15.0))
    assert metrics.crps_of_point(np.array([30.0]), never, 15.0) == pytest.approx(5.5)
    assert metrics.crps_of_truth(never, 15.0) == pytest.approx(5.5)
    assert metrics.coverage(edges, probs, never, 0.8, 15.0) == 1.0


def test_an_open_bin_counts_as_its_lower_edge() -> None:
    edges, probs = np.array([0.0, 10.0, np.inf]), np.array([[0.5, 0.5]])
    assert metrics.quantiles(edges, probs, (0.25, 0.9))[:, 0].tolist() == [5.0, 10.0]
    assert np.isfinite(metrics.crps(edges, probs, np.array([[3.0, 40.0]]))).all()


def test_nobody_scores_better_than_the_distribution_that_the_samples_come_from() -> None:
    samples = np.random.default_rng(0).normal(50.0, 5.0, (1, 20_000))
    least = metrics.crps_of_truth(samples)[0]
    scores = {mean: metrics.crps(*gaussian(mean, 5.0), samples)[0] for mean in (40.0, 49.0, 50.0)}
    assert least == pytest.approx(5.0 / math.sqrt(math.pi), rel=0.01) and scores[50.0] == pytest.approx(least, rel=0.01)
    assert scores[40.0] > scores[49.0] > scores[50.0]


# -- order


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_rank_correlations_are_scipys_and_those_of_a_constant_are_0(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, float).T
    for ours, theirs in ((metrics.spearman, stats.spearmanr), (metrics.kendall_tau, stats.kendalltau)):
        constant = np.ptp(x) == 0 or np.ptp(y) == 0
        assert ours(x, y) == pytest.approx(0.0 if constant else theirs(x, y).statistic, abs=1e-9)


def test_an_episode_that_comes_nearer_all_the_time_is_in_order_and_backwards_it_is_not() -> None:
    d = np.array([9.0, 7.0, 4.0, 0.5])
    assert metrics.value_order_correlation(d) == pytest.approx(1.0)
    assert metrics.value_order_correlation(d[::-1]) == pytest.approx(-1.0)
    assert metrics.value_order_correlation(np.full(4, 3.0)) == 0.0


# -- success


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_interval_of_a_rate_is_wilsons(count: int, others: int) -> None:
    of = count + others
    found = metrics.wilson(count, of)
    if of == 0:
        assert math.isnan(found.rate) and (found.low, found.high) == (0.0, 1.0)
    else:
        expected = stats.binomtest(count, of).proportion_ci(method="wilson")
        assert (found.low, found.rate, found.high) == pytest.approx((expected.low, count / of, expected.high), abs=1e-9)


def test_auroc_is_the_chance_that_a_success_scores_higher() -> None:
    scores, hit = -np.array([0.0, 1.0, 1.0, 5.0]), np.array([True, True, False, False])
    assert metrics.auroc(scores, hit) == pytest.approx(3.5 / 4)
    assert metrics.auroc(scores, ~hit) == pytest.approx(0.5 / 4)
    assert math.isnan(metrics.auroc(scores, np.zeros(4, bool)))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 3), st.integers(0, 2))
def test_a_detector_fires_where_the_signal_says_success(d: list[int], k: int, more: int) -> None:
    n = k + more
    signal = RewardSignal(Scripted(*([float(value)] for value in d)), 1, 1.0, (k, n))
    goals = Goals([Goal("go")])
    outputs = [signal.reset({}, goals), *(signal.step({}, goals) for _ in d[1:])]
    said = [bool(out.predicted_success[0]) for out in outputs]
    assert metrics.first_firing(np.array(d, float), 1.0, k, n) == (said.index(True) if any(said) else None)


EPISODES = [
    episode(5, 3, 0, 0, success=2),  # detected in time
    episode(5, 3, 2, 0, success=2),  # a step late, where s = 1
    episode(5, 0, 2, 0, success=2),  # early
    episode(5, 4, 3, 3, success=2),  # missed
    episode(5, 0, 3, 3),  # a false alarm
    episode(5, 4, 3, 3),  # rightly nothing
]


def test_what_a_detector_makes_of_known_episodes() -> None:
    cost = metrics.operating_curve(EPISODES, np.array([1.0])).at(0, 0)
    rates = {name: cost[name]["rate"] for name in ("recall", "precision", "early", "missed", "false_alarms")}
    assert rates == {"recall": 0.5, "precision": 0.5, "early": 0.25, "missed": 0.25, "false_alarms": 0.5}
    assert (cost["f1"], cost["delay"]) == (0.5, 0.5)
    assert cost["recall"]["low"] < 0.5 < cost["recall"]["high"] and cost["false_alarms"]["of"] == 2


def test_a_longer_window_trades_false_alarms_for_delay() -> None:
    curve = metrics.operating_curve(EPISODES, np.array([1.0]), [(1, 1), (2, 2)])
    assert curve.early[:, 0].tolist() == [1, 0] and curve.false_alarms[:, 0].tolist() == [1, 0]
    assert curve.delay[:, 0].tolist() == [0.5, 1.0]


def test_where_nothing_fires_there_is_no_precision_and_no_delay() -> None:
    curve = metrics.operating_curve([episode(9, 9, success=1)], np.array([1.0]))
    assert np.isnan(curve.precision).all() and np.isnan(curve.delay).all() and curve.f1.tolist() == [[0.0]]


@given(st.lists(st.tuples(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 8)), min_size=1, max_size=5))
def test_no_threshold_does_better_than_the_best_candidate(drawn: list[tuple[list[int], int]]) -> None:
    episodes = [episode(*d, success=first if first < len(d) else None) for d, first in drawn]
    windows = [(1, 1), (2, 3)]
    best = [
        np.nan_to_num(metrics.operating_curve(episodes, thresholds, windows).f1).max()
        for thresholds in (metrics.candidate_thresholds(episodes, windows=windows), np.arange(0, 6, 0.25))
    ]
    assert best[0] >= best[1]


def test_candidates_are_half_way_between_what_decides() -> None:
    episodes = [episode(9, 5, 2, 2, success=2), episode(9, 6, 6, 6)]
    assert metrics.candidate_thresholds(episodes).tolist() == [3.5, 5.5, 6.0]
    assert metrics.candidate_thresholds([episode(*range(50))] * 2).tolist() == [0.0]
    assert len(metrics.candidate_thresholds([episode(d) for d in range(500)], 40)) == 40


def test_the_best_detector_has_the_highest_f1_then_the_least_delay_then_the_widest_margin() -> None:
    episodes = [episode(9, 5, 2, 2, success=2), episode(9, 6, 6, 6)]
    found = metrics.recommend(metrics.operating_curve(episodes, np.array([0.5, 2.0, 3.0, 4.0, 5.0, 6.0]), [(2, 2), (1, 1)]))
    assert found is not None
    assert (found.success_threshold, found.success_k_of_n, found.cost["f1"], found.cost["delay"]) == (3.0, (1, 1), 1.0, 0.0)
    assert "highest F1 of 12 detectors (1.00)" in found.reason and "as well, 2 to 4." in found.reason


def test_of_two_ranges_that_do_as_well_the_wider_is_taken() -> None:
    flags, x = np.array([True, True, False, True, True, True]), np.array([0.0, 9.0, 10.0, 11.0, 12.0, 13.0])
    assert metrics._widest_run(flags, x) == (0, 1)


def test_nothing_is_recommended_where_nothing_is_detected() -> None:
    assert metrics.recommend(metrics.operating_curve([episode(9, 9, success=1)], np.array([1.0]))) is None
