"""The `efm` command. Only light imports up here: `efm --help` must answer at once."""

import itertools
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

try:
    import tyro
    from tyro.conf import OmitArgPrefixes, Positional, arg
except ModuleNotFoundError:
    from efm_envs.errors import missing_extra

    sys.exit(f"error: {missing_extra('the efm command', 'agents')}")

from efm_agents.config import ImproveConfig, SFTConfig
from efm_agents.presets import IMPROVE_PRESETS, SFT_PRESETS, preset_for
from efm_benchmarks.config import RecipeConfig

app = tyro.extras.SubcommandApp()

Json = Annotated[bool, arg(help="Print JSON instead of text.")]
Env = Annotated[str, arg(help="Registered id.")]
EnvOfPolicy = Annotated[str | None, arg(help="Registered id; None is the one that the policy was trained in.")]
Options = Annotated[str, arg(help="""For gym.make, as JSON: '{"instructions": "held_out"}'; the env's page lists them.""")]
PolicyName = Annotated[str, arg(help="expert:STYLE, random, or the folder (or a checkpoint file) of a run.")]
Reward = Annotated[str, arg(help="""A reward model: its name, its JSON ('{"id": "noisy", "std": 3}'), or the folder of a run.""")]
SFTPreset = Annotated[str, arg(help=f"Where the settings start from: {', '.join(SFT_PRESETS)}.")]
ImprovePreset = Annotated[str, arg(help=f"Where the settings start from: {', '.join(IMPROVE_PRESETS)}.")]
Loggers = Annotated[tuple[str, ...], arg(help="Where figures go besides: tensorboard, trackio, wandb.")]
DryRun = Annotated[bool, arg(help="Only say what it would be: data, steps, minutes on this machine.")]
DEFAULT_ENV = "EFM-PointMass-v0"


@app.command
def envs(env: Positional[str | None] = None, *, json: Json = False) -> None:
    """List the envs, or show one in detail."""
    from efm_benchmarks import information

    information.show_env(env, json) if env else information.list_envs(json)


@app.command
def doctor(*, json: Json = False) -> None:
    """Check versions and rendering, and say what is missing and how to get it."""
    from efm_benchmarks import information

    information.show_doctor(json)


@app.command
def demos(
    *,
    env: Env = DEFAULT_ENV,
    episodes: Annotated[int, arg(help="Demonstrations to keep.")] = 2000,
    style: Annotated[str, arg(help="The expert's style; `efm envs ID` lists them.")] = "human",
    knobs: Annotated[str, arg(help="""What to change about the expert, as JSON: '{"detours": 4}'; `efm envs ID` lists it.""")] = "{}",
    seed: Annotated[int, arg(help="Which demonstrations.")] = 0,
    min_length: Annotated[int | None, arg(help="Shorter ones are discarded; None is what the env's registration says.")] = None,
    options: Options = "{}",
    workers: Annotated[int, arg(help="Processes that run episodes; 0 is one per processor. The file does not depend on it.")] = 0,
    out: Annotated[Path, arg(help="The file to write.")] = Path("runs/demonstrations.npz"),
    json: Json = False,
) -> None:
    """Collect demonstrations with an expert."""
    from efm_agents.demonstrations import collect_file
    from efm_benchmarks.progress import progress

    _check_episodes(episodes)
    how = {"style": style, "knobs": _json_object("--knobs", knobs), "seed": seed, "min_length": min_length}
    made: dict[str, Any] = {**how, "options": _json_object("--options", options)}
    with progress() as report:
        kept = collect_file(out, env, episodes, **made, workers=workers, report=report)
    lengths = [len(episode) for episode in kept]
    _finish(
        {"file": str(out), "demonstrations": len(kept), "mean_steps": sum(lengths) / len(lengths)},
        json,
        f"efm sft --preset {preset_for(env)} --demos {out} --out {out.parent / 'sft'}",
    )


@app.command
def sft(
    *,
    demos: Annotated[Path, arg(help="Demonstrations, from `efm demos`.")],
    out: Annotated[Path, arg(help="Folder of the run; the same command resumes it.")] = Path("runs/sft"),
    preset: SFTPreset = "default",
    dry_run: DryRun = False,
    log: Loggers = (),
    config: OmitArgPrefixes[SFTConfig] = SFTConfig(),
    json: Json = False,
) -> None:
    """Stage 1: learn to act, and to tell the steps left, from demonstrations."""
    from efm_agents import sft as program
    from efm_agents.checkpoint import load_checkpoint
    from efm_benchmarks.policies import task_of
    from efm_benchmarks.progress import progress
    from efm_envs.data import load_episodes

    episodes, meta = load_episodes(demos)
    if dry_run:
        _finish(program.plan(episodes, config, options=meta.get("options")), json, None)
        return
    with progress() as report:
        program.train(episodes, out, config, task=task_of(episodes[0].env_id).name, options=meta.get("options"), loggers=log, report=report)
    _, facts = load_checkpoint(out / "checkpoints/steps_to_go.safetensors", "steps_to_go")
    summary = {"run": str(out), "best_step": facts["best"]["step"], "success_threshold": facts["success_threshold"]}
    _finish(summary, json, f"efm improve --start {out} --out {out.parent / 'improve'}")


@app.command
def improve(
    *,
    start: Annotated[Path, arg(help="The stage-1 run: policy to start from, and reward model.")],
    reward: Annotated[Path | None, arg(help="Another run or checkpoint to take the reward model from.")] = None,
    out: Annotated[Path, arg(help="Folder of the run; the same command resumes it.")] = Path("runs/improve"),
    preset: ImprovePreset = "paper",
    dry_run: DryRun = False,
    log: Loggers = (),
    config: OmitArgPrefixes[ImproveConfig] = ImproveConfig(),
    json: Json = False,
) -> None:
    """Stage 2: improve by practice on the steps-to-go reward."""
    from efm_agents import self_improvement
    from efm_agents.checkpoint import load_checkpoint
    from efm_benchmarks.progress import progress

    if dry_run:
        _finish(self_improvement.plan(start, config, reward_checkpoint=reward), json, None)
        return
    with progress() as report:
        self_improvement.train(start, out, config, reward_checkpoint=reward, loggers=log, report=report)
    _, facts = load_checkpoint(out / "checkpoints/policy.safetensors", "policy")
    names = ("stopped", "iterations", "practice_episodes", "best_iteration", "best_score")
    _finish({"run": str(out), **{name: facts[name] for name in names}}, json, f"efm eval --policy {out} --env {facts['env_id']}")


@app.command(name="eval")
def evaluate(
    *,
    policy: PolicyName,
    env: EnvOfPolicy = None,
    options: Options = "{}",
    episodes: Annotated[int, arg(help="How many.")] = 100,
    seed: Annotated[int, arg(help="Which set of evaluation episodes; policies are compared on the same.")] = 0,
    policy_seed: Annotated[int, arg(help="Seed of the policy's own choices.")] = 0,
    greedy: Annotated[bool, arg(help="Take the policy's most likely action instead of sampling.")] = False,
    out: Annotated[Path | None, arg(help="Write one JSON line per episode to this file.")] = None,
    json: Json = False,
) -> None:
    """Score a policy by ground truth."""
    from efm_benchmarks import recipe
    from efm_benchmarks.policies import env_for, make_policy
    from efm_benchmarks.progress import progress
    from efm_envs.evaluation import evaluate as run

    _check_episodes(episodes)
    env, made = env_for(policy, env, _json_object("--options", options), DEFAULT_ENV)
    acting = make_policy(policy, env, seed=policy_seed, greedy=greedy)
    with progress() as report:
        done = 0

        def on_episode(_: Any) -> None:
            nonlocal done
            done += 1
            report("eval", done, episodes, "")

        records = run(acting, env, episodes, seed, on_episode=on_episode, **made)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(_dumps(asdict(record)) + "\n" for record in records))
    _finish({"policy": policy, "env": env, **recipe.aggregate([records])}, json, f"efm play --policy {policy} --env {env}")


@app.command
def relabel(
    *,
    episodes: Annotated[Path, arg(help="Stored episodes, from `efm demos` for example.")],
    reward: Reward,
    options: Options = "{}",
    out: Annotated[Path, arg(help="The file to write.")],
    json: Json = False,
) -> None:
    """Judge stored episodes by any reward model: their d, rewards and predicted success."""
    from efm_benchmarks.policies import reward_spec
    from efm_benchmarks.progress import progress
    from efm_envs.data import load_episodes, save_episodes
    from efm_envs.relabelling import relabel as run
    from efm_envs.rewards import make_reward_model

    stored, meta = load_episodes(episodes)
    model = make_reward_model(reward_spec(reward))
    kept = []
    with progress() as report:
        for episode in run(stored, model, **{**meta.get("options", {}), **_json_object("--options", options)}):
            kept.append(episode)
            report("relabel", len(kept), len(stored), "")
    save_episodes(out, kept, {**meta, "reward": {"spec": model.spec, "fingerprint": model.fingerprint}})
    rewarded = [float(episode.rewards.sum()) for episode in kept]
    predicted = sum(bool(episode.predicted_success.any()) for episode in kept) / len(kept)
    summary = {"file": str(out), "episodes": len(kept), "mean_return": sum(rewarded) / len(kept), "predicted_success": predicted}
    _finish(summary, json, f"efm sft --demos {out}")


@app.command
def audit(
    *,
    reward: Reward,
    env: Annotated[str | None, arg(help="Registered id; None is the one that the run's model was trained in.")] = None,
    policy: Annotated[str | None, arg(help="Whose steps the model is to predict: expert:STYLE, random, or the folder of a run.")] = None,
    options: Options = "{}",
    episodes: Annotated[int, arg(help="Of each test set.")] = 50,
    states: Annotated[int, arg(help="From which the policy is rolled out for the true distribution of steps; 0 is none.")] = 24,
    rollouts: Annotated[int, arg(help="From each state.")] = 32,
    seed: Annotated[int, arg(help="Which episodes.")] = 0,
    out: Annotated[Path, arg(help="Folder; gets card.json, card.html, and the test sets, which the next audit takes up.")] = Path(
        "runs/audit"
    ),
    adopt: Annotated[bool, arg(help="Leave the card beside a run's checkpoint, which then takes the recommended threshold.")] = True,
    json: Json = False,
) -> None:
    """How good is a reward model? Writes a card: figures, a recommended success threshold, and a page."""
    from efm_benchmarks import audit as program
    from efm_benchmarks.policies import reward_spec
    from efm_benchmarks.progress import progress

    spec = reward_spec(reward)
    counts = {"episodes": episodes, "states": states, "rollouts": rollouts, "seed": seed}
    config = program.config_for(spec, env, policy, _json_object("--options", options), **counts)
    with progress() as report:
        card, page, _ = program.run(spec, config, out, command=shlex.join(["efm", *sys.argv[1:]]), adopt=adopt, report=report)
    if json:
        print(_dumps(card, indent=2))
        return
    for line in program.in_short(card):
        print(line)
    print(f"Card: {page.resolve()}")


@app.command(name="serve-reward")
def serve_reward(
    *,
    reward: Reward,
    host: Annotated[
        str, arg(help="Address to listen on; the default is reached from this machine only. There are no passwords.")
    ] = "127.0.0.1",
    port: Annotated[int, arg(help="0 is any free one.")] = 8765,
    max_mb: Annotated[int, arg(help="Longest request, in MiB.")] = 64,
    timeout_s: Annotated[float, arg(help="After which a silent connection is closed.")] = 30.0,
) -> None:
    """Serve a reward model to other processes, by HTTP."""
    from efm_benchmarks.policies import reward_spec
    from efm_envs.rewards import make_reward_model
    from efm_envs.rewards.server import LOOPBACK, RewardServer

    model = make_reward_model(reward_spec(reward))

    def log(line: str) -> None:
        print(line, file=sys.stderr)

    server = RewardServer(model, host, port, max_bytes=max_mb * 2**20, timeout_s=timeout_s, log=log)
    needs = "whatever the policy sees" if model.needs is None else ", ".join(model.needs) or "nothing"
    print(f"Reward model {model.id!r} ({model.fingerprint}), which needs {needs}, at {server.url}. Ctrl-C ends it.")
    if host not in LOOPBACK:
        print("warning: whoever can reach this address can ask it; there are no passwords.", file=sys.stderr)
    print(f"""Use it: gym.make("EFM-…", reward_model={{"id": "http", "url": "{server.url}"}})""", flush=True)
    try:
        server.serve_forever()
    finally:
        server.close()


@app.command(name="recipe")
def run_recipe(
    *,
    out: Annotated[Path, arg(help="Folder of the run; the same command resumes it.")] = Path("runs/point-mass"),
    workers: Annotated[int, arg(help="Training seeds side by side; 0 is all of them, up to four per processor.")] = 0,
    config: Annotated[RecipeConfig, arg(name="")] = RecipeConfig(),
    json: Json = False,
) -> None:
    """All of it: demonstrations, SFT, Self-Improvement, evaluation, report."""
    from efm_benchmarks import recipe, report
    from efm_benchmarks.progress import recipe_progress

    with recipe_progress(config) as on_event:
        results = recipe.run_recipe(config, out, workers or 4 * (os.cpu_count() or 1), on_event)
    page = report.write_report(out)
    if json:
        print(_dumps(results, indent=2))
    else:
        report.print_table(results)
        print(f"Report: {page.resolve()}\nNext: efm play --policy {out / 'seed-0' / recipe.improve_name(config.gammas[0])}")


@app.command
def play(
    *,
    policy: PolicyName = "expert:human",
    env: EnvOfPolicy = None,
    options: Options = "{}",
    episodes: Annotated[int, arg(help="How many.")] = 3,
    seed: Annotated[int, arg(help="Which set of evaluation episodes.")] = 0,
    greedy: Annotated[bool, arg(help="Take the policy's most likely action instead of sampling.")] = False,
    video: Annotated[Path | None, arg(help="Write a video (.mp4 or .gif) here; without a display that is done anyway.")] = None,
) -> None:
    """Watch a policy, in a window or as a video."""
    from efm_benchmarks.policies import env_for, make_policy
    from efm_benchmarks.video import play as run
    from efm_envs.rendering import has_display
    from efm_envs.seeding import EpisodeSet, episode_seeds

    _check_episodes(episodes)
    env, made = env_for(policy, env, _json_object("--options", options), DEFAULT_ENV)
    if video is None and not has_display():
        video = Path(f"{env}.mp4")
        print(f"No display here: writing a video to {video}.")
    seeds = episode_seeds(EpisodeSet.EVALUATION, seed)
    wanted = [next(seeds) for _ in range(episodes)]
    infos = run(make_policy(policy, env, greedy=greedy), env, wanted, video, **{"terminate_on": "true", **made})
    for info in infos:
        print(f"{'success   ' if info['is_success'] else 'no success'}  {info['instruction']}")
    print(
        f"{sum(info['is_success'] for info in infos)} of {episodes} episodes succeeded." + (f" Video: {video.resolve()}" if video else "")
    )


def start_from_preset(arguments: list[str]) -> None:
    """Lets the settings of `efm sft` and `efm improve` start from what `--preset` names, before they are read: `--help` shows them, too."""
    of_command = {"sft": (sft, SFT_PRESETS), "improve": (improve, IMPROVE_PRESETS)}
    if not arguments or arguments[0] not in of_command:
        return
    command, presets = of_command[arguments[0]]
    given = [b for a, b in itertools.pairwise(arguments) if a == "--preset"] + [a[9:] for a in arguments if a.startswith("--preset=")]
    name = (given or [next(iter(presets))])[-1]
    if name not in presets:
        from efm_envs.errors import unknown_name

        raise unknown_name("preset", name, list(presets))
    defaults: Any = command.__kwdefaults__
    defaults["config"] = presets[name]


def main() -> None:
    """Runs the command; a mistake of the user's ends with one line, not with a traceback."""
    try:
        start_from_preset(sys.argv[1:])
        app.cli(
            prog="efm", description="Gymnasium environments whose reward is a reward model, and agents that improve themselves with it."
        )
    except KeyboardInterrupt:
        resumes = sys.argv[1:2] and sys.argv[1] in ("sft", "improve", "recipe", "audit")
        sys.exit("\nStopped." + (" The same command goes on from the last checkpoint." if resumes else ""))
    except BrokenPipeError:
        os._exit(0)  # `efm envs | head`
    except ModuleNotFoundError as error:
        from efm_envs.errors import missing_extra

        sys.exit(f"error: {missing_extra('this command', 'agents')} ({error})")
    except Exception as error:
        from efm_envs.errors import EFMError  # here, because it brings gymnasium, for which `--help` need not wait

        if not isinstance(error, EFMError | ValueError | OSError):
            raise
        sys.exit(f"error: {error}")


def _check_episodes(episodes: int) -> None:
    if episodes < 1:
        raise ValueError(f"--episodes must be at least 1; got {episodes}.")


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"""{option} is a JSON object, for example '{{"name": 1}}'; got {text!r}.""")
    return value


def _finish(summary: dict[str, Any], as_json: bool, next_command: str | None) -> None:
    """Prints what came out, and what one would do next."""
    if as_json:
        print(_dumps(summary, indent=2))
        return
    for name, value in summary.items():
        print(f"{name.replace('_', ' ')}: {_readable(value)}")
    if next_command is not None:
        print(f"Next: {next_command}")


def _readable(value: Any) -> str:
    if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if isinstance(value, list):
        return ", ".join(map(_readable, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


_dumps: Callable[..., str] = json.dumps
