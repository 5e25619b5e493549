"""Stage 2, Self-Improvement: practise on one's own steps-to-go reward (paper, Algorithm 1). Read from top to bottom.

A round collects whole episodes until there are N·B transitions. A frozen copy of the stage-1 model gives the reward
r_t = d(o_t) − d(o_{t+1}) and says when an episode has succeeded. Then come N updates with −c · R_t · log π(a_t | o_t, g) on
minibatches of B drawn without replacement, and the round's data is thrown away. R_t is the discounted Monte-Carlo return: no value
network, no bootstrap at a time-out, no KL term, and nothing is subtracted, since the return carries its own baseline d(o_t) (App. G).

With `terminate_on="predicted"` no ground truth is used to learn, to choose the best checkpoint, or to stop; it is only written down beside.

Deviations from the paper are listed in agents/README.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from efm_agents.model import Policy
from efm_agents.policy import NetworkPolicy, torch_generator
from efm_agents.returns import discounted_returns
from efm_agents.run import Report, Run, no_report, to_settings
from efm_envs.data import Episode
from efm_envs.evaluation import EpisodeRecord
from efm_envs.rollout import make_envs, rollout
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator

SCORE_DISCOUNT = 0.99  # a success after 70 steps is worth half


def train(
    policy_checkpoint: Path | str,
    folder: Path | str,
    config: ImproveConfig,
    *,
    reward_checkpoint: Path | str | None = None,
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
        report: is told about progress.

    Returns:
        The folder.
    """
    policy_file = find_checkpoint(policy_checkpoint, "policy")
    reward_file = find_checkpoint(reward_checkpoint or policy_checkpoint, "steps_to_go")
    weights, start = load_checkpoint(policy_file, "policy")
    run = Run(folder, "improve", {**to_settings(config), "policy": fingerprint(policy_file), "reward_model": fingerprint(reward_file)})
    options = start.get("options", {})  # with which the demonstrations were made
    facts = {"task": start["task"], "env_id": start["env_id"], "options": options, "model": start["model"], "seed": config.seed}

    policy = Policy.from_config(start["model"])
    policy.load_state_dict(weights)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rng = generator(Stream.TRAINING, config.seed, 1)
    action_generator = torch_generator(config.seed, Stream.TRAINING)
    best_weights = copy_weights(policy)
    progress: dict[str, Any] = {"iteration": 0, "episodes": 0, "best_score": -1.0, "best_iteration": 0, "stopped": None}
    scores: list[float] = []

    state_path = run.checkpoint("state")
    if state_path.is_file():
        tensors, state = load_checkpoint(state_path, "improve-state")
        policy.load_state_dict(unpack("policy", tensors))
        best_weights = unpack("best", tensors)
        unpack_optimizer("optimizer", tensors, optimizer)
        action_generator.set_state(tensors["action_generator"])
        rng.bit_generator.state, scores, progress = state["rng"], state["scores"], state["progress"]
    run.forget_after("metrics", "iteration", progress["iteration"])
    run.forget_after("episodes", "iteration", progress["iteration"])
    run.forget_after("monitoring", "iteration", progress["iteration"] - 1)  # the look before this round comes again

    practice_envs = make_envs(
        start["env_id"],
        config.num_envs,
        reward_model={"id": "checkpoint", "path": str(reward_file)},
        terminate_on=config.terminate_on,
        success_threshold=config.success_threshold,
        **options,
    )
    while progress["iteration"] < config.iterations and progress["stopped"] is None:
        if config.monitor_every and progress["iteration"] % config.monitor_every == 0:
            run.append("monitoring", [monitor(policy, start["env_id"], config, progress, options)])

        # Practise: a fresh buffer of whole episodes.
        episodes = list(
            rollout(
                NetworkPolicy(policy, action_generator),
                start["env_id"],
                episode_seeds(EpisodeSet.PRACTICE, config.seed, start=progress["episodes"]),
                min_steps=config.updates * config.batch,
                envs=practice_envs,
            )
        )
        scores.append(practice_score(episodes))
        recent = float(np.mean(scores[-config.score_window :]))  # one round is a few dozen episodes: too few to choose by
        if len(scores) >= min(config.score_window, config.iterations) and recent > progress["best_score"]:
            best_weights, progress["best_score"], progress["best_iteration"] = copy_weights(policy), recent, progress["iteration"]

        # Learn: N updates of B transitions, none of them twice.
        features = torch.cat([policy.inputs.features({k: v[:-1] for k, v in e.observations.items()}) for e in episodes])  # (M, F)
        actions = torch.from_numpy(np.concatenate([e.actions for e in episodes]))  # (M, A)
        returns = torch.from_numpy(np.concatenate([discounted_returns(e.rewards, config.gamma) for e in episodes])).float()  # (M,)
        with torch.no_grad():
            log_prob_then = policy.log_prob(features, actions)
        drawn = torch.from_numpy(rng.permutation(len(features))[: config.updates * config.batch])
        losses = []
        for rows in drawn.view(config.updates, config.batch):
            log_prob = policy.log_prob(features[rows], actions[rows])
            loss = config.loss_scale * reinforce_loss(log_prob, log_prob_then[rows], returns[rows], config.ratio_clip)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if not all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None):
                progress["stopped"] = "not finite"
                break
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            if not torch.isfinite(policy.log_prob(features, actions)).all():  # the last update broke it: no gradient has seen that yet
                progress["stopped"] = "not finite"
        if progress["stopped"] is None and has_collapsed(scores, config.score_window, config.collapse_ratio):
            progress["stopped"] = "collapsed"

        # Write down: rows first, then the checkpoint that makes them count.
        progress["iteration"] += 1
        progress["episodes"] += len(episodes)
        iteration = progress["iteration"]
        with torch.no_grad():
            entropy = policy.entropy(features).mean().item()
        metrics = practice_metrics(episodes) | {
            "return": returns.mean().item(),
            "loss": float(np.mean(losses or [0.0])),
            "entropy": entropy,
        }
        run.append("metrics", [{"iteration": iteration, "practice_episodes": progress["episodes"], "score": scores[-1], **metrics}])
        run.append("episodes", [{"iteration": iteration, **asdict(EpisodeRecord.of(e))} for e in episodes])
        tensors = pack("policy", policy.state_dict()) | pack("best", best_weights) | pack_optimizer("optimizer", optimizer)
        tensors["action_generator"] = action_generator.get_state()
        save_checkpoint(state_path, "improve-state", tensors, {"rng": rng.bit_generator.state, "scores": scores, "progress": progress})
        words = f"success: predicted {metrics['predicted_success']:.2f}, true {metrics['success']:.2f}; {metrics['steps']:.1f} steps"
        report("improve", iteration, config.iterations, words)

    if config.monitor_every and progress["stopped"] != "not finite":
        run.append("monitoring", [monitor(policy, start["env_id"], config, progress, options)])
    outcome = {"stopped": progress["stopped"] or "finished", "iterations": progress["iteration"], "practice_episodes": progress["episodes"]}
    best = {"best_iteration": progress["best_iteration"], "best_score": progress["best_score"]}
    save_checkpoint(run.checkpoint("last"), "policy", policy.state_dict(), {**facts, **outcome})
    save_checkpoint(run.checkpoint("policy"), "policy", best_weights, {**facts, **outcome, **best})
    return run.folder


def reinforce_loss(log_prob: Tensor, log_prob_then: Tensor, returns: Tensor, ratio_clip: float | None) -> Tensor:
    """Returns the mean of −R · log π; with `ratio_clip`, of PPO's clipped −min(ρR, clip(ρ)R), ρ = π / π at the time of practice.

    Args:
        log_prob: (B,) under the policy as it is.
        log_prob_then: (B,) under the policy that practised.
        returns: (B,).
        ratio_clip: ρ counts only within 1 ± this; None is plain REINFORCE.
    """
    if ratio_clip is None:
        return -(returns * log_prob).mean()
    ratio = (log_prob - log_prob_then).exp()
    clipped = ratio.clamp(1 - ratio_clip, 1 + ratio_clip)
    return -torch.minimum(ratio * returns, clipped * returns).mean()


def monitor(
    policy: Policy, env_id: str, config: ImproveConfig, progress: dict[str, Any], options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns how the policy does by ground truth, on episodes of its own and with actions from a generator of its own."""
    seeds = episode_seeds(EpisodeSet.MONITORING, config.seed)
    acting = NetworkPolicy(policy, torch_generator(config.seed, Stream.POLICY))
    wanted = [next(seeds) for _ in range(config.monitor_episodes)]
    made = {"reward_model": "none", "terminate_on": "true", **(options or {})}
    episodes = list(rollout(acting, env_id, wanted, num_envs=config.num_envs, **made))
    return {
        "iteration": progress["iteration"],
        "practice_episodes": progress["episodes"],
        "success": float(np.mean([e.is_success.any() for e in episodes])),
        "steps": float(np.mean([len(e) for e in episodes])),
    }


def practice_score(episodes: Sequence[Episode]) -> float:
    """Returns how well practice went, 0 to 1, by the detector that ends its episodes.

    It is the mean over episodes of 0.99^steps where the detector saw success, and of 0 elsewhere: more successes are better, and among
    equals faster ones.
    """
    return float(np.mean([SCORE_DISCOUNT ** len(e) * (e.end_reason == "terminated") for e in episodes]))


def has_collapsed(scores: Sequence[float], window: int, ratio: float) -> bool:
    """Whether the mean of the last `window` scores is below `ratio` times the best such mean so far."""
    if len(scores) < 2 * window:
        return False
    means = np.convolve(scores, np.full(window, 1.0 / window), mode="valid")
    return bool(means[-1] < ratio * means.max())


def practice_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Returns what practice looked like; `success` is ground truth, which training does not see."""
    return {
        "success": float(np.mean([e.is_success.any() for e in episodes])),
        "predicted_success": float(np.mean([e.predicted_success[-1] for e in episodes])),
        "steps": float(np.mean([len(e) for e in episodes])),
        "reward": float(np.mean([e.rewards.sum() for e in episodes])),
    }
