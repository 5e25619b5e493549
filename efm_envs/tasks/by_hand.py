"""What a person types to set a scenario by hand, `reset(options=…)`: checked in the same way for every task."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from efm_envs.errors import EFMError, unknown_option
from efm_envs.task import Array, Task


def check_options(task: Task, options: Mapping[str, Any], valid: Collection[str]) -> None:
    """Raises UnknownOptionError for an option of reset() that the task does not have."""
    for option in options:
        if option not in valid:
            raise unknown_option(f"{task.name}'s reset()", option, [*valid, "scenario"])


def place_of(what: str, value: Any, angle: float | None = None, *, called: str = "angle") -> Array:
    """Returns a place that a person typed: x and y, and where an `angle` is given, the angle, too, which is that one if nobody typed it.

    Args:
        what: whose place it is.
        value: what was typed.
        angle: in [rad], where there is one.
        called: the task's word for the angle.

    Raises:
        EFMError: it is something else.
    """
    try:
        typed = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        typed = np.empty(0)
    sizes = (2,) if angle is None else (2, 3)
    if typed.ndim != 1 or len(typed) not in sizes or not np.isfinite(typed).all():
        expected = "(x, y)" if angle is None else f"(x, y) or (x, y, {called})"
        raise EFMError(f"the place of the {what} is {expected}, finite numbers in [m] and [rad]; got {value!r}.")
    return typed if angle is None or len(typed) == 3 else np.append(typed, angle)
