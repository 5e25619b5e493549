"""Reward models by name: ours, those that a program registers, and those that other packages bring as plug-ins."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from efm_envs.errors import EFMError, RewardModelError, missing_extra, unknown_name, unknown_option
from efm_envs.rewards.adapters import FunctionRewardModel
from efm_envs.rewards.base import KINDS, RewardModel

ENTRY_POINT_GROUP = "efm_envs.reward_models"

Factory = Callable[..., RewardModel]

_registered: dict[str, str | Factory] = {
    "oracle": "efm_envs.rewards.oracle:OracleRewardModel",
    "sparse": "efm_envs.rewards.oracle:SparseRewardModel",
    "none": "efm_envs.rewards.oracle:NoRewardModel",
    "constant": "efm_envs.rewards.reference:ConstantRewardModel",
    "noisy": "efm_envs.rewards.reference:NoisyRewardModel",
    "inverted": "efm_envs.rewards.reference:InvertedRewardModel",
    "quantised": "efm_envs.rewards.reference:QuantisedRewardModel",
    "hackable": "efm_envs.rewards.reference:HackableRewardModel",
    "delayed": "efm_envs.rewards.wrapping:DelayedRewardModel",
    "cached": "efm_envs.rewards.wrapping:CachedRewardModel",
    "slow": "efm_envs.rewards.wrapping:SlowRewardModel",
    "http": "efm_envs.rewards.http:HTTPRewardModel",
    "function": "efm_envs.rewards.adapters:FunctionRewardModel",
    "progress": "efm_envs.rewards.adapters:ProgressRewardModel",
    "classifier": "efm_envs.rewards.adapters:ClassifierRewardModel",
    "transition": "efm_envs.rewards.adapters:TransitionRewardModel",
    "pair": "efm_envs.rewards.adapters:PairRewardModel",
}


def reward_models() -> list[str]:
    """Returns the names that `make_reward_model` knows: registered ones and installed plug-ins."""
    return sorted({*_registered, *_plug_ins()})


def register_reward_model(name: str, entry_point: str | Factory) -> None:
    """Makes a reward model available by name in this process.

    A package does this for everybody who installs it with an entry point in the group `efm_envs.reward_models`.

    Args:
        name: the `id` that `gym.make(..., reward_model=…)` takes.
        entry_point: the model's class, or a function that makes one; or either as a "module:name" string.

    Raises:
        EFMError: the name is taken.
    """
    if name in reward_models():
        raise EFMError(f"reward model {name!r} is already registered: choose another name.")
    _registered[name] = entry_point


def make_reward_model(spec: Any) -> RewardModel:
    """Returns the reward model that `spec` describes.

    Args:
        spec: a name ("oracle"); a dict with the name under "id" and the model's options ({"id": "checkpoint", "path": "run"});
            a RewardModel, returned as it is; or a function of the observations.

    Raises:
        UnknownNameError: no model of that name.
        UnknownOptionError: the model takes no such option.
        RewardModelError: the spec is none of the above.
    """
    if isinstance(spec, RewardModel):
        return _checked(spec)
    if isinstance(spec, str):
        return _make(spec, {})
    if isinstance(spec, Mapping):
        options = dict(spec)
        name = options.pop("id", None)
        if not isinstance(name, str):
            raise RewardModelError(
                f'a reward model\'s dict names the model under "id", for example {{"id": "oracle"}}; got {dict(spec)!r}.'
            )
        return _make(name, options)
    if callable(spec) and not inspect.isclass(spec):
        return FunctionRewardModel(spec)
    raise RewardModelError(
        f"reward_model is a name ({', '.join(reward_models())}), a dict with that name under 'id', a RewardModel, "
        f"or a function of the observations; got {spec!r}."
    )


def _make(name: str, options: dict[str, Any]) -> RewardModel:
    factory = _factory(name)
    _check_options(name, factory, options)
    model = factory(**options)
    if not isinstance(model, RewardModel):
        raise RewardModelError(f"reward model {name!r} is made by {factory!r}, which returned {model!r}: not a RewardModel.")
    return _checked(model)


def _checked(model: RewardModel) -> RewardModel:
    """Returns a model whose declarations can be; raises RewardModelError for others."""
    if isinstance(model.needs, str):
        raise RewardModelError(
            f"reward model {model.id!r}: needs is a tuple of names, for example ({model.needs!r},); got {model.needs!r}."
        )
    history = model.history
    if not isinstance(history, Mapping) or not all(type(k) is int and k >= 1 for k in history.values()):
        raise RewardModelError(
            f'reward model {model.id!r}: history says of how many of the last observations it reads, {{"pixels/top": 8}}; got {history!r}.'
        )
    if model.kind not in KINDS:
        raise RewardModelError(
            f"reward model {model.id!r}: kind is one of {', '.join(KINDS)}; got {model.kind!r}. Where only the order means something, "
            "as of a rank, a difference has no unit and is no reward."
        )
    return model


def _factory(name: str) -> Factory:
    entry_point = _registered.get(name)
    if callable(entry_point):
        return entry_point
    if entry_point is not None:
        module, _, attribute = entry_point.partition(":")
        factory: Factory = getattr(importlib.import_module(module), attribute)
        return factory
    plug_ins = _plug_ins()
    if name not in plug_ins:
        raise unknown_name("reward model", name, reward_models())
    return _load(plug_ins[name])


def _load(plug_in: EntryPoint) -> Factory:
    try:
        factory: Factory = plug_in.load()
    except ModuleNotFoundError as error:
        if plug_in.module.startswith("efm_agents"):
            raise missing_extra(f"reward model {plug_in.name!r}", "agents") from error
        raise
    return factory


def _plug_ins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value or point.name in _registered:
            raise EFMError(
                f"two reward models are called {point.name!r}: {point.value} and "
                f"{other.value if other.value != point.value else _registered[point.name]}. Uninstall one of their packages."
            )
    return found


def _check_options(name: str, factory: Factory, options: dict[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise unknown_option(f"reward model {name!r}", option, parameters)
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise RewardModelError(
            f"reward model {name!r} needs {', '.join(map(repr, missing))}: pass "
            f'reward_model={{"id": {name!r}, {", ".join(f"{m!r}: …" for m in missing)}}}.'
        )
