"""Stage 1, supervised fine-tuning: learn to act like the demonstrations, and to say how far they had to go (paper, §2.1).

    L_BC  = −E[log π(a_t | o_t, g)]            L_stg = −E[log p(t′ − t | o_t, g)]

The goal is the one that the demonstration reached, so t′ is its last step. Each loss keeps its own best checkpoint on held-out
demonstrations: the paper takes them from different steps (App. B).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_agents.checkpoint import copy_weights, load_checkpoint, pack, pack_optimizer, save_checkpoint, unpack, unpack_optimizer
from efm_agents.config import SFTConfig
from efm_agents.model import Inputs, Policy, StepsToGoNetwork
from efm_agents.run import Report, Run, no_report, to_settings
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.seeding import Stream, generator

IGNORED = ("instruction",)  # these networks read numbers only


@dataclass(frozen=True)
class Dataset:
    """Demonstrations as tensors.

    Attributes:
        features: (M, F) what the networks read before each action, and at the end of each demonstration.
        actions: (M, A); the rows at an end are not used.
        steps_to_go: (M,) control steps to the end.
        acting: (n,) int64, the rows at which an action was taken.
    """

    features: Tensor
    actions: Tensor
    steps_to_go: Tensor
    acting: Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode], inputs: Inputs) -> "Dataset":
        """Joins the demonstrations."""
        lengths = np.array([len(e) for e in episodes])
        no_action = np.zeros((1, *episodes[0].actions.shape[1:]), np.float32)
        actions = np.concatenate([np.concatenate([e.actions, no_action]) for e in episodes])
        steps_to_go = np.concatenate([np.arange(length, -1, -1) for length in lengths])
        return cls(
            features=torch.cat([inputs.features(e.observations) for e in episodes]),
            actions=torch.from_numpy(actions.astype(np.float32)),
            steps_to_go=torch.from_numpy(steps_to_go),
            acting=torch.from_numpy(np.flatnonzero(steps_to_go > 0)),
        )


def train(
    demonstrations: Sequence[Episode],
    folder: Path | str,
    config: SFTConfig,
    *,
    task: str,
    options: Mapping[str, Any] | None = None,
    report: Report = no_report,
) -> Path:
    """Trains policy and steps-to-go model on demonstrations; resumes a run that was broken off, with the same result to the last bit.

    Args:
        demonstrations: whole episodes that reached their goals.
        folder: of the run; gets checkpoints/policy.safetensors and checkpoints/steps_to_go.safetensors.
        config: the settings.
        task: name of the task, which the checkpoints carry, as they do
        options: for `gym.make`, with which the demonstrations were made.
        report: is told about progress.

    Returns:
        The folder.

    Raises:
        EFMError: demonstrations that cannot be learned from, or a folder that holds another run.
    """
    first = _checked(demonstrations)
    run = Run(folder, "sft", {**to_settings(config), "env_id": first.env_id, "demonstrations": _describe(demonstrations)})
    rng = generator(Stream.TRAINING, config.seed)
    training, held_out = _split(demonstrations, config.validation_fraction, rng)
    inputs = _inputs(first)
    data, validation = Dataset.of(training, inputs), Dataset.of(held_out, inputs)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        policy = Policy(inputs, config.hidden, first.actions.shape[1], config.action_bins)
        steps_to_go = StepsToGoNetwork(inputs, config.hidden, config.bins, config.max_steps_to_go)
    networks: dict[str, Policy | StepsToGoNetwork] = {"policy": policy, "steps_to_go": steps_to_go}
    policy.normalise(data.features)
    if config.normalise_steps_to_go:
        steps_to_go.normalise(data.features)
    learning_rates = (config.learning_rate, config.steps_to_go_learning_rate)
    groups = [{"params": network.parameters(), "lr": lr} for network, lr in zip(networks.values(), learning_rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    best = {name: {"loss": float("inf"), "step": 0} for name in networks}
    best_weights = {name: copy_weights(network) for name, network in networks.items()}
    step = 0

    state_path = run.checkpoint("state")
    if state_path.is_file():
        tensors, state = load_checkpoint(state_path, "sft-state")
        for name, network in networks.items():
            network.load_state_dict(unpack(name, tensors))
            best_weights[name] = unpack(f"best/{name}", tensors)
        unpack_optimizer("optimizer", tensors, optimizer)
        rng.bit_generator.state, step, best = state["rng"], state["step"], state["best"]
    run.forget_after("metrics", "step", step)

    while step < config.steps:
        until = min(step + config.validate_every, config.steps)
        losses = []
        for now in range(step, until):
            for group, lr in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = lr * (1 + math.cos(math.pi * now / config.steps)) / 2
            rows = torch.from_numpy(rng.integers(0, len(data.features), config.batch))
            acting = data.acting[torch.from_numpy(rng.integers(0, len(data.acting), config.batch))]
            loss = policy_loss(policy, data, acting) + steps_to_go_loss(steps_to_go, data, rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        step = until
        training_loss = torch.stack(losses).mean().item()
        if not np.isfinite(training_loss):
            raise EFMError(f"the loss became {training_loss} before step {step}: lower learning_rate, now {config.learning_rate}.")

        with torch.inference_mode():
            validated = {
                "policy": policy_loss(policy, validation, validation.acting).item(),
                "steps_to_go": steps_to_go_loss(steps_to_go, validation, torch.arange(len(validation.features))).item(),
            }
        for name, loss_now in validated.items():
            if loss_now < best[name]["loss"]:
                best[name], best_weights[name] = {"loss": loss_now, "step": step}, copy_weights(networks[name])
        run.append("metrics", [{"step": step, "loss": training_loss, **{f"validation/{name}": value for name, value in validated.items()}}])
        tensors = {**pack_optimizer("optimizer", optimizer)}
        for name, network in networks.items():
            tensors |= pack(name, network.state_dict()) | pack(f"best/{name}", best_weights[name])
        save_checkpoint(state_path, "sft-state", tensors, {"rng": rng.bit_generator.state, "step": step, "best": best})
        report("sft", step, config.steps, f"held-out loss: policy {validated['policy']:.2f}, steps-to-go {validated['steps_to_go']:.2f}")

    facts: dict[str, Any] = {"task": task, "env_id": first.env_id, "options": dict(options or {}), "seed": config.seed}
    facts["demonstrations"] = len(demonstrations)
    steps_to_go.load_state_dict(best_weights["steps_to_go"])
    threshold = choose_success_threshold(steps_to_go, validation)
    save_checkpoint(run.checkpoint("policy"), "policy", best_weights["policy"], {**facts, "model": policy.config, "best": best["policy"]})
    save_checkpoint(
        run.checkpoint("steps_to_go"),
        "steps_to_go",
        best_weights["steps_to_go"],
        {**facts, "model": steps_to_go.config, "best": best["steps_to_go"], "success_threshold": threshold},
    )
    return run.folder


def policy_loss(policy: Policy, data: Dataset, rows: Tensor) -> Tensor:
    """Returns L_BC over the given rows."""
    return -policy.log_prob(data.features[rows], data.actions[rows]).mean()


def steps_to_go_loss(network: StepsToGoNetwork, data: Dataset, rows: Tensor) -> Tensor:
    """Returns L_stg over the given rows: cross-entropy with the bin that holds the true number of steps."""
    return torch.nn.functional.cross_entropy(network(data.features[rows]), network.bin_of(data.steps_to_go[rows]))


def choose_success_threshold(network: StepsToGoNetwork, data: Dataset) -> float:
    """Returns s, in [control steps], for success 1[d ≤ s].

    Of the values that d takes on held-out demonstrations it is the one that best tells their last observations from all others, by F1.
    The paper says only that s is "a very small number of timesteps".
    """
    d = network.steps_to_go(data.features).mean
    is_last = data.steps_to_go.numpy() == 0
    order = np.argsort(d, kind="stable")
    hits = np.cumsum(is_last[order])
    f1 = 2 * hits / (np.arange(1, len(d) + 1) + is_last.sum())
    is_reachable = np.append(np.diff(d[order]) > 0, True)  # of equal values, a threshold takes all
    return float(d[order[np.argmax(np.where(is_reachable, f1, 0.0))]])


def _checked(demonstrations: Sequence[Episode]) -> Episode:
    if len(demonstrations) < 2:
        raise EFMError(f"SFT needs at least 2 demonstrations, one of them to hold out; got {len(demonstrations)}.")
    failed = [e.seed for e in demonstrations if e.end_reason != "terminated"]
    if failed:
        raise EFMError(f"SFT learns from demonstrations that reached their goal; {len(failed)} did not, the first with seed {failed[0]}.")
    return demonstrations[0]


def _describe(demonstrations: Sequence[Episode]) -> str:
    """Returns their number and a hash of what is learned from, so that a run is not resumed on other ones."""
    digest = hashlib.sha256()
    for episode in demonstrations:
        for array in (*episode.observations.values(), episode.actions):
            digest.update(array.tobytes())
    return f"{len(demonstrations)} ({digest.hexdigest()[:16]})"


def _split(demonstrations: Sequence[Episode], fraction: float, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    order = rng.permutation(len(demonstrations))
    held_out = max(1, round(fraction * len(order)))
    return [demonstrations[i] for i in order[held_out:]], [demonstrations[i] for i in order[:held_out]]


def _inputs(episode: Episode) -> Inputs:
    names = tuple(name for name in episode.observations if name not in IGNORED)
    images = [name for name in names if episode.observations[name].ndim != 2]
    if images:
        raise EFMError(f"this agent reads state observations; the demonstrations hold {images}. Collect them with obs_mode='state'.")
    return Inputs(names, tuple(episode.observations[name].shape[1] for name in names))
