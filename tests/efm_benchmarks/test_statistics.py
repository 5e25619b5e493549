import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from efm_benchmarks.statistics import clopper_pearson, success_rate, t_interval

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
seeds_ = st.lists(counts, min_size=1, max_size=6)


@settings(deadline=None)
@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_each_end_of_the_exact_interval_leaves_half_the_rest_in_a_binomial_tail(count: tuple[int, int], level: float) -> None:
    k, n = count
    rate, low, high = clopper_pearson(k, n, level)
    assert rate == k / n and 0 <= low <= rate <= high <= 1
    tail = (1 - level) / 2
    assert (low == 0) if k == 0 else stats.binom.sf(k - 1, n, low) == pytest.approx(tail, rel=1e-6)  # P(X ≥ k | low)
    assert (high == 1) if k == n else stats.binom.cdf(k, n, high) == pytest.approx(tail, rel=1e-6)  # P(X ≤ k | high)


@pytest.mark.parametrize("n", [1, 5, 20, 100])
@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.5, 0.84, 0.97, 0.999])
def test_the_exact_interval_covers_the_truth_at_least_as_often_as_it_says(n: int, p: float) -> None:
    intervals = [clopper_pearson(k, n) for k in range(n + 1)]
    covered = sum(stats.binom.pmf(k, n, p) for k, interval in enumerate(intervals) if interval.low <= p <= interval.high)
    assert covered >= 0.95


@given(counts)
def test_success_and_failure_have_mirrored_intervals(count: tuple[int, int]) -> None:
    k, n = count
    mirrored = clopper_pearson(n - k, n)
    assert clopper_pearson(k, n) == pytest.approx((1 - mirrored.mean, 1 - mirrored.high, 1 - mirrored.low))


@pytest.mark.parametrize(
    ("values", "quantile"),  # of Student's t at 0.975, from printed tables
    [([1.0, 4.0], 12.7062), ([1.0, 2.0, 6.0], 4.3027), ([0.0, 1.0, 2.0, 3.0, 9.0], 2.7764)],
)
def test_the_interval_of_a_mean_is_students(values: list[float], quantile: float) -> None:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    half = quantile * deviation / math.sqrt(len(values))
    assert t_interval(values) == pytest.approx((mean, mean - half, mean + half), rel=1e-4)


def test_a_higher_level_gives_a_wider_interval_of_a_mean() -> None:
    low, high = t_interval([1.0, 2.0, 4.0], 0.5), t_interval([1.0, 2.0, 4.0], 0.99)
    assert high.low < low.low < low.high < high.high


def test_students_interval_covers_the_mean_of_gaussians_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    covered = np.mean([interval.low <= 3.0 <= interval.high for interval in map(t_interval, samples)])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_one_value_says_nothing_about_how_seeds_differ() -> None:
    estimate = t_interval([0.7])
    assert estimate.mean == 0.7 and math.isnan(estimate.low) and math.isnan(estimate.high)


@settings(deadline=None)
@given(seeds_)
def test_the_interval_of_a_success_rate_is_never_narrower_than_either_source_of_chance(seeds: list[tuple[int, int]]) -> None:
    successes, episodes = zip(*seeds, strict=True)
    estimate = success_rate(successes, episodes)
    pooled = clopper_pearson(sum(successes), sum(episodes))
    assert estimate.mean == pooled.mean and 0 <= estimate.low <= pooled.low and pooled.high <= estimate.high <= 1
    if len(seeds) > 1:
        of_seeds = t_interval([k / n for k, n in seeds])
        assert estimate.low <= max(0.0, of_seeds.low) + 1e-12 and estimate.high >= min(1.0, of_seeds.high) - 1e-12


@settings(deadline=None)
@given(seeds_)
def test_the_interval_of_a_success_rate_is_no_wider_than_the_wider_source_on_each_side(seeds: list[tuple[int, int]]) -> None:
    successes, episodes = zip(*seeds, strict=True)
    estimate = success_rate(successes, episodes)
    sources = [clopper_pearson(sum(successes), sum(episodes))] + ([t_interval([k / n for k, n in seeds])] if len(seeds) > 1 else [])
    assert estimate.low in (0.0, *(s.low for s in sources)) and estimate.high in (1.0, *(s.high for s in sources))


def test_complete_success_of_all_seeds_is_not_certainty() -> None:
    estimate = success_rate([100, 100, 100], [100, 100, 100])
    assert estimate.mean == estimate.high == 1.0 and 0.98 < estimate.low < 0.99


def test_complete_failure_of_all_seeds_is_not_certainty() -> None:
    estimate = success_rate([0, 0], [10, 10])
    assert estimate.mean == estimate.low == 0.0 and 0.16 < estimate.high < 0.17


def test_seeds_that_disagree_widen_the_interval() -> None:
    agree, disagree = success_rate([50, 50, 50], [100, 100, 100]), success_rate([10, 50, 90], [100, 100, 100])
    assert disagree.mean == agree.mean and disagree.low < agree.low and disagree.high > agree.high


def test_one_seed_has_the_exact_interval_of_its_episodes() -> None:
    assert success_rate([7], [10]) == clopper_pearson(7, 10)
