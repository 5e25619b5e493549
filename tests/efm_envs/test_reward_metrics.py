"""Figures with known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from efm_envs.rewards import metrics
from efm_envs.rewards.signal import RewardSignal
from efm_envs.task import Goal, Goals
from tests.efm_envs.fakes import Scripted

RNG_SEED = 0


def gaussian(mean: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a normal distribution in fine bins."""
    edges = np.linspace(mean - 8 * std, mean + 8 * std, 1601)
    return edges, np.diff(stats.norm.cdf(edges, mean, std))[None]


def test_errors_of_a_shifted_and_scaled_truth_are_known() -> None:
    true = np.array([0.0, 10.0, 20.0])
    found = metrics.errors(2 * true + 3, true)
    assert (found.n, found.bias, found.mae, found.mae_of_constant) == (3, 13.0, 13.0, pytest.approx(20 / 3))
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.5))
    assert found.rmse == pytest.approx(math.sqrt((9 + 169 + 529) / 3))


def test_a_constant_has_no_line_and_nothing_has_no_errors() -> None:
    assert np.isnan(metrics.errors(np.full(3, 5.0), np.arange(3.0))[5:]).all()
    assert metrics.errors(np.zeros(0), np.zeros(0)).n == 0


@given(st.integers(0, 30), st.integers(1, 30))
def test_the_interval_of_a_rate_is_wilsons(hits: int, more: int) -> None:
    n = hits + more
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert metrics.wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_quantiles_and_coverage_of_a_uniform_distribution() -> None:
    edges, probs = np.array([0.0, 4.0, 10.0]), np.array([[0.4, 0.6], [0.4, 0.6]])
    np.testing.assert_allclose(metrics.quantiles(edges, probs, (0.1, 0.5, 0.9)), [[1, 1], [5, 5], [9, 9]])
    assert metrics.coverage(edges, probs, np.array([1.5, 9.5]), 0.8) == 0.5


def test_the_band_of_a_right_distribution_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(RNG_SEED)
    edges, probs = gaussian(50.0, 5.0)
    true = rng.normal(50.0, 5.0, 4000)
    for level in (0.5, 0.8, 0.9):
        assert metrics.coverage(edges, np.repeat(probs, 4000, axis=0), true, level) == pytest.approx(level, abs=0.03)


@pytest.mark.parametrize("off", [-12.0, 0.0, 3.0])
def test_the_crps_of_a_normal_distribution_is_its_closed_form(off: float) -> None:
    edges, probs = gaussian(50.0, 5.0)
    z = off / 5.0
    expected = 5.0 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    assert metrics.crps(edges, probs, np.array([50.0 + off]))[0] == pytest.approx(expected, abs=1e-3)


def test_the_crps_of_a_uniform_distribution_is_its_closed_form() -> None:
    for y in (0.0, 0.3, 1.0, 2.5):  # Jordan, Krüger and Lerch 2019: |y − clip(y)| + clip(y)² − clip(y) + 1/3
        inside = min(y, 1.0)
        expected = (y - inside) + inside**2 - inside + 1 / 3
        assert metrics.crps(np.array([0.0, 0.25, 1.0]), np.array([[0.25, 0.75]]), np.array([y]))[0] == pytest.approx(expected)


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_crps_of_a_number_is_its_absolute_error(said: float, true: float) -> None:
    edges = np.array([said, said + 1e-9])
    assert metrics.crps(edges, np.ones((1, 1)), np.array([true]))[0] == pytest.approx(abs(said - true), abs=1e-6)


def test_many_samples_of_the_distribution_itself_leave_nothing_to_improve() -> None:
    edges, probs = gaussian(50.0, 5.0)
    samples = stats.norm.ppf((np.arange(2000) + 0.5) / 2000, 50.0, 5.0)[None]
    assert metrics.crps_of_samples(edges, probs, samples)[0] < 1e-4
    assert metrics.crps_of_samples(edges, probs, samples + 10)[0] > 4.0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_rank_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, float).T
    for ours, theirs in ((metrics.spearman, stats.spearmanr), (metrics.kendall_tau, stats.kendalltau)):
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert np.isnan(ours(x, y))
        else:
            assert ours(x, y) == pytest.approx(theirs(x, y).statistic, abs=1e-9)


def test_an_episode_that_comes_nearer_all_the_time_is_in_order_and_backwards_it_is_not() -> None:
    d = np.array([9.0, 7.0, 4.0, 0.5])
    assert metrics.value_order_correlation(d) == pytest.approx(1.0)
    assert metrics.value_order_correlation(d[::-1]) == pytest.approx(-1.0)
    assert np.isnan(metrics.value_order_correlation(np.full(4, 3.0)))


def test_auroc_is_the_chance_that_a_success_has_the_lower_d() -> None:
    d, hit = np.array([0.0, 1.0, 1.0, 5.0]), np.array([True, True, False, False])
    assert metrics.auroc(d, hit) == pytest.approx(3.5 / 4)
    assert metrics.auroc(d, ~hit) == pytest.approx(0.5 / 4)
    assert np.isnan(metrics.auroc(d, np.zeros(4, bool)))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 3), st.integers(0, 2))
def test_a_detector_fires_where_the_signal_says_success(d: list[int], k: int, more: int) -> None:
    n = k + more
    signal = RewardSignal(Scripted(*([float(value)] for value in d)), 1, 1.0, (k, n))
    goals = Goals([Goal("go")])
    outputs = [signal.reset({}, goals), *(signal.step({}, goals) for _ in d[1:])]
    said = [bool(out.predicted_success[0]) for out in outputs]
    assert metrics.fires(np.array(d, float), 1.0, k, n) == (said.index(True) if any(said) else None)


CURVES = [
    (np.array([5.0, 3.0, 0.0, 0.0]), 2),  # in time
    (np.array([5.0, 3.0, 2.0, 0.0]), 2),  # one step late at s = 1
    (np.array([5.0, 0.0, 2.0, 0.0]), 2),  # early
    (np.array([5.0, 4.0, 3.0, 3.0]), 2),  # missed
    (np.array([5.0, 0.0, 3.0, 3.0]), None),  # a false alarm
    (np.array([5.0, 4.0, 3.0, 3.0]), None),
]


def test_what_a_detector_does_on_known_episodes() -> None:
    found = metrics.operate(CURVES, 1.0)
    assert (found.recall, found.precision, found.early, found.false_alarms, found.delay) == (0.5, 0.5, 0.25, 0.5, 0.5)
    assert found.f1 == pytest.approx(0.5)


def test_debouncing_trades_false_alarms_for_delay() -> None:
    found = metrics.operate(CURVES, 1.0, 2, 2)
    assert (found.early, found.false_alarms, found.recall, found.delay) == (0.0, 0.0, 0.25, 1.0)


def test_the_recommended_detector_has_the_best_f1_then_the_least_delay_and_says_so() -> None:
    curves = [(np.array([9.0, 5.0, 2.0, 2.0]), 2), (np.array([9.0, 6.0, 6.0, 6.0]), None)]
    found = metrics.recommend(metrics.operating_curve(curves, [0.5, 2.0, 3.0, 4.0, 5.0, 6.0], [(1, 1), (2, 2)]))
    assert found is not None
    chosen, reason = found
    assert (chosen.success_threshold, chosen.success_k_of_n, chosen.f1, chosen.delay) == (3.0, (1, 1), 1.0, 0.0)
    assert "highest F1 of 12 detectors (1.00)" in reason and "s from 2 to 4 do as well" in reason


def test_nothing_is_recommended_where_nothing_is_detected() -> None:
    assert metrics.recommend(metrics.operating_curve([(np.array([9.0, 9.0]), 1)], [1.0])) is None
