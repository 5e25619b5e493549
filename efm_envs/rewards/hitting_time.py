"""How many steps were really left: the ground truth of a steps-to-go model, by simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from efm_envs.errors import EFMError
from efm_envs.task import Array

MOST_AT_ONCE = 64  # rollouts side by side


@dataclass(frozen=True)
class HittingTimes:
    """Steps that a policy took from one state until true success, in n rollouts: samples of what a steps-to-go model predicts.

    Attributes:
        steps: (n,) float64 in [control steps]; infinite where it was not there within the limit; 0 where it was there already.
        limit: control steps after which a rollout was given up.
    """

    steps: Array
    limit: int

    @property
    def reached(self) -> float:
        """The part of the rollouts that got there."""
        return float(np.isfinite(self.steps).mean())

    @property
    def mean(self) -> float:
        """Mean of the steps, those that were given up counting with the limit: at most the true mean."""
        return float(np.minimum(self.steps, self.limit).mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, from the spread of the rollouts; NaN for a single one."""
        return float(np.std(np.minimum(self.steps, self.limit), ddof=1) / np.sqrt(len(self.steps))) if len(self.steps) > 1 else float("nan")


def hitting_time(env: Any, policy: Any, state: Any = None, n: int = 64, *, limit: int | None = None) -> Any:
    """Returns how many steps a policy needs from a state until true success, by rolling it out n times.

    The rollouts run side by side in a vector env, with the task's own truth. The policy's own chance is what tells them apart: one
    without chance needs n = 1. A policy with a memory, such as an expert, begins anew at the state, and makes up its hidden choices anew.

    Args:
        env: an env of this project, from `gym.make`; or a vector env of the id, in the autoreset mode "Disabled" and with
            `terminate_on="true"`, for who asks often.
        policy: acts on a batch of observations; or a function that makes such a policy from the list of envs, for example
            `functools.partial(efm_envs.make_expert, style="human")`.
        state: what `env.unwrapped.get_state()` returned; a list of such states for as many answers; None is the env's present state.
        n: rollouts from each state.
        limit: control steps after which a rollout is given up; None is the env's step limit.

    Returns:
        `HittingTimes`; a list of them for a list of states.

    Raises:
        EFMError: n or limit is below 1.
        InvalidStateError: a state of another task.
    """
    if n < 1 or (limit is not None and limit < 1):
        raise EFMError(f"n and limit are whole numbers, at least 1; got {n!r} and {limit!r}.")
    is_vector = isinstance(env, gym.vector.VectorEnv)
    if not hasattr(env.unwrapped, "task" if is_vector else "get_state"):
        raise EFMError(f"hitting_time() needs an env of this project, whose simulation it can restore; got {env!r}.")
    if is_vector and (env.unwrapped.autoreset_mode.value, {*env.unwrapped.terminate_on}) != ("Disabled", {"true"}):
        raise EFMError('a vector env for hitting_time() is made with autoreset_mode="Disabled" and terminate_on="true".')
    if state is None:
        state = env.unwrapped.get_state()
    states = list(state) if isinstance(state, Sequence) else [state]
    envs: Any = env if is_vector else _vector_env(env, min(MOST_AT_ONCE, n * len(states)))
    try:
        found = _run(envs.unwrapped, policy, states, n, limit or int(envs.unwrapped.example.step_limit))
    finally:
        if not is_vector:
            envs.close()
    return found if isinstance(state, Sequence) else found[0]


def _vector_env(env: Any, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
    if env.spec is None:
        raise EFMError("hitting_time() makes envs like this one, which was not made by gym.make: pass a vector env.")
    options = {**env.spec.kwargs, "reward_model": "none", "terminate_on": "true", "render_mode": None}
    return gym.make_vec(env.spec.id, num_envs, autoreset_mode="Disabled", **options)


def _run(envs: Any, policy: Any, states: Sequence[Any], n: int, limit: int) -> list[HittingTimes]:
    acting = policy(list(envs.envs)) if callable(policy) and not hasattr(policy, "act") else policy
    if not hasattr(acting, "act"):
        raise EFMError(f"a policy has act(observations), or is a function that makes one from the list of envs; got {policy!r}.")
    places = [(place, number) for place in range(len(states)) for number in range(n)]
    steps = np.full((len(states), n), np.inf)
    for first in range(0, len(places), envs.num_envs):
        some = places[first : first + envs.num_envs]
        filled = some + [some[-1]] * (envs.num_envs - len(some))  # the last ones are run for nothing
        here = [states[place] for place, _ in filled]
        keys = [(state.episode_key[0], number) for state, (_, number) in zip(here, filled, strict=True)]
        times = _until_success(envs, acting, here, keys, limit)
        for (place, number), time in zip(some, times[: len(some)], strict=True):
            steps[place, number] = time
    return [HittingTimes(row, limit) for row in steps]


def _until_success(envs: Any, policy: Any, states: Sequence[Any], keys: Sequence[tuple[int, int]], limit: int) -> Array:
    """Returns (B,) the steps until true success, infinite beyond the limit."""
    envs.set_attr("step_limit", limit)
    observations, infos = envs.start_from(states, keys)
    if hasattr(policy, "reset"):
        policy.reset(np.ones(envs.num_envs, bool))
    times = np.where(infos["is_success"], 0.0, np.inf)
    for step in range(1, limit + 1):
        if np.isfinite(times).all():
            break
        observations, _, _, _, infos = envs.step(policy.act(observations))
        times = np.where(np.isinf(times) & infos["is_success"], float(step), times)
    return times
