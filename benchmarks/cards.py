"""Trains steps-to-go models as stage 1 does, audits them, and stores their cards and strips; writes the table of docs/reward_audit.md.

python benchmarks/cards.py run [--workers 0] [ID …]     # PointMass, LanguageTable4 and InsertEE, or only these
python benchmarks/cards.py docs [--check]               # the table; --check only says whether it is current
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tyro.conf import Positional, arg

from efm_agents.config import ModelConfig, SFTConfig
from efm_agents.presets import SFT_PRESETS
from efm_benchmarks import pages

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "cards"
PAGE = ROOT / "docs" / "reward_audit.md"
STRIPS = ROOT / "docs" / "assets" / "strips"
BLOCK = "results/cards"

app = tyro.extras.SubcommandApp()


class Recipe(NamedTuple):
    """How a model is trained: so many of the demonstrator's demonstrations, seen with these options."""

    demonstrations: int
    sft: SFTConfig
    options: dict[str, Any] = {}


def on_numbers(steps_to_go_learning_rate: float, **model: Any) -> SFTConfig:
    """Returns settings of stage 1 with MLPs that read standardised numbers."""
    numbers = ModelConfig(backbone="mlp", normalise_steps_to_go=True, **model)
    return dataclasses.replace(SFT_PRESETS["point-mass"], model=numbers, steps_to_go_learning_rate=steps_to_go_learning_rate)


RECIPES = {
    "EFM-PointMass-v0": Recipe(2000, on_numbers(3e-4, max_steps_to_go=140.0)),
    "EFM-LanguageTable4-v0": Recipe(6000, on_numbers(1e-3, bins=100, max_steps_to_go=200.0), {"goal_vector": True}),
    "EFM-InsertEE-v0": Recipe(300, on_numbers(1e-3, bins=100, max_steps_to_go=100.0)),
}


@app.command
def run(
    env_ids: Positional[tuple[str, ...]] = (),
    *,
    episodes: Annotated[int, arg(help="Of each test set.")] = 100,
    states: Annotated[int, arg(help="From which the demonstrator is rolled out.")] = 32,
    rollouts: Annotated[int, arg(help="From each state.")] = 64,
    workers: Annotated[int, arg(help="Processes that collect demonstrations.")] = 0,
    folder: Annotated[Path, arg(help="For demonstrations, runs and pages.")] = Path("runs/cards"),
) -> None:
    """Train, audit, store; what is there already is taken up."""
    from efm_agents import sft
    from efm_agents.demonstrations import collect_file
    from efm_benchmarks import audit
    from efm_benchmarks.audit.plots import strip_figure
    from efm_benchmarks.policies import task_of
    from efm_benchmarks.progress import progress

    for env_id in env_ids or RECIPES:
        if env_id not in RECIPES:
            sys.exit(f"no recipe for {env_id}. There are: {', '.join(RECIPES)}.")
        recipe, here = RECIPES[env_id], folder / env_id
        with progress() as report:
            demonstrations = collect_file(
                here / "demonstrations.npz", env_id, recipe.demonstrations, options=recipe.options, workers=workers, report=report
            )
            sft.train(demonstrations, here / "sft", recipe.sft, task=task_of(env_id).name, options=recipe.options, report=report)
            reward = {"id": "checkpoint", "path": str(here / "sft")}
            counts = {"episodes": episodes, "states": states, "rollouts": rollouts, "seed": 0}
            config = audit.config_for(reward, env_id, None, recipe.options, **counts)
            command = f"python benchmarks/cards.py run --episodes {episodes} --states {states} --rollouts {rollouts} {env_id}"
            card, strips = audit.run(reward, config, here, command=command, report=report)[::2]
        audit.write_card(STORED / f"{env_id}.json", {**card, "reward": {"id": "checkpoint"}, "adopted": True})
        STRIPS.mkdir(parents=True, exist_ok=True)
        strip_figure(strips).savefig(STRIPS / f"{env_id}.png", dpi=100)


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if the page is not current.")] = False) -> None:
    """Write the table of docs/reward_audit.md from what is stored."""
    from efm_benchmarks.audit.table import table

    cards = [json.loads(path.read_text()) for env_id in RECIPES if (path := STORED / f"{env_id}.json").is_file()]
    stale = f"{PAGE.name}'s table is not that of {STORED.name}/: run `python benchmarks/cards.py docs`."
    pages.renew(PAGE, pages.with_block(PAGE.read_text(), BLOCK, table(cards)), check=check, stale=stale)


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="cards.py", description="Audit learned reward models; write the table of docs/reward_audit.md."))
