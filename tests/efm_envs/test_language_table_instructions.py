"""LanguageTable's sentences: each means one thing, on every table, in both splits."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efm_envs.errors import EFMError, UnknownNameError
from efm_envs.tasks.language_table.instructions import (
    BLOCKS,
    CORNERS,
    FAMILIES,
    MAX_LEFT_OUT,
    MAX_NAMED,
    SPLITS,
    TEMPLATES,
    WORDS,
    InvalidInstructionError,
    Meaning,
    all_sentences,
    meanings,
    names,
    parse,
    say,
    sentences,
)

FOUR = ("red moon", "blue cube", "green star", "yellow pentagon")
EIGHT = ("red moon", "red pentagon", "blue moon", "blue cube", "green cube", "green star", "yellow star", "yellow pentagon")
TABLES = {"4 blocks": FOUR, "8 blocks": EIGHT}
IMPERATIVES = {"bring", "drag", "get", "have", "isolate", "nudge", "reach", "show", "split", "steer", "tuck"}

SEVEN_EXAMPLES = (
    Meaning("block2block", "red moon", reference="blue cube"),
    Meaning("absolute", "red moon", place="top"),
    Meaning("relative", "red moon", direction="up left", far=False),
    Meaning("block_relative", "red moon", direction="left", reference="blue cube"),
    Meaning("separate", "red moon", avoid=("blue cube", "green star")),
    Meaning("point", "red moon"),
    Meaning("corner", "red moon", place="bottom left"),
)


@pytest.fixture(params=TABLES.values(), ids=TABLES.keys())
def blocks(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(params=SPLITS)
def split(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def said(blocks: Sequence[str], split: str) -> list[tuple[Meaning, str]]:
    return [(meaning, sentence) for meaning in meanings(blocks) for sentence in sentences(meaning, blocks, split)]


def vocabulary(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in text.replace(",", "").split()}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, ...]:
    return tuple(draw(st.permutations(BLOCKS))[: draw(st.integers(4, 10))])


@st.composite
def tables_and_meanings(draw: st.DrawFn) -> tuple[tuple[str, ...], Meaning]:
    blocks = draw(tables())
    choices = list(meanings(blocks, [draw(st.sampled_from(FAMILIES))]))
    return blocks, choices[draw(st.integers(0, len(choices) - 1))]


# What sentences are.


def test_every_sentence_parses_back_to_its_meaning(blocks: tuple[str, ...], split: str) -> None:
    sample = said(blocks, split)[:: 1 if split == "train" else 5]
    assert [parse(sentence, blocks) for _, sentence in sample] == [meaning for meaning, _ in sample]


def test_every_sentence_has_one_meaning_across_families_and_splits(blocks: tuple[str, ...]) -> None:
    every = [sentence for split in SPLITS for _, sentence in said(blocks, split)]
    assert len(set(every)) == len(every)


def test_every_meaning_can_be_said(blocks: tuple[str, ...], split: str) -> None:
    assert {meaning for meaning, _ in said(blocks, split)} == set(meanings(blocks))


def test_all_sentences_are_those_of_all_meanings(blocks: tuple[str, ...], split: str) -> None:
    assert list(all_sentences(blocks, split)) == [sentence for _, sentence in said(blocks, split)]


@given(tables_and_meanings(), st.sampled_from(SPLITS), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_meaning_on_any_table_is_said_and_understood(case: tuple[tuple[str, ...], Meaning], split: str, seed: int) -> None:
    blocks, meaning = case
    sentence = say(meaning, blocks, np.random.default_rng(seed), split)
    assert parse(sentence, blocks) == meaning
    assert sentence in sentences(meaning, blocks, split)
    assert len(sentence.encode()) <= (120 if meaning.family == "separate" else 80)


@given(tables())
@settings(max_examples=10, deadline=None)
def test_no_sentence_of_any_table_is_said_of_two_meanings(blocks: tuple[str, ...]) -> None:
    simple = [family for family in FAMILIES if family != "separate"]
    every = [sentences(meaning, blocks[:5], split) for meaning in meanings(blocks[:5], simple) for split in SPLITS]
    assert len({sentence for said in every for sentence in said}) == sum(map(len, every))


@pytest.mark.parametrize("meaning", SEVEN_EXAMPLES, ids=FAMILIES)
def test_say_reaches_every_sentence_and_nothing_else(meaning: Meaning, split: str) -> None:
    rng = np.random.default_rng(0)
    expected = sentences(meaning, EIGHT, split)
    assert {say(meaning, EIGHT, rng, split) for _ in range(40 * len(expected))} == set(expected)


def test_the_same_generator_says_the_same() -> None:
    first, second = ([say(m, EIGHT, rng) for m in SEVEN_EXAMPLES] for rng in (np.random.default_rng(3), np.random.default_rng(3)))
    assert first == second


# How many, which words, how long.


@pytest.mark.parametrize(("blocks", "published"), [(FOUR, 12_580), (EIGHT, 29_904)], ids=TABLES.keys())
def test_train_has_at_least_as_many_sentences_as_the_published_benchmark(blocks: tuple[str, ...], published: int) -> None:
    assert len(said(blocks, "train")) >= published


def test_train_has_about_as_many_words_as_the_published_benchmark() -> None:
    assert 57 <= len(vocabulary([sentence for blocks in TABLES.values() for _, sentence in said(blocks, "train")])) <= 75


def test_every_held_out_sentence_has_a_word_that_train_never_uses() -> None:
    train = vocabulary([sentence for blocks in TABLES.values() for _, sentence in said(blocks, "train")])
    held_out = [sentence for blocks in TABLES.values() for _, sentence in said(blocks, "held_out")]
    assert [sentence for sentence in held_out if vocabulary([sentence]) <= train] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_the_held_out_templates_do_not_begin_with_the_verb(family: str) -> None:
    templates = TEMPLATES["held_out"][family]
    starts = [template.split()[0].strip("{},") for template in templates]
    assert len(templates) >= 6
    assert sum(start in IMPERATIVES for start in starts) <= len(templates) / 2


@pytest.mark.parametrize("verb", ["push", "move", "slide", "put", "pull", "separate", "point"])
def test_held_out_has_no_verb_of_train(verb: str) -> None:
    words = vocabulary([sentence for _, sentence in said(EIGHT, "held_out")])
    assert verb not in words


def test_sentences_are_short_lower_case_and_without_a_full_stop(blocks: tuple[str, ...], split: str) -> None:
    for meaning, sentence in said(blocks, split):
        assert sentence == sentence.lower().strip(" .")
        assert len(sentence.encode()) <= (120 if meaning.family == "separate" else 80), sentence


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_names_still_fit(family: str, split: str) -> None:
    longest = sorted(BLOCKS, key=len)[-10 if family == "separate" else -4 :]
    sizes = [len(sentence) for meaning in meanings(longest, [family]) for sentence in sentences(meaning, longest, split)]
    assert max(sizes) <= (120 if family == "separate" else 80)


def test_every_slot_is_used_and_none_repeats_a_phrase() -> None:
    templates = [template for tables in TEMPLATES.values() for group in tables.values() for template in group]
    for slot, phrases in WORDS.items():
        assert any(f"{{{slot}}}" in template for template in templates), slot
        assert len(set(phrases)) == len(phrases)


# What blocks are called.


def test_a_block_is_called_by_colour_or_shape_where_only_it_is_meant() -> None:
    assert names("red moon", FOUR) == ["red moon", "red block", "moon"]
    assert names("red moon", EIGHT) == ["red moon"]
    assert names("red moon", ["red moon", "red cube", "blue star", "green star"]) == ["red moon", "moon"]


@given(tables())
@settings(deadline=None)
def test_a_name_means_one_block(blocks: tuple[str, ...]) -> None:
    every = [name for block in blocks for name in names(block, blocks)]
    assert len(set(every)) == len(every)


# Families that sound alike.


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("push the moon to the cube", Meaning("block2block", "red moon", reference="blue cube")),
        ("put the red moon next to the blue block", Meaning("block2block", "red moon", reference="blue cube")),
        ("move the arm next to the blue block", Meaning("point", "blue cube")),
        ("push the moon to the left", Meaning("relative", "red moon", direction="left", far=True)),
        ("push the moon to the left a bit", Meaning("relative", "red moon", direction="left", far=False)),
        ("slightly push the moon to the left", Meaning("relative", "red moon", direction="left", far=False)),
        ("push the moon to the left side of the cube", Meaning("block_relative", "red moon", direction="left", reference="blue cube")),
        ("push the moon to the left side of the board", Meaning("absolute", "red moon", place="left")),
        ("push the moon to the bottom left of the board", Meaning("absolute", "red moon", place="bottom left")),
        ("push the moon into the bottom left corner of the board", Meaning("corner", "red moon", place="bottom left")),
        ("towards the blue cube, shove the red moon", Meaning("block2block", "red moon", reference="blue cube")),
        ("towards the blue cube, steer the arm", Meaning("point", "blue cube")),
        ("pull the cube away from the moon and the star", Meaning("separate", "blue cube", avoid=("green star", "red moon"))),
        (
            "pull the cube away from the rest of the blocks",
            Meaning("separate", "blue cube", avoid=("green star", "red moon", "yellow pentagon")),
        ),
    ],
)
def test_sentences_that_sound_alike_are_told_apart(text: str, meaning: Meaning) -> None:
    assert parse(text, FOUR) == meaning


def test_case_spaces_and_a_full_stop_do_not_matter() -> None:
    assert parse("  Push the  RED moon to\tthe blue cube . ", EIGHT) == parse("push the red moon to the blue cube", EIGHT)


def test_a_list_may_come_in_any_order() -> None:
    expected = Meaning("separate", "red moon", avoid=("blue cube", "green star", "yellow star"))
    assert parse("separate the red moon from the yellow star, the blue cube and the green star", EIGHT) == expected


# Groups.


def test_the_rest_is_said_only_of_all_other_blocks() -> None:
    for meaning in meanings(EIGHT, ["separate"]):
        says_rest = any("the rest of the blocks" in sentence for sentence in sentences(meaning, EIGHT))
        assert says_rest == (len(meaning.avoid) == len(EIGHT) - 1)


def test_a_big_group_is_said_by_what_is_left_out() -> None:
    six = tuple(sorted(set(EIGHT) - {"red moon", "blue cube"}))
    assert sentences(Meaning("separate", "red moon", avoid=six), EIGHT)[0] == "separate the red moon from all blocks except the blue cube"


def test_a_group_too_big_to_name_has_no_sentence_and_an_error_that_says_so() -> None:
    others = sorted(set(BLOCKS) - {"red moon"})
    for size in range(1, len(others) + 1):
        meaning = Meaning("separate", "red moon", avoid=tuple(others[:size]))
        can_be_said = size <= MAX_NAMED or len(others) - size <= MAX_LEFT_OUT
        assert bool(sentences(meaning, BLOCKS)) == can_be_said
        if not can_be_said:
            with pytest.raises(EFMError, match=f"from {size} of 15 others: name at most 5, or leave out at most 3"):
                say(meaning, BLOCKS, np.random.default_rng(0))


# Errors.


@pytest.mark.parametrize(
    ("text", "blocks", "message"),
    [
        ("push the red disk to the blue cube", EIGHT, r"unknown block: 'red disk'\. Colours: .*; shapes: .*\. On the table: red moon, .*"),
        ("move the arm close to the purple cube", EIGHT, "unknown block: 'purple cube'"),
        ("pull the red moon away from the blue cube and the lamp", EIGHT, "unknown block: 'lamp'"),
        (
            "push the blue moon to the blue cube",
            FOUR,
            "no blue moon is on the table. On the table: red moon, blue cube, green star, yellow pent",
        ),
        ("push the red block to the blue cube", EIGHT, "ambiguous block: 'red block'. red moon and red pentagon are on the table"),
        ("push the star up", EIGHT, "ambiguous block: 'star'. green star and yellow star are on the table"),
        ("push the red moon to the red moon", EIGHT, "the red moon is related to itself"),
        ("separate the moon from the star and the red block", FOUR, "the red moon is related to itself"),
        ("separate the moon from the star and the green block", FOUR, "give each block once"),
        ("make me a coffee", EIGHT, "not an instruction: 'make me a coffee'. Examples: 'push the red moon to the blue cube'; "),
        ("", EIGHT, "not an instruction: ''"),
        ("push the red moon up " + "and up " * 30, EIGHT, "It has more than 128 bytes"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_sentence(text: str, blocks: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInstructionError, match=message):
        parse(text, blocks)


def test_the_error_shows_one_example_of_each_family() -> None:
    with pytest.raises(InvalidInstructionError) as error:
        parse("hello", EIGHT)
    examples = str(error.value).split("'")[3::2]
    assert [parse(example, EIGHT).family for example in examples] == list(FAMILIES)


def test_a_family_that_the_env_does_not_have_is_refused() -> None:
    with pytest.raises(
        InvalidInstructionError, match=r"is of the family 'corner'. This env has: point, absolute. Examples: 'point at the red moon'"
    ):
        parse("put the red moon in the top left corner", EIGHT, families=("point", "absolute"))


def test_a_meaning_with_a_block_that_is_not_on_the_table_is_refused() -> None:
    with pytest.raises(InvalidInstructionError, match="no blue moon is on the table"):
        sentences(Meaning("block2block", "red moon", reference="blue moon"), FOUR)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown block: 'red mon'\. Did you mean 'red moon'"):
        Meaning("point", "red mon")
    with pytest.raises(UnknownNameError, match="unknown block: 'purple pole'"):
        parse("point at the red moon", (*FOUR, "purple pole"))
    with pytest.raises(UnknownNameError, match=r"unknown family: 'corners'\. Did you mean 'corner'"):
        Meaning("corners", "red moon", place=CORNERS[0])
    with pytest.raises(UnknownNameError, match="unknown place: 'top'"):
        Meaning("corner", "red moon", place="top")
    with pytest.raises(UnknownNameError, match="unknown split: 'test'"):
        sentences(Meaning("point", "red moon"), FOUR, "test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "block2block"}, "reference is None. The family 'block2block' has: block, reference"),
        ({"family": "point", "place": "top"}, "place is 'top'. The family 'point' has: block"),
        ({"family": "relative", "direction": "up"}, "far is None"),
        ({"family": "separate"}, r"avoid is \(\)"),
        ({"family": "separate", "avoid": ("green star", "blue cube")}, "in sorted order"),
        ({"family": "block2block", "reference": "red moon"}, "related to itself"),
    ],
)
def test_a_meaning_has_the_fields_of_its_family(fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInstructionError, match=message):
        Meaning(block="red moon", **fields)
