"""A hash of what a function does, for the fingerprint of a model that is somebody's function."""

import dis
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from efm_envs.errors import RewardModelError

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))


def content_hash(thing: Any) -> str:
    """Returns 16 hex digits that change when what `thing` does changes; its name, file and comments do not count.

    What counts: the bytecode and constants of functions, their defaults, the values that they enclose, the globals that they read, the
    state of callable objects and the methods of their classes; arrays by their content. Code of other top-level packages than the one
    that `thing` is from, and what is reached through a module (`tools.distance`), counts by its name only. Another Python version has
    other bytecode, and so another hash.

    Raises:
        RewardModelError: it holds something that is neither code nor plain data, such as a lock or a network on a GPU.

    >>> def after(gain):
    ...     return lambda observations: gain * observations["x"]
    >>> content_hash(after(1.0)) == content_hash(after(1.0)), content_hash(after(1.0)) == content_hash(after(2.0))
    (True, False)
    """
    return _Reader(_package(thing), _name(thing)).digest(thing, "itself").hex()[:16]


class _Reader:
    """Digests things, each from the digests of its parts.

    Args:
        package: the top-level package whose code is read.
        root: what messages call the whole.
    """

    def __init__(self, package: str, root: str) -> None:
        self._package = package
        self._root = root
        self._open: list[int] = []  # ids of what is being read: who comes back to one of them has gone in a circle
        self._known: dict[int, tuple[Any, bytes]] = {}  # of code that is read already; holds it, so that its id stays its own

    def digest(self, thing: Any, where: str) -> bytes:
        """Returns 32 bytes."""
        if isinstance(thing, PLAIN):
            return _joined(type(thing).__name__, repr(thing).encode())
        if id(thing) in self._known:
            return self._known[id(thing)][1]
        if id(thing) in self._open:
            return _joined("circle", str(len(self._open) - self._open.index(id(thing))).encode())
        self._open.append(id(thing))
        digest = self._read(thing, where)
        self._open.pop()
        if isinstance(thing, types.FunctionType | type):
            self._known[id(thing)] = thing, digest
        return digest

    def _read(self, thing: Any, where: str) -> bytes:
        if isinstance(thing, list | tuple):
            return _joined("sequence", *(self.digest(part, where) for part in thing))
        if isinstance(thing, set | frozenset):
            return _joined("set", *sorted(self.digest(part, where) for part in thing))
        if isinstance(thing, Mapping):
            return _joined("mapping", *sorted(self.digest(item, where) for item in thing.items()))
        if isinstance(thing, types.CodeType):
            return self._code(thing, where)
        if isinstance(thing, types.FunctionType):
            return self._function(thing) if self._is_ours(thing) else _named(thing)
        if isinstance(thing, types.MethodType):
            return _joined("method", self.digest(thing.__func__, where), self.digest(thing.__self__, where))
        if isinstance(thing, functools.partial):
            return _joined("partial", *(self.digest(part, where) for part in (thing.func, thing.args, thing.keywords)))
        if isinstance(thing, type):
            return self._class(thing) if self._is_ours(thing) else _named(thing)
        if not self._is_ours(type(thing)) and hasattr(thing, "__name__"):
            return self._others(thing, where)
        return self._object(thing, where)

    def _code(self, code: types.CodeType, where: str) -> bytes:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        parts = (code.co_code, code.co_exceptiontable, code.co_names, counts, code.co_consts)
        return _joined("code", *(self.digest(part, where) for part in parts))

    def _function(self, function: types.FunctionType) -> bytes:
        named = {
            **{f"default {i} of {function.__name__}": value for i, value in enumerate(function.__defaults__ or ())},
            **{f"default {name!r} of {function.__name__}": value for name, value in (function.__kwdefaults__ or {}).items()},
            **{f"{name!r}, which {function.__name__} encloses": value for name, value in _enclosed(function)},
            **{f"global {name!r}": function.__globals__[name] for name in _globals_of(function)},
        }
        parts = (self.digest(value, name) for name, value in named.items())
        return _joined("function", self.digest(function.__code__, function.__name__), *parts)

    def _class(self, cls: type) -> bytes:
        bases = (self.digest(base, cls.__name__) for base in cls.__bases__)
        members = {name: _bare(value) for name, value in vars(cls).items()}
        read = {name: value for name, value in members.items() if isinstance(value, types.FunctionType) or _is_data(name, value)}
        parts = (_joined(name, self.digest(value, f"{cls.__name__}.{name}")) for name, value in read.items())
        return _joined("class", *bases, *parts)

    def _others(self, thing: Any, where: str) -> bytes:
        """Reads a module, or what is written in C: what it is around, or bound to, may be ours."""
        inner = getattr(thing, "__wrapped__", getattr(thing, "__self__", None))
        return _joined("other", _named(thing), b"" if isinstance(inner, types.ModuleType) else self.digest(inner, where))

    def _object(self, thing: Any, where: str) -> bytes:
        if hasattr(thing, "__array__"):
            return self._array(thing, where)
        slots = [name for cls in type(thing).__mro__ for name in _slots(cls) if hasattr(thing, name)]
        if not slots and not hasattr(thing, "__dict__"):
            raise self._unreadable(thing, where)
        state = {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}
        parts = (_joined(name, self.digest(state[name], f"{name!r} in {where}")) for name in sorted(state))
        return _joined("object", self.digest(type(thing), where), *parts)

    def _array(self, thing: Any, where: str) -> bytes:
        try:
            array = np.asarray(thing)
        except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or one that is being trained
            raise self._unreadable(thing, where) from error
        content = self.digest(array.tolist(), where) if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        return _joined("array", array.dtype.str, str(array.shape), content)

    def _unreadable(self, thing: Any, where: str) -> RewardModelError:
        return RewardModelError(
            f"the fingerprint of a reward model is a hash of what it does, and {where} of {self._root!r} is of type "
            f"{type(thing).__module__}.{type(thing).__qualname__}: neither code nor plain data. Pass version=, a name that you change "
            "whenever what the model does changes."
        )

    def _is_ours(self, code: Callable[..., Any]) -> bool:
        return _package(code) == self._package != "builtins"


def _enclosed(function: types.FunctionType) -> Iterable[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _globals_of(function: types.FunctionType) -> list[str]:
    """Returns the names of the module's globals that a function reads, or the functions in it, sorted."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return sorted(names & function.__globals__.keys())


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_data(name: str, member: Any) -> bool:
    return isinstance(member, (*PLAIN, list, tuple, dict, np.ndarray)) and not name.startswith("__")


def _bare(member: Any) -> Any:
    """Returns the function in a member of a class."""
    member = member.fget if isinstance(member, property) else member
    return getattr(member, "__func__", member)


def _package(thing: Any) -> str:
    """Returns the top-level package that a function, or an object's class, is from."""
    while isinstance(thing, functools.partial | types.MethodType):
        thing = thing.func if isinstance(thing, functools.partial) else thing.__func__
    module = thing.__module__ if isinstance(thing, types.FunctionType | type) else type(thing).__module__
    return str(module).partition(".")[0]


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))


def _named(thing: Any) -> bytes:
    module = getattr(thing, "__module__", None)
    return _joined("name", str(module), _name(thing), str(getattr(thing, "__name__", "")))


def _joined(*parts: str | bytes) -> bytes:
    """Returns the SHA-256 of the parts, none of which can run into the next."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()
