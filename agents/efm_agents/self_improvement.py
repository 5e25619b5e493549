"""Stage 2, Self-Improvement: practise on one's own steps-to-go reward (paper, Algorithm 1). Read from top to bottom.

A round collects whole episodes until there are N·B transitions. A frozen copy of the stage-1 model gives the reward
r_t = d(o_t) − d(o_{t+1}) and says when an episode has succeeded. Then come N updates with −c · R_t · log π(a_t | o_t, g) on
minibatches of B drawn without replacement, and the round's data is thrown away. R_t is the discounted Monte-Carlo return: no value
network, no bootstrap at a time-out, no KL term, and nothing is subtracted, since the return carries its own baseline d(o_t) (App. G).
That is the preset `paper`. The preset `efficient` learns more of each episode: several passes with PPO's clipped ratio, less a baseline
that is a function of the state.

With `terminate_on="predicted"` no ground truth is used to learn, to choose the best checkpoint, or to stop; it is only written down beside.

Deviations from the paper are listed in agents/README.md.
"""

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_agents.baseline import Baseline, explained
from efm_agents.checkpoint import (
    copy_weights,
    find_checkpoint,
    fingerprint,
    load_checkpoint,
    pack,
    pack_optimizer,
    save_checkpoint,
    unpack,
    unpack_optimizer,
)
from efm_agents.config import ImproveConfig
from efm_agents.devices import device_for, explain_out_of_memory
from efm_agents.inputs import take
from efm_agents.model import EmbodiedModel, rebuild_model
from efm_agents.policy import make_policy, torch_generator
from efm_agents.practice import Decisions, has_collapsed, has_levelled_off, practice_metrics, practice_score
from efm_agents.reward_model import CheckpointRewardModel
from efm_agents.rollout import make_vector_env, rollout
from efm_agents.run import Report, Run, no_report, read_log, to_settings
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.evaluation import EpisodeRecord
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator
from efm_envs.vector import EFMVectorEnv

ROWS = 4096  # decisions that are scored at once where no gradient is wanted


def train(
    policy_checkpoint: Path | str,
    folder: Path | str,
    config: ImproveConfig,
    *,
    reward_checkpoint: Path | str | None = None,
    loggers: Sequence[str] = (),
    report: Report = no_report,
) -> Path:
    """Improves a policy by practice; resumes a run that was broken off, with the same result to the last bit.

    Args:
        policy_checkpoint: the stage-1 run, or its policy.safetensors: where the policy starts.
        folder: of the run. It gets checkpoints/policy.safetensors (the best of practice), checkpoints/last.safetensors
            (the last round), metrics.jsonl and episodes.jsonl (practice), and monitoring.jsonl (ground truth, for the learning curve).
        config: the settings.
        reward_checkpoint: the stage-1 run, or its steps_to_go.safetensors: gives reward and success, and stays as it is. None takes it
            from the same run as the policy.
        loggers: where figures go besides the run's files: "tensorboard", "trackio", "wandb".
        report: is told about progress.

    Returns:
        The folder.
    """
    policy_file = find_checkpoint(policy_checkpoint, "policy")
    reward_file = find_checkpoint(reward_checkpoint or policy_checkpoint, "steps_to_go")
    weights, start = load_checkpoint(policy_file, "policy")
    run = Run(
        folder, "improve", {**to_settings(config), "policy": fingerprint(policy_file), "reward_model": fingerprint(reward_file)}, loggers
    )
    options = start.get("options", {})  # with which the demonstrations were made
    facts = {"task": start["task"], "env_id": start["env_id"], "options": options, "model": start["model"], "seed": config.seed}

    device = device_for(start["model"]["backbone"], config.device)
    model = rebuild_model(start["model"], weights).to(device)
    started_from = rebuild_model(start["model"], weights).requires_grad_(False).to(device)
    reward_model = CheckpointRewardModel(str(reward_file))
    if config.reward_update_rounds and reward_model.model.config != model.config:
        raise EFMError("reward_update_rounds copies the practising model into the reward model: both must be of one architecture.")
    practising = [weight for weight in model.practising_parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(practising, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    baseline = Baseline(config.baseline_rounds)
    rng = generator(Stream.TRAINING, config.seed, 1)
    action_generator = torch_generator(config.seed, Stream.TRAINING)
    best_weights = copy_weights(model)
    progress: dict[str, Any] = {"iteration": 0, "episodes": 0, "best_score": -1.0, "best_iteration": 0, "stopped": None}
    scores: list[float] = []

    state_path = run.checkpoint("state")
    if state_path.is_file():
        tensors, state = load_checkpoint(state_path, "improve-state")
        model.load_state_dict(unpack("policy", tensors))
        best_weights = unpack("best", tensors)
        unpack_optimizer("optimizer", tensors, optimizer)
        baseline.from_tensors(unpack("baseline", tensors))
        reward_model.model.load_state_dict(unpack("reward_model", tensors) or reward_model.model.state_dict())
        action_generator.set_state(tensors["action_generator"])
        rng.bit_generator.state, scores, progress = state["rng"], state["scores"], state["progress"]
    run.forget_after("metrics", "iteration", progress["iteration"])
    run.forget_after("episodes", "iteration", progress["iteration"])
    run.forget_after("monitoring", "iteration", progress["iteration"] - 1)  # the look before this round comes again

    made = {**options, **({"step_limit": config.step_limit} if config.step_limit else {})}
    ends = {"terminate_on": config.terminate_on, "success_threshold": config.success_threshold}
    practice_envs = make_vector_env(start["env_id"], config.num_envs, reward_model=reward_model, **{**made, **ends})
    monitoring_envs = make_vector_env(start["env_id"], config.num_envs, reward_model="none", **{**made, "terminate_on": "true"})
    policy = make_policy(model, action_generator)
    while (wanted := episodes_of_round(config, progress)) != 0 and progress["stopped"] is None:
        if config.monitor_every and progress["iteration"] % config.monitor_every == 0:
            run.append("monitoring", [monitor(model, monitoring_envs, config, progress)])

        # Practise: a fresh buffer of whole episodes.
        seeds = episode_seeds(EpisodeSet.PRACTICE, config.seed, start=progress["episodes"])
        seeds = islice(seeds, wanted)
        min_steps = config.updates * config.batch * model.chunk if wanted is None else None
        episodes = list(rollout(policy, practice_envs, seeds, min_steps=min_steps))
        scores.append(practice_score(episodes))
        recent = float(np.mean(scores[-config.score_window :]))  # one round is a few dozen episodes: too few to choose by
        if len(scores) >= min(config.score_window, config.iterations) and recent > progress["best_score"]:
            best_weights, progress["best_score"], progress["best_iteration"] = copy_weights(model), recent, progress["iteration"]

        # Snapshots: what has learned from at most so many episodes.
        for n in config.snapshots:
            if progress["episodes"] < n < progress["episodes"] + len(episodes):
                save_checkpoint(run.checkpoint(snapshot_name(n)), "policy", model.state_dict(), {**facts, **progress})

        # Judge: returns, less what was to be expected in that state.
        decisions = Decisions.of(episodes, model, config.gamma, config.reward_kind)
        advantages, found = decisions.returns, {}
        if config.baseline_rounds:
            features = torch.cat([reward_model.model.features(take(decisions.inputs, rows)) for rows in all_rows(len(decisions))])
            expected = baseline.expected(features, decisions.d, decisions.returns)
            advantages, found = decisions.returns - expected, {"explained": explained(decisions.returns, expected)}
        log_prob_then, log_prob_at_start = log_prob_of(model, decisions), log_prob_of(started_from, decisions)

        # Learn: N updates of B transitions, none of them twice; or several passes over all of them.
        losses = []
        for rows in minibatches(len(decisions), config, rng):
            with explain_out_of_memory():
                log_prob = model.log_prob(take(decisions.inputs, rows), decisions.actions[rows])
                then, advantage = log_prob_then[rows].to(log_prob.device), advantages[rows].to(log_prob.device)
                loss = config.loss_scale * reinforce_loss(log_prob, then, advantage, config.ratio_clip)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            if not all(torch.isfinite(p.grad).all() for p in practising if p.grad is not None):
                progress["stopped"] = "not finite"
                break
            optimizer.step()
            losses.append(loss.item())
        if not torch.isfinite(log_prob_of(model, decisions)).all():  # the last update broke it: no gradient has seen that yet
            progress["stopped"] = "not finite"
        if progress["stopped"] is None and has_collapsed(scores, config.score_window, config.collapse_ratio):
            progress["stopped"] = "collapsed"
        if progress["stopped"] is None and has_levelled_off(scores, config.score_window, config.plateau_rounds):
            progress["stopped"] = "levelled off"

        # Write down: rows first, then the checkpoint that makes them count.
        progress["iteration"] += 1
        progress["episodes"] += len(episodes)
        iteration = progress["iteration"]
        if config.reward_update_rounds and iteration % config.reward_update_rounds == 0:
            reward_model.model.load_state_dict(model.state_dict())
        metrics = practice_metrics(episodes) | {
            "return": decisions.returns.mean().item(),
            "loss": float(np.mean(losses or [0.0])),
            "entropy": entropy_of(model, decisions),
            "kl": (log_prob_then - log_prob_at_start).mean().item(),  # KL(π ‖ π_SFT) a decision, by the actions that were drawn
            **found,
        }
        run.append("metrics", [{"iteration": iteration, "practice_episodes": progress["episodes"], "score": scores[-1], **metrics}])
        run.append("episodes", [{"iteration": iteration, **dataclasses.asdict(EpisodeRecord.of(e))} for e in episodes])
        if progress["episodes"] in config.snapshots:
            save_checkpoint(run.checkpoint(snapshot_name(progress["episodes"])), "policy", model.state_dict(), {**facts, **progress})
        tensors = pack("policy", model.state_dict()) | pack("best", best_weights) | pack_optimizer("optimizer", optimizer)
        tensors |= pack("baseline", baseline.to_tensors()) | {"action_generator": action_generator.get_state()}
        tensors |= pack("reward_model", reward_model.model.state_dict()) if config.reward_update_rounds else {}
        save_checkpoint(state_path, "improve-state", tensors, {"rng": rng.bit_generator.state, "scores": scores, "progress": progress})
        words = f"success: predicted {metrics['predicted_success']:.2f}, true {metrics['success']:.2f}; {metrics['steps']:.1f} steps"
        done = (progress["episodes"], config.episodes) if config.episodes else (iteration, config.iterations)
        report("improve", *done, words)

    if config.monitor_every and progress["stopped"] != "not finite":
        run.append("monitoring", [monitor(model, monitoring_envs, config, progress)])
    outcome = {"stopped": progress["stopped"] or "finished", "iterations": progress["iteration"], "practice_episodes": progress["episodes"]}
    best = {"best_iteration": progress["best_iteration"], "best_score": progress["best_score"]}
    save_checkpoint(run.checkpoint("last"), "policy", model.state_dict(), {**facts, **outcome})
    save_checkpoint(run.checkpoint("policy"), "policy", best_weights, {**facts, **outcome, **best})
    run.close()
    return run.folder


def plan(policy_checkpoint: Path | str, config: ImproveConfig, *, reward_checkpoint: Path | str | None = None) -> dict[str, Any]:
    """Returns what practice would be, and how long it would take here, by a first round played in a temporary folder.

    Rounds become shorter, or longer, as the policy changes.
    """
    first = dataclasses.replace(config, iterations=1, monitor_every=0, snapshots=())
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        (row,) = read_log(train(policy_checkpoint, folder, first, reward_checkpoint=reward_checkpoint) / "metrics.jsonl")
        seconds = time.perf_counter() - begun
    rounds = config.iterations
    if config.episodes is not None:
        rounds = min(rounds, math.ceil(config.episodes / row["practice_episodes"]))
    return {
        "rounds": rounds,
        "episodes_of_the_first_round": row["practice_episodes"],
        "steps_an_episode": row["steps"],
        "minutes": rounds * seconds / 60,
    }


def episodes_of_round(config: ImproveConfig, progress: Mapping[str, Any]) -> int | None:
    """Returns how many episodes the next round has: 0 at the end, None for as many as give N·B transitions.

    A round ends where a snapshot is due, so that the snapshot has learned from exactly so many.
    """
    if progress["iteration"] >= config.iterations:
        return 0
    if config.episodes_per_round is None:
        return 0 if config.episodes is not None and progress["episodes"] >= config.episodes else None
    due = [n for n in (*config.snapshots, config.episodes or 0) if n > progress["episodes"]]
    if config.episodes is not None and progress["episodes"] >= config.episodes:
        return 0
    return min(config.episodes_per_round, *(n - progress["episodes"] for n in due)) if due else config.episodes_per_round


def snapshot_name(episodes: int) -> str:
    """Returns the name of the checkpoint after so many practice episodes."""
    return f"episodes-{episodes}"


def minibatches(n: int, config: ImproveConfig, rng: np.random.Generator) -> Iterator[Tensor]:
    """Yields the rows of each minibatch: N of B rows without replacement; or, with `epochs`, all n rows in a new order, so many times."""
    if config.epochs is None:
        drawn = torch.from_numpy(rng.permutation(n)[: config.updates * config.batch])
        yield from drawn.split(config.batch)
        return
    for _ in range(config.epochs):
        yield from torch.from_numpy(rng.permutation(n)).tensor_split(max(1, round(n / config.batch)))


def reinforce_loss(log_prob: Tensor, log_prob_then: Tensor, returns: Tensor, ratio_clip: float | None) -> Tensor:
    """Returns the mean of −R · log π; with `ratio_clip`, of PPO's clipped −min(ρR, clip(ρ)R), ρ = π / π at the time of practice.

    Args:
        log_prob: (B,) under the policy as it is.
        log_prob_then: (B,) under the policy that practised.
        returns: (B,), or what is left of them when a baseline was subtracted.
        ratio_clip: ρ counts only within 1 ± this; None is plain REINFORCE.
    """
    if ratio_clip is None:
        return -(returns * log_prob).mean()
    ratio = (log_prob - log_prob_then).exp()
    clipped = ratio.clamp(1 - ratio_clip, 1 + ratio_clip)
    return -torch.minimum(ratio * returns, clipped * returns).mean()


def all_rows(n: int) -> Iterator[Tensor]:
    """Yields the rows 0 to n − 1, as many at a time as are scored at once."""
    yield from torch.arange(n).split(ROWS)


def log_prob_of(model: EmbodiedModel, decisions: Decisions) -> Tensor:
    """Returns (M,): log π of what was decided."""
    with torch.inference_mode():
        scored = [model.log_prob(take(decisions.inputs, rows), decisions.actions[rows]).cpu() for rows in all_rows(len(decisions))]
    return torch.cat(scored).clone()


def entropy_of(model: EmbodiedModel, decisions: Decisions) -> float:
    """Returns the mean entropy of π in [nats]."""
    with torch.inference_mode():
        found = [model.actions(take(decisions.inputs, rows)).entropy().cpu() for rows in all_rows(len(decisions))]
    return torch.cat(found).mean().item()


def monitor(model: EmbodiedModel, envs: EFMVectorEnv, config: ImproveConfig, progress: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how the policy does by ground truth, on episodes of its own and with actions from a generator of its own."""
    seeds = episode_seeds(EpisodeSet.MONITORING, config.seed)
    acting = make_policy(model, torch_generator(config.seed, Stream.POLICY))
    episodes: list[Episode] = list(rollout(acting, envs, [next(seeds) for _ in range(config.monitor_episodes)]))
    return {
        "iteration": progress["iteration"],
        "practice_episodes": progress["episodes"],
        "success": float(np.mean([e.is_success.any() for e in episodes])),
        "steps": float(np.mean([len(e) for e in episodes])),
    }
