"""Other people's models as reward models: what each is called with, and what its answer means.

An adapter has a calling convention and a `Unit`; `efm_envs.rewards.kinds` makes steps-to-go of the answer.
"""

import abc
import copy
import hashlib
import importlib
import inspect
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from efm_envs.errors import RewardModelError
from efm_envs.rewards.base import ACTION, CONTROL_DT, SEEN, Kind, RewardModel, StepsToGo
from efm_envs.rewards.content import content_hash
from efm_envs.rewards.kinds import Unit, after_change, to_steps, values
from efm_envs.rewards.signal import who
from efm_envs.task import Array, Goals

Names = Sequence[str]


class ConvertedRewardModel(RewardModel):
    """A model that speaks another kind than steps: subclass it, and answer `ask`.

    One whose kind is "change" remembers the d that it has come to, one number for each env.

    Args:
        unit: what the answers mean.
        needs, history: as in `RewardModel`; what a history is of need not be named twice, and "seconds" adds the control period.
        success_threshold: s in success 1[d ≤ s], in [control steps] whatever the unit: for progress p it is (1 − p) · H, for a success
            probability p it is 1 − p.

    >>> from efm_envs.task import Goal
    >>> class Half(ConvertedRewardModel):
    ...     def ask(self, observations, goals):
    ...         return np.full(len(goals), 0.5)
    >>> Half(Unit("progress", horizon_steps=80)).steps_to_go({}, Goals([Goal("go")])).mean
    array([40.])
    """

    def __init__(
        self, unit: Unit, needs: Names | None = None, history: Mapping[str, int] | None = None, success_threshold: float = 0.5
    ) -> None:
        self.unit = unit
        self.kind = unit.kind
        self.has_memory = unit.kind == "change"
        self.history = dict(history or {})
        more = (*self.history, *((CONTROL_DT,) if unit.kind == "seconds" else ()))
        if needs is not None or more:
            self.needs = tuple(dict.fromkeys((*((SEEN,) if needs is None else _tuple_of(needs, self)), *more)))
        self.success_threshold = success_threshold
        self._left = np.zeros(0)  # (B,) the d of a "change" model in [control steps], NaN where an episode starts

    @abc.abstractmethod
    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Returns the model's output, (B,) or, with edges, (B, K); or a `StepsToGo`, which needs no conversion."""

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the model and converts what it says."""
        output = self.ask(observations, goals)
        if isinstance(output, StepsToGo):
            return output
        if self.kind == "change":
            return StepsToGo(self._add_up(values(self.unit, output, len(goals), who(self))))
        return to_steps(self.unit, output, len(goals), control_dt_s=observations.get(CONTROL_DT), who=who(self))

    def reset(self, goals: Goals, mask: Array) -> None:
        """Notes which episodes start."""
        self._left = np.where(mask, np.nan, self._left if len(self._left) == len(mask) else np.nan)

    def get_state(self) -> dict[str, Array] | None:
        """Returns the d that a "change" model has come to."""
        return {"steps_to_go": self._left} if self.has_memory else None

    def set_state(self, state: dict[str, Array]) -> None:
        """Goes on from there."""
        self._left = state["steps_to_go"]

    def _add_up(self, gained: Array) -> Array:
        if len(self._left) != len(gained):
            raise RewardModelError(
                f"{who(self)} adds up changes since an episode began, and was told of {len(self._left)} episodes for a batch of "
                f"{len(gained)}: call reset(goals, mask) before the first observation, as `RewardSignal` does."
            )
        self._left = after_change(self.unit, self._left, gained)
        return self._left.copy()


class CallableRewardModel(ConvertedRewardModel):
    """Around a callable, which can be named in JSON; its subclasses are the calling conventions.

    Args:
        function: the callable, or where it is: "module:attribute". A class there is called, without arguments, for an instance.
        unit, needs, history, success_threshold: as for `ConvertedRewardModel`.
        version: stands for what the callable does in the fingerprint; None computes that with `content_hash`, whose limits it has.
        options: what `spec` says besides, JSON-able.

    Attributes:
        function: the callable.
        argument: name of the argument that it is.
    """

    argument: ClassVar[str] = "function"

    def __init__(
        self,
        function: Callable[..., Any] | str,
        unit: Unit,
        needs: Names | None = None,
        history: Mapping[str, int] | None = None,
        success_threshold: float = 0.5,
        version: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(unit, needs, history, success_threshold)
        self.function, self._path = loaded(function, self.id)
        self._version = version
        threshold = None if success_threshold == 0.5 else success_threshold
        self._options = {**(options or {}), **given(success_threshold=threshold, version=version)}

    def content(self) -> str:
        """Returns a hash of what the callable does."""
        return content_hash(self.function)

    @property
    def spec(self) -> dict[str, Any]:
        """Where the callable is, and the options. It rebuilds the model if the callable can be imported from there."""
        return {"id": self.id, self.argument: self._path, **self._options}

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of what the callable does, or of its `version`.

        Raises:
            RewardModelError: what it does cannot be read, and there is no version.
        """
        does = self.content() if self._version is None else self._version
        return hashlib.sha256(json.dumps([self.id, self._options, does], sort_keys=True).encode()).hexdigest()[:16]

    def __deepcopy__(self, memo: dict[int, Any]) -> "CallableRewardModel":
        return copy.copy(self)  # the callable may be large, and is shared; what is remembered is replaced and never written to


class FunctionRewardModel(CallableRewardModel):
    """`function`: a plain function of the observations.

    Args:
        function: takes the observations, each value (B, …), and returns (B,) or, with edges, (B, K), or a `StepsToGo`. It gets the goals as
            well if it has a second argument without a default, or one called `goals`. Also "module:attribute".
        needs: names of the observations it reads; None means whatever the policy sees.
        success_threshold: s in success 1[d ≤ s], in [control steps].
        history: how many of the last observations it reads, by name.
        kind, scale, offset, logits, edges, horizon_steps: what it returns; see `Unit`.
        version: as for `CallableRewardModel`.

    >>> from efm_envs.task import Goal
    >>> model = FunctionRewardModel(lambda observations: np.abs(observations["observation"][:, 0]))
    >>> model.steps_to_go({"observation": np.array([[-3.0, 1.0]])}, Goals([Goal("go")])).mean
    array([3.])
    """

    id = "function"

    def __init__(
        self,
        function: Callable[..., Any] | str,
        needs: Names | None = None,
        success_threshold: float = 0.5,
        *,
        history: Mapping[str, int] | None = None,
        kind: Kind = "steps",
        scale: float = 1.0,
        offset: float = 0.0,
        logits: bool = False,
        edges: Sequence[float] | None = None,
        horizon_steps: float | None = None,
        version: str | None = None,
    ) -> None:
        unit = Unit(kind, scale, offset, logits, edges, horizon_steps)
        options = {**given(needs=needs, history=history, kind=None if kind == "steps" else kind), **unit.options()}
        super().__init__(function, unit, needs, history, success_threshold, version, options)
        self._takes_goals = _takes_goals(self.function)

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Calls the function."""
        return self.function(observations, goals) if self._takes_goals else self.function(observations)


class ProgressRewardModel(CallableRewardModel):
    """`progress`: how far a clip has come, from its last frames and the instruction, as ReWiND, SARM, GVL and Robometer say it.

    Args:
        function: takes frames (B, T, H, W, 3) uint8, the oldest first, and B instructions, and returns progress 0..1, (B,) or (B, T), of
            which the last counts; with edges one axis more, of probabilities.
        horizon_steps: H, the length of the whole way in [control steps].
        observation: name of the observation that holds the pictures.
        frames: T. Before an episode's T-th observation, the first one stands for those before it.
        scale, offset, logits, edges: see `Unit`.
        success_threshold: in [control steps]; progress at least p is (1 − p) · H.
        version: as for `CallableRewardModel`.
    """

    id = "progress"

    def __init__(
        self,
        function: Callable[[Array, list[str]], Any] | str,
        horizon_steps: float,
        observation: str = "pixels/top",
        frames: int = 8,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        logits: bool = False,
        edges: Sequence[float] | None = None,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit("progress", scale, offset, logits, edges, horizon_steps)
        options = {**unit.options(), "observation": observation, "frames": frames}
        super().__init__(function, unit, (observation,), {observation: frames}, success_threshold, version, options)
        self.observation, self.frames = observation, frames

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the model the last frames."""
        progress = np.asarray(self.function(observations[self.observation], goals.instructions))
        axes = 1 if self.unit.edges is None else 2
        return progress[:, -1] if progress.ndim == axes + 1 and progress.shape[1] == self.frames else progress


class ClassifierRewardModel(CallableRewardModel):
    """`classifier`: says how likely success is, from pictures, state, or both.

    Its d is 1 − p: it counts no steps, and its reward is the gain in probability.

    Args:
        function: takes the observations named in `inputs`, each (B, …), as arguments in that order, and returns (B,) probabilities.
        inputs: names of observations.
        scale, offset, logits: see `Unit`; scale=-1, offset=1 for a probability of failure.
        success_threshold: success is predicted where the probability is at least 1 − this.
        version: as for `CallableRewardModel`.
    """

    id = "classifier"

    def __init__(
        self,
        function: Callable[..., Any] | str,
        inputs: Names = ("pixels/top",),
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        logits: bool = False,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit("success", scale, offset, logits)
        options = {**unit.options(), **given(inputs=inputs)}
        super().__init__(function, unit, inputs, None, success_threshold, version, options)

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the classifier its inputs."""
        return self.function(*(observations[name] for name in self.needs or ()))


class TransitionRewardModel(CallableRewardModel):
    """`transition`: a reward of transitions, as the library imitation's `RewardFn`, added up to a d.

    d begins at `horizon_steps` and falls by scale · reward + offset, but not below 0. So the env's reward is the function's own, in
    [control steps], as long as d is above 0.

    Args:
        function: takes state (B, …), action (B, A), next_state (B, …) and done (B,) bool, and returns (B,) rewards. `done` is always
            False: whether an episode ends may depend on this very answer.
        observation: name of the observation that is the state.
        horizon_steps: H, the d at the beginning of an episode.
        scale, offset: see `Unit`; the scale is how many control steps a reward of 1 is worth.
        success_threshold: in [control steps].
        version: as for `CallableRewardModel`.
    """

    id = "transition"

    def __init__(
        self,
        function: Callable[[Array, Array, Array, Array], Any] | str,
        observation: str,
        horizon_steps: float,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit("change", scale, offset, horizon_steps=horizon_steps)
        options = {**unit.options(), "observation": observation}
        super().__init__(function, unit, (observation, ACTION), {observation: 2}, success_threshold, version, options)
        self.observation = observation

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the function the last transition; at an episode's first observation, one that led nowhere."""
        states = observations[self.observation]
        return self.function(states[:, 0], observations[ACTION], states[:, 1], np.zeros(len(goals), bool))


class PairRewardModel(CallableRewardModel):
    """`pair`: the signed change of progress from one picture to the next, as VLAC says it, added up like a `transition`'s reward.

    Args:
        function: takes the picture before and the one after, each (B, H, W, 3) uint8, and B instructions, and returns (B,) changes.
        horizon_steps: H, the d at the beginning of an episode.
        observation: name of the observation that holds the pictures.
        scale: how many control steps a change of 1 is worth; None is `horizon_steps`: 1 is the whole way.
        offset: see `Unit`.
        success_threshold: in [control steps].
        version: as for `CallableRewardModel`.
    """

    id = "pair"

    def __init__(
        self,
        function: Callable[[Array, Array, list[str]], Any] | str,
        horizon_steps: float,
        observation: str = "pixels/top",
        *,
        scale: float | None = None,
        offset: float = 0.0,
        success_threshold: float = 0.5,
        version: str | None = None,
    ) -> None:
        unit = Unit("change", horizon_steps if scale is None else scale, offset, horizon_steps=horizon_steps)
        options = {**unit.options(), "observation": observation}
        super().__init__(function, unit, (observation,), {observation: 2}, success_threshold, version, options)
        self.observation = observation

    def ask(self, observations: Mapping[str, Array], goals: Goals) -> Any:
        """Shows the function the last two pictures; at an episode's first observation, the first one twice."""
        pictures = observations[self.observation]
        return self.function(pictures[:, 0], pictures[:, 1], goals.instructions)


def loaded(found: Any, name: str) -> tuple[Any, str]:
    """Returns a callable and where it is.

    Args:
        found: the callable, a class of such, or where one of them is: "module:attribute".
        name: the reward model's, for messages.

    Raises:
        RewardModelError: there is none.
    """
    path = found if isinstance(found, str) else path_of(found)
    thing = imported(found, name) if isinstance(found, str) else found
    thing = thing() if inspect.isclass(thing) else thing
    if not callable(thing):
        raise RewardModelError(f'reward model {name!r} is around something to call, or its "module:attribute"; got {found!r}.')
    return thing, path


def imported(path: str, name: str) -> Any:
    """Returns what is at "module:attribute"; raises RewardModelError, which names the model, if nothing is."""
    module, _, attribute = path.partition(":")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise RewardModelError(
            f'reward model {name!r}: {path!r} cannot be imported ({error}). Expected "module:attribute", where the module can be imported '
            "here. What is written inside another function, or was made from arguments, is in no such place: pass the object itself."
        ) from error


def path_of(thing: Any) -> str:
    """Returns "module:attribute" of a function or class; of what was made from arguments, a description that cannot be imported."""
    owner = getattr(thing, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not inspect.isclass(owner):
        return f"{path_of(owner)}.{thing.__name__}"
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}:{thing.__qualname__}"
    return f"{path_of(type(thing))}(…)"


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that are not None, tuples as lists, as they come back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value is not None}


def _takes_goals(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some that are written in C do not say
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and (places[1].default is places[1].empty or places[1].name == "goals")


def _tuple_of(names: Names, model: RewardModel) -> tuple[str, ...]:
    if isinstance(names, str):
        raise RewardModelError(f"{who(model)} reads observations by names, for example ({names!r},); got {names!r}.")
    return tuple(names)
