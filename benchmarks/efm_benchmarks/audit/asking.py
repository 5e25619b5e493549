"""What is audited, on which episodes, and how the model is asked about them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from efm_agents.run import Report, no_report
from efm_benchmarks.audit.sets import TestSet, collect_sets, test_sets
from efm_benchmarks.policies import make_policy
from efm_envs.data import Episode
from efm_envs.env import check_fits
from efm_envs.errors import EFMError
from efm_envs.relabelling import Judgement, goal_of, judge, observations_for
from efm_envs.replaying import env_to_replay
from efm_envs.rewards import RewardSignal, make_reward_model
from efm_envs.rewards.base import needed_names
from efm_envs.task import Array, Goals

Figure = dict[str, Any]
DEMONSTRATORS = ("human", "clean")  # the first of these that a task has
BAND = (0.1, 0.9)  # quantiles between which bands lie
LEVELS = (0.5, 0.8, 0.9)  # of the central intervals whose coverage is measured
NO_SUCCESS = {"not": "the policy succeeded in none of its episodes, so that nothing is known of the steps that were left."}
NO_STEPS = {"not": "the model tells success, and counts no steps."}
NO_DISTRIBUTION = {"not": "the model gives a number, and no distribution."}


@dataclass(frozen=True)
class AuditConfig:
    """The settings of an audit."""

    env: str = "EFM-PointMass-v0"
    """Registered id."""
    policy: str | None = "expert:human"
    """Whose steps the model is to predict: as for `efm eval`. None where there is nobody."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For gym.make, as the model's demonstrations were made."""
    episodes: int = 50
    """Of each test set."""
    states: int = 24
    """From which the policy is rolled out for the true distribution of steps; 0 leaves that out."""
    rollouts: int = 32
    """From each state."""
    seed: int = 0
    """Which episodes."""

    def __post_init__(self) -> None:
        """Refuses values that cannot work."""
        for name, least in {"episodes": 4, "states": 0, "rollouts": 2, "seed": 0}.items():
            if getattr(self, name) < least:
                raise EFMError(f"an audit's {name} must be at least {least}; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Judged:
    """An episode, and what the model says along it.

    Attributes:
        episode: its `steps_to_go` is the oracle's.
        said: the model's.
        realised: (T+1,) control steps that were left until the first success; NaN after it, and where there was none.
    """

    episode: Episode
    said: Judgement
    realised: Array


class Audit:
    """What is audited, the episodes that it is audited on, and how the model is asked about them.

    Args:
        reward: the model, as in `gym.make(..., reward_model=…)`.
        config: the settings.
        folder: gets the test sets' episodes, which an audit of another model in the same env takes up again.
        report: is told about progress.

    Attributes:
        env: in which episodes are seen again.
        judged: by test set.

    Raises:
        EFMError: no such env, policy or model, or a model of another task.
    """

    def __init__(self, reward: Any, config: AuditConfig, folder: Path, report: Report = no_report) -> None:
        self.config, self.folder, self.report = config, Path(folder), report
        self.env = env_to_replay(config.env, **config.options)
        seen: Any = self.env.unwrapped
        self.task, self.observer, self.step_limit = seen.task, seen.observer, int(seen.step_limit)
        self.model = make_reward_model(reward)
        check_fits(self.model, self.task)
        self.needed = needed_names(self.model, self.observer.policy_names)
        self.observer.check_names(self.needed, f"reward model {self.model.id!r}")
        self.signal = RewardSignal(self.model, 1)
        self.demonstrator = next((style for style in DEMONSTRATORS if style in self.task.experts), None)
        self.policy = None if config.policy is None else make_policy(config.policy, config.env)
        self.sets: list[TestSet] = test_sets(self.policy, self.demonstrator, config.policy)
        self.judged: dict[str, list[Judged]] = {}

    def collect(self) -> None:
        """Makes the test sets, or finds them, and asks the model about them."""
        episodes = collect_sets(
            self.config.env,
            self.sets,
            self.config.episodes,
            self.folder,
            seed=self.config.seed,
            options=self.config.options,
            described={"policy": self.config.policy, "demonstrator": self.demonstrator},
            report=self.report,
        )
        for done, (name, some) in enumerate(episodes.items()):
            self.report("asking the model", done, len(episodes), name)
            self.judged[name] = [self.ask(episode, self.seen(episode)) for episode in some]
        self.report("asking the model", len(episodes), len(episodes), "")

    def seen(self, episode: Episode) -> dict[str, Array]:
        """Returns what the model needs of an episode, by name, each (T+1, …)."""
        return observations_for(self.model, episode, self.env)

    def ask(self, episode: Episode, seen: Mapping[str, Array], goals: Goals | None = None) -> Judged:
        """Asks the model about an episode, as it was, or as it might have been seen, or with another goal."""
        said = judge(self.signal, len(episode), seen, goal_of(episode, self.env) if goals is None else goals)
        end = math.nan if episode.steps_to_success is None else episode.steps_to_success
        left = end - np.arange(len(episode) + 1.0)
        return Judged(episode, said, np.where(left >= 0, left, np.nan))

    def successes(self, name: str) -> list[Judged]:
        """Returns a set's episodes that succeeded after their start."""
        return [one for one in self.judged.get(name, []) if (one.episode.steps_to_success or 0) > 0]

    @property
    def main(self) -> str:
        """The set on which errors are measured: the policy's episodes."""
        return "policy" if "policy" in self.judged else next(iter(self.judged))

    def close(self) -> None:
        """Frees what the env took."""
        self.env.close()


def steps_of(judged: Judged) -> int:
    """Returns the steps to success; an episode without any counts as whole."""
    found = judged.episode.steps_to_success
    return len(judged.episode) if found is None else found


def share(flags: Any) -> float:
    """Returns the part that is True; NaN of nothing."""
    values = np.asarray(flags, bool)
    return float(values.mean()) if len(values) else float("nan")
