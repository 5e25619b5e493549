"""Runs every baseline on PointMass from the same stage-1 runs, stores how each did, and writes the table of docs/baselines.md.

python benchmarks/baselines.py run [--seeds 0 1 2] [NAME …]   # all of them, or only these; what is stored already is not run again
python benchmarks/baselines.py docs [--check]                 # the table; --check only says whether it is current
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from tyro.conf import Positional, arg

from efm_benchmarks import pages
from efm_benchmarks.statistics import success_rate
from efm_envs.data import Episode

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "results" / "baselines" / "point_mass.json"
PAGE = ROOT / "docs" / "baselines.md"
BLOCK = "results/baselines"

ENV_ID, TASK = "EFM-PointMass-v0", "PointMass"
DEMONSTRATIONS = 500
SFT_STEPS = 600  # few, so that practice has something to do
PRACTICE_EPISODES = 1500
EVALUATION_EPISODES = 100
PPO_STEPS, SAC_STEPS, HER_STEPS = 100_000, 30_000, 20_000  # control steps, from scratch
COLUMNS = ("Method", "Learns from", "Success [%]", "Steps, all episodes", "Practice episodes", "Control steps")

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Work:
    """What a baseline is given: where it starts, and where it goes."""

    seed: int
    start: Path
    folder: Path
    demonstrations: Sequence[Episode]


class Recipe(NamedTuple):
    """A line of the table, and how it is trained."""

    title: str
    learns_from: str
    train: Callable[[Work], Path]


def more_demonstrations(times: int) -> Callable[[Work], Path]:
    """Behaviour cloning on `times` as many demonstrations, for as many times the steps."""

    def train(work: Work) -> Path:
        from efm_agents.baselines import more_demonstrations
        from efm_agents.baselines.config import MoreDemonstrationsConfig

        longer = replace(sft_config(work.seed), steps=4 * SFT_STEPS)
        config = MoreDemonstrationsConfig(times=times, seed=work.seed, sft=longer)
        return more_demonstrations.train(work.demonstrations, work.folder, config, task=TASK)

    return train


def practising(module: str, config: str, *, shown_demonstrations: bool = False, **settings: Any) -> Callable[[Work], Path]:
    """A baseline that practises: a file of efm_agents.baselines with its settings; by ground truth, where they do not say otherwise."""

    def train(work: Work) -> Path:
        import importlib

        from efm_agents.baselines import config as configs

        given = {"demonstrations": work.demonstrations} if shown_demonstrations else {}
        made = {"seed": work.seed, "episodes": PRACTICE_EPISODES, "terminate_on": "true", **settings}
        trainer: Callable[..., Path] = importlib.import_module(f"efm_agents.baselines.{module}").train
        return trainer(work.start, work.folder, getattr(configs, config)(**made), **given)

    return train


def self_improvement(**settings: Any) -> Callable[[Work], Path]:
    """Stage 2 itself, with the preset `efficient`."""

    def train(work: Work) -> Path:
        from efm_agents import self_improvement
        from efm_agents.presets import IMPROVE_PRESETS

        made = {"seed": work.seed, "episodes": PRACTICE_EPISODES, "terminate_on": "true", "monitor_every": 0, **settings}
        return self_improvement.train(work.start, work.folder, replace(IMPROVE_PRESETS["efficient"], **made))

    return train


def stable_baselines3(algorithm: str, env_steps: int, num_envs: int) -> Callable[[Work], Path]:
    """An algorithm of Stable-Baselines3, which starts from nothing."""

    def train(work: Work) -> Path:
        from efm_agents.baselines import sb3
        from efm_agents.baselines.config import SB3Config

        made: dict[str, Any] = {"algorithm": algorithm, "env_steps": env_steps, "num_envs": num_envs, "log_every": env_steps // 16}
        return sb3.train(ENV_ID, work.folder, SB3Config(seed=work.seed, **made))

    return train


SUCCESS, PREDICTED = "success", "predicted success"
RECIPES = {
    "longer_sft": Recipe("BC, 4 × the steps", "demonstrations", more_demonstrations(1)),
    "more_demonstrations": Recipe("BC, 4 × the demonstrations", "demonstrations", more_demonstrations(4)),
    "filtered_bc": Recipe("Filtered BC", SUCCESS, practising("filtered_bc", "FilteredBCConfig", shown_demonstrations=True, epochs=8)),
    "filtered_bc_fastest": Recipe(
        "Filtered BC, the fastest half",
        f"{SUCCESS}, steps",
        practising("filtered_bc", "FilteredBCConfig", with_demonstrations=False, fastest_share=0.5, episodes_per_round=150, epochs=6),
    ),
    "progress_weighted_bc": Recipe("Progress-weighted BC", "d", practising("progress_weighted_bc", "ProgressWeightedBCConfig")),
    "reinforce": Recipe("REINFORCE, sparse", SUCCESS, practising("sparse_reinforce", "SparseReinforceConfig", method="plain", gamma=0.95)),
    "rloo": Recipe("RLOO, sparse", SUCCESS, practising("sparse_reinforce", "SparseReinforceConfig")),
    "rloo_predicted": Recipe("RLOO, sparse", PREDICTED, practising("sparse_reinforce", "SparseReinforceConfig", terminate_on="predicted")),
    "grpo": Recipe("GRPO, sparse", SUCCESS, practising("grpo", "GRPOConfig")),
    "grpo_dense": Recipe("GRPO, dense", "d", practising("grpo", "GRPOConfig", reward_kind="dense")),
    "success_classifier": Recipe(
        "REINFORCE, success classifier",
        "the classifier",
        practising("success_classifier", "SuccessClassifierConfig", shown_demonstrations=True, terminate_on="predicted"),
    ),
    "self_improvement": Recipe("**Self-Improvement**", "d", self_improvement()),
    "self_improvement_predicted": Recipe("**Self-Improvement**", f"d, {PREDICTED}", self_improvement(terminate_on="predicted")),
    "oracle_reinforce": Recipe("REINFORCE, oracle", "true steps-to-go", practising("oracle_reinforce", "ReinforceConfig")),
    "ppo": Recipe("PPO, from scratch", "true steps-to-go", stable_baselines3("ppo", PPO_STEPS, 16)),
    "sac": Recipe("SAC, from scratch", "true steps-to-go", stable_baselines3("sac", SAC_STEPS, 8)),
    "sac_her": Recipe("SAC with HER, from scratch", f"{SUCCESS}, goals", stable_baselines3("sac-her", HER_STEPS, 8)),
}


def sft_config(seed: int) -> Any:
    """Returns the settings of stage 1: the preset, with few steps."""
    from efm_agents.presets import SFT_PRESETS

    return replace(SFT_PRESETS["point-mass"], seed=seed, steps=SFT_STEPS)


@app.command
def run(
    names: Positional[tuple[str, ...]] = (),
    *,
    seeds: Annotated[tuple[int, ...], arg(help="Of demonstrations, stage 1 and practice.")] = (0, 1, 2),
    folder: Annotated[Path, arg(help="For demonstrations and runs.")] = Path("runs/baselines"),
    stored: Annotated[Path, arg(help="Where results are written.")] = STORED,
) -> None:
    """Train, evaluate, store; results that are there are left as they are."""
    import torch

    from efm_agents import sft
    from efm_agents.demonstrations import collect_file

    for name in names:
        if name not in RECIPES:
            sys.exit(f"no baseline {name!r}. There are: {', '.join(RECIPES)}.")
    torch.set_num_threads(1)  # small networks: more threads only wait for one another
    results = json.loads(stored.read_text()) if stored.is_file() else {"rows": []}
    done = {(row["name"], row["seed"]) for row in results["rows"]}
    for seed in seeds:
        here = folder / f"seed-{seed}"
        demonstrations = collect_file(here / "demonstrations.npz", ENV_ID, DEMONSTRATIONS, seed=seed)
        start = sft.train(demonstrations, here / "sft", sft_config(seed), task=TASK)
        for name in ("sft", *(names or RECIPES)):
            if (name, seed) in done:
                continue
            row = result(name, Work(seed, start, here / name, demonstrations))
            results = {**facts(), "rows": [*results["rows"], row]}
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_text(json.dumps(results, indent=1) + "\n")
            print(
                f"seed {seed}: {name}: {row['success']} of {EVALUATION_EPISODES}, {row['steps']:.1f} steps, {row['seconds']} s", flush=True
            )


def facts() -> dict[str, Any]:
    """Returns what all rows have in common."""
    from efm_agents.run import versions

    budget = {"demonstrations": DEMONSTRATIONS, "sft_steps": SFT_STEPS, "practice_episodes": PRACTICE_EPISODES}
    evaluated = {"evaluation_episodes": EVALUATION_EPISODES, "evaluation_seed": 0}
    return {"command": "python benchmarks/baselines.py run", "env": ENV_ID, **budget, **evaluated, "versions": versions()}


def result(name: str, work: Work) -> dict[str, Any]:
    """Returns how a baseline did; "sft" is where they start. A run that was broken off starts again."""
    began, budget, curve = time.perf_counter(), {"practice_episodes": 0, "env_steps": 0}, []
    trained = work.start
    if name != "sft":
        shutil.rmtree(work.folder, ignore_errors=True)
        trained = RECIPES[name].train(work)
        curve = practice_curve(trained)
        budget = {key: curve[-1][key] for key in budget}
    seconds = round(time.perf_counter() - began)
    return {"name": name, "seed": work.seed, **score(trained), **budget, "seconds": seconds, "curve": curve}


def practice_curve(folder: Path) -> list[dict[str, Any]]:
    """Returns what practice looked like, row by row; stage 2 leaves the control steps to be added up."""
    from efm_agents.run import read_log

    rows = read_log(folder / "metrics.jsonl")
    if "env_steps" not in rows[-1]:
        steps = [0] * (len(rows) + 1)
        for row in read_log(folder / "episodes.jsonl"):
            steps[row["iteration"]] += row["steps"]
        rows = [{**row, "env_steps": total} for row, total in zip(rows, np.cumsum(steps[1:]).tolist(), strict=True)]
    kept = ("practice_episodes", "env_steps", "success", "steps")
    return [{key: round(row[key], 4) for key in kept if row.get(key) is not None} for row in rows]


def score(folder: Path) -> dict[str, Any]:
    """Returns how a policy does on the evaluation episodes, by ground truth: successes, and the mean length of all episodes."""
    from efm_agents.checkpoint import find_checkpoint
    from efm_agents.policy import load_policy
    from efm_envs.evaluation import evaluate

    is_sb3 = json.loads((folder / "config.json").read_text())["program"] in ("ppo", "sac", "sac-her")
    if is_sb3:
        from efm_agents.baselines.sb3 import load_sb3_policy
    policy: Any = load_sb3_policy(folder, task=TASK) if is_sb3 else load_policy(find_checkpoint(folder, "policy"), task=TASK)
    options: dict[str, Any] = {"obs_mode": "flat" if is_sb3 else "state", "reward_model": "none", "terminate_on": "true"}
    records = evaluate(policy, ENV_ID, EVALUATION_EPISODES, **options)
    return {"success": sum(record.success_once for record in records), "steps": float(np.mean([record.steps for record in records]))}


@app.command
def docs(check: Annotated[bool, arg(help="Change nothing; fail if the page is not current.")] = False) -> None:
    """Write the table of docs/baselines.md from what is stored."""
    stale = f"{PAGE.name}'s table is not that of {STORED.name}: run `python benchmarks/baselines.py docs`."
    table = markdown_table(json.loads(STORED.read_text()))
    pages.renew(PAGE, pages.with_block(PAGE.read_text(), BLOCK, table), check=check, stale=stale)


def markdown_table(results: Mapping[str, Any]) -> str:
    """Returns a line for each baseline: means over the seeds, and the 95 % interval of the success rate."""
    lines = []
    titles = {"sft": ("Stage 1, where all but the last three start", "demonstrations")}
    titles |= {name: (recipe.title, recipe.learns_from) for name, recipe in RECIPES.items()}
    for name, (title, learns_from) in titles.items():
        rows = [row for row in results["rows"] if row["name"] == name]
        if not rows:
            continue
        rate = success_rate([row["success"] for row in rows], [results["evaluation_episodes"]] * len(rows))
        success = f"{100 * rate.mean:.1f} [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
        steps, episodes, env_steps = (np.mean([row[key] for row in rows]) for key in ("steps", "practice_episodes", "env_steps"))
        lines.append([title, learns_from, success, f"{steps:.1f}", f"{episodes:,.0f}", f"{env_steps:,.0f}"])
    return pages.markdown(COLUMNS, lines, words=2)


if __name__ == "__main__":
    pages.run_script(lambda: app.cli(prog="baselines.py", description="Compare baselines; write the table of docs/baselines.md."))
