"""The sections of the report's page: each figure with what to see in it and how it was computed."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from efm_agents.run import to_settings
from efm_benchmarks import page, plots
from efm_benchmarks.config import RecipeConfig
from efm_benchmarks.findings import Calibration, Findings, Practice, pooled, predict
from efm_benchmarks.statistics import t_interval
from efm_benchmarks.tables import COLUMNS, UNKNOWN, cells, number, percent, practice_episodes, shown_rows
from efm_envs.data import Episode

SET_PER_SEED = ("sft.seed", "improve.seed", "improve.gamma")  # the recipe sets these itself
EXAMPLES = 2  # episodes whose predicted steps are drawn
MIN_EXAMPLE_STEPS = 20  # of the demonstration, so that there is something to see
DEVIATION_ALLOWED = 0.05  # [control steps] between d as stored and d as computed again
BIN_STEPS = 10  # width of a bin of the calibration curves, in [control steps]


def lead(findings: Findings) -> str:
    """Returns what opens the page: the result in two sentences, and early stops."""
    sft, improved = findings.row("sft"), findings.row(findings.main_stage)
    practice = practice_episodes(improved["stage"], findings.results)
    words = (
        f"After supervised fine-tuning (SFT) on demonstrations, the policy succeeds in {percent(sft['success']['mean'])} of the "
        f"evaluation episodes and takes {number(sft['steps'])} steps an episode. After {practice} episodes of practice on its own "
        f"steps-to-go reward it succeeds in {percent(improved['success']['mean'])} and takes {number(improved['steps'])}."
    )
    return page.paragraph(words, "lead") + _stops(findings)


def _stops(findings: Findings) -> str:
    meaning = {
        "collapsed": "the practice score fell far below its best, and training stopped.",
        "not finite": "gradients became infinite or undefined, and training stopped.",
    }
    alerts = [
        page.alert(
            f"{findings.row(stage)['title']}, training seed {practice.seed}: {practice.stopped} after round {practice.rounds}.",
            f"That is, {meaning.get(practice.stopped, 'training stopped early.')} The table's row is its best round before that.",
        )
        for stage in findings.improved
        for practice in findings.practice(stage)
        if practice.stopped != "finished"
    ]
    return "".join(alerts)


def results(findings: Findings) -> str:
    """Returns what was run, the result table, and what its words mean."""
    config, protocol = findings.config, findings.results["protocol"]
    gammas = ", ".join(f"{gamma:g}" for gamma in config["gammas"])
    what = (
        f"{config['seeds']} training seed{'s' if config['seeds'] > 1 else ''}, each with its own {config['demonstrations']} "
        f"demonstrations by expert:{config['style']}, its own networks and its own practice. Stage 1, SFT: {config['sft']['steps']} "
        "optimiser steps of behaviour cloning and of steps-to-go prediction. Stage 2, Self-Improvement: "
        f"{config['improve']['iterations']} rounds of practice with {config['improve']['updates']} updates of "
        f"{config['improve']['batch']} transitions, discount γ = {gammas}; the reward is r = d(o) − d(o′), where d is the frozen "
        "steps-to-go model of stage 1."
    )
    interval = (
        "Share of evaluation episodes in which ground truth said success, over all training seeds. In brackets the 95 % interval: on "
        "each side the wider of Clopper–Pearson's over all episodes and Student's t over the training seeds' rates, within 0 and 100 %."
    )
    if config["seeds"] == 1:
        interval += " There is one training seed here: the interval knows of finite episodes only, not of how seeds differ."
    terms = {
        "Success [%]": interval,
        "Steps to success": "Control steps until the first success, mean over the successful episodes.",
        "Steps, all episodes": "Mean over all episodes; a failure counts with its full length, the step limit.",
        "Practice episodes": "Practised in the whole run of stage 2, mean over training seeds.",
        "Self-Improvement": "The policy whose practice score, averaged over a few rounds, was best, which takes no ground truth; “its last "
        "round” is where training ended.",
        "Protocol": f"{protocol['episodes']} evaluation episodes, the same for every policy and every training seed, and none of them "
        f"used in training. Trained policies act with {protocol['actions']} actions. An episode ends with {protocol['ends']}.",
    }
    shown = shown_rows(findings.results)
    colours = _colours(findings)
    errors = [f"{row['title']}: {row['errors']} of {row['episodes']} episodes." for row in shown if row["errors"]]
    return (
        page.paragraph(what)
        + page.table("Evaluation by ground truth", COLUMNS, [_named(cells(r, findings.results), colours[r["stage"]]) for r in shown])
        + "".join(page.alert("Episodes that broke off with an error count as failures.", words) for words in errors)
        + page.definitions(terms)
        + page.details("Every training seed", _per_seed(findings))
    )


def _per_seed(findings: Findings) -> str:
    columns = ("Policy", *(f"Seed {seed}: success" for seed in findings.seeds), *(f"Seed {seed}: steps" for seed in findings.seeds))
    rows = [
        [
            page.text(row["title"]),
            *(percent(rate) for rate in row["success_per_seed"]),
            *(number(steps) for steps in row["steps_per_seed"]),
        ]
        for row in shown_rows(findings.results)
    ]
    return page.table("Success, and steps over all episodes, of each training seed", columns, rows)


def learning_curve(findings: Findings) -> str:
    """Returns success and steps by ground truth against practice episodes."""
    sft, direct = findings.row("sft"), findings.row("direct")
    colours = _colours(findings)
    curves = {colours[stage]: findings.learning(stage) for stage in findings.improved}
    panels = []
    for metric, scale, title, references in (
        ("success", 100.0, "Success [%]", {"sft": 100 * sft["success"]["mean"]}),
        ("steps", 1.0, "Steps per episode", {"sft": sft["steps"], "direct": direct["steps"]}),
    ):
        with plots.panel() as (figure, axes):
            plots.practice_curves(axes, curves, metric, scale)
            for colour, value in references.items():
                plots.level(axes, value, colour)
            axes.set_ylim(0, 103 if metric == "success" else 1.08 * max(axes.get_ylim()[1] / 1.08, *references.values()))
            axes.set(title=title, xlabel="practice episodes learned from")
            alt = f"{title} against practice episodes. {_first_and_last(findings.learning(findings.main_stage), metric, scale)}"
            panels.append(plots.to_svg(figure, f"learning-{metric}", alt))
    legend = [*_gamma_keys(findings), page.key("SFT, evaluated", "sft", "dashed"), page.key(direct["title"], "direct", "dashed")]
    improve = findings.config["improve"]
    caption = (
        f"Ground truth along practice: every {improve['monitor_every']} rounds the policy as it is runs {improve['monitor_episodes']} "
        "episodes that are neither practised nor used in the evaluation, and nothing that is learned depends on them. "
        if improve["monitor_every"]
        else "Ground truth of the practice episodes. "
    ) + (
        "Thick: mean over training seeds at equal practice, as far as all of them went; band: 95 % interval (Student's t), which is wide "
        "for few seeds; thin: single seeds; a cross marks an early stop; dashed: evaluation."
    )
    return page.figure(panels, caption, legend) + _last_round_table(findings)


def _first_and_last(seeds: Sequence[Practice], metric: str, scale: float) -> str:
    first, last = (scale * np.mean([p.metrics[metric][i] for p in seeds]) for i in (0, -1))
    return f"It goes from {number(float(first))} at first to {number(float(last))} at last."


def _last_round_table(findings: Findings) -> str:
    rows = []
    for stage in findings.improved:
        practice = findings.practice(stage)
        success = t_interval([100 * p.metrics["success"][-1] for p in practice])
        steps = t_interval([p.metrics["steps"][-1] for p in practice])
        rows.append(
            [
                page.text(findings.row(stage)["title"]),
                ", ".join(str(p.rounds) for p in practice),
                f"{number(success.mean)} {_interval(np.clip(success.low, 0, 100), np.clip(success.high, 0, 100))}",
                f"{number(steps.mean)} {_interval(np.clip(steps.low, 0, None), steps.high)}",
            ]
        )
    columns = ("Policy", "Rounds of each seed", "Success [%]", "Steps")
    return page.details(
        "The last round of practice in numbers",
        page.table("By ground truth: mean over training seeds, and Student's 95 % interval", columns, rows),
    )


def _interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else f"[{UNKNOWN}]"


def trajectories(findings: Findings) -> str:
    """Returns the paths of each stage, in the same episodes."""
    panels = []
    for stage, title in _stage_titles(findings).items():
        colour = _colours(findings)[stage]
        episodes = findings.episodes(stage)[: plots.PATHS]
        reached = sum(e.steps_to_success is not None for e in episodes)
        with plots.panel(3.1, 3.1) as (figure, axes):
            plots.trajectories(axes, episodes, colour)
            alt = f"{title}: {len(episodes)} paths from above, {reached} of them reach their goals, in {_steps(episodes)} steps on average."
            panels.append(
                f"<h3>{page.key(title, colour, 'dot')}</h3>"
                + page.paragraph(f"{reached} of {len(episodes)} reach the goal; {_steps(episodes)} steps", "muted")
                + plots.to_svg(figure, f"paths-{stage}", alt)
            )
    caption = (
        f"The first {len(findings.episodes('sft')[: plots.PATHS])} evaluation episodes from above, the same starts (dots) and goals "
        "(discs, at true size) in each panel, with the policies of training seed 0. A cross marks where an episode ended without "
        "success. Demonstrations go by hidden waypoints, and SFT imitates that; practice rewards what brings the goal nearer, and "
        "nothing else."
    )
    return page.figure(panels, caption, narrowest="9.5rem")


def _steps(episodes: Sequence[Episode]) -> str:
    return number(float(np.mean([len(e) for e in episodes])), 0)


def along_an_episode(findings: Findings) -> str:
    """Returns predicted against true steps-to-go over the time of a few episodes."""
    model = findings.reward_model(0)
    demonstrations = findings.episodes("demonstrations")
    examples = [i for i, e in enumerate(demonstrations) if len(e) >= MIN_EXAMPLE_STEPS][:EXAMPLES] or [0]
    stages = {stage: title for stage, title in _stage_titles(findings).items() if stage != "direct"}
    keys = [(i, stage) for i in examples for stage in stages]
    predictions = dict(zip(keys, predict(model, [findings.episodes(stage)[i] for i, stage in keys]), strict=True))
    top = 1.05 * max(max(p.high.max(), np.nan_to_num(p.realised).max()) for p in predictions.values())
    panels = []
    for (i, stage), prediction in predictions.items():
        colour = _colours(findings)[stage]
        with plots.panel(3.8, 2.7) as (figure, axes):
            plots.steps_left(axes, prediction, colour)
            axes.set(ylim=(0, top), xlabel="control step", ylabel="steps to go")
            reached = "ends in success" if np.isfinite(prediction.realised).any() else "ends without success"
            alt = f"{stages[stage]}, evaluation episode {i}, {len(prediction.mean) - 1} steps, {reached}: d goes from "
            alt += f"{number(prediction.mean[0])} to {number(prediction.mean[-1])}."
            head = f"<h3>{page.key(stages[stage], colour, 'dot')}</h3>" + page.paragraph(f"episode {i}, {reached}", "muted")
            panels.append(head + plots.to_svg(figure, f"d-{i}-{stage}", alt))
    deviation = max(p.deviation for p in predictions.values())
    caption = (
        f"Predicted steps-to-go in {len(examples)} evaluation episode{'s' if len(examples) > 1 else ''} (the first whose demonstration "
        f"has at least {MIN_EXAMPLE_STEPS} steps), by the model of training seed 0. Line: d, the mean of the predicted distribution; "
        "band: its 10 % to 90 % quantiles; dashed: the steps that were in fact left until success. The model tells how long a "
        "demonstrator would take from here: for a policy that is faster than its demonstrations, the dashed line is below d. The "
        "distribution was computed again from the stored observations; its mean differs from the d recorded during the episode by at "
        f"most {deviation:.5f} steps."
    )
    wrong = (
        "" if deviation <= DEVIATION_ALLOWED else page.alert("These are not the predictions that were recorded.", "Has the model changed?")
    )
    return wrong + page.figure(panels, caption, narrowest="16rem")


def calibration(findings: Findings) -> str:
    """Returns how predicted and realised steps-to-go compare on demonstrations that no training saw."""
    found = {seed: c for seed in findings.seeds if (c := findings.calibration(seed)) is not None}
    if not found:
        return page.paragraph("No demonstration among the evaluation episodes was kept whole: there is nothing to compare with.")
    everything = pooled(list(found.values()))
    panels = []
    for given, other in (("predicted", "realised"), ("realised", "predicted")):
        with plots.panel() as (figure, axes):
            plots.calibration(axes, everything, given, BIN_STEPS)
            title = f"Mean {other} steps, by {given} steps"
            axes.set(title=title, xlabel=f"{given} steps-to-go", ylabel=f"{other} steps-to-go")
            slope, intercept = everything.line
            alt = f"{title}, in bins of {BIN_STEPS}. Realised = {number(slope, 2)} × predicted + {number(intercept)}."
            panels.append(plots.to_svg(figure, f"calibration-{given}", alt))
    legend = [
        page.key("demonstrations: mean, and 10 % to 90 % of the observations", "demonstrations"),
        page.key("identity", "ink", "dashed"),
    ]
    caption = (
        "The model against demonstrations of the evaluation episodes, none of which it was trained on. First panel, calibration: where "
        "it predicts d steps, how many were left on average? A calibrated model lies on the dashed line. Second panel, the other way "
        "round: this curve is flatter for any model that cannot know everything (a demonstrator's waypoints are hidden from it), "
        "however well calibrated; it shows how much the observation tells. Failures, and demonstrations shorter than those that "
        "training keeps, are left out."
    )
    rows = [_calibration_row(f"Seed {seed}", c) for seed, c in found.items()]
    if len(found) > 1:
        rows.append(_calibration_row("All", everything))
    columns = (
        "Training seed",
        "Observations",
        "Slope",
        "Intercept",
        "Bias",
        "Mean absolute error",
        "… of a constant",
        "In the 10–90 % band",
    )
    terms = {
        "Slope, intercept": "Of the least-squares line of realised on predicted steps; ideally 1 and 0.",
        "Bias": "Mean of predicted − realised, in control steps.",
        "… of a constant": "The error of predicting the median for every observation; a model that learned something is below it.",
        "In the 10–90 % band": "How often the truth was between the 10 % and 90 % quantiles of the predicted distribution; ideally 80 %.",
    }
    table = page.table("Steps-to-go on held-out demonstrations, in control steps", columns, rows, strong="All")
    return page.figure(panels, caption, legend) + table + page.definitions(terms)


def _calibration_row(name: str, found: Calibration) -> list[str]:
    slope, intercept = found.line
    values = [
        number(slope, 2),
        number(intercept),
        number(found.bias),
        number(found.mae),
        number(found.mae_of_constant),
        percent(found.coverage, 0),
    ]
    return [name, str(len(found.predicted)), *values]


def practice(findings: Findings) -> str:
    """Returns what training saw, beside the truth."""
    curves = _practice_by_colour(findings)
    panels = []
    for metric, scale, title in (
        ("predicted_success", 100.0, "Success the model saw [%]"),
        ("success", 100.0, "True success [%]"),
        ("score", 1.0, "Practice score"),
        ("entropy", 1.0, "Entropy of the policy [nats]"),
    ):
        with plots.panel(4.6, 2.8) as (figure, axes):
            plots.practice_curves(axes, curves, metric, scale, band=False)
            if scale == 100:
                axes.set_ylim(0, 103)
            axes.set(title=title, xlabel="practice episodes learned from")
            alt = f"{title} against practice episodes. {_first_and_last(findings.practice(findings.main_stage), metric, scale)}"
            panels.append(plots.to_svg(figure, f"practice-{metric}", alt))
    caption = (
        "What training sees (success by the model's own judgement, and the score that chooses the best round) beside the truth. An "
        "episode that ends at predicted success ends a few steps before the goal is touched, so true success here stays below the "
        "learning curve's, whose episodes go on; but where that falls while predicted success rises, the policy has learned to please "
        "the model. Score: mean over episodes of 0.99 to the power of its steps where practice saw success, and 0 elsewhere. Entropy: of "
        "the distribution over actions, mean over the round's observations. Thick: mean over training seeds; thin: single seeds; a cross "
        "marks an early stop."
    )
    seeds = [p for stage in findings.improved for p in findings.practice(stage)]
    quiet = "" if any(p.stopped != "finished" for p in seeds) else page.paragraph("No run stopped early.")
    return _stops(findings) + quiet + page.figure(panels, caption, _gamma_keys(findings), narrowest="24rem")


def videos(findings: Findings, reason: str | None) -> str:
    """Returns the films, or the reason why there are none."""
    if reason is not None:
        return page.paragraph(f"No videos: {reason}")
    panels = [
        f"<h3>{page.key(title, name, 'dot')}</h3>"
        + page.video(findings.folder / f"videos/{name}.mp4", f"{title}: the first evaluation episodes, from above")
        for name, title in {"sft": "SFT", "improve": "Self-Improvement"}.items()
    ]
    caption = "The first evaluation episodes in real time, with the policies of training seed 0. The blue point is to reach the green disc."
    return page.figure(panels, caption, narrowest="15rem")


def provenance(findings: Findings) -> str:
    """Returns command, versions and settings."""
    versions = findings.results["versions"]
    width = max(map(len, versions))
    config = json.dumps(findings.config, indent=2, ensure_ascii=False)
    return (
        page.paragraph("This command runs all of it again, with the same random numbers:")
        + page.code(command(findings.config))
        + page.paragraph("These versions, on this kind of machine, made the numbers above:")
        + page.code("\n".join(f"{name:{width}}  {version}" for name, version in versions.items()))
        + page.details("All settings", page.code(config))
    )


def command(config: Mapping[str, Any]) -> str:
    """Returns the command that runs a recipe with these settings: the flags that differ from the defaults."""
    default, wanted = _flags(to_settings(RecipeConfig())), _flags(config)
    changed = [[f"--{name.replace('_', '-')}", *values] for name, values in wanted.items() if values != default.get(name)]
    return shlex.join(["efm", "recipe", *(word for flag in changed for word in flag)])


def _flags(settings: Mapping[str, Any], prefix: str = "") -> dict[str, list[str]]:
    flags: dict[str, list[str]] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flags |= _flags(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in SET_PER_SEED:
            flags[f"{prefix}{name}"] = [str(v) for v in (value if isinstance(value, list) else [value])]
    return flags


# Stages, their names and their colours


def _stage_titles(findings: Findings) -> dict[str, str]:
    return {"demonstrations": "Demonstrations", "sft": "SFT", findings.main_stage: "Self-Improvement", "direct": "Straight to the goal"}


def _colours(findings: Findings) -> dict[str, str]:
    return plots.colours([row["stage"] for row in findings.results["rows"]])


def _named(row: Sequence[str], colour: str) -> list[str]:
    return [page.key(row[0], colour, "dot"), *(page.text(cell) for cell in row[1:])]


def _gamma_keys(findings: Findings) -> list[str]:
    colours = _colours(findings)
    return [page.key(findings.row(stage)["title"], colours[stage]) for stage in findings.improved]


def _practice_by_colour(findings: Findings) -> dict[str, list[Practice]]:
    colours = _colours(findings)
    return {colours[stage]: findings.practice(stage) for stage in findings.improved}
