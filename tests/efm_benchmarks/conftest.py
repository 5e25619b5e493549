"""The `efm` command in this process and in one of its own, and a small run of each stage."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch

EFM = Path(sys.executable).with_name("efm")
TINY_SFT = ("--preset", "point-mass", "--steps", "60", "--validate-every", "20", "--batch", "32", "--hidden", "16", "16")
TINY_IMPROVE = ("--iterations", "2", "--updates", "2", "--batch", "32", "--num-envs", "2", "--score-window", "1", "--monitor-episodes", "2")


class Finished(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Efm = Callable[..., Finished]


def run_here(*arguments: object) -> Finished:
    """Runs `efm` in this process: quick. An error that it does not turn into a message comes out as it is, and fails the test."""
    from efm_benchmarks import cli

    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["efm", *map(str, arguments)]), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:  # as the interpreter treats it
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(code, out.getvalue(), err.getvalue())


def run_apart(*arguments: object, **kwargs: object) -> Finished:
    """Runs the installed `efm` in a process of its own."""
    done = subprocess.run([EFM, *map(str, arguments)], capture_output=True, text=True, check=False, **kwargs)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def efm() -> Efm:
    return run_here


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums of floats depend on how many threads share them."""
    torch.set_num_threads(1)


class Runs(NamedTuple):
    """Paths of demonstrations and of one run of each stage, and what the commands that made them printed."""

    demos: Path
    sft: Path
    improve: Path
    printed: dict[str, Finished]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    demos, sft, improve = folder / "demos.npz", folder / "sft", folder / "improve"
    printed = {
        "demos": run_here("demos", "--episodes", 30, "--out", demos, "--json"),
        "sft": run_here("sft", "--demos", demos, "--out", sft, *TINY_SFT, "--json"),
        "improve": run_here("improve", "--start", sft, "--out", improve, *TINY_IMPROVE, "--json"),
    }
    assert all(done.code == 0 for done in printed.values()), printed
    return Runs(demos, sft, improve, printed)
