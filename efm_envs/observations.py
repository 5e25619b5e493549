"""What is observed: the names and forms shared by every env, and the Observer that fills them in, batch-first."""

import functools
from collections.abc import Callable, Collection, Sequence

import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, unknown_name
from efm_envs.rewards.base import ACTION, CONTROL_DT, GOAL_PIXELS, GOAL_STATE, TRUE_STEPS_TO_GO, TRUE_SUCCESS, TRUTH
from efm_envs.task import Array, Goals, Physics, Task

AGENT_POS = "agent_pos"
INSTRUCTION = "instruction"
FLAT = "flat"
GOAL_VECTOR = "goal_vector"
PIXELS = "pixels/"
OBS_MODES = ("state", "pixels", "pixels_state", "flat")

INSTRUCTION_BYTES = 128
INSTRUCTION_SPACE = spaces.Box(0, 255, (INSTRUCTION_BYTES,), np.uint8)

FEW = 7  # so many values are sooner handled one by one than as an array
Serve = Callable[[str], Array]  # the name of what only an env has, a picture or the last action → (B, …)


def encode_instruction(instruction: str) -> Array:
    """Returns the sentence as (128,) uint8: UTF-8, filled up with zeros.

    Raises:
        EFMError: the sentence is longer than 128 bytes, or holds a NUL.

    >>> decode_instruction(encode_instruction("Push the red moon to the café."))
    'Push the red moon to the café.'
    """
    raw = instruction.encode()
    if len(raw) > INSTRUCTION_BYTES or 0 in raw:
        raise EFMError(f"an instruction has at most {INSTRUCTION_BYTES} bytes of UTF-8, no NUL; got {len(raw)}: {instruction!r}.")
    return np.frombuffer(raw.ljust(INSTRUCTION_BYTES, b"\0"), np.uint8).copy()


def decode_instruction(array: Array) -> str:
    """Returns the sentence in an `instruction` observation (128,) uint8."""
    return bytes(np.asarray(array, np.uint8)).rstrip(b"\0").decode()


class Observer:
    """Computes observations by name, each at most once a step, and only those asked for.

    Args:
        task: what is observed.
        obs_mode: what the policy sees; one of `OBS_MODES`.
        cameras: the cameras that the policy sees in the pixel modes.
        image_size: (height, width) in pixels.
        goal_vector: whether the policy sees the goal as numbers, too.

    Attributes:
        policy_names: the observations that the policy sees, in order.
        policy_space: their space: a Dict by name, or a Box for "flat".
        names: every observation that a reward model may ask for.

    Raises:
        EFMError: a goal vector where there is none to add.
    """

    def __init__(self, task: Task, obs_mode: str, cameras: Sequence[str], image_size: tuple[int, int], *, goal_vector: bool) -> None:
        self._task = task
        self._instructed: Goals | None = None  # whose instructions are encoded
        goal_size = _goal_size(task)
        if goal_vector and (goal_size == 0 or obs_mode == FLAT):
            where = "flat" if obs_mode == FLAT else "environment_state"
            raise EFMError(f"goal_vector=True adds nothing here: {where!r} of {task.name} has the goal already. Leave it out.")
        pixels = tuple(PIXELS + camera for camera in cameras)
        last = (GOAL_VECTOR, INSTRUCTION) if goal_vector else (INSTRUCTION,)
        self.policy_names: tuple[str, ...] = {
            "state": (*task.state_spaces, *last),
            "pixels": (*pixels, AGENT_POS, *last),
            "pixels_state": (*pixels, *task.state_spaces, *last),
            "flat": (FLAT,),
        }[obs_mode]
        image_space = spaces.Box(0, 255, (*image_size, 3), np.uint8)
        goal_space = spaces.Box(-1.0, 1.0, (goal_size,), np.float32)
        by_name: dict[str, spaces.Space[Array]] = {
            **task.state_spaces,
            **{PIXELS + camera: image_space for camera in task.cameras},
            **({GOAL_VECTOR: goal_space} if goal_size else {}),
            INSTRUCTION: INSTRUCTION_SPACE,
            FLAT: _join([*task.state_spaces.values(), goal_space]),
        }
        privileged = (TRUE_STEPS_TO_GO, TRUE_SUCCESS, *(TRUTH + name for name in task.info_types))
        self.names = (*by_name, ACTION, CONTROL_DT, GOAL_STATE, *(GOAL_PIXELS + camera for camera in task.cameras), *privileged)
        self.policy_space = by_name[FLAT] if obs_mode == FLAT else spaces.Dict({n: by_name[n] for n in self.policy_names})

    def check_names(self, names: Collection[str], who: str) -> None:
        """Raises UnknownNameError for a name that this env does not have."""
        for name in names:
            if name not in self.names:
                raise unknown_name(f"observation that {who} needs", name, self.names)

    def observe(self, names: Collection[str], physics: Physics, goals: Goals, serve: Serve) -> dict[str, Array]:
        """Returns the named observations, and of the truth all but what costs, each (B, …), in new arrays."""
        seen = self._task.observe(physics, goals)
        is_success, steps, info = self._task.truth(physics, goals, estimate=TRUE_STEPS_TO_GO in names)
        seen[TRUE_SUCCESS] = is_success
        if steps is not None:
            seen[TRUE_STEPS_TO_GO] = _zero_at_success(is_success, steps)
        for name in info:
            seen[TRUTH + name] = info[name]
        for name in names:
            if name not in seen:
                seen[name] = self._value(name, seen, goals, serve)
        return seen

    def _value(self, name: str, seen: dict[str, Array], goals: Goals, serve: Serve) -> Array:
        if name == INSTRUCTION:
            return self._instructions(goals).copy()  # who gets it may write to it
        if name == GOAL_VECTOR:
            return self._task.encode_goals(goals)
        if name == FLAT:
            return np.concatenate([*(seen[part] for part in self._task.state_spaces), self._task.encode_goals(goals)], axis=1)
        if name == CONTROL_DT:
            return np.full(len(goals), self._task.control_dt_s)
        if name == GOAL_STATE:
            return goals.states.copy()
        return serve(name)

    def _instructions(self, goals: Goals) -> Array:
        """Returns (B, 128) uint8; encoded once for each goals object."""
        if goals is not self._instructed:
            self._instructed = goals
            self._encoded = np.stack([_encoded(sentence) for sentence in goals.instructions])
        return self._encoded


@functools.lru_cache(4096)
def _encoded(instruction: str) -> Array:
    return encode_instruction(instruction)


def _zero_at_success(is_success: Array, steps: Array) -> Array:
    """Returns (B,) float64: 0 at success, and at least 1 elsewhere."""
    if len(steps) <= FEW:
        return np.array([0.0 if done else max(left, 1.0) for done, left in zip(is_success.tolist(), steps.tolist(), strict=True)])
    return np.where(is_success, 0.0, np.maximum(steps, 1.0))


def _goal_size(task: Task) -> int:
    example = task.sample(np.random.default_rng(0)).goal
    return task.encode_goals(Goals([example])).shape[1]


def _join(boxes: Sequence[spaces.Box]) -> spaces.Box:
    """Returns the boxes one after another, as one float32 box."""
    low, high = (np.concatenate([getattr(box, bound) for box in boxes]).astype(np.float32) for bound in ("low", "high"))
    return spaces.Box(low, high)
