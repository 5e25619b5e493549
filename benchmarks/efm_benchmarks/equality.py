"""Whether a vector env does, bit for bit, what as many single envs do: everything returned, for whole runs with resets.

Only light imports up here: every worker makes them, too.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from efm_agents.parallel import in_order, number_of_workers
from efm_envs.registration import ids
from efm_envs.task import Array

if TYPE_CHECKING:
    from efm_agents.run import Report

STEP_LIMIT = 97  # so that episodes end, and begin anew, several times
THREADS = (1, 2)
MODES = tuple(mode.value for mode in AutoresetMode)


class Job(NamedTuple):
    """One comparison: an id in an autoreset mode."""

    env_id: str
    mode: str


def run(path: Path, env_ids: Sequence[str], *, num_envs: int, steps: int, workers: int, report: "Report") -> list[str]:
    """Compares ids in all modes, and stores what came of it in a file; returns what differed."""
    from efm_agents.checkpoint import write_atomically
    from efm_agents.run import versions

    jobs = [Job(env_id, mode) for env_id in env_ids for mode in MODES]
    compared: dict[str, dict[str, Any]] = json.loads(path.read_text())["envs"] if path.is_file() else {}
    results = in_order(functools.partial(compare, num_envs=num_envs, steps=steps), jobs, number_of_workers(workers, len(jobs)))
    for done, (job, result) in enumerate(zip(jobs, results, strict=True), 1):
        compared.setdefault(job.env_id, {})[job.mode] = result
        report("equality", done, len(jobs), f"{job.env_id} {job.mode}")
        ordered = {env_id: compared[env_id] for env_id in ids() if env_id in compared}
        made = {"command": "python benchmarks/equality.py", "num_envs": num_envs, "steps": steps, "step_limit": STEP_LIMIT}
        text = json.dumps({**made, "threads": THREADS, "versions": versions(), "envs": ordered}, indent=1)
        write_atomically(path, f"{text}\n".encode())
    return [f"{job.env_id} {job.mode}: {difference}" for job in jobs for difference in compared[job.env_id][job.mode]["differences"]]


def compare(job: Job, *, num_envs: int, steps: int) -> dict[str, Any]:
    """Runs vector envs beside single envs with the same random actions.

    Returns:
        `differences`, the first one for each number of threads; `episodes` that ended; and `law_error`, the largest
        |Σ r − (d(o_0) − d(o_T))| of those episodes.
    """
    mode = AutoresetMode(job.mode)
    kwargs: dict[str, Any] = {"step_limit": STEP_LIMIT, "num_envs": num_envs}
    singles = gym.make_vec(job.env_id, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **kwargs)
    batches = [gym.make_vec(job.env_id, num_threads=n, autoreset_mode=mode, **kwargs) for n in THREADS]
    rng, law = np.random.default_rng(0), Law(mode, num_envs)
    first: dict[int, str] = {}

    def check(expected: Any, returned: Sequence[Any], where: str) -> None:
        for threads, got in zip(THREADS, returned, strict=True):
            difference = next(differences(got, expected), None)
            if difference is not None:
                first.setdefault(threads, f"{threads} threads, {where}: {difference}")

    start = singles.reset(seed=0)
    check(start, [envs.reset(seed=0) for envs in batches], "reset")
    law.begin(np.ones(num_envs, bool), start[1])
    for step in range(steps):
        actions = rng.uniform(-1.0, 1.0, singles.action_space.shape).astype(np.float32)
        stepped = singles.step(actions)
        check(stepped, [envs.step(actions) for envs in batches], f"step {step}")
        ended = law.step(*stepped[1:])
        if mode is AutoresetMode.DISABLED and ended.any():
            options = {"reset_mask": ended}
            again = singles.reset(options=dict(options))
            check(again, [envs.reset(options=dict(options)) for envs in batches], f"reset after step {step}")
            law.begin(ended, again[1])
    for envs in (singles, *batches):
        envs.close()
    return {"differences": list(first.values()), "episodes": law.episodes, "law_error": law.error}


class Law:
    """Σ r = d(o_0) − d(o_T), followed through an autoreset mode.

    Attributes:
        episodes: that have ended.
        error: the largest |Σ r − (d(o_0) − d(o_T))| among them.
    """

    def __init__(self, mode: AutoresetMode, num_envs: int) -> None:
        self.episodes, self.error = 0, 0.0
        self._mode = mode
        self._first, self._total = np.zeros(num_envs), np.zeros(num_envs)
        self._ended = np.zeros(num_envs, bool)

    def begin(self, mask: Array, info: Mapping[str, Any]) -> None:
        """Takes the d of the first observations of the episodes in `mask` (B,)."""
        self._first[mask], self._total[mask] = info["steps_to_go"][mask], 0.0

    def step(self, rewards: Array, terminated: Array, truncated: Array, info: Mapping[str, Any]) -> Array:
        """Takes what a step returned; returns which episodes ended (B,)."""
        if self._mode is AutoresetMode.NEXT_STEP:
            self.begin(self._ended, info)
        self._total += rewards
        self._ended = terminated | truncated
        if self._ended.any():
            same_step = self._mode is AutoresetMode.SAME_STEP
            last = (info["final_info"] if same_step else info)["steps_to_go"]
            errors = np.abs(self._total - (self._first - last))[self._ended]
            self.episodes, self.error = self.episodes + len(errors), max(self.error, float(errors.max()))
            if same_step:
                self.begin(self._ended, info)
        return self._ended.copy()


def differences(a: Any, b: Any, where: str = "returned") -> Iterator[str]:
    """Yields the places in which two things that were returned differ by a bit, through dicts, tuples and arrays of objects."""
    if isinstance(a, dict) and isinstance(b, dict):
        if set(a) != set(b):
            yield f"{where} has {sorted(a)}, expected {sorted(b)}"
            return
        for name in a:
            yield from differences(a[name], b[name], f"{where}[{name!r}]")
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        if type(a) is not type(b) or len(a) != len(b):
            yield f"{where} is {type(a).__name__} of {len(a)}, expected {type(b).__name__}"
            return
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{where}[{i}]")
    elif isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            yield f"{where} is {a}, expected {b}"
    elif type(a) is not type(b) or a != b:
        yield f"{where} is {a!r}, expected {b!r}"
