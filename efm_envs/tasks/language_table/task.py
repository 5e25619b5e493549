"""LanguageTable: push blocks about on a board, as an instruction says."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, one_of, unknown_name
from efm_envs.task import Array, Goal, Goals, Physics, Scenario
from efm_envs.tasks.by_hand import check_options, place_of
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.board_task import BoardTask, check_apart, check_inside
from efm_envs.tasks.language_table.families import Layout, draw_meaning, goal_state, is_allowed
from efm_envs.tasks.language_table.instructions import FAMILIES, SPLITS, Meaning, parse, say
from efm_envs.tasks.language_table.subsets import BLOCK_SETS, subsets

MIX = "mix"
RESET_OPTIONS = ("instruction", "blocks", "tool")
DRAW_LIMIT = 1000  # layouts tried for one scenario
PLACE_LIMIT = 50  # places tried for one block before the layout is begun anew


class LanguageTable(BoardTask):
    """Task of the `EFM-LanguageTable…` envs; see their page for spaces and rules.

    Args:
        family: one of `FAMILIES`, or "mix" for all of them.
        blocks: a set of blocks: "4", "8", or a subset of all 16, drawn anew for each episode, from "16-train" or "16-test".
        instructions: which split of the grammar is spoken, "train" or "held_out".
    """

    def __init__(self, family: str = "block2block", blocks: str = "8", instructions: str = "train") -> None:
        super().__init__()
        self.family = one_of("family", family, (*FAMILIES, MIX))
        self.block_set = one_of("blocks", blocks, BLOCK_SETS)
        self.split = one_of("instructions", instructions, SPLITS)
        self.blocks = self.object_names = BLOCK_SETS[blocks]
        self.name = f"LanguageTable{len(self.blocks)}"  # type: ignore[misc]  # what a reward model is made for: these observations
        n = len(self.blocks)
        block_low = np.tile([*board.WALL_LOW, -1.0, -1.0], n)
        block_high = np.tile([*board.WALL_HIGH, 1.0, 1.0], n)
        self.state_spaces = {
            "agent_pos": self._agent_space,
            "environment_state": spaces.Box(np.minimum(block_low, 0.0).astype(np.float32), block_high.astype(np.float32)),
        }
        self._radii = board.block_radii(self.blocks)

    @property
    def fingerprint(self) -> str:
        """Names the variant."""
        return f"{super().fingerprint}({self.family}, {self.block_set}, {self.split})"

    def build_model(self) -> mujoco.MjModel:
        """Returns the tool and the blocks; compiled once for each set of blocks, and each task has a copy of its own."""
        return copy.copy(board.physics_model(self.blocks))

    # -- what is drawn -------------------------------------------------------------------------------------------------------------

    def build_drawn_model(self) -> mujoco.MjModel:
        """Returns the board, the blocks and the arm."""
        return copy.copy(board.drawn_model(self.blocks))

    # -- scenario ------------------------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Draws a layout and something to do in it; a layout in which there is nothing to do is drawn again."""
        names = subsets(self.block_set)
        family = FAMILIES[rng.integers(len(FAMILIES))] if self.family == MIX else self.family
        for _ in range(DRAW_LIMIT):
            layout, angles = self._draw_layout(names[int(rng.integers(len(names)))], rng)
            meaning = draw_meaning(family, layout, rng)
            if meaning is not None:
                return self._scenario(layout, angles, meaning, say(meaning, layout.blocks, rng, self.split))
        raise EFMError(f"{self.fingerprint}: {DRAW_LIMIT} layouts had nothing to do for family {family!r}.")

    def _draw_layout(self, names: Sequence[str], rng: np.random.Generator) -> tuple[Layout, Array]:
        low, high = board.WORKSPACE_LOW + board.BUFFER_M, board.WORKSPACE_HIGH - board.BUFFER_M
        radii = {name: radius for name, radius in zip(self.blocks, self._radii, strict=True) if name in names}
        while True:
            tool = complex(*rng.uniform(low, high))
            at: dict[str, complex] = {}
            for name, radius in radii.items():
                for place in rng.uniform(low, high, (PLACE_LIMIT, 2)) @ [1.0, 1.0j]:
                    apart = all(abs(place - at[other]) > radius + radii[other] + board.BLOCK_GAP_M for other in at)
                    if apart and abs(place - tool) > board.TOOL_GAP_M:
                        at[name] = place
                        break
            if len(at) == len(radii):
                return Layout(tuple(at), np.array(list(at.values())), tool), rng.uniform(-np.pi, np.pi, len(at))

    def _scenario(self, layout: Layout, angles: Array, meaning: Meaning, instruction: str) -> Scenario:
        poses = np.array([board.parked(i) for i in range(len(self.blocks))])
        index = [self.blocks.index(name) for name in layout.blocks]
        poses[index] = np.stack([layout.at.real, layout.at.imag, angles], axis=1)
        tool = np.array([layout.tool.real, layout.tool.imag])
        at = poses[:, 0] + 1j * poses[:, 1]
        physics = {"qpos": np.concatenate([poses.ravel(), tool]), "mocap_pos": np.array([[*tool, 0.0]]), "ctrl": tool}
        return Scenario(physics, Goal(instruction, goal_state(meaning, self.blocks, at, layout.tool)))

    def arrange(self, scenario: Scenario, options: Mapping[str, Any]) -> Scenario:
        """Returns the scenario with what the options set by hand.

        Args:
            scenario: how the episode would start otherwise.
            options: `blocks`: {name: (x, y) or (x, y, angle)} in [m] and [rad], or None for a block that is to be off the table (of a
                set of 16 only); the others stay where they are. `tool`: (x, y). `instruction`: a sentence of the grammar.

        Raises:
            EFMError: it cannot be; says why.
        """
        check_options(self, options, RESET_OPTIONS)
        poses, tool = self._poses(scenario)
        blocks = options.get("blocks", {})
        if not isinstance(blocks, Mapping):
            raise EFMError(f"the option blocks is a dict {{name: (x, y) or (x, y, angle)}}; got {blocks!r}.")
        for name, place in blocks.items():
            self._place(poses, name, place)
        if "tool" in options:
            tool = place_of("tool", options["tool"])
        layout = Layout(tuple(poses), np.array([complex(x, y) for x, y, _ in poses.values()]), complex(*tool))
        self._check_layout(layout)
        families = FAMILIES if self.family == MIX else (self.family,)
        instruction = options.get("instruction", scenario.goal.instruction)
        meaning = parse(instruction, layout.blocks, families)
        if not is_allowed(meaning, layout):
            raise EFMError(
                f"{instruction!r} cannot be asked for here: it is fulfilled already, or nearly so, or its target is not on the board. "
                "Place the blocks otherwise, with the option blocks, or ask for something else."
            )
        arranged = self._scenario(layout, np.array([angle for *_, angle in poses.values()]), meaning, instruction)
        check_apart(self, arranged)
        return arranged

    def _poses(self, scenario: Scenario) -> tuple[dict[str, Array], Array]:
        """Returns x, y, angle of each block on the table, and x, y of the tool."""
        qpos = scenario.physics["qpos"]
        poses = dict(zip(self.blocks, qpos[:-2].reshape(-1, 3), strict=True))
        return {name: pose for name, pose in poses.items() if pose[0] <= board.WALL_HIGH[0]}, qpos[-2:]

    def _place(self, poses: dict[str, Array], name: str, place: Any) -> None:
        if name not in self.blocks:
            raise unknown_name("block", name, self.blocks)
        if place is None and len(self.blocks) < len(BLOCK_SETS["16-train"]):
            raise EFMError(f"the {name} cannot be off the table: all blocks of set {self.block_set!r} are on it. Give its place (x, y).")
        if place is None:
            poses.pop(name, None)
        else:
            poses[name] = place_of(name, place, angle=poses[name][2] if name in poses else 0.0)

    def _check_layout(self, layout: Layout) -> None:
        """Raises EFMError for things outside the board."""
        radii = dict(zip(self.blocks, self._radii, strict=True))
        check_inside("tool", layout.tool, board.WORKSPACE_LOW, board.WORKSPACE_HIGH)
        for block in layout.blocks:
            check_inside(block, layout.of(block), board.WALL_LOW + radii[block], board.WALL_HIGH - radii[block])

    # -- observation and action ----------------------------------------------------------------------------------------------------

    def observe(self, physics: Physics, goals: Goals) -> dict[str, Array]:
        """Returns the tool's position and its commanded one [m]; x, y [m], cosine and sine of the angle of each block."""
        n = 3 * len(self.blocks)
        qpos = physics.qpos
        poses = np.empty((len(qpos), len(self.blocks), 4), np.float32)
        poses[:, :, 0], poses[:, :, 1], angle = qpos[:, 0:n:3], qpos[:, 1:n:3], qpos[:, 2:n:3]
        np.cos(angle, out=poses[:, :, 2])
        np.sin(angle, out=poses[:, :, 3])
        if self.block_set not in ("4", "8"):
            poses[qpos[:, 0:n:3] > board.WALL_HIGH[0]] = 0.0  # absent
        return {"agent_pos": self.agent_pos(physics), "environment_state": poses.reshape(len(qpos), -1)}

    def points(self, physics: Physics) -> Array:
        """Returns (B, n + 1) complex: x + iy of each block and of the tool."""
        qpos = physics.qpos
        points = np.empty((len(qpos), len(self.blocks) + 1), complex)
        points.real, points.imag = qpos[:, 0::3], qpos[:, 1::3]
        return points
