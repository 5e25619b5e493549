"""Programs that die in the middle of a system call."""

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


def killed() -> None:
    raise Killed


class _File:
    """A file whose write reaches the disk half, or whole, and no further."""

    def __init__(self, file: Any, system_call: Callable[[], bool]) -> None:
        self._file, self._system_call = file, system_call

    def write(self, data: Any) -> int:
        if self._system_call():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            killed()
        return self._file.write(data)

    def writelines(self, lines: Any) -> None:
        self.write(type(lines)().join(lines) if isinstance(lines, str | bytes) else "".join(lines))

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def dying_at(k: int, monkeypatch: pytest.MonkeyPatch, die: Callable[[], None] = killed) -> Iterator[list[str]]:
    """Dies at the k-th system call that changes files: opening one to write, writing, flushing to the disk, renaming.

    Yields the calls so far. Fewer than k of them: the program came through alive.
    """
    calls: list[str] = []

    def is_last(name: str) -> bool:
        calls.append(name)
        return len(calls) == k

    def before(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            if is_last(name):
                die()
            return function(*args, **kwargs)

        return called

    def opening(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return function(file, mode, *args, **kwargs)
            if not isinstance(file, int) and is_last("open"):
                die()
            return _File(function(file, mode, *args, **kwargs), lambda: is_last("write"))

        return called

    os_open = os.open

    def open_file(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and is_last("open"):
            die()
        return os_open(path, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_file)
        patch.setattr(os, "fdopen", opening(os.fdopen))
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(io, "open", opening(io.open))
        for name in ("fsync", "replace", "rename"):
            patch.setattr(os, name, before(name, getattr(os, name)))
        yield calls
