"""Settings by name, for `--preset`. Light, as config.py is."""

from collections.abc import Mapping

from efm_agents.config import ImproveConfig, ModelConfig, SFTConfig

_POINT_MASS = ModelConfig(backbone="mlp", max_steps_to_go=140.0)
_LANGUAGE_TABLE = ModelConfig(action_head="autoregressive", action_bins=21, bins=100, max_steps_to_go=200.0)
_INSERT_EE = ModelConfig(action_bins=21, bins=60, max_steps_to_go=120.0)

SFT_PRESETS: Mapping[str, SFTConfig] = {
    "default": SFTConfig(),
    "point-mass": SFTConfig(model=_POINT_MASS, steps=3500, steps_to_go_learning_rate=3e-4, warmup=0),
    "language-table-cpu": SFTConfig(model=_LANGUAGE_TABLE, steps=2500, batch=128, learning_rate=3e-3, weight_decay=0.3, validate_every=250),
    "insert-cpu": SFTConfig(model=_INSERT_EE, steps=3000),
}
"""Settings of stage 1 by name, for `efm sft --preset`."""

IMPROVE_PRESETS: Mapping[str, ImproveConfig] = {
    "paper": ImproveConfig(),
    "efficient": ImproveConfig(
        episodes_per_round=32, num_envs=32, epochs=6, batch=1024, ratio_clip=0.2, baseline_rounds=8, loss_scale=1.0, weight_decay=0.0
    ),
}
"""Settings of stage 2 by name, for `efm improve --preset`: `paper` is the plain update, as published; `efficient` learns more of it."""


def preset_for(env_id: str) -> str:
    """Returns the name of the settings of stage 1 that were made for an env."""
    made_for = {"EFM-PointMass": "point-mass", "EFM-LanguageTable": "language-table-cpu", "EFM-BananaTable": "language-table-cpu"}
    made_for |= {"EFM-InsertEE": "insert-cpu", "EFM-TransferCubeEE": "insert-cpu"}
    return next((name for start, name in made_for.items() if env_id.startswith(start)), "default")
