"""What a finished recipe found: its folder read back, and the numbers that the report draws."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efm_agents.inputs import join
from efm_agents.reward_model import CheckpointRewardModel
from efm_agents.run import read_log
from efm_benchmarks.config import MAIN_GAMMA
from efm_benchmarks.statistics import Estimate, t_interval
from efm_envs.data import Episode, load_episodes
from efm_envs.rewards.metrics import calibration_line, quantiles
from efm_envs.task import Array

BAND = (0.1, 0.9)  # quantiles between which the bands of predicted steps lie
GRID = 48  # points at which curves of several seeds are averaged
MIN_PER_BIN = 20  # a bin of a calibration curve with fewer observations is left out


@dataclass(frozen=True)
class Practice:
    """What was measured along one training seed's practice with one discount.

    Attributes:
        seed: the training seed.
        stopped: "finished", or why it ended early.
        rounds: how many rows of measurements there are.
        episodes: (rounds,) practice episodes that the policy had learned from at each; 0 at the first, which is SFT's policy.
        metrics: by name, (rounds,) float64.
    """

    seed: int
    stopped: str
    rounds: int
    episodes: Array
    metrics: dict[str, Array]


@dataclass(frozen=True)
class Prediction:
    """What the steps-to-go model says of one episode, in [control steps].

    Attributes:
        mean: (T+1,) d.
        low: (T+1,) 10 % quantile of the distribution.
        high: (T+1,) 90 % quantile.
        realised: (T+1,) the steps that were in fact left until success; NaN where there was none.
        deviation: largest difference between `mean` and the d that was stored when the episode ran.
    """

    mean: Array
    low: Array
    high: Array
    realised: Array
    deviation: float


@dataclass(frozen=True)
class Calibration:
    """Predicted against realised steps-to-go of M observations, in [control steps].

    Attributes:
        predicted: (M,) d.
        realised: (M,) steps that were in fact left.
        coverage: part of `realised` within the predicted 10–90 % band; ideally 0.8.
    """

    predicted: Array
    realised: Array
    coverage: float

    @property
    def line(self) -> tuple[float, float]:
        """Returns slope and intercept of the least-squares line of realised on predicted; ideally 1 and 0."""
        return calibration_line(self.predicted, self.realised)

    @property
    def bias(self) -> float:
        """Returns the mean of predicted − realised."""
        return float(np.mean(self.predicted - self.realised))

    @property
    def mae(self) -> float:
        """Returns the mean absolute error."""
        return float(np.mean(np.abs(self.predicted - self.realised)))

    @property
    def mae_of_constant(self) -> float:
        """Returns the mean absolute error of the best constant, the median: what knowing nothing of the observation gives."""
        return float(np.mean(np.abs(self.realised - np.median(self.realised))))


@dataclass(frozen=True)
class Curve:
    """A line with a band: `mean`, `low` and `high` at `x`, each (K,)."""

    x: Array
    mean: Array
    low: Array
    high: Array


class Findings:
    """A finished recipe's folder.

    Args:
        folder: that `efm recipe` wrote.

    Attributes:
        folder: the same.
        results: what `results.json` holds.
        config: the recipe's settings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.results: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        self.config: dict[str, Any] = self.results["config"]
        self._load = functools.cache(load_episodes)

    @property
    def seeds(self) -> range:
        """Returns the training seeds."""
        return range(self.config["seeds"])

    @property
    def improved(self) -> dict[str, float]:
        """Returns gamma by stage, for the stages that practised, in the recipe's order."""
        names = [row["stage"] for row in self.results["rows"] if is_improved(row["stage"]) and not is_last_round(row["stage"])]
        return dict(zip(names, self.config["gammas"], strict=True))

    @property
    def main_stage(self) -> str:
        """Returns the stage that stands for Self-Improvement: the paper's discount, or the first where that is not among them."""
        return next((stage for stage, gamma in self.improved.items() if gamma == MAIN_GAMMA), next(iter(self.improved)))

    def row(self, stage: str) -> dict[str, Any]:
        """Returns a stage's row of the results."""
        return next(row for row in self.results["rows"] if row["stage"] == stage)

    def episodes(self, stage: str, seed: int = 0) -> list[Episode]:
        """Returns the evaluation episodes that were kept whole."""
        return self._load(self.folder / f"seed-{seed}/evaluation/{stage}.npz")[0]

    def practice(self, stage: str) -> list[Practice]:
        """Returns the practice of each training seed."""
        outcome = self.results["practice"][f"{self.improved[stage]:g}"]
        return [self._practice(stage, seed, outcome["stopped"][seed]) for seed in self.seeds]

    def learning(self, stage: str) -> list[Practice]:
        """Returns how each seed's policy did by ground truth between rounds of practice; practice itself if nobody looked."""
        outcome = self.results["practice"][f"{self.improved[stage]:g}"]
        if not self.config["improve"]["monitor_every"]:
            return self.practice(stage)
        return [self._monitoring(stage, seed, outcome["stopped"][seed]) for seed in self.seeds]

    def reward_model(self, seed: int) -> CheckpointRewardModel:
        """Returns the steps-to-go model that a training seed learned and practised on."""
        return CheckpointRewardModel(str(self.folder / f"seed-{seed}/sft"))

    def calibration(self, seed: int) -> Calibration | None:
        """Compares a seed's model with the demonstrations among the evaluation episodes, none of which it was trained on.

        Those that its training set would not have kept, failures and very short ones, are left out. None if no episode remains.
        """
        shortest = load_episodes(self.folder / f"seed-{seed}/demonstrations.npz")[1].get("min_length", 0)
        kept = [e for e in self.episodes("demonstrations", seed) if (e.steps_to_success or 0) >= shortest]
        if not kept:
            return None
        predictions = predict(self.reward_model(seed), kept)
        mean, low, high, realised = (
            np.concatenate([getattr(p, name) for p in predictions]) for name in ("mean", "low", "high", "realised")
        )
        return Calibration(mean, realised, float(np.mean((low <= realised) & (realised <= high))))

    def _practice(self, stage: str, seed: int, stopped: str) -> Practice:
        rows = read_log(self.folder / f"seed-{seed}/{stage}/metrics.jsonl")
        episodes = np.array([0, *(row["practice_episodes"] for row in rows[:-1])])
        return Practice(seed, stopped, len(rows), episodes, _columns(rows))

    def _monitoring(self, stage: str, seed: int, stopped: str) -> Practice:
        rows = read_log(self.folder / f"seed-{seed}/{stage}/monitoring.jsonl")
        return Practice(seed, stopped, len(rows), np.array([row["practice_episodes"] for row in rows]), _columns(rows))


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    names = [name for name in rows[0] if name not in ("iteration", "practice_episodes")]
    return {name: np.array([row[name] for row in rows], np.float64) for name in names}


def is_improved(stage: str) -> bool:
    """Whether a stage's policy has practised."""
    return stage.startswith("improve")


def is_last_round(stage: str) -> bool:
    """Whether a stage is the last round of practice rather than the best."""
    return stage.endswith("-last")


def predict(model: CheckpointRewardModel, episodes: Sequence[Episode]) -> list[Prediction]:
    """Returns what the model says of each observation of each episode."""
    inputs = join([model.model.inputs(episode.observations) for episode in episodes])
    estimate = model.model.steps_to_go(inputs)  # one call: it takes as long for one episode as for fifty
    assert estimate.edges is not None and estimate.probs is not None
    ends = np.cumsum([len(episode) + 1 for episode in episodes])[:-1]
    columns = (np.split(column, ends) for column in (estimate.mean, *quantiles(estimate.edges, estimate.probs, BAND)))
    return [_prediction(*row) for row in zip(episodes, *columns, strict=True)]


def _prediction(episode: Episode, mean: Array, low: Array, high: Array) -> Prediction:
    end = np.nan if episode.steps_to_success is None else episode.steps_to_success
    deviation = float(np.max(np.abs(mean - episode.steps_to_go)))
    return Prediction(mean, low, high, end - np.arange(len(episode) + 1.0), deviation)


def pooled(calibrations: Sequence[Calibration]) -> Calibration:
    """Returns the calibration of all observations together."""
    sizes = [len(c.predicted) for c in calibrations]
    return Calibration(
        np.concatenate([c.predicted for c in calibrations]),
        np.concatenate([c.realised for c in calibrations]),
        float(np.average([c.coverage for c in calibrations], weights=sizes)),
    )


def over_seeds(practice: Sequence[Practice], metric: str) -> Curve:
    """Returns the mean over seeds at equal numbers of practice episodes, with Student's 95 % interval (NaN for one seed).

    It ends where the first seed ends: beyond, the mean would be of other seeds.
    """
    x = np.linspace(0, min(p.episodes[-1] for p in practice), GRID)
    values = np.array([np.interp(x, p.episodes, p.metrics[metric]) for p in practice])  # (seeds, K)
    return _curve(x, [t_interval(list(column)) for column in values.T])


def in_bins(x: Array, y: Array, width: float) -> Curve:
    """Returns the mean of y and its 10–90 % range in bins of x."""
    bins = np.floor(x / width)
    groups = [bins == b for b in np.unique(bins) if (bins == b).sum() >= MIN_PER_BIN]
    estimates = [Estimate(float(y[g].mean()), *map(float, np.quantile(y[g], BAND))) for g in groups]
    return _curve(np.array([x[g].mean() for g in groups]), estimates)


def _curve(x: Array, estimates: Sequence[Estimate]) -> Curve:
    mean, low, high = np.array(estimates, np.float64).reshape(-1, 3).T
    return Curve(x, mean, low, high)
