"""LanguageTable's demonstrators: one that pushes as well as we know how, and one that hesitates, wanders and pauses as people do."""

from dataclasses import dataclass

import numpy as np

from efm_envs.errors import EFMError
from efm_envs.experts.base import Expert
from efm_envs.task import Array, Goals, Physics
from efm_envs.tasks.language_table import board
from efm_envs.tasks.language_table.board_task import BoardTask
from efm_envs.tasks.language_table.pushing import STEP_M, TINY_M, detour, unit

STEERING_PER_M = 90.0  # how hard the tool goes back to the line of the push, for each metre off it
LEASH_M = 0.06  # a command farther ahead of the tool than this is called back: something holds the tool


class CleanExpert(Expert):
    """Goes behind the block, around what lies in the way, and pushes; lines up again whenever it is off. It has no memory."""

    task: BoardTask

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, 2)."""
        return self._move(physics, self._next(physics, goals), STEP_M)

    def _next(self, physics: Physics, goals: Goals) -> complex:
        """Returns where the tool should go from where it is."""
        plan = self.task.plan(physics, goals)
        if not plan.is_aligned:
            return plan.waypoint
        steer = plan.push * (1.0 - 1j * min(max(STEERING_PER_M * plan.across_m, -1.0), 1.0))
        return self._tool(physics) + LEASH_M * steer

    def _tool(self, physics: Physics) -> complex:
        return complex(*physics.qpos[0, -2:])

    def _move(self, physics: Physics, goal: complex, step_m: float) -> Array:
        """Returns the actions (1, 2) that move the commanded position towards `goal` by at most `step_m`."""
        tool, command = self._tool(physics), complex(*physics.mocap_pos[0, 0, :2])
        start = command if abs(command - tool) < LEASH_M else tool
        way = goal - start
        move = (start - command + way * min(1.0, step_m / max(abs(way), TINY_M))) / board.ACTION_M
        return np.array([[min(max(move.real, -1.0), 1.0), min(max(move.imag, -1.0), 1.0)]])


@dataclass(frozen=True)
class Habits:
    """What `HumanExpert` does that nothing observed explains. Chances are for each control step on which it is not busy otherwise."""

    slowest: float = 0.6
    """Least speed, as a share of the clean expert's; each episode has its own, uniform up to 1."""
    detours: int = 2
    """Most detours an episode: the number is uniform from 0. Each goes to a hidden point, drawn uniform in the workspace."""
    detour_chance: float = 0.06
    """Of setting out on a detour, while some are left."""
    dither_chance: float = 0.04
    """Of moving back and forth a little."""
    dither_steps: tuple[int, int] = (3, 8)
    """Fewest and most steps of that; the direction is hidden, and drawn anew every other step."""
    pause_chance: float = 0.04
    """Of doing nothing."""
    pause_steps: tuple[int, int] = (1, 6)
    """Fewest and most steps of that."""
    noise: float = 0.05
    """Standard deviation of what is added to every action that moves."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        shares = {"slowest": self.slowest, "detour_chance": self.detour_chance, "dither_chance": self.dither_chance}
        for name, value in {**shares, "pause_chance": self.pause_chance}.items():
            if not 0.0 <= value <= 1.0:
                raise EFMError(f"{name} is a share from 0 to 1; got {value!r}.")
        for name in ("dither_steps", "pause_steps"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most:
                raise EFMError(f"{name} is (fewest, most), whole numbers from 1; got {getattr(self, name)!r}.")
        if self.slowest == 0.0 or self.detours < 0 or not 0.0 <= self.noise < np.inf:
            raise EFMError(f"slowest is more than 0, detours and noise are at least 0 and finite; got {self}.")


DETOUR_STEPS = 25  # a detour is given up after so many steps
DETOUR_REACHED_M = 0.02
DITHER_M = 0.05  # how far it would go, were it not to turn round


class HumanExpert(CleanExpert):
    """The clean expert, distracted: detours to hidden points, dithering, pauses, its own speed, a shaking hand.

    What it does next is not in any observation. However many demonstrations one has, a policy that imitates them can only learn the
    mixture.

    Args:
        task: the task.
        **knobs: fields of `Habits`.
    """

    habits_type = Habits
    habits: Habits

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:
        """Draws the episode's speed and number of detours."""
        self._rng = rng
        self._step_m = STEP_M * rng.uniform(self.habits.slowest, 1.0)
        self._detours = int(rng.integers(self.habits.detours + 1))
        self._mood, self._steps_left, self._target = "work", 0, 0j

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, 2)."""
        self._steps_left -= 1
        if self._mood == "detour" and abs(self._tool(physics) - self._target) < DETOUR_REACHED_M:
            self._steps_left = 0
        if self._steps_left <= 0:
            self._begin(self._next_mood())
        return np.clip(self._wish(physics, goals), -1.0, 1.0)

    def _next_mood(self) -> str:
        habits, chance = self.habits, self._rng.uniform(size=3)
        if self._detours and chance[0] < habits.detour_chance:
            return "detour"
        if chance[1] < habits.dither_chance:
            return "dither"
        return "pause" if chance[2] < habits.pause_chance else "work"

    def _begin(self, mood: str) -> None:
        self._mood = mood
        if mood == "detour":
            self._detours -= 1
            self._target, self._steps_left = complex(*self._rng.uniform(board.WORKSPACE_LOW, board.WORKSPACE_HIGH)), DETOUR_STEPS
        elif mood != "work":
            fewest, most = self.habits.dither_steps if mood == "dither" else self.habits.pause_steps
            self._steps_left = int(self._rng.integers(fewest, most + 1))
            self._dither_parity = self._steps_left % 2  # a direction is drawn at the first step, and at every other one

    def _wish(self, physics: Physics, goals: Goals) -> Array:
        """Returns the actions (1, 2) that go with the mood."""
        if self._mood == "pause":
            return np.zeros((1, 2))
        noise = self._rng.normal(0.0, self.habits.noise, (1, 2))
        if self._mood == "work":
            return self._move(physics, self._next(physics, goals), self._step_m) + noise
        if self._mood == "dither" and self._steps_left % 2 == self._dither_parity:
            self._target = self._tool(physics) + DITHER_M * complex(np.exp(1j * self._rng.uniform(0.0, 2.0 * np.pi)))
        return self._move(physics, self._around_blocks(physics), self._step_m) + noise

    def _around_blocks(self, physics: Physics) -> complex:
        """Returns where the tool goes first on its way to the hidden target."""
        tool, blocks = self._tool(physics), self.task.points(physics)[0, :-1].tolist()
        return detour(tool, *unit(self._target - tool), blocks, self.task.tool_clearance_m)[0]
