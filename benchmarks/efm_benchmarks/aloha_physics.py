"""How well the ALOHA station's physics holds: slip in the grip, penetration, and what random actions can do. Measured, stored, tabled.

Only light imports up here: every worker makes them, too.
"""

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from efm_agents.parallel import in_order, number_of_workers
from efm_benchmarks import pages
from efm_envs.experts import make_expert
from efm_envs.registration import ids
from efm_envs.seeding import EpisodeSet, Stream, episode_seeds, generator
from efm_envs.task import Array
from efm_envs.tasks.aloha.station import ACTUATORS, SIDES
from efm_envs.tasks.aloha.task import END_EFFECTORS

if TYPE_CHECKING:
    from efm_agents.run import Report

LIFTED_M = 0.05  # so high a held object is lifted before its slip is measured
SETTLING_S, HOLD_S = 0.5, 5.0
STYLES = ("clean", "human", "with_failures")
TAG = "aloha"
VERSIONED = ("python", "machine", "efm-envs", "mujoco", "numpy")

COLUMNS = ("Env", "Slip in 5 s [mm]", *(f"Penetration, `{style}` [mm]" for style in STYLES), "Random: errors", "Fastest object, tool [m/s]")
LEGEND = (
    "Slip: the most by which a lifted object moved in its gripper within 5 s, over {holds} holds of each object. Penetration: the deepest\n"
    "of any contact at the end of any control step, in the median episode and in the deepest of {episodes} of each expert; what is\n"
    "dropped sinks in for a moment as it lands. Random: of {random} episodes of random actions, those with a value that is not\n"
    "finite or a warning of MuJoCo's. From `benchmarks/results/aloha_physics.json`; `python benchmarks/aloha_physics.py run` measures anew."
)


def run(path: Path, *, holds: int, episodes: int, random: int, workers: int, report: "Report") -> None:
    """Measures every id of the station and stores that.

    Args:
        path: the file to write.
        holds: episodes in which each object is held for five seconds.
        episodes: evaluation episodes of each style of expert.
        random: episodes of random actions.
        workers: processes; changes nothing but the time it takes. 0 is one for each processor.
        report: is told (stage, done, total, words).
    """
    from efm_agents.checkpoint import write_atomically
    from efm_agents.run import versions

    made = versions()
    how = {"holds": holds, "episodes": episodes, "random": random}
    stored = {
        "command": "python benchmarks/aloha_physics.py run " + " ".join(f"--{name} {value}" for name, value in how.items()),
        "versions": {name: made[name] for name in VERSIONED},
        **how,
        "envs": {env_id: measure(env_id, **how, workers=workers, report=report) for env_id in ids(tags=[TAG])},
    }
    write_atomically(path, (json.dumps(stored, indent=1) + "\n").encode())


def measure(env_id: str, *, holds: int, episodes: int, random: int, workers: int, report: "Report") -> dict[str, Any]:
    """Returns the numbers of one id, JSON-able; arguments as in `run`."""

    def each(stage: str, function: Any, number: int) -> list[Any]:
        seeds = itertools.islice(episode_seeds(EpisodeSet.EVALUATION, 0), number)
        results = []
        with contextlib.closing(in_order(functools.partial(function, env_id), seeds, number_of_workers(workers, number))) as done:
            for result in done:
                results.append(result)
                report(f"{env_id} {stage}", len(results), number, "")
        return results

    sunk = {style: each(style, functools.partial(sunk_m, style), episodes) for style in STYLES}
    flung = each("random", flail, random)
    return {
        "slip_m": max(each("holds", slip_m, holds)),
        "penetration_m": {s: {"median": float(np.median(d)), "deepest": max(d)} for s, d in sunk.items()},
        "random": {
            "errors": sum(not is_sound for is_sound, *_ in flung),
            "fastest_object_m_s": max(thing for _, thing, _ in flung),
            "fastest_tool_m_s": max(tool for *_, tool in flung),
        },
    }


# -- one episode each --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _made(env_id: str) -> Iterator[Any]:
    env = gym.make(env_id, reward_model="none", terminate_on="true", disable_env_checker=True)
    try:
        yield env
    finally:
        env.close()


def slip_m(env_id: str, seed: int) -> float:
    """Returns how far the objects moved in their grippers, held for five seconds after they were lifted: the most of any."""
    with _made(env_id) as env:
        carried = [(hand, thing) for hand, thing in enumerate(env.unwrapped.task.carries) if thing is not None]
        return max(_slip_m(env, seed, hand, thing) for hand, thing in carried)


def _slip_m(env: Any, seed: int, hand: int, thing: int) -> float:
    env.reset(seed=seed)
    unwrapped, task, expert = env.unwrapped, env.unwrapped.task, make_expert(env)
    height = ACTUATORS + 7 * thing + 2
    lying, action = unwrapped.data.qpos[height], expert.act()
    while unwrapped.data.qpos[height] < lying + LIFTED_M:
        action = expert.act()
        env.step(action)
    if task.control == END_EFFECTORS:
        action = action * [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    places = []
    for seconds in (SETTLING_S, HOLD_S):
        for _ in range(round(seconds / task.control_dt_s)):
            env.step(action)
        places.append(_place_in_gripper(unwrapped, hand, thing))
    return math.dist(*places)


def _place_in_gripper(env: Any, hand: int, thing: int) -> Array:
    tool = env.data.site(f"{SIDES[hand]}/tool")
    return np.asarray(tool.xmat.reshape(3, 3).T @ (env.data.body(list(env.task.objects)[thing]).xpos - tool.xpos))


def sunk_m(style: str, env_id: str, seed: int) -> float:
    """Returns how deep anything sank into anything in an expert's episode in [m]."""
    with _made(env_id) as env:
        env.reset(seed=seed)
        expert, data, deepest, ended = make_expert(env, style), env.unwrapped.data, 0.0, False
        while not ended:
            _, _, terminated, truncated, _ = env.step(expert.act())
            deepest = max(deepest, -data.contact.dist.min(initial=0.0))
            ended = terminated or truncated
        return float(deepest)


def flail(env_id: str, seed: int) -> tuple[bool, float, float]:
    """Returns whether an episode of random actions stayed sound, and the fastest that an object and a tool were in it, in [m/s]."""
    with _made(env_id) as env:
        env.reset(seed=seed)
        rng, task, data = generator(Stream.POLICY, seed), env.unwrapped.task, env.unwrapped.data
        first = data.qvel.size - 6 * len(task.objects)
        is_sound, fastest, fastest_tool = True, 0.0, 0.0
        for _ in range(env.unwrapped.step_limit):
            env.step(rng.uniform(-1.0, 1.0, env.action_space.shape))
            is_sound &= bool(np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all())
            velocities = data.qvel[first:].reshape(-1, 6)[:, :3]
            fastest = max(fastest, float(np.linalg.norm(velocities, axis=1).max()))
            fastest_tool = max(fastest_tool, float(np.linalg.norm(task.tool_velocities(env.unwrapped.physics)[0], axis=1).max()))
        return is_sound and not any(warning.number for warning in data.warning), fastest, fastest_tool


# -- table -------------------------------------------------------------------------------------------------------------------------


def with_table(page: str, stored: Mapping[str, Any]) -> str:
    """Returns a page with the table between `<!-- begin physics -->` and `<!-- end physics -->`."""
    legend = LEGEND.format(**stored)
    table = pages.markdown(COLUMNS, [_cells(env_id, row) for env_id, row in stored["envs"].items()])
    return pages.with_block(page, "physics", f"{table}\n{legend}")


def _cells(env_id: str, row: Mapping[str, Any]) -> Sequence[str]:
    sunk = [f"{1000 * row['penetration_m'][s]['median']:.2f}, {1000 * row['penetration_m'][s]['deepest']:.2f}" for s in STYLES]
    random = row["random"]
    speeds = f"{random['fastest_object_m_s']:.1f}, {random['fastest_tool_m_s']:.1f}"
    return [f"`{env_id}`", f"{1000 * row['slip_m']:.2f}", *sunk, str(random["errors"]), speeds]
