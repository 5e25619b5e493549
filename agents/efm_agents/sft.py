"""Stage 1, supervised fine-tuning: learn to act like the demonstrations, and to say how far they had to go (paper, §2.1).

    L_BC  = −E[log π(a_t | o_t, g)]            L_stg = −E[log p(t′ − t | o_t, g)]

A step draws as many transitions for the one as for the other, from one model. The goal is the one that the demonstration reached, so t′ is
its last step. Each loss keeps its own best checkpoint on held-out demonstrations: the paper takes them from different steps (App. B), and
steps-to-go prediction over-fits long before the policy does. A third loss, which tells the instruction from the first and the last
observation, is there to be switched on (App. A).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from efm_agents.checkpoint import copy_weights, load_checkpoint, pack, pack_optimizer, save_checkpoint, unpack, unpack_optimizer
from efm_agents.config import SFTConfig
from efm_agents.dataset import Dataset, Mixed, as_mixture, describe, split
from efm_agents.devices import device_for, explain_out_of_memory
from efm_agents.inputs import Reads, take
from efm_agents.model import EmbodiedModel, build_model, fresh_generator, to_config
from efm_agents.run import Report, Run, no_report, to_settings
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.registration import ids
from efm_envs.seeding import Stream, generator

TIMED_STEPS = 5  # of a plan
VALIDATION_ROWS = 4096  # rows of a validation that are in memory at once

Loss = Callable[[EmbodiedModel, Dataset, Tensor], Tensor]  # (n,), a loss for each row


def train(
    demonstrations: Sequence[Episode] | Sequence[Mixed],
    folder: Path | str,
    config: SFTConfig,
    *,
    task: str,
    options: Mapping[str, Any] | None = None,
    loggers: Sequence[str] = (),
    report: Report = no_report,
) -> Path:
    """Trains a model on demonstrations; resumes a run that was broken off, with the same result to the last bit.

    Args:
        demonstrations: whole episodes that reached their goals, or a mixture of several kinds of them.
        folder: of the run; gets checkpoints/policy.safetensors and checkpoints/steps_to_go.safetensors.
        config: the settings.
        task: name of the task, which the checkpoints carry, as they do
        options: for `gym.make`, with which the demonstrations were made.
        loggers: where figures go besides the run's files: "tensorboard", "trackio", "wandb".
        report: is told about progress.

    Returns:
        The folder.

    Raises:
        EFMError: demonstrations that cannot be learned from, or a folder that holds another run.
    """
    mixture = as_mixture(demonstrations)
    everything = [episode for kind in mixture for episode in kind.episodes]
    first = everything[0]
    run = Run(folder, "sft", {**to_settings(config), "env_id": first.env_id, "demonstrations": describe(mixture)}, loggers)
    rng = generator(Stream.TRAINING, config.seed)
    model, data, validation = prepare(mixture, config, options or {}, rng)
    losses: dict[str, Loss] = {"policy": policy_loss, "steps_to_go": steps_to_go_loss}
    rows = {"policy": validation.acting.all(), "steps_to_go": validation.telling.all()}

    # Two groups of weights: those of steps-to-go prediction alone may have a learning rate of their own.
    telling = {id(weight) for weight in model.telling_parameters()}
    groups = [[w for w in model.parameters() if w.requires_grad and (id(w) in telling) == is_telling] for is_telling in (False, True)]
    learning_rates = (config.learning_rate, config.steps_to_go_learning_rate or config.learning_rate)
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], weight_decay=config.weight_decay, fused=True)
    average = copy_weights(model) if config.ema else {}
    last_weights = average or copy_weights(model)
    progress: dict[str, Any] = {"step": 0, "best": {name: {"loss": float("inf"), "step": 0} for name in losses}}
    best_weights = {name: copy_weights(model) for name in losses}

    state_path = run.checkpoint("state")
    if state_path.is_file():
        tensors, state = load_checkpoint(state_path, "sft-state")
        model.load_state_dict(unpack("model", tensors))
        best_weights = {name: unpack(f"best/{name}", tensors) for name in losses}
        average = unpack("average", tensors)
        last_weights = average or copy_weights(model)
        unpack_optimizer("optimizer", tensors, optimizer)
        rng.bit_generator.state, progress = state["rng"], state["progress"]
    run.forget_after("metrics", "step", progress["step"])

    while progress["step"] < config.steps and not _is_flat(progress, config):
        until = min(progress["step"] + config.validate_every, config.steps)
        seen = []
        for now in range(progress["step"], until):
            for group, lr in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = lr * min(1.0, (now + 1) / max(config.warmup, 1)) * (1 + math.cos(math.pi * now / config.steps)) / 2
            with explain_out_of_memory():
                telling_rows, acting_rows = data.telling.draw(config.batch, rng), data.acting.draw(config.batch, rng)
                loss = policy_loss(model, data, acting_rows).mean() + steps_to_go_loss(model, data, telling_rows).mean()
                if config.instruction_weight:
                    drawn = torch.from_numpy(rng.integers(0, len(data.ends), config.batch))
                    loss = loss + config.instruction_weight * instruction_loss(model, data, drawn).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            seen.append(loss.detach())
            for name, weight in model.state_dict().items() if average else ():
                average[name].lerp_(weight, 1.0 - config.ema) if weight.is_floating_point() else average[name].copy_(weight)
        progress["step"] = until
        training_loss = torch.stack(seen).mean().item()
        if not np.isfinite(training_loss):
            raise EFMError(f"the loss became {training_loss} before step {until}: lower learning_rate, now {config.learning_rate}.")

        # Look at held-out demonstrations, and keep what is best for each of the two.
        now_weights = copy_weights(model)
        last_weights = average or now_weights
        model.load_state_dict(last_weights)
        validated = {name: validation_loss(model, validation, loss_of, rows[name]) for name, loss_of in losses.items()}
        for name, loss_now in validated.items():
            if loss_now < progress["best"][name]["loss"]:
                progress["best"][name], best_weights[name] = {"loss": loss_now, "step": until}, copy_weights(model)
        model.load_state_dict(now_weights)
        run.append(
            "metrics", [{"step": until, "loss": training_loss, **{f"validation/{name}": value for name, value in validated.items()}}]
        )
        tensors = pack("model", now_weights) | pack("average", average) | pack_optimizer("optimizer", optimizer)
        for name, weights in best_weights.items():
            tensors |= pack(f"best/{name}", weights)
        save_checkpoint(state_path, "sft-state", tensors, {"rng": rng.bit_generator.state, "progress": progress})
        report("sft", until, config.steps, f"held-out loss: policy {validated['policy']:.2f}, steps-to-go {validated['steps_to_go']:.2f}")

    facts: dict[str, Any] = {"task": task, "env_id": first.env_id, "options": dict(options or {}), "seed": config.seed}
    facts |= {"demonstrations": len(everything), "model": model.config}
    best = progress["best"]
    chosen, at = (
        (best_weights["policy"], best["policy"]) if config.policy_checkpoint == "best" else (last_weights, {"step": progress["step"]})
    )
    save_checkpoint(run.checkpoint("policy"), "policy", chosen, {**facts, "best": at})
    model.load_state_dict(best_weights["steps_to_go"])
    threshold = choose_success_threshold(model, validation)
    facts |= {"best": best["steps_to_go"], "success_threshold": threshold}
    save_checkpoint(run.checkpoint("steps_to_go"), "steps_to_go", best_weights["steps_to_go"], facts)
    run.close()
    return run.folder


def objects_of(env_id: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of what `environment_state` lists in an env of this project; none for others'."""
    if env_id not in ids():
        return ()
    env: Any = gym.make(env_id, disable_env_checker=True, **{**options, "reward_model": "none"})
    names = tuple(env.unwrapped.task.object_names)
    env.close()
    return names


def prepare(
    mixture: Sequence[Mixed], config: SFTConfig, options: Mapping[str, Any], rng: np.random.Generator
) -> tuple[EmbodiedModel, Dataset, Dataset]:
    """Returns a fresh model, and as it reads them the demonstrations to learn from and those that are held out."""
    training, held_out = split(mixture, config.validation_fraction, rng)
    everything = [episode for kind in mixture for episode in kind.episodes]
    first, longest = everything[0], max(map(len, everything))
    reads = Reads.of(everything, objects_of(first.env_id, options))
    with fresh_generator():
        torch.manual_seed(int(rng.integers(2**31)))
        model = build_model(to_config(config.model, reads, first.actions.shape[1], longest, config.instruction_weight > 0))
    model = model.to(device_for(config.model.backbone, config.device))
    data, validation = Dataset.of(training, model), Dataset.of(held_out, model)
    model.prepare(data.inputs)
    return model, data, validation


def plan(
    demonstrations: Sequence[Episode] | Sequence[Mixed], config: SFTConfig, *, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns what training would be: its data, its model, its steps, and how long it would take here, by a few steps that are timed.

    Nothing is written.

    Raises:
        EFMError: as `train`.
    """
    mixture = as_mixture(demonstrations)
    rng = generator(Stream.TRAINING, config.seed)
    model, data, validation = prepare(mixture, config, options or {}, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def step() -> None:
        acting, telling = data.acting.draw(config.batch, rng), data.telling.draw(config.batch, rng)
        loss = policy_loss(model, data, acting).mean() + steps_to_go_loss(model, data, telling).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()  # the first one takes longer
    begun = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    a_step = (time.perf_counter() - begun) / TIMED_STEPS
    begun = time.perf_counter()
    validation_loss(model, validation, policy_loss, validation.acting.all())
    validation_loss(model, validation, steps_to_go_loss, validation.telling.all())
    validations = math.ceil(config.steps / config.validate_every)
    seconds = config.steps * a_step + validations * (time.perf_counter() - begun)
    return {
        "demonstrations": sum(len(kind.episodes) for kind in mixture),
        "held_out": len(validation.ends),
        "transitions": int((data.steps_to_go > 0).sum()),
        "reads": list(model.reads.observations),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": config.steps,
        "passes": config.steps * config.batch / int((data.steps_to_go > 0).sum()),
        "minutes": seconds / 60,
    }


def policy_loss(model: EmbodiedModel, data: Dataset, rows: Tensor) -> Tensor:
    """Returns L_BC (n,) of the given rows."""
    return -model.log_prob(take(data.inputs, rows), data.actions[rows])


def steps_to_go_loss(model: EmbodiedModel, data: Dataset, rows: Tensor) -> Tensor:
    """Returns L_stg (n,) of the given rows: cross-entropy with the bin that holds the true number of steps."""
    logits = model.steps_to_go_logits(take(data.inputs, rows))
    return torch.nn.functional.cross_entropy(logits, model.bin_of(data.steps_to_go[rows].to(logits.device)), reduction="none")


def instruction_loss(model: EmbodiedModel, data: Dataset, demonstrations: Tensor) -> Tensor:
    """Returns (n,): cross-entropy of the instruction's words, told from the first and the last observation of the given demonstrations."""
    first, last = (take(data.inputs, data.ends[demonstrations, side]) for side in (0, 1))
    return -model.instruction_log_prob(first, last)


def validation_loss(model: EmbodiedModel, data: Dataset, loss: Loss, rows: Tensor) -> float:
    """Returns the mean of a loss over the given rows."""
    with torch.inference_mode():
        return torch.cat([loss(model, data, some).float().cpu() for some in rows.split(VALIDATION_ROWS)]).mean().item()


def choose_success_threshold(model: EmbodiedModel, data: Dataset) -> float:
    """Returns s, in [control steps], for success 1[d ≤ s].

    Of the values that d takes on held-out demonstrations it is the one that best tells their last observations from all others, by F1.
    The paper says only that s is "a very small number of timesteps".
    """
    rows = data.telling.all()
    d = np.concatenate([model.steps_to_go(take(data.inputs, some)).mean for some in rows.split(VALIDATION_ROWS)])
    is_last = data.steps_to_go[rows].numpy() == 0
    order = np.argsort(d, kind="stable")
    hits = np.cumsum(is_last[order])
    f1 = 2 * hits / (np.arange(1, len(d) + 1) + is_last.sum())
    is_reachable = np.append(np.diff(d[order]) > 0, True)  # of equal values, a threshold takes all
    return float(d[order[np.argmax(np.where(is_reachable, f1, 0.0))]])


def _is_flat(progress: Mapping[str, Any], config: SFTConfig) -> bool:
    """Whether no held-out loss got better for `patience` validations."""
    last = max(best["step"] for best in progress["best"].values())
    return bool(config.patience) and progress["step"] - last >= config.patience * config.validate_every
