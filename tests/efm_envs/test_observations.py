"""Instructions as arrays, and what each obs_mode shows."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import efm_envs
from efm_envs.errors import EFMError
from efm_envs.observations import INSTRUCTION_SPACE, encode_instruction

SENTENCES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=32)


@given(SENTENCES)
def test_an_instruction_is_decoded_as_it_was_encoded(sentence: str) -> None:
    array = encode_instruction(sentence)
    assert INSTRUCTION_SPACE.contains(array)
    assert efm_envs.decode_instruction(array) == sentence


@pytest.mark.parametrize("sentence", ["x" * 129, "é" * 65, "a\0b"])
def test_a_sentence_that_cannot_be_encoded_is_refused(sentence: str) -> None:
    with pytest.raises(EFMError, match="at most 128 bytes of UTF-8, no NUL; got "):
        encode_instruction(sentence)


def test_a_sentence_of_just_128_bytes_fits() -> None:
    assert efm_envs.decode_instruction(encode_instruction("é" * 64)) == "é" * 64


def test_each_mode_shows_the_names_that_robot_learning_uses(env_id: str) -> None:
    shown = {}
    for mode in ("state", "pixels", "pixels_state"):
        env = gym.make(env_id, obs_mode=mode)
        camera = env.unwrapped.task.cameras[0]
        space = env.observation_space
        assert isinstance(space, spaces.Dict)
        shown[mode] = {name.replace(camera, "*") for name in space}
        env.close()
    assert shown["state"] >= {"agent_pos", "instruction"} and "pixels/*" not in shown["state"]
    assert shown["pixels"] == {"pixels/*", "agent_pos", "instruction"}
    assert shown["pixels_state"] == shown["state"] | {"pixels/*"}
    flat = gym.make(env_id, obs_mode="flat").observation_space
    assert isinstance(flat, spaces.Box) and flat.dtype == np.float32 and np.isfinite([flat.low, flat.high]).all()


def test_the_info_sentence_is_the_observed_one(env_id: str) -> None:
    env = gym.make(env_id)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        assert efm_envs.decode_instruction(observation["instruction"]) == info["instruction"]
