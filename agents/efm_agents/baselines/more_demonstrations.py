"""More demonstrations: what the expert's time would have bought in place of practice.

D demonstrations become k × D, the first D of which are the ones that there were, and stage 1 is run on them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efm_agents import sft
from efm_agents.baselines.config import MoreDemonstrationsConfig
from efm_agents.checkpoint import load_checkpoint, save_checkpoint
from efm_agents.demonstrations import collect_file
from efm_agents.run import Report, Run, no_report, to_settings
from efm_envs.data import Episode
from efm_envs.errors import EFMError


def train(
    demonstrations: Sequence[Episode],
    folder: Path,
    config: MoreDemonstrationsConfig,
    report: Report = no_report,
    *,
    task: str,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Collects until there are k times as many demonstrations, and clones them all.

    Args:
        demonstrations: the D that there are, as `collect_file` made them with `config.seed` and `config.style`.
        folder: of the run; holds demonstrations.npz, and stage 1's run as sft/.
        config: the settings.
        report: is told about progress.
        task: name of the task.
        options: for `gym.make`, with which the demonstrations were made.

    Returns:
        The folder. Its `practice_episodes` are the demonstrations that were added.

    Raises:
        EFMError: demonstrations that were made otherwise.
    """
    D, env_id = len(demonstrations), demonstrations[0].env_id
    run = Run(folder, "more_demonstrations", {**to_settings(config), "env_id": env_id, "demonstrations": D, "options": dict(options or {})})
    how: dict[str, Any] = {"style": config.style, "seed": config.seed, "options": options, "workers": config.workers}
    everything = collect_file(run.folder / "demonstrations.npz", env_id, config.times * D, **how, report=report)
    if [e.seed for e in everything[:D]] != [e.seed for e in demonstrations]:
        raise EFMError(
            f"the first {D} of {len(everything)} demonstrations are expected to be those that there are; got others: set seed and style "
            f"to those they were made with (now {config.seed}, {config.style!r})."
        )
    learned = sft.train(everything, run.folder / "sft", config.sft, task=task, options=options, report=report)

    weights, facts = load_checkpoint(learned / "checkpoints" / "policy.safetensors", "policy")
    used = {"practice_episodes": len(everything) - D, "env_steps": sum(map(len, everything[D:]))}
    run.forget_after("metrics", "practice_episodes", -1)
    run.append("metrics", [used])
    save_checkpoint(run.checkpoint("policy"), "policy", weights, {**facts, **used})
    return run.folder
