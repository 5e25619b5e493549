"""The table of ids: one row an env. Whatever can change what an agent learns under an id needs a new version of that id."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from efm_envs.errors import unknown_name


@dataclass(frozen=True)
class Registration:
    """One registered env.

    Attributes:
        id: the name that `gym.make` takes.
        task: the task's class, as "module:Class".
        step_limit: control steps after which an episode is truncated.
        task_options: keyword arguments of the task's class: the variant.
        tags: what `ids(tags=…)` selects by.
        summary: one line for people.
    """

    id: str
    task: str
    step_limit: int
    summary: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


REGISTRATIONS = (
    Registration(
        id="EFM-PointMass-v0",
        task="efm_envs.tasks.point_mass:PointMass",
        step_limit=140,  # (the paper's notebook)
        summary="Push a point to a goal; demonstrations go there by five hidden waypoints.",
        tags=("point_mass", "teaching"),
    ),
)


def register_envs() -> None:
    """Makes every id known to Gymnasium, with strings for entry points, so that a spec can be stored as JSON."""
    for row in REGISTRATIONS:
        kwargs: dict[str, Any] = {"task": row.task, "step_limit": row.step_limit}
        if row.task_options:
            kwargs["task_options"] = dict(row.task_options)
        gym.register(row.id, entry_point="efm_envs.env:EFMEnv", kwargs=kwargs)


def ids(tags: Collection[str] | None = None) -> list[str]:
    """Returns the registered ids that have all of `tags`; all ids without it."""
    if isinstance(tags, str):
        tags = [tags]
    known = {tag for row in REGISTRATIONS for tag in row.tags}
    for tag in tags or ():
        if tag not in known:
            raise unknown_name("tag", tag, known)
    return [row.id for row in REGISTRATIONS if set(tags or ()) <= set(row.tags)]


def registration(env_id: str) -> Registration:
    """Returns the row of an id."""
    for row in REGISTRATIONS:
        if row.id == env_id:
            return row
    raise unknown_name("env id", env_id, ids())
