"""gym-aloha's interface on our ALOHA envs: its ids, names, units, rewards and limits.

Compared with gym-aloha 0.1.3 and 0.1.5, whose code is the same; docs/coming_from_gym_aloha.md lists what differs.
"""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from efm_envs.errors import EFMError, one_of
from efm_envs.observations import AGENT_POS, PIXELS
from efm_envs.task import Array
from efm_envs.tasks.aloha import station
from efm_envs.tasks.aloha.task import JOINTS, AlohaTask

IDS = {"gym_aloha/AlohaInsertion-v0": "EFM-Insert-v0", "gym_aloha/AlohaTransferCube-v0": "EFM-TransferCube-v0"}
STEP_LIMIT = 300  # (gym-aloha)
SIZE = (14,)  # of actions and of agent_pos: six joints [rad] and a gripper (0 closed, 1 open), of the left arm, then of the right
ENVIRONMENT_STATE = "environment_state"
OBS_MODES = {"pixels": "pixels", "pixels_agent_pos": "pixels", "state": "state"}  # which of ours has what each obs_type shows
REWARDS = ("stage", "steps_to_go")

_SHOWN = np.array([*range(7), *range(8, 15)])  # of our 16 joints and actuators: theirs, a gripper by its first finger
_GRIPPERS = np.array([6, 13])


def agent_positions(joints: Array) -> Array:
    """Returns positions (..., 14) in gym-aloha's units, float64, for those (..., 16) of the arms' joints and fingers in [rad] and [m]."""
    positions = np.asarray(joints, np.float64)[..., _SHOWN]
    positions[..., _GRIPPERS] = (positions[..., _GRIPPERS] - station.CLOSED_M) / (station.OPEN_M - station.CLOSED_M)
    return positions


_LOW, _HIGH = agent_positions(station.CTRL_LOW), agent_positions(station.CTRL_HIGH)
_MIDDLE, _HALF = (_HIGH + _LOW) / 2.0, (_HIGH - _LOW) / 2.0


def env_actions(actions: Array) -> Array:
    """Returns our actions (..., 14), −1 to 1 over the range of each actuator, for gym-aloha's; what is out of range stays so."""
    return np.asarray((np.asarray(actions, np.float64) - _MIDDLE) / _HALF)


def aloha_actions(actions: Array) -> Array:
    """Returns gym-aloha's actions (..., 14), targets in [rad] and of grippers from 0 to 1, for ours."""
    return np.asarray(_MIDDLE + _HALF * np.asarray(actions, np.float64))


class GymAlohaInterface(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows an ALOHA env as gym-aloha shows its own. Usually made by `make`.

    Args:
        env: an env with joint control, such as `EFM-Insert-v0`, that is made with the `obs_mode` that `obs_type` needs.
        obs_type: "pixels": {camera: picture}; "pixels_agent_pos": {"pixels": {camera: picture}, "agent_pos": (14,)}; both need
            `obs_mode="pixels"`. "state", which gym-aloha names and does not have: {"agent_pos": (14,), "environment_state": ours}.
        reward: "stage", gym-aloha's 0 to 4, which is `info["stage"]`; or "steps_to_go", the env's own.

    Actions are absolute: joint targets in [rad], and grippers from 0, closed, to 1, open. The action space is the one that gym-aloha
    declares, [-1, 1], though joints go beyond: as there, values outside are taken as they are, up to the joints' own limits.

    >>> env = make("gym_aloha/AlohaInsertion-v0", obs_type="state")
    >>> observation, info = env.reset(seed=0)
    >>> observation["agent_pos"].shape, round(observation["agent_pos"][6], 6)  # the left gripper is open
    ((14,), np.float64(1.0))
    >>> observation, reward, terminated, truncated, info = env.step(observation["agent_pos"])
    >>> reward, info["is_success"]
    (0.0, False)
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        obs_type: Literal["pixels", "pixels_agent_pos", "state"] = "pixels",
        *,
        reward: Literal["stage", "steps_to_go"] = "stage",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, obs_type=obs_type, reward=reward)
        super().__init__(env)
        self.obs_type: str = one_of("obs_type", obs_type, OBS_MODES)
        self.reward: str = one_of("reward", reward, REWARDS)
        _check(env, self.obs_type)
        self._cameras = tuple(name.removeprefix(PIXELS) for name in env.observation_space.spaces if name.startswith(PIXELS))  # type: ignore[attr-defined]
        self.action_space = spaces.Box(-1.0, 1.0, SIZE, np.float32)  # (gym-aloha)
        self.observation_space = self._space(env.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the env; `options` are its own."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Runs one control step, of 20 ms.

        Args:
            action: (14,) finite, in gym-aloha's units.

        Raises:
            InvalidActionError: wrong shape, or not finite. The env stays as it was.
        """
        observation, reward, terminated, truncated, info = self.env.step(_env_action(action))
        reward = float(info["stage"] if self.reward == "stage" else reward)
        return self._observation(observation), reward, terminated, truncated, info

    def _observation(self, seen: dict[str, Array]) -> dict[str, Any]:
        if self.obs_type == "state":
            return {AGENT_POS: agent_positions(seen[AGENT_POS]), ENVIRONMENT_STATE: seen[ENVIRONMENT_STATE]}
        pictures = {camera: seen[PIXELS + camera] for camera in self._cameras}
        return pictures if self.obs_type == "pixels" else {"pixels": pictures, AGENT_POS: agent_positions(seen[AGENT_POS])}

    def _space(self, seen: Any) -> spaces.Dict:
        positions = spaces.Box(-1000.0, 1000.0, SIZE, np.float64)  # (gym-aloha)
        if self.obs_type == "state":
            return spaces.Dict({AGENT_POS: positions, ENVIRONMENT_STATE: seen[ENVIRONMENT_STATE]})
        pictures = spaces.Dict({camera: seen[PIXELS + camera] for camera in self._cameras})
        return pictures if self.obs_type == "pixels" else spaces.Dict({"pixels": pictures, AGENT_POS: positions})


def make(
    id: str,
    obs_type: Literal["pixels", "pixels_agent_pos", "state"] = "pixels",
    *,
    render_mode: str | None = "rgb_array",
    observation_width: int = 640,
    observation_height: int = 480,
    visualization_width: int = 640,
    visualization_height: int = 480,
    max_episode_steps: int = STEP_LIMIT,
    reward: Literal["stage", "steps_to_go"] = "stage",
    **kwargs: Any,
) -> GymAlohaInterface:
    """Makes the env that stands for one of gym-aloha's. Stands where `gym.make` stood, and takes the same keywords.

    Args:
        id: "gym_aloha/AlohaInsertion-v0" or "gym_aloha/AlohaTransferCube-v0".
        obs_type: see `GymAlohaInterface`.
        render_mode: "rgb_array", "human" (a window; ours alone), or None.
        observation_width: of observed pictures, in pixels.
        observation_height: of the same.
        visualization_width: of `render()`'s picture, in pixels.
        visualization_height: of the same.
        max_episode_steps: control steps after which an episode is truncated.
        reward: see `GymAlohaInterface`.
        **kwargs: of `gym.make` and of our env (`cameras`, `reward_model`, `clearance_m`, …). They win over what is set here: episodes
            terminate at true success, and the camera is "top".

    Raises:
        UnknownNameError: gym-aloha has no such id.
    """
    options: dict[str, Any] = {
        "obs_mode": OBS_MODES[one_of("obs_type", obs_type, OBS_MODES)],
        "cameras": ("top",),
        "image_size": (observation_height, observation_width),
        "render_mode": render_mode,
        "render_camera": "top",
        "render_size": (visualization_height, visualization_width),
        "step_limit": max_episode_steps,
        "terminate_on": "true",
    }
    env = gym.make(IDS[one_of("gym-aloha id", id, IDS)], **{**options, **kwargs})
    try:
        return GymAlohaInterface(env, obs_type, reward=reward)
    except EFMError:
        env.close()
        raise


def _check(env: gym.Env[Any, Any], obs_type: str) -> None:
    """Raises EFMError if the env is not moved by joint targets, or does not observe what `obs_type` shows."""
    task, obs_mode = getattr(env.unwrapped, "task", None), OBS_MODES[obs_type]
    if not isinstance(task, AlohaTask) or task.control != JOINTS:
        control = f" with control={task.control!r}" if isinstance(task, AlohaTask) else ""
        raise EFMError(
            f"gym-aloha's interface needs an ALOHA env that joint targets move; got {env}{control}. "
            f"Make one: gym.make(id, obs_mode={obs_mode!r}), where id is {' or '.join(IDS.values())}."
        )
    received = env.get_wrapper_attr("obs_mode")
    if received not in (obs_mode, "pixels_state"):
        raise EFMError(f"obs_type={obs_type!r} needs an env with obs_mode={obs_mode!r}; got obs_mode={received!r}. Pass it to gym.make.")


def _env_action(action: Any) -> Any:
    """Returns our action for one of gym-aloha's; what is not (14,) numbers as it is, for the env to say what is wrong with it."""
    try:
        values = np.asarray(action, np.float64)
    except (TypeError, ValueError, OverflowError):
        return action
    return env_actions(values) if values.shape == SIZE else action
