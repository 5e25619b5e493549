"""Errors that help whoever made the mistake: what came, what was expected, what to do now."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any


class EFMError(Exception):
    """Base of every error this project raises on purpose."""


class UnknownNameError(EFMError, ValueError):
    """A name that is not one of the valid ones."""


class UnknownOptionError(EFMError, TypeError):
    """A keyword argument that does not exist."""


class InvalidActionError(EFMError, ValueError):
    """An action of the wrong shape, or one that is not finite."""


class InvalidStateError(EFMError, ValueError):
    """A saved state that belongs to another env."""


class RewardModelError(EFMError, ValueError):
    """A reward model that asks for, or returns, something it may not."""


class CheckpointError(EFMError, ValueError):
    """A checkpoint or data file that is missing, damaged, or made for another env."""


class MissingExtraError(EFMError, ImportError):
    """An optional dependency that is not installed."""


class RenderingError(EFMError, RuntimeError):
    """No way to draw on this machine."""


def unknown_name(kind: str, received: object, valid: Iterable[str]) -> UnknownNameError:
    """Returns the error for a name that is not among `valid`, with the nearest valid one."""
    return UnknownNameError(_unknown(kind, received, valid))


def unknown_option(owner: str, received: str, valid: Iterable[str]) -> UnknownOptionError:
    """Returns the error for a keyword argument that `owner` does not take."""
    return UnknownOptionError(_unknown(f"option of {owner}", received, valid))


def one_of(option: str, value: Any, valid: Collection[str]) -> Any:
    """Returns `value` if it is valid; raises the error for an unknown name if not."""
    if value not in tuple(valid):
        raise unknown_name(option, value, valid)
    return value


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """Returns the error for a feature whose extra is not installed."""
    return MissingExtraError(f'{what} needs the extra [{extra}], which is not installed. Install it: pip install "efm-envs[{extra}]"')


def _unknown(kind: str, received: object, valid: Iterable[str]) -> str:
    names = sorted(valid)
    near = difflib.get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    valid_names = ", ".join(map(repr, names)) or "none"
    return f"unknown {kind}: {received!r}.{hint} Valid: {valid_names}."
