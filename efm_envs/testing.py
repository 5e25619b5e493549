"""Conformance kit: the laws that every env and every reward model keeps, ours and yours.

    from efm_envs.testing import check_reward_model, check_task
    check_task("EFM-PointMass-v0")
    check_reward_model({"id": "my-model"}, "EFM-PointMass-v0")

Each check raises AssertionError and says which law was broken.
"""

import random
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from efm_envs.rewards.registry import make_reward_model
from efm_envs.task import Array

INFO_TYPES = {"is_success": bool, "predicted_success": bool, "steps_to_go": float, "instruction": str}

RANDOM_STEPS = 40  # of an episode without an expert
LONGEST_WAIT = 200  # control steps: a longer limit is shortened for a check

Step = tuple[Any, float, bool, bool, dict[str, Any]]


def check_task(env_id: str, **make_kwargs: Any) -> None:
    """Checks everything that an env promises, for one id and one set of options.

    Args:
        env_id: a registered id.
        **make_kwargs: for `gym.make`, for example `obs_mode="pixels"`.
    """
    check_gymnasium(env_id, **make_kwargs)
    check_determinism(env_id, **make_kwargs)
    check_scenarios_are_addressed_by_index(env_id, **make_kwargs)
    check_state(env_id, **make_kwargs)
    check_info(env_id, **make_kwargs)
    check_time_limit(env_id, **make_kwargs)
    check_arrays_are_not_shared(env_id, **make_kwargs)
    check_spec_round_trip(env_id, **make_kwargs)
    check_steps_to_go_estimate(env_id, **make_kwargs)


def check_reward_model(model: Any, env_id: str, **make_kwargs: Any) -> None:
    """Checks that a reward model can be the reward of an env: rewards telescope, and nothing but the reward depends on it.

    Args:
        model: as in `gym.make(..., reward_model=…)`.
        env_id: a registered id.
        **make_kwargs: for `gym.make`.
    """
    check_rewards_telescope(model, env_id, **make_kwargs)
    check_success_does_not_depend_on_the_reward_model(model, env_id, **make_kwargs)
    check_distribution(model, env_id, **make_kwargs)
    check_determinism(env_id, reward_model=model, **make_kwargs)
    check_state(env_id, reward_model=model, **make_kwargs)
    built = make_reward_model(model)
    assert built.fingerprint == make_reward_model(model).fingerprint, "the same spec gave two fingerprints"


def check_gymnasium(env_id: str, **make_kwargs: Any) -> None:
    """Gymnasium's own checker has nothing to say, not even a warning."""
    env = gym.make(env_id, **make_kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)  # opens windows; rendering has its own tests
    env.close()


def check_determinism(env_id: str, **make_kwargs: Any) -> None:
    """The same seed and actions give the same episode, info included, whatever other envs and global generators did meanwhile."""
    actions = random_actions(env_id, steps=20, seed=1)
    first = run(env_id, actions, seed=3, **make_kwargs)
    random.seed(0)
    np.random.seed(0)
    run(env_id, actions[::-1], seed=4, **make_kwargs)
    _assert_same(first, run(env_id, actions, seed=3, **make_kwargs), "the same seed and actions gave another episode")
    other = run(env_id, actions, seed=4, **make_kwargs)
    assert not _same(first, other), "another seed gave the same episode"


def check_scenarios_are_addressed_by_index(env_id: str, **make_kwargs: Any) -> None:
    """The k-th episode after a seed starts the same, whatever happened in the episodes before it."""
    env = gym.make(env_id, **make_kwargs)
    starts = []
    for steps in (0, 7):
        env.reset(seed=5)
        for action in random_actions(env_id, steps, seed=6):
            env.step(action)
        starts.append(env.reset()[0])
    env.close()
    assert _same(*starts), "the second episode after a seed depends on what was done in the first"


def check_state(env_id: str, **make_kwargs: Any) -> None:
    """A restored state goes on bit for bit, in the same env and in another one."""
    before, after = np.split(random_actions(env_id, steps=20, seed=7), 2)
    env, other = gym.make(env_id, **make_kwargs), gym.make(env_id, **make_kwargs)
    env.reset(seed=8)
    for action in before:
        env.step(action)
    state = env.unwrapped.get_state()  # type: ignore[attr-defined]
    expected = [*(env.step(action) for action in after), env.reset()]
    other.reset(seed=9)
    for restored in (env, other):
        restored.unwrapped.set_state(state)  # type: ignore[attr-defined]
        _assert_same(expected, [*(restored.step(action) for action in after), restored.reset()], "a restored state went on otherwise")
        restored.close()


def check_info(env_id: str, **make_kwargs: Any) -> None:
    """`info` has the same keys of the same types at every reset and step, and nothing else."""
    env = gym.make(env_id, **make_kwargs)
    infos = [env.reset(seed=0)[1], *(env.step(action)[4] for action in random_actions(env_id, 5, seed=0))]
    expected = {**INFO_TYPES, **env.unwrapped.task.info_types}  # type: ignore[attr-defined]
    env.close()
    for info in infos:
        types = {name: type(value) for name, value in info.items()}
        assert types == expected, f"info has {types}; expected {expected}"


def check_time_limit(env_id: str, **make_kwargs: Any) -> None:
    """The step limit, its own or a shorter one, truncates at exactly that step, and does not terminate."""
    kwargs = {**make_kwargs, "terminate_on": "never"}
    env = gym.make(env_id, **kwargs)
    limit = env.unwrapped.step_limit  # type: ignore[attr-defined]
    if limit > LONGEST_WAIT:
        limit = LONGEST_WAIT
        env.close()
        env = gym.make(env_id, **{**kwargs, "step_limit": limit})
    env.reset(seed=0)
    flags = [env.step(action)[2:4] for action in random_actions(env_id, limit, seed=0)]
    env.close()
    assert flags == [(False, False)] * (limit - 1) + [(False, True)], f"a limit of {limit} steps gave (terminated, truncated) {flags[-3:]}"


def check_arrays_are_not_shared(env_id: str, **make_kwargs: Any) -> None:
    """What an env returned does not change afterwards, and writing to it changes nothing."""
    actions = random_actions(env_id, steps=6, seed=2)
    expected = run(env_id, actions, seed=0, **make_kwargs)
    env = gym.make(env_id, **make_kwargs)
    observation, _ = env.reset(seed=0)
    kept = []
    for action in actions:
        for array in _arrays(observation):
            array[...] = 0  # a careless user
        observation = env.step(action)[0]
        kept.append(observation)
    arrays = [array for o in kept for array in _arrays(o)]
    env.close()
    _assert_same(expected[-1][0], kept[-1], "writing to a returned observation changed the env")
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i]), "two steps share an array"


def check_spec_round_trip(env_id: str, **make_kwargs: Any) -> None:
    """`env.spec` survives JSON, and the env made from it is the same env."""
    env = gym.make(env_id, **make_kwargs)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    same = env.observation_space == again.observation_space and _same(env.reset(seed=1), again.reset(seed=1))
    env.close()
    again.close()
    assert same, "the env made from its spec's JSON is another env"


def check_steps_to_go_estimate(env_id: str, **make_kwargs: Any) -> None:
    """The privileged estimate is 0 exactly at success and at least 1 elsewhere; the clean expert, if there is one, succeeds."""
    env = gym.make(env_id, **{**make_kwargs, "reward_model": "oracle", "terminate_on": "true"})
    has_expert, act, infos = _has_expert(env), _actor(env), []
    for seed in range(5):
        infos.append(env.reset(seed=seed)[1])
        for _ in range(env.unwrapped.step_limit if has_expert else RANDOM_STEPS):  # type: ignore[attr-defined]
            *_, terminated, truncated, info = env.step(act())
            infos.append(info)
            if terminated or truncated:
                break
    env.close()
    assert any(info["is_success"] for info in infos) or not has_expert, "the clean expert never succeeded in 5 episodes"
    for info in infos:
        d = info["steps_to_go"]
        assert (d == 0.0) if info["is_success"] else (d >= 1.0), f"steps-to-go {d} with is_success={info['is_success']}"


def check_rewards_telescope(model: Any, env_id: str, **make_kwargs: Any) -> None:
    """Σ r = d(o_0) − d(o_T), in an expert's episodes and in random ones."""
    env = gym.make(env_id, **{**make_kwargs, "reward_model": model, "terminate_on": "never"})
    act = _actor(env)
    for seed in range(4):
        _, info = env.reset(seed=seed)
        first, total = info["steps_to_go"], 0.0
        for action in random_actions(env_id, 30, seed):
            _, reward, _, _, info = env.step(act() if seed % 2 else action)
            total += float(reward)
        assert np.isclose(total, first - info["steps_to_go"], atol=1e-6), f"Σ r = {total}, d(o_0) − d(o_T) = {first - info['steps_to_go']}"
    env.close()


def check_distribution(model: Any, env_id: str, **make_kwargs: Any) -> None:
    """The distribution of a model that has one is a distribution, and d lies within it."""
    env = gym.make(env_id, **{**make_kwargs, "reward_model": model, "terminate_on": "never"})
    signal = env.unwrapped.signal  # type: ignore[attr-defined]
    env.reset(seed=0)
    for action in random_actions(env_id, 5, seed=0):
        env.step(action)
        said = signal.prediction
        if said.probs is None:
            break
        edges, probs = np.asarray(said.edges), np.asarray(said.probs)
        assert (np.diff(edges) > 0).all() and edges[0] >= 0, f"the edges of a distribution of steps ascend from 0 or more; got {edges}"
        assert (probs >= 0).all() and np.allclose(probs.sum(axis=1), 1.0, atol=1e-3), f"probabilities add up to 1; got {probs.sum(axis=1)}"
        assert edges[0] <= said.mean[0] <= edges[-1], f"d = {said.mean[0]} lies outside of its distribution, {edges[0]} to {edges[-1]}"
    env.close()


def check_success_does_not_depend_on_the_reward_model(model: Any, env_id: str, **make_kwargs: Any) -> None:
    """Observations and `is_success` are the same under this model and under none."""
    actions = random_actions(env_id, 20, seed=3)
    kwargs = {**make_kwargs, "terminate_on": "never"}
    runs = [run(env_id, actions, seed=2, **{**kwargs, "reward_model": m}) for m in (model, "none")]
    seen = [[(step[0], step[-1]["is_success"]) for step in steps] for steps in runs]
    assert _same(*seen), "observations or is_success depend on the reward model"


def random_actions(env_id: str, steps: int, seed: int) -> Array:
    """Returns (steps, A) actions, uniform in the action space."""
    env = gym.make(env_id, disable_env_checker=True)
    space = env.action_space
    env.close()
    assert isinstance(space, gym.spaces.Box) and space.dtype is not None
    return np.random.default_rng(seed).uniform(space.low, space.high, (steps, *space.shape)).astype(space.dtype)


def run(env_id: str, actions: Array, seed: int, **make_kwargs: Any) -> list[Any]:
    """Returns everything that an env returned: its reset, then a step for every action, also past the end."""
    env = gym.make(env_id, **make_kwargs)
    returned: list[Any] = [env.reset(seed=seed), *(env.step(action) for action in actions)]
    env.close()
    return returned


def _has_expert(env: gym.Env[Any, Any]) -> bool:
    return bool(env.unwrapped.task.experts)  # type: ignore[attr-defined]


def _actor(env: gym.Env[Any, Any]) -> Callable[[], Array]:
    """Returns what gives an env's next action: its clean expert or, where there is none, chance."""
    from efm_envs.experts.base import make_expert

    if _has_expert(env):
        return make_expert(env).act
    rng, shape = np.random.default_rng(0), env.action_space.shape
    return lambda: rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def _arrays(observation: Any) -> list[Array]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def _assert_same(a: Any, b: Any, message: str) -> None:
    assert _same(a, b), message


def _same(a: Any, b: Any) -> bool:
    """Bit for bit, through lists, tuples and dicts."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b)
