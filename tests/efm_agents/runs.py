"""What tests of resuming compare."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.efm_agents.dying import Killed, dying_at

RESULTS = ("*.jsonl", "checkpoints/*.safetensors", "config.json")
Program = Callable[..., Path]  # takes the run's folder and `report`


def results(run: Path) -> dict[str, bytes]:
    """Everything that a run comes to, by file name. The state that a resumed run starts from is part of it."""
    return {str(p.relative_to(run)): p.read_bytes() for pattern in RESULTS for p in sorted(run.glob(pattern))}


def assert_a_break_after_any_report_changes_nothing(program: Program, folder: Path, reports: int) -> None:
    expected = results(program(folder / "whole"))
    for k in range(1, reports + 1):
        seen = []

        def report(*_: object, k: int = k, seen: list[int] = seen) -> None:
            seen.append(1)
            if len(seen) == k:
                raise Killed

        with pytest.raises(Killed):
            program(folder / str(k), report=report)
        assert results(program(folder / str(k))) == expected, f"broken off after report {k}"


def assert_a_death_at_any_system_call_changes_nothing(program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results(program(folder / "whole"))
    for k in range(1, 500):
        run = folder / str(k)
        try:
            with dying_at(k, monkeypatch) as calls:
                program(run)
        except Killed:
            pass
        assert results(program(run)) == expected, f"died at system call {k}, {calls[-1]}"
        assert not [p.name for p in run.rglob(".*")], f"died at system call {k}, {calls[-1]}"
        if len(calls) < k:
            return
    raise AssertionError("the program never came through alive")
