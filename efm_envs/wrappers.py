"""StepsToGoReward: a reward model's signal around anybody's Gymnasium env."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from efm_envs.errors import RewardModelError, UnknownNameError, one_of, unknown_name
from efm_envs.rewards.base import ACTION, CONTROL_DT, GOAL_STATE, TRUE_SUCCESS, needed_names
from efm_envs.rewards.registry import make_reward_model
from efm_envs.rewards.signal import TERMINATE_ON, RewardSignal, SignalOutput, TerminateOn, is_end
from efm_envs.task import Array, Goal, Goals

GoalOf = Callable[[Any, dict[str, Any]], Goal]


class StepsToGoReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Replaces an env's reward by r = d(o, g) − d(o′, g), and may end its episodes at predicted success.

    Args:
        env: any Gymnasium env. The model sees a dict observation by its own names, any other under the name "observation"; and, where
            the env reports `info["is_success"]` (or "success"), that as `truth/is_success`.
        model: as in `gym.make(..., reward_model=…)`: a name, a dict, a RewardModel, or a function of the observations.
        success_threshold: s in predicted success 1[d ≤ s], in [control steps]; None takes the model's own.
        success_k_of_n: (k, n): success is predicted where d ≤ s in k of the last n observations; None takes the model's own.
        terminate_on: what ends an episode besides the env itself: "predicted" success, "true" success (the env reports it), or "never".
        goal: gives the goal from the first observation and info; None takes `info["instruction"]`, else an empty instruction.
        control_dt_s: control period in [s], for models that ask for it; None is `env.unwrapped.dt`, which MuJoCo's envs have.

    `info` gets `predicted_success` and `steps_to_go`, and keeps what the env put there; the env's own reward is `info["env_reward"]`.

    >>> env = gym.make("CartPole-v1")
    >>> env = StepsToGoReward(env, lambda observations: 100 * np.abs(observations["observation"][:, 2]))
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, after = env.step(0)
    >>> bool(np.isclose(reward, info["steps_to_go"] - after["steps_to_go"]))
    True
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: Any,
        *,
        success_threshold: float | None = None,
        success_k_of_n: Sequence[int] | None = None,
        terminate_on: TerminateOn = "predicted",
        goal: GoalOf | None = None,
        control_dt_s: float | None = None,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,  # a model may be large, or not copyable
            model=model,
            success_threshold=success_threshold,
            success_k_of_n=success_k_of_n,
            terminate_on=terminate_on,
            goal=goal,
            control_dt_s=control_dt_s,
        )
        super().__init__(env)
        self.terminate_on: TerminateOn = one_of("terminate_on", terminate_on, TERMINATE_ON)
        self.signal = RewardSignal(make_reward_model(model), 1, success_threshold, success_k_of_n)
        self._control_dt_s = getattr(env.unwrapped, "dt", None) if control_dt_s is None else control_dt_s
        self._no_action = np.zeros(env.action_space.shape or ())
        self._goal_of = goal
        self._goals = Goals([])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the env and asks the model for its first d."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._goals = Goals([self._goal(observation, info)])
        output = self.signal.reset(self._model_observations(observation, info, self._no_action), self._goals)
        return observation, {**info, **_info(output), "env_reward": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the env and asks the model for the new d."""
        observation, env_reward, terminated, truncated, info = self.env.step(action)
        output = self.signal.step(self._model_observations(observation, info, action), self._goals)
        ended = is_end(self.terminate_on, bool(output.predicted_success[0]), bool(_true_success(info)))
        info = {**info, **_info(output), "env_reward": float(env_reward)}
        return observation, float(output.reward[0]), bool(terminated or ended), bool(truncated), info

    def _goal(self, observation: Any, info: dict[str, Any]) -> Goal:
        return self._goal_of(observation, info) if self._goal_of else Goal(str(info.get("instruction", "")))

    def _model_observations(self, observation: Any, info: dict[str, Any], action: Any) -> dict[str, Array]:
        named = observation if isinstance(observation, Mapping) else {"observation": observation}
        values = {name: np.asarray(value)[None] for name, value in named.items()}
        needed = needed_names(self.signal.model, list(values))
        values |= {ACTION: np.asarray(action, np.float64)[None], GOAL_STATE: self._goals.states}
        if self._control_dt_s is not None:
            values[CONTROL_DT] = np.array([self._control_dt_s], np.float64)
        if (success := _true_success(info)) is not None:
            values[TRUE_SUCCESS] = np.array([success])
        for name in needed:
            if name not in values:
                raise self._missing(name, values)
        return {name: values[name] for name in needed}

    def _missing(self, name: str, there: Mapping[str, Array]) -> RewardModelError | UnknownNameError:
        who = f"reward model {self.signal.model.id!r}"
        if name == TRUE_SUCCESS:
            return RewardModelError(
                f'{who} needs {name!r}: this env does not report info["is_success"] or info["success"] at reset and at every step.'
            )
        if name == CONTROL_DT:
            return RewardModelError(f"{who} needs the control period, which this env does not tell: pass control_dt_s=, in seconds.")
        return unknown_name(f"observation that {who} needs", name, there)


def _true_success(info: dict[str, Any]) -> bool | None:
    success = info.get("is_success", info.get("success"))
    return None if success is None else bool(success)


def _info(output: SignalOutput) -> dict[str, Any]:
    return {"predicted_success": bool(output.predicted_success[0]), "steps_to_go": float(output.steps_to_go[0])}
