"""Suites: experiments whose protocol is written down, as a file, before they are run.

A suite says which demonstrations, which settings of stage 1, which arms of practice and how much of it, which evaluation, and what is
claimed. `run_seed` does all of it for one training seed; what is finished is not done again. `summarise` computes every figure from the
records of the episodes.

    RUN/seed-K/
      demonstrations-STYLE.npz
      sft/NAME/  ARM/START/                each a run
      evaluation/POLICY.DECODING.json      control steps to true success of each episode, null where there was none
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efm_agents.config import ImproveConfig, SFTConfig
from efm_agents.presets import IMPROVE_PRESETS, SFT_PRESETS
from efm_agents.run import Report
from efm_envs.errors import EFMError

DECODINGS = ("sampled", "greedy")
EVALUATION_ENVS = 200  # episodes that run side by side


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrations of one kind, as many as a stage-1 run takes of them: the first ones of the training seed."""

    count: int
    style: str = "human"
    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    policy_weight: float = 1.0
    steps_to_go_weight: float = 1.0


@dataclass(frozen=True)
class Stage1:
    """One stage-1 run: its demonstrations, and what it changes about the suite's settings."""

    name: str
    demonstrations: tuple[Demonstrations, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to practise: settings, and for each stage-1 run that it starts from, the practice episodes after which it is evaluated."""

    name: str
    preset: str
    settings: Mapping[str, Any]
    starts: Mapping[str, tuple[int, ...]]
    reward_from: str | None = None


@dataclass(frozen=True)
class Claim:
    """That one policy succeeds more often than another, within so many control steps."""

    better: str
    than: str
    within: int
    decoding: str | None = None  # None: each with its better one


@dataclass(frozen=True)
class Suite:
    """A protocol, as its file says it."""

    id: str
    version: int
    title: str
    env: str
    options: Mapping[str, Any]
    sft_preset: str
    stages: tuple[Stage1, ...]
    arms: tuple[Arm, ...]
    training_seeds: tuple[int, ...]
    episodes: int
    evaluation_seed: int
    limits: tuple[int, ...]
    headline: int
    claims: tuple[Claim, ...]
    fingerprint: str

    @classmethod
    def load(cls, path: Path) -> "Suite":
        """Reads a file of benchmarks/suites.

        Raises:
            EFMError: it is none.
        """
        text = path.read_text()
        try:
            raw = json.loads(text)
            stages = tuple(
                Stage1(s["name"], tuple(Demonstrations(**d) for d in s["demonstrations"]), s.get("settings", {}))
                for s in raw["sft"]["runs"]
            )
            arms = tuple(
                Arm(a["name"], a["preset"], a.get("settings", {}), {k: tuple(v) for k, v in a["starts"].items()}, a.get("reward_from"))
                for a in raw["arms"]
            )
            evaluation = raw["evaluation"]
            return cls(
                id=raw["id"], version=raw["version"], title=raw["title"], env=raw["env"], options=raw.get("options", {}),
                sft_preset=raw["sft"]["preset"], stages=stages, arms=arms, training_seeds=tuple(raw["training_seeds"]),
                episodes=evaluation["episodes"], evaluation_seed=evaluation["seed"], limits=tuple(evaluation["limits"]),
                headline=evaluation["headline_limit"], claims=tuple(Claim(**c) for c in raw.get("claims", ())),
                fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise EFMError(f"{path} is not a suite ({error!r}): see benchmarks/README.md.") from error

    def policies(self) -> list[str]:
        """Returns the names of all policies that are evaluated, `sft/NAME` or `ARM/START+EPISODES`."""
        practised = [policy_name(arm.name, start, n) for arm in self.arms for start, counts in arm.starts.items() for n in counts]
        return [*(f"sft/{stage.name}" for stage in self.stages), *practised]

    def sft_config(self, stage: Stage1, seed: int) -> SFTConfig:
        """Returns the settings of a stage-1 run."""
        settings = dict(stage.settings)
        model = dataclasses.replace(SFT_PRESETS[self.sft_preset].model, **settings.pop("model", {}))
        return dataclasses.replace(SFT_PRESETS[self.sft_preset], model=model, seed=seed, **settings)

    def improve_config(self, arm: Arm, start: str, seed: int) -> ImproveConfig:
        """Returns the settings of an arm's practice from a stage-1 run."""
        counts = arm.starts[start]
        budget = {"seed": seed, "episodes": max(counts), "snapshots": counts, "iterations": 100_000, "monitor_every": 0}
        return dataclasses.replace(IMPROVE_PRESETS[arm.preset], **{**budget, **arm.settings})


def policy_name(arm: str, start: str, episodes: int) -> str:
    """Returns the name of the policy that an arm has come to after so many practice episodes."""
    return f"{arm}/{start}+{episodes}"


def run_seed(suite: Suite, folder: Path, seed: int, report: Report) -> None:
    """Runs, or goes on with, all of a suite for one training seed.

    Args:
        suite: the protocol.
        folder: of the suite's runs.
        seed: training seed.
        report: is told about progress.
    """
    import torch

    from efm_agents import self_improvement, sft
    from efm_benchmarks.policies import task_of

    torch.set_num_threads(1)  # seeds share the processors; and sums of floats depend on how many threads share them
    here = folder / f"seed-{seed}"
    for stage in suite.stages:
        if not (here / "sft" / stage.name / "checkpoints/steps_to_go.safetensors").is_file():
            mixture = [_mixed(suite, kind, here, seed, report) for kind in stage.demonstrations]
            config = suite.sft_config(stage, seed)
            sft.train(mixture, here / "sft" / stage.name, config, task=task_of(suite.env).name, options=suite.options, report=report)
        evaluate(suite, here, f"sft/{stage.name}", here / "sft" / stage.name / "checkpoints/policy.safetensors", seed, report)
    for arm in suite.arms:
        for start, counts in arm.starts.items():
            run = here / arm.name / start
            if not (run / "checkpoints/last.safetensors").is_file():
                reward = here / "sft" / (arm.reward_from or start)
                practice = suite.improve_config(arm, start, seed)
                self_improvement.train(here / "sft" / start, run, practice, reward_checkpoint=reward, report=report)
            for n in counts:
                snapshot = run / "checkpoints" / f"{self_improvement.snapshot_name(n)}.safetensors"
                at = snapshot if snapshot.is_file() else run / "checkpoints/last.safetensors"  # practice stopped before
                evaluate(suite, here, policy_name(arm.name, start, n), at, seed, report)


def _mixed(suite: Suite, kind: Demonstrations, here: Path, seed: int, report: Report) -> Any:
    from efm_agents.dataset import Mixed
    from efm_agents.demonstrations import collect_file

    most = max(d.count for stage in suite.stages for d in stage.demonstrations if (d.style, d.knobs) == (kind.style, kind.knobs))
    file = here / f"demonstrations-{kind.style}.npz"
    episodes = collect_file(
        file, suite.env, most, style=kind.style, knobs=kind.knobs, seed=seed, options=suite.options, workers=1, report=report
    )
    return Mixed(episodes[: kind.count], kind.policy_weight, kind.steps_to_go_weight)


def evaluate(suite: Suite, here: Path, policy: str, checkpoint: Path, seed: int, report: Report) -> None:
    """Runs a policy on the suite's scenarios, which are the same for all, with either decoding; writes the steps to true success."""
    from efm_agents.checkpoint import write_atomically
    from efm_agents.policy import load_policy
    from efm_agents.rollout import make_vector_env, rollout
    from efm_benchmarks.policies import task_of
    from efm_envs.seeding import EpisodeSet, episode_seeds

    for decoding in DECODINGS:
        file = evaluation_file(here, policy, decoding)
        if file.is_file():
            continue
        acting = load_policy(checkpoint, task=task_of(suite.env).name, seed=seed, greedy=decoding == "greedy")
        made = {**suite.options, "reward_model": "none", "terminate_on": "true", "step_limit": max(suite.limits)}
        envs = make_vector_env(suite.env, min(EVALUATION_ENVS, suite.episodes), num_threads=1, **made)
        seeds = episode_seeds(EpisodeSet.EVALUATION, suite.evaluation_seed)
        wanted = [next(seeds) for _ in range(suite.episodes)]
        found: dict[int, int | None] = {}
        for episode in rollout(acting, envs, wanted):
            found[episode.seed] = episode.steps_to_success
            report(f"evaluate {policy}", len(found), suite.episodes, decoding)
        envs.close()
        write_atomically(file, json.dumps([found[episode_seed] for episode_seed in wanted]).encode())


def evaluation_file(here: Path, policy: str, decoding: str) -> Path:
    """Returns where the evaluation of a policy is."""
    return here / "evaluation" / f"{policy.replace('/', '.')}.{decoding}.json"


def load_evaluations(suite: Suite, folder: Path) -> dict[str, dict[str, list[list[int | None]]]]:
    """Returns the steps to success: by policy, by decoding, by training seed, by episode."""
    return {
        policy: {
            decoding: [json.loads(evaluation_file(folder / f"seed-{seed}", policy, decoding).read_text()) for seed in suite.training_seeds]
            for decoding in DECODINGS
        }
        for policy in suite.policies()
    }


Evaluations = Mapping[str, Mapping[str, Sequence[Sequence[int | None]]]]


def success_within(steps: Sequence[int | None], limit: int) -> float:
    """Returns the share of episodes that succeeded within so many control steps.

    >>> success_within([10, None, 70, 60], 60)
    0.5
    """
    return sum(s is not None and s <= limit for s in steps) / len(steps)


def better_decoding(by_decoding: Mapping[str, Sequence[Sequence[int | None]]], limit: int) -> str:
    """Returns the decoding with which a policy succeeds more often, over all training seeds."""
    return max(DECODINGS, key=lambda decoding: sum(success_within(seed, limit) for seed in by_decoding[decoding]))


def summarise(suite: Suite, found: Evaluations) -> dict[str, Any]:
    """Returns success rates with intervals, and whether the claims hold."""
    from efm_benchmarks.statistics import success_rate, t_interval

    rows = []
    for policy, by_decoding in found.items():
        for decoding, seeds in by_decoding.items():
            within = {}
            for limit in suite.limits:
                successes = [round(success_within(seed, limit) * len(seed)) for seed in seeds]
                within[str(limit)] = success_rate(successes, [len(seed) for seed in seeds])._asdict()
            reached = [s for seed in seeds for s in seed if s is not None]
            mean = sum(reached) / len(reached) if reached else None
            rows.append({"policy": policy, "decoding": decoding, "within": within, "steps_to_success": mean})
    claims = []
    for claim in suite.claims:
        used = [claim.decoding or better_decoding(found[name], claim.within) for name in (claim.better, claim.than)]
        pairs = zip(found[claim.better][used[0]], found[claim.than][used[1]], strict=True)
        differences = [success_within(a, claim.within) - success_within(b, claim.within) for a, b in pairs]
        interval = t_interval(differences)
        claims.append({**dataclasses.asdict(claim), "decodings": used, "difference": interval._asdict(), "holds": interval.low > 0})
    protocol = {
        "suite": suite.id,
        "version": suite.version,
        "title": suite.title,
        "fingerprint": suite.fingerprint,
        "headline": suite.headline,
    }
    return {**protocol, "training_seeds": list(suite.training_seeds), "episodes": suite.episodes, "rows": rows, "claims": claims}
