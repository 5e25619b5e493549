"""What a model costs: the time of a call, and memory."""

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from efm_benchmarks.audit.asking import Audit, Figure
from efm_envs.relabelling import goal_of
from efm_envs.task import Array, Goals

LATENCY_BATCHES = (1, 64)
LATENCY_CALLS, LATENCY_S = 200, 2.0  # calls that are timed, and when it is enough
MEASURE = """
import json, sys
import mujoco, efm_envs.env
from efm_envs.rewards import make_reward_model
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
model = make_reward_model(json.loads(sys.argv[1]))
print(resident() - before)
"""


def cost(one: Audit) -> Figure:
    """Times the model alone, at batch 1 and 64, and says what its numbers take."""
    judged = one.judged[one.main][0]
    seen, goal = one.seen(judged.episode), goal_of(judged.episode, one.env)[0]
    found: Figure = {}
    for batch in LATENCY_BATCHES:
        rows = np.arange(batch) % (len(judged.episode) + 1)
        observations = {name: _with_history(one, name, values[rows]) for name, values in seen.items()}
        found[f"latency_ms_{batch}"] = 1e3 * _median_time(one, observations, Goals([goal] * batch))
    found["memory_mib"] = _memory_mib(one.model.spec)
    return found


def _with_history(one: Audit, name: str, values: Array) -> Array:
    k = one.model.history.get(name)
    return values if k is None else np.repeat(values[:, None], k, axis=1)


def _median_time(one: Audit, observations: Mapping[str, Array], goals: Goals) -> float:
    model = copy.deepcopy(one.model) if one.model.has_memory else one.model
    model.reset(goals, np.ones(len(goals), bool))
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < LATENCY_CALLS and time.perf_counter() - begin < LATENCY_S:
        start = time.perf_counter()
        model.steps_to_go(observations, goals)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)


def _memory_mib(spec: Mapping[str, Any]) -> float | None:
    """Returns what making the model adds to a process that has the envs, libraries included; None where its spec cannot make it."""
    try:
        done = subprocess.run([sys.executable, "-c", MEASURE, json.dumps(spec)], capture_output=True, text=True, check=True, timeout=120)
        return int(done.stdout) / 2**20
    except (subprocess.SubprocessError, ValueError, TypeError, OSError):
        return None
