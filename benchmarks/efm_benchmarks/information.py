"""What `efm envs` and `efm doctor` print."""

import ctypes.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import gymnasium as gym

from efm_agents.run import versions
from efm_benchmarks.policies import task_of
from efm_envs.experts.base import expert_knobs
from efm_envs.registration import REGISTRATIONS, registration
from efm_envs.rendering import DEBIAN_PACKAGES, find_backend, has_display
from efm_envs.rewards import reward_models

BACKENDS = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "GL"}  # MUJOCO_GL's value: the shared library it needs
PACKAGES = {"egl": DEBIAN_PACKAGES, "osmesa": "libosmesa6", "glfw": "libgl1, and a display"}
TRIAL = """
import gymnasium as gym, efm_envs
env = gym.make("EFM-PointMass-v0", render_mode="rgb_array")
env.reset(seed=0)
env.render()
env.close()
"""


def list_envs(as_json: bool) -> None:
    """Prints every registered id."""
    if as_json:
        print(json.dumps([asdict(row) for row in REGISTRATIONS], indent=2))
        return
    width = max(len(row.id) for row in REGISTRATIONS)
    for row in REGISTRATIONS:
        print(f"{row.id:{width}}  {row.summary}" + (f"  needs [{row.extra}]" if row.extra else ""))
    print(f"Next: efm envs {REGISTRATIONS[0].id}")


def show_env(env_id: str, as_json: bool) -> None:
    """Prints what one id is: spaces, limit, styles of its expert, reward models."""
    facts = describe(env_id)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        is_block = isinstance(value, dict) and value
        lines = [f"\n  {k}: {json.dumps(v) if isinstance(v, dict) else v}" for k, v in value.items()] if is_block else [_joined(value)]
        print(f"{name.replace('_', ' ')}: " + "".join(lines))
    print(f"Next: efm play --env {env_id}" + ("" if facts["expert_styles"] else " --policy random"))


def describe(env_id: str) -> dict[str, Any]:
    """Returns the facts of one id, JSON-able."""
    row, task = registration(env_id), task_of(env_id)
    env = gym.make(env_id)
    assert isinstance(env.observation_space, gym.spaces.Dict)
    return {
        "id": row.id,
        "summary": row.summary,
        "tags": list(row.tags),
        "step_limit": row.step_limit,
        "control_period_s": task.control_dt_s,
        "action": str(env.action_space),
        "observations": {name: f"{space.shape} {space.dtype}" for name, space in env.observation_space.items()},
        "cameras": list(task.cameras),
        "expert_styles": sorted(task.experts),
        "expert_knobs": {style: knobs for style in sorted(task.experts) if (knobs := expert_knobs(task, style))},
        "reward_models": reward_models(),
    }


def show_doctor(as_json: bool) -> None:
    """Prints what is installed, whether pictures can be drawn, and what to do about what is missing."""
    facts = examine()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, version in facts["versions"].items():
        print(f"{name:12} {version}")
    print(f"{'display':12} {'yes' if facts['display'] else 'no: windows cannot be opened, pictures and videos can'}")
    for name, works in facts["rendering"].items():
        print(f"{name:12} {works}")
    print(f"{'chosen':12} {facts['chosen_backend']}")
    for advice in facts["advice"]:
        print(f"To do: {advice}")
    if not facts["advice"]:
        print("Nothing is missing.")


def examine() -> dict[str, Any]:
    """Returns versions, rendering backends and advice, JSON-able. Each backend is tried in a process of its own."""
    rendering = {name: _try_backend(name) for name in BACKENDS} if sys.platform == "linux" else {"default": _try_backend("")}
    chosen = find_backend()
    advice = []
    if not any(works == "works" for works in rendering.values()):
        advice.append(f"nothing can be drawn. On Debian or Ubuntu: apt-get install {DEBIAN_PACKAGES}")
    elif chosen is not None and rendering.get(chosen, "works") != "works":
        usable = next(name for name, works in rendering.items() if works == "works")
        advice.append(f"MUJOCO_GL={chosen} does not work here; {usable} does: export MUJOCO_GL={usable}")
    advice += [
        f'{name} is not installed: pip install "efm-envs[agents]"' for name, version in versions().items() if version == "not installed"
    ]
    return {
        "versions": versions() | {"platform": platform.platform()},
        "display": has_display(),
        "rendering": rendering,
        "chosen_backend": chosen,
        "advice": advice,
    }


def _try_backend(name: str) -> str:
    library = BACKENDS.get(name)
    if library is not None and ctypes.util.find_library(library) is None:
        return f"not installed (Debian: {PACKAGES[name]})"
    if name == "glfw" and not has_display():
        return "needs a display"
    environment = {**os.environ, **({"MUJOCO_GL": name} if name else {})}
    trial = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, timeout=120, check=False)
    return "works" if trial.returncode == 0 else f"fails: {trial.stderr.strip().splitlines()[-1]}"


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value or "none")
