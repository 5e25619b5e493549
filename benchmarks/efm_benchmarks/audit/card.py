"""A reward model's card: everything that was found out about it, as JSON and as a page."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efm_agents.checkpoint import find_checkpoint, load_checkpoint, write_atomically
from efm_agents.reward_model import card_beside
from efm_agents.run import Report, no_report, versions
from efm_benchmarks.audit.answers import near
from efm_benchmarks.audit.asking import DEMONSTRATORS, Audit, AuditConfig, Figure
from efm_benchmarks.audit.cost import cost
from efm_benchmarks.audit.ranking import hacking, ranking
from efm_benchmarks.audit.rollouts import hitting_times
from efm_benchmarks.audit.steps import calibration, distribution, order
from efm_benchmarks.audit.strips import Strip, strips
from efm_benchmarks.audit.success import success
from efm_benchmarks.audit.trials import counterfactual, reaction, robustness
from efm_benchmarks.policies import EXPERT, task_of

FORMAT = "efm.card/1"
LEAST_F1 = 0.5  # of a threshold that a model takes over
FIGURES: dict[str, Callable[[Audit], Figure]] = {
    "calibration": calibration,
    "distribution": distribution,
    "hitting_times": hitting_times,
    "order": order,
    "success": success,
    "reaction": reaction,
    "counterfactual": counterfactual,
    "robustness": robustness,
    "ranking": ranking,
    "hacking": hacking,
    "cost": cost,
}


def audit(
    reward: Any, config: AuditConfig, folder: Path | str, *, command: str = "", report: Report = no_report
) -> tuple[dict[str, Any], list[Strip]]:
    """Returns a reward model's card, and the strips that its page shows.

    Args:
        reward: as in `gym.make(..., reward_model=…)`.
        config: the settings.
        folder: gets the test sets.
        command: that makes this card, for the card.
        report: is told about progress.
    """
    one = Audit(reward, config, Path(folder) / "sets", report)
    try:
        one.collect()
        made: dict[str, Any] = {}
        for done, (name, figure) in enumerate(FIGURES.items()):
            report("figures", done, len(FIGURES), name)
            made[name] = figure(one)
        report("figures", len(FIGURES), len(FIGURES), "")
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
            "recommended": made["success"].pop("recommended", None),
        }
        return card, strips(one)
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
) -> tuple[dict[str, Any], Path, list[Strip]]:
    """Audits a model, and writes card.json and card.html; returns the card, the page's path, and the strips.

    Args:
        reward: as in `gym.make(..., reward_model=…)`.
        config: the settings.
        out: folder.
        command: that does this.
        adopt: leave the card beside a checkpoint, too, which then takes the recommended threshold, if that is worth it.
        report: is told about progress.
    """
    from efm_benchmarks.audit.page import card_page

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
