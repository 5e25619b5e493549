"""Monte-Carlo returns."""

import numpy as np


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Returns (T,): R_t = Σ_{i≥t} γ^{i−t} r_i to the episode's end, with no bootstrap, also at a time-out (paper, footnote 6).

    >>> discounted_returns(np.array([1.0, 0.0, 2.0]), gamma=0.5)
    array([1.5, 1. , 2. ])
    """
    returns = np.empty(len(rewards))
    following = 0.0
    for t in reversed(range(len(rewards))):
        returns[t] = following = rewards[t] + gamma * following
    return returns
