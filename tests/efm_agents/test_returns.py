import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efm_agents.returns import discounted_returns

rewards_ = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100, width=32))


@given(rewards_, st.floats(0, 1))
def test_a_return_is_the_discounted_sum_of_the_rewards_that_follow(rewards: np.ndarray, gamma: float) -> None:
    T = len(rewards)
    definition = [sum(gamma ** (i - t) * rewards[i] for i in range(t, T)) for t in range(T)]
    np.testing.assert_allclose(discounted_returns(rewards, gamma), definition, rtol=1e-9, atol=1e-9)


@given(rewards_)
def test_without_foresight_a_return_is_the_reward(rewards: np.ndarray) -> None:
    np.testing.assert_array_equal(discounted_returns(rewards, 0.0), rewards)


@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 140, width=32)))
def test_without_discount_returns_of_steps_to_go_rewards_telescope(d: np.ndarray) -> None:
    np.testing.assert_allclose(discounted_returns(d[:-1] - d[1:], 1.0), d[:-1] - d[-1], atol=1e-9)


def test_nothing_is_added_at_the_end_of_an_episode() -> None:
    assert discounted_returns(np.array([0.0, 0.0, 7.0]), 0.9)[-1] == 7.0


def test_an_episode_without_steps_has_no_returns() -> None:
    assert discounted_returns(np.zeros(0), 0.9).shape == (0,)


def test_rewards_are_left_as_they_were() -> None:
    rewards = np.array([1.0, 2.0])
    discounted_returns(rewards, 0.5)
    assert rewards.tolist() == [1.0, 2.0]
