"""The recipe's settings. Light: importing this loads no torch."""

from dataclasses import dataclass, field

from efm_agents.config import ImproveConfig, SFTConfig
from efm_agents.presets import SFT_PRESETS

MAIN_GAMMA = 0.9


@dataclass(frozen=True)
class RecipeConfig:
    """The whole path: demonstrations, stage 1 (SFT), stage 2 (Self-Improvement), evaluation, report."""

    env: str = "EFM-PointMass-v0"
    """Registered id."""
    seeds: int = 3
    """Training seeds, 0 to this minus 1: each has its own demonstrations, weights and practice."""
    demonstrations: int = 2000
    """Demonstrations a seed."""
    style: str = "human"
    """The demonstrator's style."""
    episodes: int = 100
    """Evaluation episodes: the same ones for every policy and every training seed."""
    gammas: tuple[float, ...] = (MAIN_GAMMA,)
    """Discounts to improve with; the paper's is 0.9, others are ablations."""
    sft: SFTConfig = field(default_factory=lambda: SFT_PRESETS["point-mass"])
    """Stage 1; its seed is each training seed in turn."""
    improve: ImproveConfig = field(default_factory=ImproveConfig)
    """Stage 2; its seed and gamma are set likewise."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        if min(self.seeds, self.episodes) < 1 or self.demonstrations < 2 or not self.gammas:
            from efm_envs.errors import EFMError  # not above: it brings gymnasium, for which `--help` need not wait

            raise EFMError("a recipe needs at least 1 seed, 1 episode, 2 demonstrations and 1 gamma.")
