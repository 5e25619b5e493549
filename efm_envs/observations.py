"""What is observed: the names and forms shared by every env, and the Observer that fills them in, batch-first."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, unknown_name
from efm_envs.rewards.base import TRUE_STEPS_TO_GO, TRUE_SUCCESS
from efm_envs.task import Array, Goals, Physics, Task

AGENT_POS = "agent_pos"
INSTRUCTION = "instruction"
FLAT = "flat"
PIXELS = "pixels/"
OBS_MODES = ("state", "pixels", "pixels_state", "flat")

INSTRUCTION_BYTES = 128
INSTRUCTION_SPACE = spaces.Box(0, 255, (INSTRUCTION_BYTES,), np.uint8)

Draw = Callable[[str], Array]  # camera → (B, H, W, 3) uint8


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

    Attributes:
        policy_names: the observations that the policy sees, in order.
        policy_space: their space: a Dict by name, or a Box for "flat".
        names: every observation that a reward model may ask for.
    """

    def __init__(self, task: Task, obs_mode: str, cameras: Sequence[str], image_size: tuple[int, int]) -> None:
        self._task = task
        pixels = tuple(PIXELS + camera for camera in cameras)
        self.policy_names: tuple[str, ...] = {
            "state": (*task.state_spaces, INSTRUCTION),
            "pixels": (*pixels, AGENT_POS, INSTRUCTION),
            "pixels_state": (*pixels, *task.state_spaces, INSTRUCTION),
            "flat": (FLAT,),
        }[obs_mode]
        image_space = spaces.Box(0, 255, (*image_size, 3), np.uint8)
        by_name: dict[str, spaces.Space[Array]] = {
            **task.state_spaces,
            **{PIXELS + camera: image_space for camera in task.cameras},
            INSTRUCTION: INSTRUCTION_SPACE,
            FLAT: _flat_space(task),
        }
        self.names = (*by_name, TRUE_STEPS_TO_GO, TRUE_SUCCESS)
        self.policy_space = by_name[FLAT] if obs_mode == FLAT else spaces.Dict({n: by_name[n] for n in self.policy_names})

    def check_names(self, names: Collection[str], who: str) -> None:
        """Raises UnknownNameError for a name that this env does not have."""
        for name in names:
            if name not in self.names:
                raise unknown_name(f"observation that {who} needs", name, self.names)

    def observe(self, names: Collection[str], physics: Physics, goals: Goals, draw: Draw) -> dict[str, Array]:
        """Returns the named observations, each (B, …), in new arrays."""
        state = self._task.observe(physics, goals)
        return {name: self._value(name, state, physics, goals, draw) for name in names}

    def _value(self, name: str, state: dict[str, Array], physics: Physics, goals: Goals, draw: Draw) -> Array:
        if name in state:
            return state[name]
        if name == INSTRUCTION:
            return np.stack([encode_instruction(sentence) for sentence in goals.instructions])
        if name == FLAT:
            return np.concatenate([*state.values(), self._task.encode_goals(goals)], axis=1)
        if name == TRUE_SUCCESS:
            return self._task.is_success(physics, goals)
        if name == TRUE_STEPS_TO_GO:
            return self._task.steps_to_go(physics, goals)
        return draw(name.removeprefix(PIXELS))


def _flat_space(task: Task) -> spaces.Box:
    """Returns the box of the state observations and the encoded goal, in that order."""
    example = task.sample(np.random.default_rng(0)).goal
    goal_size = task.encode_goals(Goals([example])).shape[1]
    low = [*(box.low for box in task.state_spaces.values()), np.full(goal_size, -1.0)]
    high = [*(box.high for box in task.state_spaces.values()), np.full(goal_size, 1.0)]
    return spaces.Box(np.concatenate(low).astype(np.float32), np.concatenate(high).astype(np.float32))
