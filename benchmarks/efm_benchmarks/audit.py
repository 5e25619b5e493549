"""How good a reward model is in an env: test sets are made, the model is asked, and the figures are put on a card.

The model is asked as an env would ask it, one observation after another (`efm_envs.relabelling.judge`). Predicted is its d; realised is
what was left in the episode until ground truth said success.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from efm_agents.checkpoint import find_checkpoint, load_checkpoint, write_atomically
from efm_agents.reward_model import card_beside
from efm_agents.run import Report, no_report, versions
from efm_benchmarks.audit_answers import near
from efm_benchmarks.audit_sets import TestSet, collect_sets, test_sets
from efm_benchmarks.policies import EXPERT, make_policy, task_of
from efm_envs.data import Episode
from efm_envs.errors import EFMError, RewardModelError
from efm_envs.relabelling import Judgement, goal_of, judge, observations_for
from efm_envs.rewards import RewardSignal, make_reward_model
from efm_envs.rewards.base import needed_names
from efm_envs.task import Array, Goals

FORMAT = "efm.card/1"
LEAST_F1 = 0.5  # of a threshold that a model takes over
DEMONSTRATORS = ("human", "clean")  # the first of these that a task has


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
        made = {**config.options, "reward_model": "none", "terminate_on": "never"}
        self.env = gym.make(config.env, disable_env_checker=True, **made)
        seen: Any = self.env.unwrapped
        self.task, self.observer, self.step_limit = seen.task, seen.observer, int(seen.step_limit)
        self.model = make_reward_model(reward)
        if self.model.task not in (None, self.task.name):
            raise RewardModelError(
                f"reward model {self.model.id!r} was made for task {self.model.task!r}; {config.env}'s is {self.task.name!r}."
            )
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


def audit(
    reward: Any, config: AuditConfig, folder: Path | str, *, command: str = "", report: Report = no_report
) -> tuple[dict[str, Any], Any]:
    """Returns a reward model's card, and the strips that its page shows.

    Args:
        reward: as in `gym.make(..., reward_model=…)`.
        config: the settings.
        folder: gets the test sets.
        command: that makes this card, for the card.
        report: is told about progress.
    """
    from efm_benchmarks import audit_figures as figures  # it brings what draws

    one = Audit(reward, config, Path(folder) / "sets", report)
    try:
        one.collect()
        made: dict[str, Any] = {}
        for done, (name, figure) in enumerate(figures.FIGURES.items()):
            report("figures", done, len(figures.FIGURES), name)
            made[name] = figure(one)
        report("figures", len(figures.FIGURES), len(figures.FIGURES), "")
        success = made["success"]
        card = {
            "format": FORMAT,
            "env": config.env,
            "reward": one.model.spec,
            "kind": one.model.kind,
            "fingerprint": one.model.fingerprint,
            "policy": config.policy,
            "protocol": _protocol(one),
            "versions": versions(),
            "command": command,
            "figures": made,
            "recommended": success.pop("recommended", None),
        }
        return card, figures.strips(one)
    finally:
        one.close()


def _protocol(one: Audit) -> dict[str, Any]:
    config = one.config
    sets = {s.name: {"what": s.words, "episodes": len(one.judged[s.name])} for s in one.sets}
    return {
        "episodes": config.episodes,
        "states": config.states,
        "rollouts": config.rollouts,
        "seed": config.seed,
        "options": dict(config.options),
        "sets": sets,
        "success_threshold": one.signal.success_threshold,
        "success_k_of_n": list(one.signal.success_k_of_n),
    }


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Writes a card as JSON, whole or not at all."""
    write_atomically(path, (json.dumps(finite(card), indent=1, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """Returns JSON-able data with None in place of numbers that are not finite, and seven digits of the others."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def config_for(
    reward: Any,
    env: str | None,
    policy: str | None,
    options: Mapping[str, Any],
    **counts: int,
) -> AuditConfig:
    """Returns the settings of an audit, with what is left open filled in: a run's model is audited in the env that it was trained in.

    Args:
        reward: as in `gym.make(..., reward_model=…)`.
        env: a registered id; None is the run's, else PointMass.
        policy: None is the task's demonstrator, or random actions where it has none.
        options: for `gym.make`; none are the run's own, where it has any.
        **counts: the other settings.
    """
    trained = _training_of(reward)
    env = env or trained.get("env_id") or AuditConfig.env
    if policy is None:
        styles = task_of(env).experts
        policy = next((f"{EXPERT}{style}" for style in DEMONSTRATORS if style in styles), "random")
    return AuditConfig(env=env, policy=policy, options=dict(options or trained.get("options", {})), **counts)


def _training_of(reward: Any) -> dict[str, Any]:
    """Returns id and options of the env that a checkpoint's demonstrations are from; nothing for other models."""
    if not (isinstance(reward, Mapping) and reward.get("id") == "checkpoint"):
        return {}
    config = load_checkpoint(find_checkpoint(str(reward.get("path")), "steps_to_go"), "steps_to_go")[1]
    return {"env_id": config["env_id"], "options": config.get("options", {})}


def run(
    reward: Any, config: AuditConfig, out: Path, *, command: str, adopt: bool = True, report: Report = no_report
) -> tuple[dict[str, Any], Path, Any]:
    """Audits a model, and writes card.json and card.html; returns the card, the page's path, and the strips.

    Args:
        reward: as in `gym.make(..., reward_model=…)`.
        config: the settings.
        out: folder.
        command: that does this.
        adopt: leave the card beside a checkpoint, too, which then takes the recommended threshold, if that is worth it.
        report: is told about progress.
    """
    from efm_benchmarks.audit_page import card_page

    is_checkpoint = isinstance(reward, Mapping) and reward.get("id") == "checkpoint"
    asked = {**reward, "audited": False} if is_checkpoint else reward  # its own threshold is the one before any audit
    card, strips = audit(asked, config, out, command=command, report=report)
    if is_checkpoint:
        card["reward"] = dict(reward)
    card = finite({**card, "adopted": adopt and is_checkpoint and is_adoptable(card)})
    write_card(out / "card.json", card)
    page = out / "card.html"
    write_atomically(page, card_page(card, strips).encode())
    if card["adopted"]:
        write_card(card_beside(find_checkpoint(str(reward["path"]), "steps_to_go")), card)
    return card, page, strips


def is_adoptable(card: Mapping[str, Any]) -> bool:
    """Whether what is recommended tells success well enough to become a model's own: F1 of 0.5 or more."""
    return card["recommended"] is not None and card["recommended"]["cost"]["f1"] >= LEAST_F1


def in_short(card: Mapping[str, Any]) -> list[str]:
    """Returns a card's main figures, a line each."""
    figures, recommended = card["figures"], card["recommended"]
    lines = [f"{card['reward']['id']} in {card['env']}:"]
    if "all" in (calibration := figures["calibration"]):
        whole, said, left = calibration["all"], near(calibration, "said"), near(calibration, "realised")
        lines.append(f"error {_n(whole['mae'])} steps (of a constant: {_n(whole['mae_of_constant'])}), bias {_n(whole['bias'])}")
        lines.append(f"where d is smallest it says {_n(said)} steps, and {_n(left)} were left")
    if "forward" in (order := figures["order"]):
        lines.append(f"order along good episodes {_n(order['forward'])} (1 is perfect), backwards {_n(order['backward'])}")
    hacking = figures["hacking"]
    lines.append(f"fooled in {_percent(hacking['rate'])} of {hacking['episodes_without_success']} episodes without success")
    lines.append(f"{_n(figures['cost']['latency_ms_1'], 4)} ms a call, {_n(figures['cost']['latency_ms_64'], 4)} ms for 64")
    if recommended is None:
        return [*lines, "no threshold tells success"]
    taken = "taken over by the checkpoint" if card.get("adopted") else "not taken over"
    return [*lines, f"recommended threshold, {taken}: {recommended['reason']}"]


def _n(value: float | None, digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"
