"""What a reward model is: something that says how many steps are left."""

import abc
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from efm_envs.errors import RewardModelError
from efm_envs.task import Array, Goals

# Names that a model may need besides the observations that a policy may see.
SEEN = "*"  # whatever the policy sees
TRUTH = "truth/"
TRUE_STEPS_TO_GO = "truth/steps_to_go"  # (B,) float64, the task's privileged estimate
TRUE_SUCCESS = "truth/is_success"  # (B,) bool, ground truth
ACTION = "action"  # (B, A) float64, the action that led here; zeros at the first observation of an episode
CONTROL_DT = "control_dt_s"  # (B,) float64, the control period in [s]
GOAL_STATE = "goal/state"  # (B, G) float64, the task's own numbers for the goal
GOAL_PIXELS = "goal/pixels/"  # and a camera: (B, H, W, 3) uint8, what it sees where the goal is reached

Kind = Literal["steps", "seconds", "progress", "success", "change"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(slots=True)  # not frozen: that would take longer to make
class StepsToGo:
    """How many control steps are left until the goal, for a batch of B.

    Attributes:
        mean: (B,) float64 in [control steps], at least 0: d(o, g), the expectation (paper, eq. 1).
        edges: (K+1,) in [control steps], ascending: limits of the K bins of the distribution, or None.
        probs: (B, K): probability of each bin, or None.
    """

    mean: Array
    edges: Array | None = None
    probs: Array | None = None


class RewardModel(abc.ABC):
    """Says how many steps are left. Subclass it, or pass a function of the observations.

    What it needs, it declares, and the signal serves it: observations that the policy sees or not, their history, and more:
    `action` (B, A), the action that led here (zeros at first); `control_dt_s` (B,); `goal/state` (B, G); `goal/pixels/<camera>`
    (B, H, W, 3), what the camera sees where the goal is reached; `truth/…`, which is privileged: only a simulator has it, and a model
    that asks for it says so here, where everybody can see it. The instruction is in `goals.instructions`.

    Attributes:
        id: the name under which `make_reward_model` finds it.
        needs: names of the observations it reads; `"*"` among them, or None, means whatever the policy sees.
        history: k for each needed name that it reads with its past: (B, k, …) instead of (B, …), the oldest first. What was before
            an episode's first observation is that first observation.
        kind: what its d comes from: "steps", "seconds", "progress" (0..1), "success" (a probability: d lies in 0..1 and counts no
            steps) or "change" (the steps that the last action gained, added up).
        task: name of the task it was made for; None means any. An env of another task refuses it.
        success_threshold: s in success 1[d ≤ s], in [control steps], where `gym.make` is not told another.
        success_k_of_n: success is predicted where d ≤ s in k of the last n observations of the episode, likewise.
        has_memory: whether what it says depends on what it was shown before. Then it has `reset`, `get_state` and `set_state`, and is
            asked exactly once for each observation of an episode, in order.
        latency_s: how long a call is made to take, to try out a slow model on a real robot, in [s]; simulated time does not wait.
    """

    id: ClassVar[str] = "custom"
    needs: tuple[str, ...] | None = None
    history: Mapping[str, int] = {}
    kind: Kind = "steps"
    task: str | None = None
    success_threshold: float = 0.5
    success_k_of_n: tuple[int, int] = (1, 1)
    has_memory: bool = False
    latency_s: float | None = None

    @abc.abstractmethod
    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Returns the steps left from each of B observations, each value (B, …), or (B, k, …) with its history, to its goal."""

    def reset(self, goals: Goals, mask: Array) -> None:  # noqa: B027 (most models have no memory)
        """Told before the first observation of the episodes in `mask` (B,) bool."""

    def get_state(self) -> dict[str, Array] | None:
        """Returns the model's memory, arrays (B, …) by name, to be given back to `set_state`; None if it has none."""
        return None

    def set_state(self, state: dict[str, Array]) -> None:  # noqa: B027 (most models have no memory)
        """Goes on from what `get_state` returned, or from rows of several such memories."""

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able description from which `make_reward_model` rebuilds this model."""
        return {"id": self.id}

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model returns: settings, and weights where there are any."""
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_privileged(self) -> bool:
        """Whether the model reads what only a simulator knows."""
        return any(name.startswith(TRUTH) for name in self.needs or ())


def needed_names(model: RewardModel, seen: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the observations that a model reads, each once, where the policy sees `seen`.

    Raises:
        RewardModelError: it reads the history of what it does not need.
    """
    needs = (SEEN,) if model.needs is None else model.needs
    names = tuple(dict.fromkeys(name for need in needs for name in (seen if need == SEEN else (need,))))
    for name in model.history:
        if name not in names:
            raise RewardModelError(
                f"reward model {model.id!r} reads the history of {name!r}, which it does not need: add it to needs, {names}."
            )
    return names
