"""The settings of each training program. Light: importing this loads no torch, so that `efm --help` is quick."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SFTConfig:
    """Stage 1, supervised fine-tuning: behaviour cloning and steps-to-go prediction on demonstrations (paper, §2.1)."""

    seed: int = 0
    """Seed of initial weights, minibatches and the split into training and held-out episodes."""
    steps: int = 3500
    """Optimiser steps of each of the two losses."""
    batch: int = 256
    """Transitions a step."""
    learning_rate: float = 2e-3
    """AdamW's learning rate for the policy; falls to 0 along a half cosine."""
    steps_to_go_learning_rate: float = 3e-4
    """AdamW's learning rate for the steps-to-go model, likewise."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers, of the policy and of the steps-to-go model alike."""
    action_bins: int = 41
    """Tokens of each component of the action."""
    bins: int = 50
    """Bins of the steps-to-go distribution."""
    max_steps_to_go: float = 140.0
    """Upper edge of the last bin, in control steps."""
    normalise_steps_to_go: bool = False
    """Standardise what the steps-to-go model reads; the notebook's reads it as it is. What the policy reads is always standardised."""
    validation_fraction: float = 0.1
    """Part of the demonstrations that is held out, to choose checkpoints and the success threshold."""
    validate_every: int = 100
    """Optimiser steps between two validations."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "steps", "batch", "bins", "validate_every")
        _at_least(2, self, "action_bins")
        _above(0.0, self, "learning_rate", "steps_to_go_learning_rate", "max_steps_to_go", "validation_fraction")
        _at_most(0.5, self, "validation_fraction")


@dataclass(frozen=True)
class ImproveConfig:
    """Stage 2, Self-Improvement: practice on the reward r = d(o) − d(o′) of the frozen stage-1 model (paper, Algorithm 1)."""

    seed: int = 0
    """Seed of practice episodes, sampled actions and minibatches."""
    iterations: int = 128
    """Rounds of collecting and updating."""
    updates: int = 16
    """N: minibatches a round, drawn without replacement (paper, App. C)."""
    batch: int = 64
    """B: transitions a minibatch (paper, App. C)."""
    gamma: float = 0.9
    """Discount of the Monte-Carlo returns (paper, App. C)."""
    loss_scale: float = 5e-2
    """c in the loss −c · R · log p (paper, footnote 6 and App. C)."""
    learning_rate: float = 3e-4
    """AdamW's learning rate."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    ratio_clip: float | None = None
    """Clip of the probability ratio to the policy that practised, as in PPO; None is the paper's plain REINFORCE."""
    terminate_on: Literal["predicted", "true"] = "predicted"
    """What ends a practice episode: the model's predicted success, or ground truth."""
    success_threshold: float | None = None
    """s in predicted success 1[d ≤ s], in control steps; None takes the one that stage 1 chose on held-out demonstrations."""
    num_envs: int = 8
    """Practice episodes that run side by side."""
    monitor_every: int = 8
    """Rounds between two looks by ground truth, for the learning curve alone: nothing that is learned depends on them. 0 is none."""
    monitor_episodes: int = 50
    """Episodes of each such look; they are neither practice nor evaluation episodes."""
    score_window: int = 6
    """Rounds over which the practice score is averaged, to choose the best policy and to notice a collapse."""
    collapse_ratio: float = 0.5
    """Training stops where that average falls below this part of its best value so far."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "iterations", "updates", "batch", "num_envs", "monitor_episodes", "score_window")
        _above(0.0, self, "loss_scale", "learning_rate")
        if self.ratio_clip is not None:
            _above(0.0, self, "ratio_clip")
        _at_least(0, self, "gamma", "monitor_every", "collapse_ratio")
        _at_most(1.0, self, "gamma", "collapse_ratio")


def _at_least(low: float, config: object, *names: str) -> None:
    _check(config, names, lambda value: value >= low, f"at least {low}")


def _above(low: float, config: object, *names: str) -> None:
    _check(config, names, lambda value: value > low, f"above {low}")


def _at_most(high: float, config: object, *names: str) -> None:
    _check(config, names, lambda value: value <= high, f"at most {high}")


def _check(config: object, names: tuple[str, ...], is_valid: Callable[[float], bool], expected: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not is_valid(value):
            from efm_envs.errors import EFMError  # not above: it brings gymnasium, for which `--help` need not wait

            raise EFMError(f"{type(config).__name__}.{name} must be {expected}; got {value!r}.")
