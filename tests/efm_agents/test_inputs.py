import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from efm_agents.inputs import NUMBERS, PADDING, UNKNOWN, WORDS, Reads, join, size_of, take, words_of
from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.observations import encode_instruction
from tests.efm_agents.small import episode

SPEAKING = Reads(("x",), (1,), vocabulary=("moon", "push", "red", "the"), longest=4)


def asked(*instructions: str) -> np.ndarray:
    return np.stack([encode_instruction(sentence) for sentence in instructions])


def spoken(instruction: str, seed: int = 0) -> Episode:
    return episode(2, seed, instruction=instruction)


def pictured(**sizes: tuple[int, int]) -> Episode:
    seen = {f"pixels/{camera}": np.zeros((3, *size, 3), np.uint8) for camera, size in sizes.items()}
    return episode(2, observations={**seen, "agent_pos": np.zeros((3, 4), np.float32)})


# -- what there is to read ------------------------------------------------------------------------------------------------------------


def test_numbers_are_read_in_the_order_in_which_they_were_observed_with_their_sizes() -> None:
    seen = {"b": np.zeros((3, 2), np.float32), "pixels/top": np.zeros((3, 6, 8, 3), np.uint8), "a": np.zeros((3, 5), np.float32)}
    reads = Reads.of([episode(2, observations=seen)])
    assert (reads.names, reads.sizes, reads.cameras, reads.image_size) == (("b", "a"), (2, 5), ("pixels/top",), (6, 8))
    assert reads.observations == ("b", "a", "pixels/top")


def test_an_instruction_that_never_changes_is_not_read() -> None:
    reads = Reads.of([spoken("Push the red moon."), spoken("Push the red moon.", 1)], objects=("red moon",))
    assert (reads.vocabulary, reads.longest, reads.observations) == ((), 0, ("x",))


def test_instructions_that_differ_are_read_and_their_words_and_those_of_the_objects_are_known() -> None:
    reads = Reads.of([spoken("Push the red moon."), spoken("Go!", 1)], objects=("green star",))
    assert reads.vocabulary == ("go", "green", "moon", "push", "red", "star", "the")
    assert reads.longest == 4 and reads.observations == ("x", "instruction") and reads.objects == ("green star",)


def test_the_vocabulary_does_not_depend_on_the_order_of_the_demonstrations() -> None:
    episodes = [spoken(f"say {word}", seed) for seed, word in enumerate(("sun", "moon", "star"))]
    assert Reads.of(episodes) == Reads.of(episodes[::-1])


def test_an_instruction_that_is_not_observed_is_not_read() -> None:
    assert Reads.of([episode(2, instruction=None), episode(2, 1)]).vocabulary == ()


def test_what_there_is_to_read_in_demonstrations_of_the_tasks(
    demonstrations: Sequence[Episode], spoken_demonstrations: Sequence[Episode]
) -> None:
    assert Reads.of(demonstrations).observations == ("agent_pos", "environment_state")
    told = Reads.of(spoken_demonstrations, ("red moon",))
    assert told.observations == ("agent_pos", "environment_state", "instruction") and {"red", "moon"} < {*told.vocabulary}
    assert told.longest == max(len(words_of(e.instruction)) for e in spoken_demonstrations)


def test_cameras_of_one_size_are_read_and_of_different_sizes_refused() -> None:
    assert Reads.of([pictured(top=(6, 8), side=(6, 8))]).cameras == ("pixels/top", "pixels/side")
    with pytest.raises(EFMError, match=r"one image size; got \[\(6, 8\), \(8, 6\)\]\. Collect demonstrations with image_size=\(H, W\)"):
        Reads.of([pictured(top=(6, 8), side=(8, 6))])


# -- a batch ----------------------------------------------------------------------------------------------------------------------


def test_a_batch_of_numbers_is_the_named_observations_in_the_order_of_the_names() -> None:
    observations = {"b": np.array([[3.0], [6.0]]), "other": np.zeros((2, 9)), "a": np.array([[1.0, 2.0], [4.0, 5.0]])}
    inputs = Reads(("a", "b"), (2, 1))(observations)
    assert set(inputs) == {NUMBERS} and inputs[NUMBERS].dtype == torch.float32
    assert inputs[NUMBERS].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_images_are_the_ones_observed_and_stay_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)[::-2]  # not contiguous
    reads = Reads(("x",), (1,), ("pixels/top",), (6, 8))
    inputs = reads({"x": np.zeros((3, 1)), "pixels/top": pixels})
    assert inputs["pixels/top"].dtype == torch.uint8
    np.testing.assert_array_equal(inputs["pixels/top"], pixels)


def test_words_have_the_ids_of_the_vocabulary_in_the_order_in_which_they_were_said() -> None:
    inputs = SPEAKING({"x": np.zeros((2, 1)), "instruction": asked("Push the RED moon!", "moon, red: the push")})
    assert inputs[WORDS].dtype == torch.int64
    assert inputs[WORDS].tolist() == [[3, 5, 4, 2], [2, 4, 5, 3]]


def test_an_unknown_word_is_unknown_and_missing_words_are_padding() -> None:
    assert SPEAKING.word_ids(asked("push the gnu")).tolist() == [[3, 5, UNKNOWN, PADDING]]
    assert SPEAKING.word_ids(asked("")).tolist() == [[PADDING] * 4]


def test_what_is_said_beyond_the_longest_instruction_is_not_heard() -> None:
    np.testing.assert_array_equal(SPEAKING.word_ids(asked("push the red moon now")), SPEAKING.word_ids(asked("push the red moon")))


words = st.lists(st.sampled_from(["push", "the", "red", "moon", "gnu", "4th"]), max_size=9)


@given(st.lists(words, min_size=1, max_size=6))
def test_word_ids_of_a_batch_are_those_of_each_sentence(sentences: list[list[str]]) -> None:
    said = [" ".join(sentence) for sentence in sentences]
    ids = SPEAKING.word_ids(asked(*said))
    assert ids.shape == (len(said), 4)
    known = {"moon": 2, "push": 3, "red": 4, "the": 5}
    for sentence, row in zip(sentences, ids.tolist(), strict=True):
        assert row == ([known.get(word, UNKNOWN) for word in sentence[:4]] + [PADDING] * 4)[:4]


def test_ids_that_were_given_out_are_not_changed_by_whoever_got_them() -> None:
    first = SPEAKING.word_ids(asked("push the red moon"))
    first[:] = 0
    assert SPEAKING.word_ids(asked("push the red moon")).tolist() == [[3, 5, 4, 2]]


def test_names_of_objects_are_spelt_in_the_same_words() -> None:
    reads = Reads(("x",), (1,), vocabulary=("moon", "red", "star"), longest=2, objects=("red moon", "star"))
    assert reads.object_ids() == [[3, 2], [4, PADDING]]


# -- refusals ---------------------------------------------------------------------------------------------------------------------


def test_a_missing_observation_is_named_with_how_the_env_is_made() -> None:
    with pytest.raises(
        EFMError,
        match=r"reads a, b, instruction; the observation lacks b, instruction: it has a, c\. .* for example with obs_mode='state'\.",
    ):
        Reads(("a", "b"), (1, 1), vocabulary=("go",), longest=1)({"a": np.zeros((1, 1)), "c": np.zeros((1, 1))})
    with pytest.raises(EFMError, match=r"lacks pixels/top: .*obs_mode='pixels_state' and cameras=\['top'\]\."):
        Reads(("x",), (1,), ("pixels/top",), (6, 8))({"x": np.zeros((1, 1))})


def test_an_observation_of_another_shape_is_refused_and_both_shapes_are_named() -> None:
    with pytest.raises(EFMError, match=r"reads a of shape \(2,\); the observation's is \(3,\): another env\?"):
        Reads(("a",), (2,))({"a": np.zeros((5, 3))})
    with pytest.raises(EFMError, match=r"reads pixels/top of shape \(6, 8, 3\); the observation's is \(8, 6, 3\)"):
        Reads(("x",), (1,), ("pixels/top",), (6, 8))({"x": np.zeros((1, 1)), "pixels/top": np.zeros((1, 8, 6, 3), np.uint8)})


# -- config and batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reads",
    [
        Reads(("a", "b"), (2, 1)),
        SPEAKING,
        Reads(("x",), (1,), ("pixels/top", "pixels/side"), (6, 8), ("moon", "red"), 2, ("red moon", "moon")),
    ],
)
def test_what_is_read_comes_back_from_json(reads: Reads) -> None:
    again = Reads.from_config(json.loads(json.dumps(reads.to_config())))
    assert again == reads and hash(again) == hash(reads) and again.to_config() == reads.to_config()
    if reads.vocabulary:
        np.testing.assert_array_equal(again.word_ids(asked("red moon")), reads.word_ids(asked("red moon")))


def test_rows_that_are_taken_and_joined_are_the_rows() -> None:
    inputs = SPEAKING({"x": np.arange(6.0)[:, None], "instruction": asked(*["push", "the", "moon"] * 2)})
    again = join([take(inputs, slice(0, 2)), take(inputs, torch.arange(2, 6))])
    assert size_of(inputs) == 6 and all(torch.equal(inputs[name], again[name]) for name in inputs)
