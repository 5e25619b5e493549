"""Speed: what benchmarks/perf measured, kept as rates, and the tables made of it.

A rate is the number of things in a round over the time of the fastest round. Only ratios of rates from one run mean something elsewhere.
"""

import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from efm_agents.checkpoint import write_atomically
from efm_benchmarks import pages
from efm_benchmarks.tables import UNKNOWN, number
from efm_envs.registration import ids

Row = dict[str, Any]
FACTS = ("what", "id", "num_envs", "num_threads", "size")  # what tells rows apart
VERSIONED = ("efm-envs", "mujoco", "gymnasium", "numpy", "gym-aloha", "gymnasium-robotics", "metaworld")
VERSIONS = f"""
import importlib.metadata, json
found = {{}}
for name in {VERSIONED!r}:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
MEMORY = """
import sys
import gymnasium as gym
import efm_envs

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def run(num_envs):
    envs = gym.make_vec(sys.argv[1], num_envs=num_envs)
    envs.reset(seed=0)
    for _ in range(20):
        envs.step(envs.action_space.sample())
    return envs

one = run(1)
before = resident_mib()
many = run(256)
print(resident_mib() - before)
"""
SHOWN = ("EFM-PointMass-v0", "EFM-LanguageTable4-v0", "EFM-LanguageTable-v0", "EFM-Insert-v0", "EFM-InsertEE-v0")  # in README


# -- measuring ---------------------------------------------------------------------------------------------------------------------


def measure(root: Path, path: Path, selection: Sequence[str], *, python: str = sys.executable, command: str) -> None:
    """Runs measurements of benchmarks/perf, and stores them in a file, in which others stay as they are.

    Args:
        root: the repository.
        path: the file.
        selection: arguments of pytest that select what is measured.
        python: an interpreter that has pytest-benchmark.
        command: what a person types to do the same.

    Raises:
        RuntimeError: something could not be measured; what could is stored.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        arguments = [python, "-m", "pytest", "--benchmark-only", "--benchmark-quiet", f"--benchmark-json={out}", "-q", *selection]
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # of a pytest that runs this
        done = subprocess.run(arguments, cwd=root, env=surroundings, check=False)
        rows = [_row(benchmark) for benchmark in json.loads(out.read_text())["benchmarks"]] if out.is_file() else []
    stored = load(path)
    kept = {_key(row): row for row in stored["rows"]}
    kept |= {_key(row): row for row in rows}
    known = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True, cwd=root)
    stored["runs"] = {**stored["runs"], command: {"machine": machine(), "versions": json.loads(known.stdout)}}
    store(path, {**stored, "rows": list(kept.values())})
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: see above. {len(rows)} measurements are stored.")


def measure_memory(path: Path, env_ids: Sequence[str]) -> None:
    """Stores how much memory, in [MiB], 256 envs in state mode add to one, each id in a process of its own."""
    stored = load(path)
    for env_id in env_ids:
        done = subprocess.run([sys.executable, "-c", MEMORY, env_id], capture_output=True, text=True, check=True)
        stored["memory_mib"][env_id] = round(float(done.stdout), 1)
    store(path, stored)


def measure_profile(path: Path, env_ids: Sequence[str]) -> None:
    """Stores where the time of a step goes, of one env and of 64, in [µs]."""
    stored = load(path)
    for env_id in env_ids:
        stored["profile_us"][env_id] = {str(num_envs): profile(env_id, num_envs) for num_envs in (1, 64)}
    store(path, stored)


def profile(env_id: str, num_envs: int, steps: int = 200) -> dict[str, float]:
    """Returns how long each part of a step with random actions takes, and the whole of it, in [µs]: the median of many steps.

    Args:
        env_id: a registered id.
        num_envs: 1 is a single env, more a vector env with two threads.
        steps: how many.
    """
    endless: dict[str, Any] = {"terminate_on": "never", "step_limit": 10**9}
    if num_envs == 1:
        env: Any = gym.make(env_id, disable_env_checker=True, **endless).unwrapped
        parts = {"physics": (env, "simulation"), "reward": (env, "signal")}
    else:
        env = gym.make_vec(env_id, num_envs=num_envs, num_threads=2, **endless).unwrapped
        parts = {"physics": (env, "batch"), "reward": (env, "signal")}
    clock = Clock()
    for part, (owner, name) in parts.items():
        clock.watch(getattr(owner, name), "step", part)
    for method in ("apply", "observe", "truth"):
        clock.watch(env.task, method, method)
    env.reset(seed=0)
    for actions in np.random.default_rng(0).uniform(-1.0, 1.0, (steps, *env.action_space.shape)).astype(np.float32):
        clock.round(functools.partial(env.step, actions))
    return clock.medians_us()


class Clock:
    """Measures how long parts of a whole take, in many rounds; a part within a part is not counted twice."""

    def __init__(self) -> None:
        self._rounds: list[dict[str, float]] = []
        self._inside = 0.0  # time of the parts within the present one

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Measures a method of an object from now on."""
        call = getattr(owner, method)
        setattr(owner, method, lambda *args, **kwargs: self._timed(part, lambda: call(*args, **kwargs)))

    def round(self, call: Callable[[], Any]) -> None:
        """Runs the whole once."""
        self._rounds.append({})
        self._timed("everything else", call)

    def medians_us(self) -> dict[str, float]:
        """Returns the median time of each part, and of the whole, in [µs]."""
        names = dict.fromkeys(name for times in self._rounds for name in times)
        medians = {name: float(np.median([1e6 * times.get(name, 0.0) for times in self._rounds])) for name in names}
        whole = float(np.median([1e6 * sum(times.values()) for times in self._rounds]))
        return {name: round(value, 1) for name, value in {**medians, "whole": whole}.items()}

    def _timed(self, part: str, call: Callable[[], Any]) -> Any:
        outside, self._inside = self._inside, 0.0
        start = time.perf_counter()
        result = call()
        took = time.perf_counter() - start
        if self._rounds:
            self._rounds[-1][part] = self._rounds[-1].get(part, 0.0) + took - self._inside
        self._inside = outside + took
        return result


def load(path: Path) -> dict[str, Any]:
    """Returns what is stored: `rows`, each with `per_s` and what tells it apart; `runs`, by command; `memory_mib`, `profile_us`, by id."""
    empty: dict[str, Any] = {"runs": {}, "memory_mib": {}, "profile_us": {}, "rows": []}
    return {**empty, **json.loads(path.read_text())} if path.is_file() else empty


def store(path: Path, stored: Mapping[str, Any]) -> None:
    """Writes the file, a row a line."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in stored["rows"])
    head = json.dumps({name: value for name, value in stored.items() if name != "rows"}, indent=1)
    write_atomically(path, f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'.encode())


def machine() -> str:
    """Returns what the processor is, and how many of its cores there are."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} × {name}"


def _row(benchmark: Mapping[str, Any]) -> Row:
    facts = benchmark["extra_info"]
    rate = facts["items"] / benchmark["stats"]["min"]
    return {**{name: facts[name] for name in FACTS if name in facts}, "per_s": float(f"{rate:.4g}")}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in FACTS)


# -- tables ------------------------------------------------------------------------------------------------------------------------


class Rates:
    """Stored rates, to be looked up."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._rows: Sequence[Row] = stored["rows"]

    def of(self, what: str, env_id: str, **facts: Any) -> float | None:
        """Returns the best rate [1/s] among the rows with these facts; None where there is none."""
        wanted = {"what": what, "id": env_id, **facts}
        found = [row["per_s"] for row in self._rows if all(row.get(name) == value for name, value in wanted.items())]
        return max(found, default=None)

    def best(self, whats: Sequence[str], env_id: str) -> float | None:
        """Returns the best rate of several kinds, at any number of envs."""
        found = [rate for what in whats if (rate := self.of(what, env_id)) is not None]
        return max(found, default=None)


def readme_table(stored: Mapping[str, Any]) -> str:
    """Returns a few ids: one env, 64 envs, and what Gymnasium's own vector envs reach."""
    rates = Rates(stored)
    columns = (
        "id",
        "one env",
        "64 envs, 2 threads",
        "of bare `Batch.step`",
        "best of Sync and Async",
        "gain",
        "64 × 64 pictures, 2 threads",
    )
    return pages.markdown(columns, [_readme_cells(rates, env_id) for env_id in SHOWN])


def _readme_cells(rates: Rates, env_id: str) -> list[str]:
    single, many = rates.of("single:oracle", env_id), rates.of("vector:oracle", env_id, num_envs=64, num_threads=2)
    bare = rates.of("vector:bare", env_id, num_envs=64, num_threads=2)
    other = rates.best(["vector:sync", "vector:async"], env_id)
    pictures = rates.of("pixels:batch", env_id, num_threads=2, size=64)
    return [f"`{env_id}`", per_s(single), per_s(many), share(many, bare), per_s(other), times(many, other), per_s(pictures)]


def step_table(stored: Mapping[str, Any]) -> str:
    """Returns for each id what a step of a single env costs, and over the bare physics."""
    rates = Rates(stored)
    columns = ("id", "bare [µs]", "`none`", "`oracle`", "expert's steps, `oracle`", "reset [ms]", "make [ms]")

    def cells(env_id: str) -> list[str]:
        bare, expert = rates.of("single:bare", env_id), rates.of("single expert:bare", env_id)
        over = [times(bare, rates.of(f"single:{model}", env_id)) for model in ("none", "oracle")]
        once = [number(_inverse(rates.of(what, env_id), 1e3)) for what in ("reset:single", "make:single")]
        return [f"`{env_id}`", number(_inverse(bare, 1e6)), *over, times(expert, rates.of("single expert:oracle", env_id)), *once]

    return pages.markdown(columns, map(cells, ids()))


def vector_table(stored: Mapping[str, Any]) -> str:
    """Returns for each id what 64 envs reach, beside the bare batch and Gymnasium's own vector envs."""
    rates = Rates(stored)
    columns = (
        "id",
        "1 thread",
        "2 threads",
        "gain",
        "of bare, 1 thread",
        "of bare, 2",
        "Sync, best",
        "Async, best",
        "over the best",
        "256 envs",
    )

    def cells(env_id: str) -> list[str]:
        one, two = (rates.of("vector:oracle", env_id, num_envs=64, num_threads=n) for n in (1, 2))
        bare = [rates.of("vector:bare", env_id, num_envs=64, num_threads=n) for n in (1, 2)]
        sync, apart = rates.of("vector:sync", env_id), rates.of("vector:async", env_id)
        gain, shares = times(two, one), [share(mine, its) for mine, its in zip((one, two), bare, strict=True)]
        over = times(two, rates.best(["vector:sync", "vector:async"], env_id))
        most = rates.of("vector:oracle", env_id, num_envs=256, num_threads=2)
        return [f"`{env_id}`", per_s(one), per_s(two), gain, *shares, per_s(sync), per_s(apart), over, per_s(most)]

    return pages.markdown(columns, map(cells, ids()))


def size_table(stored: Mapping[str, Any]) -> str:
    """Returns how rates grow with the number of envs, for a few ids."""
    rates = Rates(stored)
    sizes = (1, 16, 64, 256)
    columns = ("id", "threads", *(f"{n} envs" for n in sizes), *(f"of bare, {n}" for n in sizes))

    def cells(env_id: str, threads: int) -> list[str]:
        mine, bare = ([rates.of(what, env_id, num_envs=n, num_threads=threads) for n in sizes] for what in ("vector:oracle", "vector:bare"))
        return [f"`{env_id}`", str(threads), *map(per_s, mine), *(share(m, b) for m, b in zip(mine, bare, strict=True))]

    return pages.markdown(columns, [cells(env_id, threads) for env_id in SHOWN for threads in (1, 2)])


def reset_table(stored: Mapping[str, Any]) -> str:
    """Returns what resets of 64 envs cost, for a few ids, and their memory."""
    rates = Rates(stored)
    columns = ("id", "new episodes in all 64 [ms]", "in one of 64 [ms]", "in a single env [ms]", "256 envs add [MiB]")

    def cells(env_id: str) -> list[str]:
        every, one = _inverse(rates.of("reset:vector", env_id, num_envs=64), 64e3), _inverse(rates.of("reset:one of 64", env_id), 1e3)
        single = _inverse(rates.of("reset:single", env_id), 1e3)
        return [f"`{env_id}`", *(number(value, 2) for value in (every, one, single)), number(stored["memory_mib"].get(env_id))]

    return pages.markdown(columns, map(cells, SHOWN))


def picture_table(stored: Mapping[str, Any]) -> str:
    """Returns what pictures cost, beside the bare renderer."""
    rates = Rates(stored)
    columns = ("id", "size", "bare renderer", "1 worker", "2 workers", "of bare", "gain", "2 processes")

    def cells(env_id: str, size: int) -> list[str]:
        bare = rates.of("pixels:bare", env_id, size=size)
        one, two = (rates.of("pixels:batch", env_id, size=size, num_threads=n) for n in (1, 2))
        apart = rates.of("pixels:processes", env_id, size=size)
        return [f"`{env_id}`", f"{size} × {size}", per_s(bare), per_s(one), per_s(two), share(one, bare), times(two, one), per_s(apart)]

    return pages.markdown(columns, [cells(env_id, size) for env_id in SHOWN for size in (64, 128)])


def looks_table(stored: Mapping[str, Any]) -> str:
    """Returns what switching on looks costs: the time of a picture, over that of a picture without."""
    rates = Rates(stored)
    looks = ("multisampling", "MuJoCo's roundness", "reflections", "shadows", "MuJoCo's shadows")

    def cells(env_id: str) -> list[str]:
        plain = rates.of("looks:none", env_id)
        return [f"`{env_id}`", number(_inverse(plain, 1e3), 2), *(times(plain, rates.of(f"looks:{look}", env_id)) for look in looks)]

    return pages.markdown(("id", "a picture [ms]", *looks), map(cells, SHOWN))


def signal_table(stored: Mapping[str, Any]) -> str:
    """Returns what the signal alone costs."""
    rates = Rates(stored)
    costs = [(n, _inverse(rates.of("signal", "all", num_envs=n), 1e6)) for n in (1, 16, 64, 256)]
    rows = [[str(n), number(each and each * n), number(each, 2)] for n, each in costs]
    return pages.markdown(("envs", "a call [µs]", "an env [µs]"), rows)


def profile_table(stored: Mapping[str, Any]) -> str:
    """Returns where the time of a step goes."""
    parts = {"physics": "physics", "action": "apply", "observation": "observe", "truth and d": "truth", "signal": "reward"}

    def cells(env_id: str, num_envs: str, took: Mapping[str, float]) -> list[str]:
        shares = [share(took.get(part, 0.0), took["whole"]) for part in (*parts.values(), "everything else")]
        return [f"`{env_id}`", num_envs, number(took["whole"], 0), *shares]

    profiles = [(env_id, n, took) for env_id in SHOWN for n, took in stored["profile_us"].get(env_id, {}).items()]
    columns = ("id", "envs", "a step [µs]", *parts, "everything else")
    return pages.markdown(columns, [cells(*each) for each in profiles])


def peer_table(stored: Mapping[str, Any]) -> str:
    """Returns control steps of other projects' envs beside ours, and over their own bare physics."""
    rates = Rates(stored)
    names = dict.fromkeys(row["id"] for row in stored["rows"] if row["what"] == "peer:steps")

    def cells(name: str) -> list[str]:
        steps, bare = rates.of("peer:steps", name), rates.of("peer:bare", name)
        return [f"`{name}`", per_s(steps), number(_inverse(bare, 1e6)), times(bare, steps)]

    return pages.markdown(("env", "control steps/s", "bare physics [µs]", "a step, over it"), [cells(name) for name in names])


TABLES = {
    "single": step_table,
    "vector": vector_table,
    "sizes": size_table,
    "resets": reset_table,
    "pictures": picture_table,
    "looks": looks_table,
    "signal": signal_table,
    "profile": profile_table,
    "peers": peer_table,
}


def with_tables(page: str, stored: Mapping[str, Any]) -> str:
    """Returns docs/performance.md with all tables, and what they were measured on."""
    for name, table in TABLES.items():
        page = pages.with_block(page, f"speed {name}", table(stored))
    runs = [
        f"- `{command}`: {run['machine']}; {', '.join(f'{name} {version}' for name, version in run['versions'].items())}"
        for command, run in stored["runs"].items()
    ]
    return pages.with_block(page, "speed runs", "\n".join(runs))


def per_s(rate: float | None) -> str:
    """Returns a rate [1/s] as text, to three digits."""
    return UNKNOWN if rate is None else f"{float(f'{rate:.3g}'):,.0f}"


def share(part: float | None, whole: float | None) -> str:
    """Returns a rate as a share of another."""
    return UNKNOWN if part is None or whole is None else f"{100 * part / whole:.0f} %"


def times(rate: float | None, other: float | None) -> str:
    """Returns a rate as a multiple of another."""
    if rate is None or other is None:
        return UNKNOWN
    ratio = rate / other
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:,.0f}×"


def _inverse(rate: float | None, unit: float) -> float | None:
    return None if rate is None else unit / rate
