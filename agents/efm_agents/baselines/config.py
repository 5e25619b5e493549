"""The settings of each baseline. Light, as efm_agents/config.py is."""

from dataclasses import dataclass, field
from typing import Any, Literal

from efm_agents.config import SFTConfig, _above, _at_least, _at_most, _check


@dataclass(frozen=True)
class MoreDemonstrationsConfig:
    """Behaviour cloning on k times as many demonstrations."""

    times: int = 4
    """k: demonstrations in all, as a multiple of those that there are; 1 is none more, for the longer training alone."""
    seed: int = 0
    """Seed of the demonstrations that there are: theirs are the first of the k times as many."""
    style: str = "human"
    """The expert's style."""
    workers: int = 1
    """Processes that collect demonstrations; 0 is one for each processor."""
    sft: SFTConfig = field(default_factory=SFTConfig)
    """How they are cloned."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "times")
        _at_least(0, self, "workers")


@dataclass(frozen=True)
class PracticeConfig:
    """What all baselines that practise have in common."""

    seed: int = 0
    """Seed of practice episodes, sampled actions and minibatches."""
    episodes: int = 1500
    """Practice episodes in all."""
    episodes_per_round: int = 60
    """Practice episodes between two updates of the policy that practises."""
    terminate_on: Literal["predicted", "true"] = "predicted"
    """The detector: what ends a practice episode, and says that it succeeded."""
    success_threshold: float | None = None
    """s in predicted success 1[d ≤ s]; None takes the reward model's own."""
    num_envs: int = 32
    """Practice episodes that run side by side."""
    learning_rate: float = 3e-4
    """AdamW's learning rate."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    batch: int = 1024
    """Decisions a minibatch, about."""
    epochs: int = 6
    """Passes over the data of an update."""
    score_window: int = 6
    """Rounds over which the practice score is averaged, to choose the best policy."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "episodes", "episodes_per_round", "num_envs", "batch", "epochs", "score_window")
        _above(0.0, self, "learning_rate")
        _at_least(0, self, "weight_decay")
        if self.success_threshold is not None:
            _at_least(0, self, "success_threshold")


@dataclass(frozen=True)
class FilteredBCConfig(PracticeConfig):
    """Cloning of one's own successes."""

    episodes_per_round: int = 300
    """Practice episodes between two updates of the policy that practises."""
    epochs: int = 20
    """E: passes over what is cloned, each round."""
    with_demonstrations: bool = True
    """Successes are added to the demonstrations; else they replace them."""
    fastest_share: float = 1.0
    """Share of a round's successes that is kept, the fastest first; 1 keeps all."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        _above(0.0, self, "fastest_share")
        _at_most(1.0, self, "fastest_share")


@dataclass(frozen=True)
class ProgressWeightedBCConfig(PracticeConfig):
    """Cloning of one's own actions, weighted by the exponential of the steps that they gained."""

    horizon: int = 10
    """n: progress is d(o_t) − d(o_{t+n}), in control steps."""
    beta: float = 0.1
    """β in the weight exp(β · progress), one over control steps."""
    largest_weight: float = 20.0
    """Weights are at most this (20 in AWR)."""
    rounds_kept: int = 3
    """Rounds of practice that are cloned: the last so many."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        _at_least(1, self, "horizon", "rounds_kept", "largest_weight")
        _at_least(0, self, "beta")


@dataclass(frozen=True)
class SparseReinforceConfig(PracticeConfig):
    """REINFORCE on success alone."""

    method: Literal["plain", "rloo"] = "rloo"
    """plain is the return that follows a decision; rloo the episode's, less the mean of the group's other episodes."""
    group: int = 4
    """K: episodes that start alike. plain needs none, and has as many, so that both see the same episodes."""
    gamma: float = 0.99
    """Discount, by which faster is better; 1 is 1[success]."""
    ratio_clip: float | None = 0.2
    """Clip of the probability ratio to the policy that practised, as in PPO; None is plain REINFORCE."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        check_groups(self, self.group)
        _at_least(0, self, "gamma")
        _at_most(1.0, self, "gamma")
        if self.ratio_clip is not None:
            _above(0.0, self, "ratio_clip")


@dataclass(frozen=True)
class GRPOConfig(PracticeConfig):
    """Group relative policy optimisation."""

    group: int = 4
    """K: episodes that start alike."""
    reward_kind: Literal["sparse", "dense"] = "sparse"
    """sparse is 1 where success ends the episode; dense is d(o) − d(o′)."""
    gamma: float = 0.99
    """Discount of an episode's return."""
    ratio_clip: float = 0.2
    """Clip of the probability ratio to the policy that practised."""
    kl: float = 0.01
    """Weight of the KL divergence to the SFT policy."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        check_groups(self, self.group)
        _at_least(0, self, "gamma", "kl")
        _at_most(1.0, self, "gamma")
        _above(0.0, self, "ratio_clip")


@dataclass(frozen=True)
class ReinforceConfig(PracticeConfig):
    """REINFORCE on a dense reward, as in the paper, with the clip and the baseline of the preset `efficient`."""

    gamma: float = 0.9
    """Discount of the Monte-Carlo returns (paper, App. C)."""
    ratio_clip: float | None = 0.2
    """Clip of the probability ratio to the policy that practised, as in PPO; None is plain REINFORCE."""
    loss_scale: float = 1.0
    """c in the loss −c · R · log p; 5e-2 in the paper (footnote 6)."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        _at_least(0, self, "gamma")
        _at_most(1.0, self, "gamma")
        _above(0.0, self, "loss_scale")
        if self.ratio_clip is not None:
            _above(0.0, self, "ratio_clip")


@dataclass(frozen=True)
class SuccessClassifierConfig(ReinforceConfig):
    """REINFORCE on the change of a classifier's probability of success."""

    classifier_steps: int = 600
    """Optimiser steps of the classifier."""
    classifier_batch: int = 256
    """Observations a step; half of them are the last of a demonstration."""
    classifier_learning_rate: float = 1e-3
    """AdamW's learning rate for the classifier."""
    loss_scale: float = 1.0
    """c in the loss −c · R · log p, where R counts probabilities."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        super().__post_init__()
        _at_least(1, self, "classifier_steps")
        _at_least(2, self, "classifier_batch")
        _above(0.0, self, "classifier_learning_rate")


@dataclass(frozen=True)
class SB3Config:
    """An algorithm of Stable-Baselines3, from scratch."""

    algorithm: Literal["ppo", "sac", "sac-her"] = "ppo"
    """Proximal policy optimisation, soft actor-critic, or the latter with hindsight goals and a sparse reward."""
    seed: int = 0
    """Seed of episodes, weights and actions."""
    env_steps: int = 200_000
    """Control steps; PPO goes on to the end of its rollout."""
    num_envs: int = 16
    """Envs that run side by side."""
    log_every: int = 5_000
    """Control steps between two rows of metrics, about."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keywords of the algorithm that differ from `sb3.SETTINGS`."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "env_steps", "num_envs", "log_every")


def check_groups(config: PracticeConfig, group: int) -> None:
    """Raises EFMError for episodes that cannot be divided into groups of `group`, 2 at least."""
    _at_least(2, config, "group")
    _check(config, ("episodes", "episodes_per_round"), lambda n: n % group == 0, f"a multiple of group, {group}")
