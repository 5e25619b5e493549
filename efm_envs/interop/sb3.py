"""Stable-Baselines3's vector env over ours: one batch of simulations in place of a list of envs, or of processes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from efm_envs.errors import EFMError, missing_extra
from efm_envs.task import Array
from efm_envs.vector import EFMVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor
except ModuleNotFoundError as error:
    raise missing_extra("efm_envs.interop.sb3", "sb3") from error

EFM_VECTOR_ENV = f"{EFMVectorEnv.__module__}:{EFMVectorEnv.__name__}"  # as ids of ours are registered
OTHERS = {"autoreset_mode", "vectorization_mode", "env_kwargs", "vec_env_cls", "wrapper_class"}  # of other functions of this kind
Indices = int | Iterable[int] | None


def make_vec_env(
    env_id: str, n_envs: int = 1, seed: int | None = None, *, num_threads: int = 0, monitor: bool = True, **options: Any
) -> VecEnv:
    """Returns many envs of an id, for Stable-Baselines3's algorithms.

    Args:
        env_id: a registered id of ours.
        n_envs: how many.
        seed: env i's first reset has the seed `seed + i`.
        num_threads: that step and draw them; 0 is one for each processor.
        monitor: adds episodes' returns and lengths, and their last `is_success`, as SB3's logs show them.
        **options: every other keyword of `gym.make_vec`, for example `obs_mode="flat"` for an `MlpPolicy`.

    Raises:
        EFMError: an id that is not ours; an option that cannot be.

    >>> from stable_baselines3 import PPO
    >>> model = PPO("MlpPolicy", make_vec_env("EFM-PointMass-v0", n_envs=8, obs_mode="flat"), n_steps=32, seed=0)
    >>> model.learn(256).num_timesteps
    256
    """
    for name in OTHERS & options.keys():
        raise EFMError(f"make_vec_env makes one vector env of ours, in the mode SameStep; leave {name} out. Options are given as they are.")
    spec = gym.spec(env_id.rpartition(":")[2])
    if spec.vector_entry_point != EFM_VECTOR_ENV:
        raise EFMError(
            f"make_vec_env takes an id of ours, for example EFM-PointMass-v0; got {env_id!r}. Stable-Baselines3 has one for others."
        )
    envs = gym.make_vec(env_id, num_envs=n_envs, num_threads=num_threads, autoreset_mode=AutoresetMode.SAME_STEP, **options)
    vec_env: VecEnv = SB3VecEnv(envs)
    if seed is not None:
        vec_env.seed(seed)
    return VecMonitor(vec_env, info_keywords=("is_success",)) if monitor else vec_env


class SB3VecEnv(VecEnv):
    """A vector env of ours as SB3 has it: `dones`, one `info` for each env, `terminal_observation`. Usually made by `make_vec_env`.

    It returns, bit for bit, what SB3's `DummyVecEnv` returns over as many single envs.

    Args:
        envs: made by `gym.make_vec(..., autoreset_mode="SameStep")`.

    Attributes:
        vector_env: those envs.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        vector_env = envs.unwrapped
        if not isinstance(vector_env, EFMVectorEnv) or vector_env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise EFMError(f'SB3VecEnv takes what gym.make_vec("EFM-…", …, autoreset_mode="SameStep") returned; got {envs!r}.')
        self.vector_env = vector_env
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)

    def reset(self) -> Any:
        """Starts episodes in all envs, with the seeds and options that were set since; returns their observations."""
        observations, infos = self.vector_env.reset_each(self._seeds, self._options)
        self.reset_infos = _by_env(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Array) -> None:
        """Takes the actions (B, A) of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, Array, Array, list[dict[str, Any]]]:
        """Runs the step; returns observations, rewards (B,) float32, dones (B,) bool, and the info of each env."""
        observations, rewards, terminated, truncated, infos = self.vector_env.step(self._actions)
        dones = terminated | truncated
        final_observations, final_infos = infos.pop("final_obs", None), infos.pop("final_info", {})
        by_env = _by_env(infos, self.num_envs)
        if dones.any():
            final_by_env = _by_env(final_infos, self.num_envs)
            for i in np.flatnonzero(dones).tolist():
                self.reset_infos[i], by_env[i] = by_env[i], final_by_env[i]
                by_env[i]["terminal_observation"] = final_observations[i]
        for info, was_cut in zip(by_env, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = was_cut
        return observations, rewards.astype(np.float32), dones, by_env

    def close(self) -> None:
        """Frees what the envs hold."""
        self.vector_env.close()

    def get_images(self) -> Sequence[Array | None]:
        """Returns a picture (H, W, 3) uint8 of each env, if they were made with `render_mode="rgb_array"`."""
        return self.vector_env.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Returns an attribute of each env, or of some."""
        return [getattr(self.vector_env.envs[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Sets an attribute of each env, or of some, to one value; `EFMVectorEnv.set_attr` says which can be set."""
        chosen, envs = set(self._get_indices(indices)), self.vector_env.envs
        without = [env for i, env in enumerate(envs) if i not in chosen and not hasattr(env, attr_name)]
        self.vector_env.set_attr(attr_name, [value if i in chosen else getattr(env, attr_name, None) for i, env in enumerate(envs)])
        for env in without:
            delattr(env, attr_name)

    def env_method(self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any) -> list[Any]:
        """Returns what a method of each env, or of some, returns; or an attribute."""
        values = self.get_attr(method_name, indices)
        return [value(*method_args, **method_kwargs) if callable(value) else value for value in values]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None) -> list[bool]:
        """Returns False for each env: there are no wrappers around them."""
        return [False for _ in self._get_indices(indices)]


def _by_env(infos: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Returns the info of each env, values as Python's; what there is not in an env's is left out."""
    by_env: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if f"_{name}" in infos:
            for info, value, is_there in zip(by_env, values.tolist(), infos[f"_{name}"].tolist(), strict=True):
                if is_there:
                    info[name] = value
    return by_env
