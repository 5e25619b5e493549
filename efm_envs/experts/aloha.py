"""The ALOHA station's demonstrators: one that goes about it as well as we know how, one like a person, and one that errs and recovers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from efm_envs.errors import EFMError
from efm_envs.experts.base import Expert
from efm_envs.task import Array, Goals, Physics
from efm_envs.tasks.aloha import station
from efm_envs.tasks.aloha.plan import SPEED_M_S, Aims, Move, Vec, Way
from efm_envs.tasks.aloha.task import ACTION_M, JOINTS, AlohaTask

TAU_S = 0.15  # were its command held, a tool at speed v would come to rest v · TAU_S from here
GAIN_PER_S = 8.0  # how fast the command makes up for where that is off
LEASH_M = 0.05  # a command farther ahead of its tool, at its usual speed, would only press harder

FAR_M, STEADY = 0.05, 0.4  # a shaking hand shakes less the nearer it is to where it goes, down to this share


class CleanExpert(Expert):
    """Follows the task's plan. It has no memory."""

    task: AlohaTask

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A)."""
        return self._follow(physics, self._plan(physics, self.task.aims))

    def _plan(self, physics: Physics, aims: Aims) -> Way:
        return self.task.plan(physics.sensordata[0].tolist(), aims)

    def _follow(self, physics: Physics, way: Way, share: float = 1.0, shake: Array | float = 0.0) -> Array:
        """Returns the actions (1, A) by which both arms make their next moves.

        Args:
            physics: a batch of one.
            way: the moves.
            share: of the usual speed.
            shake: (2, 3) in [m]: by how much the hands miss where they are to go, while that is far.
        """
        task = self.task
        tools, commands = physics.site_xpos[0, task.tool_sites], task.commanded_places(physics)[0]
        rest = tools + TAU_S * task.tool_velocities(physics)[0]
        targets = np.array([move.target for move in way.moves])
        targets += shake * (STEADY + (1.0 - STEADY) * np.minimum(1.0, _lengths(targets - tools) / FAR_M))
        moves = min(1.0, GAIN_PER_S * task.control_dt_s) * (targets - rest)
        speeds = np.array([[move.speed] for move in way.moves])
        moves = _shortened(moves, SPEED_M_S * share * task.control_dt_s * speeds)
        wanted = tools + _shortened(commands + moves - tools, LEASH_M * speeds)
        return self._actions(commands, wanted, np.where([move.is_open for move in way.moves], 1.0, -1.0))

    def _actions(self, commands: Array, wanted: Array, grippers: Array) -> Array:
        """Returns the actions (1, A) that change commanded places (2, 3) into those wanted."""
        if self.task.control == JOINTS:
            ctrl = station.ctrl_of_tools(np.clip(wanted, station.LOW_M, station.HIGH_M)[None], grippers[None])
            return np.clip(station.joint_actions_of_ctrl(ctrl), -1.0, 1.0)
        moves = np.clip((wanted - commands) / ACTION_M, -1.0, 1.0)
        return np.concatenate([moves, grippers[:, None]], axis=1).reshape(1, -1)


def _shortened(vectors: Array, longest: Array | float) -> Array:
    """Returns vectors (2, 3), each no longer than it may be."""
    return vectors * np.minimum(1.0, longest / np.maximum(_lengths(vectors), 1e-9))


def _lengths(vectors: Array) -> Array:
    return np.asarray(np.linalg.norm(vectors, axis=1, keepdims=True))


def _vec(point: Array) -> Vec:
    x, y, z = point.tolist()
    return x, y, z


@dataclass(frozen=True)
class Habits:
    """What `HumanExpert` does that nothing observed explains."""

    speed_spread: float = 0.3
    """Each episode has its own speed: the clean expert's times exp(N(0, this))."""
    grasp_m: float = 0.015
    """Objects are taken up to so far from where the clean expert takes them, along their length; less where the object is short."""
    meeting_m: float = 0.04
    """They meet up to so far from where the clean expert has them meet, along x, y and z."""
    noise_m: float = 0.004
    """Standard deviation of what a hand misses by, along x, y and z; less where the task leaves less room."""
    noise_s: float = 0.4
    """For about how long it misses to the same side."""
    detours: int = 1
    """Most detours of each hand before it has picked up: the number is uniform from 0."""
    detour_m: float = 0.08
    """A detour goes so far from where the hand is, in x, y and z, at most."""
    pauses_per_s: float = 0.0
    """How often both hands pause. Off: a policy that imitates pauses learns to stay where it is."""
    pause_s: tuple[float, float] = (0.2, 0.8)
    """Shortest and longest pause."""

    def __post_init__(self) -> None:
        """Raises EFMError for a value that cannot be."""
        for name in ("speed_spread", "grasp_m", "meeting_m", "noise_m", "detours", "detour_m", "pauses_per_s"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise EFMError(f"{name} is at least 0, and finite; got {getattr(self, name)!r}.")
        if not 0.0 < self.noise_s < np.inf:
            raise EFMError(f"noise_s is more than 0, and finite; got {self.noise_s!r}.")
        if not 0.0 <= self.pause_s[0] <= self.pause_s[1] < np.inf:
            raise EFMError(f"pause_s is (shortest, longest) in seconds; got {self.pause_s!r}.")


LIKELY_SPEED = (0.5, 1.5)  # slower would run into the step limit, faster the arms cannot follow
DETOUR_S = (0.0, 1.5)  # after so long a detour begins …
DETOUR_LASTS_S = 0.6  # … and ends


class HumanExpert(CleanExpert):
    """Follows a plan of its own making: another speed, other grasps, another meeting point, detours, a shaking hand.

    What it makes up is hidden: however many demonstrations one has, a policy that imitates them can only learn the mixture.

    Args:
        task: the task.
        **knobs: fields of `Habits`.
    """

    habits_type = Habits
    habits: Habits

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:
        """Draws what the episode is to be like."""
        self._rng, self._steps = rng, 0
        habits, aims = self.habits, self.task.aims
        self._share = float(np.clip(np.exp(rng.normal(0.0, habits.speed_spread)), *LIKELY_SPEED))
        x, y, z = np.array(aims.meeting) + rng.uniform(-habits.meeting_m, habits.meeting_m, 3)
        most = min(habits.grasp_m, self.task.grasp_slack_m)
        left, right = rng.uniform(-most, most, 2)
        self._aims = aims._replace(meeting=(x, y, z), left_grasp=aims.left_grasp + left, right_grasp=aims.right_grasp + right)
        self._detours = [rng.uniform(*DETOUR_S, rng.integers(habits.detours + 1)) for _ in station.SIDES]  # when each begins
        self._targets: list[Vec | None] = [None, None]
        self._noise_m = min(habits.noise_m, self.task.noise_slack_m)
        self._shake = rng.normal(0.0, self._noise_m, (2, 3))
        self._pause_until_s = 0.0

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A)."""
        way = self._distracted(physics, self._plan(physics, self._aims))
        self._steps += 1
        self._drift()
        return self._follow(physics, way, self._share, self._shake)

    @property
    def _time_s(self) -> float:
        return self._steps * self.task.control_dt_s

    def _drift(self) -> None:
        """What a hand misses by is an Ornstein-Uhlenbeck process."""
        keep = np.exp(-self.task.control_dt_s / self.habits.noise_s)
        self._shake = keep * self._shake + self._noise_m * np.sqrt(1.0 - keep**2) * self._rng.normal(size=(2, 3))

    def _distracted(self, physics: Physics, way: Way) -> Way:
        """Returns the plan with pauses and detours in it."""
        (left, right), tools = way.moves, physics.site_xpos[0, self.task.tool_sites]
        if self._is_pausing():
            return way._replace(moves=(left._replace(target=_vec(tools[0])), right._replace(target=_vec(tools[1]))))
        return way._replace(moves=(self._detour(0, left, tools[0]), self._detour(1, right, tools[1])))

    def _is_pausing(self) -> bool:
        habits = self.habits
        if habits.pauses_per_s and self._rng.uniform() < habits.pauses_per_s * self.task.control_dt_s:
            self._pause_until_s = max(self._pause_until_s, self._time_s + self._rng.uniform(*habits.pause_s))
        return self._time_s < self._pause_until_s

    def _detour(self, i: int, move: Move, tool: Array) -> Move:
        """Returns a hand's next move, which is elsewhere while it makes a detour."""
        since = self._time_s - self._detours[i]
        if not move.is_open or not ((since >= 0.0) & (since < DETOUR_LASTS_S)).any():
            self._targets[i] = None
            return move
        target = self._targets[i]
        if target is None:
            up = np.array([0.0, 0.0, 0.5 * self.habits.detour_m])  # rather away from the table than into what lies on it
            target = self._targets[i] = _vec(tool + up + self._rng.uniform(-self.habits.detour_m, self.habits.detour_m, 3))
        return move._replace(target=target)


@dataclass(frozen=True)
class FailingHabits(Habits):
    """What `FailingExpert` does: what people do, and mistakes."""

    drops: int = 1
    """Most times that it drops what it carries: the number is uniform from 0."""
    misses: int = 1
    """Most times that it misses when the objects, or the object and the other gripper, come together: uniform from 0."""

    def __post_init__(self) -> None:
        """Raises EFMError for a value that cannot be."""
        super().__post_init__()
        if min(self.drops, self.misses) < 0 or self.drops + self.misses == 0:
            raise EFMError(f"drops and misses are at least 0, and one of them more; got {self.drops} and {self.misses}.")


DROP, MISS = "drop", "miss"
DROP_HEIGHT_M = (0.02, 0.06)  # it drops what it has lifted by so much: from higher up it might come to lie anyhow
DROPPING_S = 0.5  # so long its gripper stays open
MISSING_S = 0.8  # so long it goes beside the right place before it notices
MISSING_AT_S = 1.0  # a miss begins when the plan has so much left


class FailingExpert(HumanExpert):
    """A person who drops things and misses, notices, and puts it right.

    Something goes wrong in every episode that lasts long enough; `notes` says what, and when.

    Args:
        task: the task.
        **knobs: fields of `FailingHabits`.
    """

    habits_type = FailingHabits
    habits: FailingHabits

    def reset(self, physics: Physics, goals: Goals, rng: np.random.Generator) -> None:
        """Draws what goes wrong."""
        super().reset(physics, goals, rng)
        habits = self.habits
        self._drops = self._misses = 0
        while self._drops + self._misses == 0:
            self._drops, self._misses = int(rng.integers(habits.drops + 1)), int(rng.integers(habits.misses + 1))
        self._mistakes: list[tuple[int, str]] = []
        self._lying_m = self._heights(physics)
        self._drop_until_s = self._miss_until_s = 0.0
        self._draw_drop()

    def notes(self) -> dict[str, Any]:
        """Returns what went wrong so far: at which control step, and whether it was a "drop" or a "miss"."""
        return {"mistakes": [list(mistake) for mistake in self._mistakes]}

    def act(self, physics: Physics, goals: Goals) -> Array:
        """Returns actions (1, A)."""
        way = self._plan(physics, self._aims)
        self._miss(way)
        if self._is_dropping(physics, way):
            self._steps += 1
            tool = _vec(physics.site_xpos[0, self.task.tool_sites][self._dropper])
            left, right = (m._replace(is_open=True, target=tool) if i == self._dropper else m for i, m in enumerate(way.moves))
            return self._follow(physics, way._replace(moves=(left, right)), self._share, self._shake)
        return super().act(physics, goals)

    def _miss(self, way: Way) -> None:
        """Aims beside the right place for a while, once things are about to come together."""
        if self._misses and way.seconds < MISSING_AT_S:
            self._misses -= 1
            self._miss_until_s = self._time_s + MISSING_S
            self._aims = self._aims._replace(aside=self.task.miss(self._rng))
            self._mistakes.append((self._steps, MISS))
        elif self._time_s >= self._miss_until_s:
            self._aims = self._aims._replace(aside=self.task.aims.aside)

    def _is_dropping(self, physics: Physics, way: Way) -> bool:
        """Whether the gripper that drops what it carries is open now."""
        lifted = self._heights(physics)[self._dropper] - self._lying_m[self._dropper]
        if self._drops and lifted > self._drop_height_m and not way.moves[self._dropper].is_open:
            self._drops -= 1
            self._drop_until_s = self._time_s + DROPPING_S
            self._mistakes.append((self._steps, DROP))
        elif self._drop_until_s and self._time_s >= self._drop_until_s:
            self._drop_until_s = 0.0
            self._draw_drop()
        return self._time_s < self._drop_until_s

    def _draw_drop(self) -> None:
        """Chooses which gripper drops what it carries next, and from how high."""
        self._dropper = int(self._rng.choice([i for i, thing in enumerate(self.task.carries) if thing is not None]))
        self._drop_height_m = self._rng.uniform(*DROP_HEIGHT_M)

    def _heights(self, physics: Physics) -> list[float]:
        """Returns the height in [m] of what each gripper carries."""
        heights = physics.qpos[0, station.ACTUATORS + 2 :: 7]
        return [0.0 if thing is None else float(heights[thing]) for thing in self.task.carries]
