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
        shortest_demonstration: demonstrations with fewer control steps are discarded, where nobody says otherwise.
        extra: of this distribution, without which the env cannot be made.
    """

    id: str
    task: str
    step_limit: int
    summary: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    shortest_demonstration: int = 1
    extra: str | None = None


LANGUAGE_TABLE = "efm_envs.tasks.language_table.task:LanguageTable"
LANGUAGE_TABLE_LIMIT = 200  # (published)
INSERT, TRANSFER_CUBE = "efm_envs.tasks.aloha.insert:Insert", "efm_envs.tasks.aloha.transfer_cube:TransferCube"
ALOHA_LIMIT = {"joints": 500, "ee": 100}  # ten seconds
DMC_LIMIT = 1000  # (dm_control, in each of these domains)


def _language_table(suffix: str, family: str, summary: str, blocks: str = "8") -> Registration:
    return Registration(
        id=f"EFM-LanguageTable{suffix}-v0",
        task=LANGUAGE_TABLE,
        step_limit=LANGUAGE_TABLE_LIMIT,
        summary=summary,
        task_options={"family": family, "blocks": blocks},
        tags=("language_table", "language"),
    )


def _aloha(name: str, task: str, control: str, summary: str, **options: Any) -> Registration:
    page = "insert" if task == INSERT else "transfer_cube"
    return Registration(
        id=f"EFM-{name}-v0",
        task=task,
        step_limit=ALOHA_LIMIT[control],
        summary=summary,
        task_options={"control": control, **options},
        tags=(page, "aloha"),
    )


def _dmc(name: str, task: str, summary: str, **options: Any) -> Registration:
    domain = task.partition(":")[0]
    return Registration(
        id=f"EFM-DMC-{name}-v0",
        task=f"efm_envs.tasks.dmc.{task}",
        step_limit=DMC_LIMIT,
        summary=f"{summary} (dm_control's {domain}).",
        task_options=options,
        tags=("dm_control", f"dmc_{domain}"),
        extra="dm-control",
    )


REGISTRATIONS = (
    Registration(
        id="EFM-PointMass-v0",
        task="efm_envs.tasks.point_mass:PointMass",
        step_limit=140,  # (the paper's notebook)
        summary="Push a point to a goal; demonstrations go there by five hidden waypoints.",
        tags=("point_mass", "teaching"),
        shortest_demonstration=10,  # (the paper's notebook)
    ),
    _language_table("", "block2block", "Push one block to another, as told; 8 blocks."),
    _language_table("4", "block2block", "Push one block to another, as told; 4 blocks.", blocks="4"),
    _language_table("16Train", "block2block", "Push one block to another; 4 to 10 of 16 blocks, to train on.", blocks="16-train"),
    _language_table("16Test", "block2block", "Push one block to another; 4 to 10 of 16 blocks, combinations held out.", blocks="16-test"),
    _language_table("Absolute", "absolute", "Push a block to a side, a corner or the centre of the board."),
    _language_table("Relative", "relative", "Push a block some way in a direction."),
    _language_table("BlockRelative", "block_relative", "Push a block to a given side of another, which must stay."),
    _language_table("Separate", "separate", "Push a block away from those it is close to."),
    _language_table("Point", "point", "Move the tool to a block."),
    _language_table("Corner", "corner", "Push a block into a corner of the workspace."),
    _language_table("Mix", "mix", "Any of the seven families of instructions, drawn for each episode."),
    Registration(
        id="EFM-BananaTable-v0",
        task="efm_envs.tasks.banana_table:BananaTable",
        step_limit=LANGUAGE_TABLE_LIMIT,
        summary="Push a banana, which turns and rocks, to one of nine places.",
        tags=("banana_table", "language"),
    ),
    _aloha("Insert", INSERT, "joints", "Two arms put a peg into a socket; joint targets, 50 Hz."),
    _aloha("InsertEE", INSERT, "ee", "Two arms put a peg into a socket; moves of the grippers, 10 Hz."),
    _aloha("InsertTight", INSERT, "ee", "The same, with 2 mm of clearance and objects turned.", clearance_m=0.002, yaw_rad=0.4),
    _aloha("TransferCube", TRANSFER_CUBE, "joints", "One arm hands a cube over to the other; joint targets, 50 Hz."),
    _aloha("TransferCubeEE", TRANSFER_CUBE, "ee", "One arm hands a cube over to the other; moves of the grippers, 10 Hz."),
    _dmc("PointMassEasy", "point_mass:PointMass", "Move a point to the middle"),
    _dmc("ReacherEasy", "reacher:Reacher", "Touch a target with an arm of two links", difficulty="easy"),
    _dmc("ReacherHard", "reacher:Reacher", "Touch a small target with an arm of two links", difficulty="hard"),
    _dmc("BallInCupCatch", "ball_in_cup:BallInCup", "Catch a ball that hangs from a cup"),
    _dmc("FingerTurnEasy", "finger:FingerTurn", "Turn a spinner to a target", difficulty="easy"),
    _dmc("FingerTurnHard", "finger:FingerTurn", "Turn a spinner to a small target", difficulty="hard"),
    _dmc("ManipulatorBringBall", "manipulator:BringBall", "Bring a ball to a place with a planar arm"),
    _dmc("ManipulatorInsertPeg", "manipulator:InsertPeg", "Insert a peg into a slot with a planar arm"),
)


def register_envs() -> None:
    """Makes every id known to Gymnasium, with strings for entry points, so that a spec can be stored as JSON."""
    for row in REGISTRATIONS:
        kwargs = {"task": row.task, "step_limit": row.step_limit, **row.task_options}
        gym.register(row.id, "efm_envs.env:EFMEnv", vector_entry_point="efm_envs.vector:EFMVectorEnv", kwargs=kwargs)


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
