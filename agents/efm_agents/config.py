"""The settings of each training program. Light: importing this loads no torch, so that `efm --help` is quick."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ModelConfig:
    """The model: what reads, and how it acts and tells the steps left."""

    backbone: Literal["tiny", "mlp", "hf"] = "tiny"
    """What reads: a small transformer over tokens; MLPs on numbers alone; a language model of transformers."""
    width: int = 64
    """tiny: width of tokens."""
    blocks: int = 3
    """tiny: how often a question looks at the things that are there."""
    heads: int = 4
    """tiny: heads of the attention."""
    patch: int = 16
    """tiny: pixels a side of an image's patches."""
    shared: bool = True
    """tiny: one set of weights acts and tells the steps left; else each of the two has its own."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """mlp: widths of the hidden layers, of the policy and of the steps-to-go model alike."""
    normalise_steps_to_go: bool = False
    """mlp: standardise what the steps-to-go model reads; the notebook's reads it as it is. What the policy reads always is."""
    init: Literal["pretrained", "scratch"] = "pretrained"
    """hf: where the weights come from; scratch is the same model with random ones."""
    path: str = ""
    """hf: name or folder of the model."""
    lora_rank: int = 16
    """hf: rank of the adapters that are trained in place of all weights; 0 trains all."""
    micro_batch: int = 0
    """hf: rows that are in memory at a time; 0 is all of a batch."""
    gradient_checkpointing: bool = False
    """hf: compute activations again in the backward pass, in place of keeping them."""
    action_head: Literal["bins", "autoregressive", "gaussian"] = "bins"
    """Tokens for each component by itself, tokens one after another, or a Gaussian. hf speaks tokens one after another."""
    action_bins: int = 41
    """Tokens of each component of the action."""
    chunk: int = 1
    """k: actions that are said at once."""
    bins: int = 50
    """Bins of the steps-to-go distribution."""
    max_steps_to_go: float | None = None
    """Upper edge of the last bin, in control steps; None is the length of the longest demonstration."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "width", "blocks", "heads", "patch", "chunk", "bins")
        _at_least(0, self, "lora_rank", "micro_batch")
        _at_least(2, self, "action_bins")
        if self.max_steps_to_go is not None:
            _above(0.0, self, "max_steps_to_go")

    def backbone_options(self) -> dict[str, Any]:
        """Returns the keywords of the chosen backbone."""
        names = {
            "mlp": ("hidden", "normalise_steps_to_go"),
            "tiny": ("width", "blocks", "heads", "patch", "shared"),
            "hf": ("path", "init", "lora_rank", "micro_batch", "gradient_checkpointing"),
        }
        return {name: getattr(self, name) for name in names[self.backbone]}


@dataclass(frozen=True)
class SFTConfig:
    """Stage 1, supervised fine-tuning: behaviour cloning and steps-to-go prediction on demonstrations (paper, §2.1)."""

    seed: int = 0
    """Seed of initial weights, minibatches and the split into training and held-out episodes."""
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 3000
    """Optimiser steps."""
    batch: int = 256
    """Transitions a step, for each of the losses."""
    learning_rate: float = 2e-3
    """AdamW's learning rate; falls to 0 along a half cosine."""
    steps_to_go_learning_rate: float | None = None
    """AdamW's learning rate for weights that steps-to-go prediction alone uses, likewise; None is the same."""
    warmup: int = 100
    """Optimiser steps over which the learning rate rises to its highest."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    ema: float = 0.0
    """What is validated and kept is a moving average of the weights, which keeps this share of itself a step; 0 takes them as they are."""
    instruction_weight: float = 0.0
    """Weight of the third loss: tell the instruction from the first and the last observation (paper, App. A). 0 leaves it out."""
    validation_fraction: float = 0.1
    """Part of the demonstrations that is held out, to choose checkpoints and the success threshold."""
    validate_every: int = 100
    """Optimiser steps between two validations."""
    policy_checkpoint: Literal["best", "last"] = "best"
    """Which weights the policy is: those of its best held-out loss, or the last (the paper's for Aloha are far past the best, App. B)."""
    patience: int = 0
    """Training ends after so many validations in which no held-out loss got better; 0 goes on to the last step."""
    device: Device = "auto"
    """Where the model runs; auto takes a GPU for hf if there is one, and the processor for all others."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "steps", "batch", "validate_every")
        _at_least(0, self, "warmup", "weight_decay", "ema", "instruction_weight", "patience")
        _above(0.0, self, "learning_rate", "validation_fraction")
        if self.steps_to_go_learning_rate is not None:
            _above(0.0, self, "steps_to_go_learning_rate")
        _at_most(0.5, self, "validation_fraction")
        _at_most(0.99999, self, "ema")


@dataclass(frozen=True)
class ImproveConfig:
    """Stage 2, Self-Improvement: practice on the reward r = d(o) − d(o′) of the frozen stage-1 model (paper, Algorithm 1)."""

    seed: int = 0
    """Seed of practice episodes, sampled actions and minibatches."""
    iterations: int = 128
    """Most rounds of collecting and updating."""
    episodes: int | None = None
    """Practice episodes in all, after which it ends; None leaves that to `iterations`."""
    episodes_per_round: int | None = None
    """Practice episodes a round; None collects until there are `updates` · `batch` transitions (paper, App. C)."""
    updates: int = 16
    """N: minibatches a round, drawn without replacement (paper, App. C). With `epochs`, as many as the data make."""
    batch: int = 64
    """B: transitions a minibatch (paper, App. C)."""
    epochs: int | None = None
    """Passes over all of a round's transitions; None takes `updates` minibatches, no transition twice."""
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
    baseline_rounds: int = 0
    """Rounds to which a baseline of the return is fitted, from the observation alone; 0 subtracts nothing, as in the paper."""
    reward_kind: Literal["dense", "sparse"] = "dense"
    """dense is d(o) − d(o′); sparse is 1 where predicted success ends the episode, and 0 elsewhere."""
    reward_update_rounds: int = 0
    """Rounds between two copies of the practising model into the reward model; 0 keeps it frozen, as in the paper."""
    terminate_on: Literal["predicted", "true"] = "predicted"
    """What ends a practice episode: the model's predicted success, or ground truth."""
    success_threshold: float | None = None
    """s in predicted success 1[d ≤ s], in control steps; None takes the one that stage 1 chose on held-out demonstrations."""
    step_limit: int | None = None
    """Longest practice episode, in control steps; None is the env's."""
    num_envs: int = 8
    """Practice episodes that run side by side."""
    snapshots: tuple[int, ...] = ()
    """Numbers of practice episodes: the policy that has learned from no more than N is kept as checkpoints/episodes-N.safetensors."""
    monitor_every: int = 8
    """Rounds between two looks by ground truth, for the learning curve alone: nothing that is learned depends on them. 0 is none."""
    monitor_episodes: int = 50
    """Episodes of each such look; they are neither practice nor evaluation episodes."""
    score_window: int = 6
    """Rounds over which the practice score is averaged, to choose the best policy and to notice a collapse or a plateau."""
    collapse_ratio: float = 0.5
    """Training stops where that average falls below this part of its best value so far."""
    plateau_rounds: int = 0
    """Training stops where that average has had no new best for so many rounds: to go on lowers success (paper, App. H); 0 goes on."""
    device: Device = "auto"
    """Where the model runs; auto takes a GPU for hf if there is one, and the processor for all others."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        _at_least(1, self, "iterations", "updates", "batch", "num_envs", "monitor_episodes", "score_window")
        _above(0.0, self, "loss_scale", "learning_rate")
        for name in ("ratio_clip", "episodes", "episodes_per_round", "epochs", "step_limit"):
            if getattr(self, name) is not None:
                _above(0.0, self, name)
        _at_least(0, self, "gamma", "monitor_every", "collapse_ratio", "baseline_rounds", "plateau_rounds", "reward_update_rounds")
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
