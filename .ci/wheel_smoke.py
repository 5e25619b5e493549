"""Builds the wheel and tries it as a user who installs nothing but efm-envs: `make wheel-test`.

The tests run on an editable install, which forgives a package or a data file that the wheel lacks, and in an
environment that has torch. This script is for those two.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = {  # folder in the source tree: import name in the wheel
    "efm_envs": "efm_envs",
    "agents/efm_agents": "efm_agents",
    "benchmarks/efm_benchmarks": "efm_benchmarks",
    "assets": "efm_assets",
}

# Runs in the new environment, in an empty folder.
USE = """
import importlib.util

assert importlib.util.find_spec("torch") is None, "torch came along with the base dependencies"

import gymnasium as gym
import efm_envs

env = gym.make("EFM-PointMass-v0")
observation, info = env.reset(seed=0)
assert env.observation_space.contains(observation)
env.step(env.action_space.sample())
env.close()

from efm_envs.interop import gym_aloha

env = gym_aloha.make("gym_aloha/AlohaInsertion-v0", obs_type="state")
env.reset(seed=0)
env.step(env.action_space.sample())
env.close()

envs = gym.make_vec("EFM-LanguageTable4-v0", num_envs=3)
envs.reset(seed=0)
envs.step(envs.action_space.sample())
envs.close()
"""
# What needs an extra, by its name.
WITHOUT = {
    "agents": 'gym.make("EFM-PointMass-v0", reward_model={"id": "checkpoint", "path": "nowhere"})',
    "dm-control": 'gym.make_vec("EFM-DMC-ReacherEasy-v0", num_envs=2)',
    "sb3": "import efm_envs.interop.sb3",
}
TRY = """
import gymnasium as gym
import efm_envs

try:
    {code}
except ImportError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def main() -> None:
    """Builds, compares, installs and uses the wheel; exits with a message at the first fault."""
    with tempfile.TemporaryDirectory(prefix="efm-wheel-") as folder:
        wheel = build(Path(folder, "dist"))
        check_contents(wheel)
        check_use(wheel, Path(folder, "venv"), Path(folder, "empty"))


def build(destination: Path) -> Path:
    """Returns the wheel, built from the source distribution, so that files missing there show, too."""
    say("build the source distribution, and the wheel from it")
    run([sys.executable, "-m", "build", "--outdir", destination, REPOSITORY])
    (wheel,) = destination.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Compares the files of the wheel with those of the source tree, in both directions."""
    say("compare the wheel with the source tree")
    expected = source_files()
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    complaints = [f"missing from the wheel: {name}" for name in sorted(expected - installed)]
    complaints += [f"in the wheel, not in the source tree: {name}" for name in sorted(installed - expected)]
    if complaints:
        sys.exit("\n".join([*complaints, "See setup.py (packages) and setup.cfg (options.package_data)."]))
    print(f"{len(expected)} files, all there")


def source_files() -> set[str]:
    """Returns the names under which the wheel should hold the files of the four packages."""
    return {
        f"{package}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, package in PACKAGES.items()
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and not path.name.startswith(".")
    }


def check_use(wheel: Path, environment: Path, workplace: Path) -> None:
    """Installs the wheel with the base dependencies only, and uses it from an empty folder."""
    say("install the wheel, without extras, into an empty environment")
    venv.create(environment, with_pip=True)
    python, efm = environment / "bin" / "python", environment / "bin" / "efm"
    run([python, "-m", "pip", "install", "-q", "-c", REPOSITORY / "constraints.txt", wheel])

    say("use it from an empty folder")
    workplace.mkdir()
    run([python, "-I", "-c", USE], cwd=workplace)
    for extra, code in WITHOUT.items():
        output = run([python, "-I", "-c", TRY.format(code=code)], cwd=workplace)
        expect_install_command(output, code, extra)
    output = run([efm, "--help"], cwd=workplace, check=False)
    expect_install_command(output, "efm --help", "agents")
    print("works without extras, and says how to install them")


def run(command: list[str | Path], cwd: Path | None = None, check: bool = True) -> str:
    """Returns what a command printed, and shows it meanwhile; exits if it fails, unless `check` is off."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, cwd=cwd, env=surroundings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait() != 0 and check:
        sys.exit(f"failed with exit code {process.returncode}: {command[0]}")
    return "".join(lines)


def expect_install_command(output: str, what: str, extra: str) -> None:
    """Exits unless the output names the install command of the missing extra, and is no bare traceback."""
    command = f'pip install "efm-envs[{extra}]"'
    if command not in output or "Traceback" in output:
        sys.exit(f"Without the extra [{extra}], {what} should say: {command}\nIt said:\n{output or '(nothing)'}")


def say(step: str) -> None:
    """Prints a header."""
    print(f"\n-- {step}", flush=True)


if __name__ == "__main__":
    main()
