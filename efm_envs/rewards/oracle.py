"""Reward models that need no learning: the task's own estimate, ground truth as a 0/1 reward, and nothing."""

from collections.abc import Mapping

import numpy as np

from efm_envs.rewards.base import TRUE_STEPS_TO_GO, TRUE_SUCCESS, RewardModel, StepsToGo
from efm_envs.task import Array, Goals


class OracleRewardModel(RewardModel):
    """`oracle`: the task's privileged estimate of what its clean expert has left; 0 exactly at true success, else at least 1."""

    id = "oracle"
    needs = (TRUE_STEPS_TO_GO,)

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Passes the task's estimate on."""
        return StepsToGo(observations[TRUE_STEPS_TO_GO])


class SparseRewardModel(RewardModel):
    """`sparse`: d is 1 until true success and 0 there, so the reward is 1 at success and 0 elsewhere (−1 where success is lost)."""

    id = "sparse"
    needs = (TRUE_SUCCESS,)

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Turns ground truth round."""
        return StepsToGo(1.0 - observations[TRUE_SUCCESS])


class NoRewardModel(RewardModel):
    """`none`: d is always 1, so the reward is always 0 and success is never predicted."""

    id = "none"
    needs = ()

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Knows nothing."""
        return StepsToGo(np.ones(len(goals)))
