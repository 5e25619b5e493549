"""The recipe: everything from demonstrations to a report, for several training seeds side by side.

    RUN/
      config.json  versions.json  results.json  report.html
      seed-K/
        demonstrations.npz
        sft/  improve/  improve-gamma-G/       each a run: config, versions, metrics, episodes, checkpoints
        evaluation/STAGE.jsonl                 one record per episode, by ground truth
        evaluation/STAGE.npz                   the first few of those episodes, whole, for the plots
      videos/

Whatever is finished is not done again: the same command resumes a recipe that was broken off.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from efm_agents.run import Run, read_log, to_settings
from efm_benchmarks.config import MAIN_GAMMA, RecipeConfig
from efm_envs.evaluation import EpisodeRecord

EVALUATION_SEED = 0
SHOWN = 24  # whole episodes kept of each evaluation, for the plots

Event = tuple[int, str, int, int, str]  # training seed, stage, done, total, words
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Stage:
    """One policy that is evaluated.

    Attributes:
        name: of its files.
        title: of its row in the table.
        policy: as `make_policy` takes it, relative to the seed's folder where it is a path.
        per_seed: whether training seeds have policies of their own.
    """

    name: str
    title: str
    policy: str
    per_seed: bool = True


def stages(config: RecipeConfig) -> list[Stage]:
    """Returns what is evaluated, in the table's order."""
    improved = [
        stage
        for gamma in config.gammas
        for stage in (
            Stage(improve_name(gamma), f"Self-Improvement, γ = {gamma:g}", f"{improve_name(gamma)}/checkpoints/policy.safetensors"),
            Stage(f"{improve_name(gamma)}-last", f"… its last round, γ = {gamma:g}", f"{improve_name(gamma)}/checkpoints/last.safetensors"),
        )
    ]
    return [
        Stage("demonstrations", f"Demonstrations (expert:{config.style})", f"expert:{config.style}"),
        Stage("sft", "SFT", "sft/checkpoints/policy.safetensors"),
        *improved,
        Stage("direct", "Straight to the goal (expert:clean)", "expert:clean"),
    ]


def run_recipe(config: RecipeConfig, folder: Path, workers: int, on_event: OnEvent) -> dict[str, Any]:
    """Runs, or resumes, a recipe.

    Args:
        config: the settings.
        folder: of the run.
        workers: training seeds that run side by side, one thread each; changes nothing but the time it takes.
        on_event: is told about progress.

    Returns:
        What `results.json` holds.
    """
    Run(folder, "recipe", to_settings(config))
    _run_seeds(config, folder, workers, on_event)
    results = summarise(config, folder)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def _run_seeds(config: RecipeConfig, folder: Path, workers: int, on_event: OnEvent) -> None:
    """Runs the seeds in processes of their own, which die with this one."""
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    with _ctrl_c_waits():
        manager.start(_obey_parent)
        pool = context.Pool(min(workers, config.seeds), initializer=_obey_parent)
    with manager:
        events: Any = manager.Queue()
        with pool:
            jobs = [pool.apply_async(_run_seed, (config, folder / f"seed-{seed}", seed, events)) for seed in range(config.seeds)]
            while not all(job.ready() for job in jobs) or not events.empty():
                for job in jobs:
                    if job.ready():
                        job.get()  # raises what the seed raised
                try:
                    on_event(events.get(timeout=0.2))
                except queue.Empty:
                    continue
            for job in jobs:
                job.get()  # also what was raised last


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C waits; processes that are started meanwhile never hear it, not even before they can say what to do about it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_parent() -> None:
    """Leaves Ctrl-C to the parent, which ends its workers; and ends at once where the parent was killed and cannot do that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_seed(config: RecipeConfig, folder: Path, seed: int, events: Any) -> None:
    import torch

    from efm_agents import demonstrations, self_improvement, sft
    from efm_benchmarks.policies import task_of
    from efm_envs.data import load_episodes

    torch.set_num_threads(1)  # seeds share the processors; and sums of floats depend on how many threads share them

    def report(stage: str, done: int, total: int, words: str) -> None:
        events.put((seed, stage, done, total, words))

    task = task_of(config.env).name
    file = folder / "demonstrations.npz"
    if not file.is_file():
        demonstrations.collect_file(file, config.env, config.demonstrations, style=config.style, seed=seed, report=report)
    if not (folder / "sft/checkpoints/steps_to_go.safetensors").is_file():
        sft_config = dataclasses.replace(config.sft, seed=seed)
        sft.train(load_episodes(file)[0], folder / "sft", sft_config, task=task, report=report)
    for gamma in config.gammas:
        name = improve_name(gamma)
        if not (folder / name / "checkpoints/policy.safetensors").is_file():
            improve_config = dataclasses.replace(config.improve, seed=seed, gamma=gamma)
            self_improvement.train(folder / "sft", folder / name, improve_config, report=functools.partial(_renamed, report, name))
    for stage in stages(config):
        if not (folder / f"evaluation/{stage.name}.jsonl").is_file():
            _evaluate(config, stage, folder, seed, report)


def _renamed(report: Callable[[str, int, int, str], None], name: str, _: str, done: int, total: int, words: str) -> None:
    report(name, done, total, words)


def _evaluate(config: RecipeConfig, stage: Stage, folder: Path, seed: int, report: Callable[[str, int, int, str], None]) -> None:
    """Evaluates one policy by ground truth, the seed's own steps-to-go model looking on."""
    from efm_agents.checkpoint import write_atomically
    from efm_benchmarks.policies import EXPERT, make_policy
    from efm_envs.data import Episode, save_episodes
    from efm_envs.evaluation import evaluate

    done: list[Episode] = []

    def on_episode(episode: Episode) -> None:
        done.append(episode)
        report(f"evaluate {stage.name}", len(done), config.episodes, "")

    policy = stage.policy if stage.policy.startswith(EXPERT) else str(folder / stage.policy)
    records = evaluate(
        make_policy(policy, config.env, seed=seed),
        config.env,
        config.episodes,
        EVALUATION_SEED,
        on_episode=on_episode,
        reward_model={"id": "checkpoint", "path": str(folder / "sft")},
        terminate_on="true",
    )
    shown = sorted(done, key=lambda episode: episode.seed)[:SHOWN]
    save_episodes(folder / f"evaluation/{stage.name}.npz", shown)
    rows = "".join(json.dumps({"stage": stage.name, "training_seed": seed, **asdict(r)}) + "\n" for r in records)
    write_atomically(folder / f"evaluation/{stage.name}.jsonl", rows.encode())


def summarise(config: RecipeConfig, folder: Path) -> dict[str, Any]:
    """Returns the results, computed from the records of the episodes and from nothing else."""
    from efm_benchmarks.policies import task_of

    rows = []
    for stage in stages(config):
        seeds = [[_record(row) for row in read_log(folder / f"seed-{seed}/evaluation/{stage.name}.jsonl")] for seed in range(config.seeds)]
        rows.append({"stage": stage.name, "title": stage.title, **aggregate(seeds)})
    return {
        "env": config.env,
        "config": to_settings(config),
        "versions": json.loads((folder / "versions.json").read_text()),
        "protocol": {
            "episodes": config.episodes,
            "evaluation_seed": EVALUATION_SEED,
            "actions": "sampled",
            "ends": "true success or the step limit",
            "task": task_of(config.env).name,
        },
        "practice": {f"{gamma:g}": _practice(config, folder, gamma) for gamma in config.gammas},
        "rows": rows,
    }


def aggregate(seeds: Sequence[Sequence[EpisodeRecord]]) -> dict[str, Any]:
    """Returns the numbers of one row from the records of each training seed.

    `success` has a 95 % interval over seeds and episodes; `steps_to_success` is the mean over successful episodes, `steps` the mean
    over all of them (a failed episode counts with its full length).
    """
    from efm_benchmarks.statistics import success_rate

    successes = [sum(r.success_once for r in records) for records in seeds]
    everything = [r for records in seeds for r in records]
    reached = [r.steps_to_success for r in everything if r.steps_to_success is not None]
    return {
        "success": success_rate(successes, [len(records) for records in seeds])._asdict(),
        "success_per_seed": [s / len(records) for s, records in zip(successes, seeds, strict=True)],
        "steps_to_success": sum(reached) / len(reached) if reached else None,
        "steps_to_success_per_seed": [_mean([r.steps_to_success for r in records if r.steps_to_success is not None]) for records in seeds],
        "steps": sum(r.steps for r in everything) / len(everything),
        "steps_per_seed": [_mean([r.steps for r in records]) for records in seeds],
        "errors": sum(r.error is not None for r in everything),
        "episodes": len(everything),
    }


def _practice(config: RecipeConfig, folder: Path, gamma: float) -> dict[str, Any]:
    from efm_agents.checkpoint import load_checkpoint

    configs = [
        load_checkpoint(folder / f"seed-{seed}" / improve_name(gamma) / "checkpoints/policy.safetensors", "policy")[1]
        for seed in range(config.seeds)
    ]
    return {name: [c[name] for c in configs] for name in ("stopped", "iterations", "practice_episodes", "best_iteration")}


def _record(row: dict[str, Any]) -> EpisodeRecord:
    names = {field.name for field in dataclasses.fields(EpisodeRecord)}
    return EpisodeRecord(**{name: value for name, value in row.items() if name in names})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def improve_name(gamma: float) -> str:
    """Returns the name of the run, in a seed's folder, that improves with `gamma`."""
    return "improve" if gamma == MAIN_GAMMA else f"improve-gamma-{gamma:g}"
