"""The instructions of LanguageTable: what they mean, how they are said, and how they are read.

A sentence is a template whose slots are filled from tables. `sentences`, `say` and `parse` read the same templates, so they agree.
Whatever blocks are on the table, every sentence has one meaning. The families are those of google-research/language-table; the templates
are ours. The split "held_out" paraphrases "train": each of its sentences has a word that never occurs in train, most have another order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice, product
from string import Formatter
from typing import Any

import numpy as np

from efm_envs.errors import EFMError, one_of

SPLITS = ("train", "held_out")
MAX_BYTES = 128  # of a sentence in UTF-8; "separate" stays within 120, all others within 80

COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("moon", "cube", "star", "pentagon")
BLOCKS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

DIRECTIONS = ("up", "down", "left", "right", "up left", "up right", "down left", "down right")  # in the picture: the robot is at the top
CORNERS = ("top left", "top right", "bottom left", "bottom right")
PLACES = ("top", "bottom", "left", "right", "center", *CORNERS)

# The families, and what a meaning has beside its block.
FIELDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "block2block": {"reference": BLOCKS},
    "absolute": {"place": PLACES},
    "relative": {"direction": DIRECTIONS, "far": (True, False)},
    "block_relative": {"direction": DIRECTIONS, "reference": BLOCKS},
    "separate": {"avoid": BLOCKS},
    "point": {},
    "corner": {"place": CORNERS},
}
FAMILIES = tuple(FIELDS)

# A template with "slightly" in it, as a word or as a slot, is for short moves.
TEMPLATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "block2block": (
            "{push} the {block} {to} the {reference}",
            "put the {block} {near} the {reference}",
        ),
        "absolute": (
            "{push} the {block} to the {place} of the {board}",
            "put the {block} at the {place} of the {board}",
        ),
        "relative": (
            "{push} the {block} {direction}",
            "{push} the {block} {slightly} {direction}",
            "{push} the {block} {direction} {slightly}",
            "slightly {push} the {block} {direction}",
        ),
        "block_relative": (
            "{push} the {block} {side} the {reference}",
            "put the {block} {side} the {reference}",
        ),
        "separate": (
            "separate the {block} from {others}",
            "{push} the {block} away from {others}",
            "pull the {block} away from {others}",
            "pull the {block} apart from {others}",
            "move the {block} apart from {others}",
        ),
        "point": (
            "point {at} the {block}",
            "point {arm} {at} the {block}",
            "move {arm} {to} the {block}",
        ),
        "corner": (
            "{push} the {block} {into} the {corner} corner",
            "{push} the {block} {into} the {corner} corner of the {board}",
            "put the {block} in the {corner} corner",
            "put the {block} in the {corner} corner of the {board}",
        ),
    },
    "held_out": {
        "block2block": (
            "{bring} the {block} over to the {reference}",
            "{bring} the {block} {beside} the {reference}",
            "have the {block} join the {reference}",
            "{towards} the {reference}, {bring} the {block}",
            "the {block} should be {brought} {beside} the {reference}",
            "{beside} the {reference} is where the {block} belongs",
            "the {reference} needs the {block} {beside} it",
        ),
        "absolute": (
            "{bring} the {block} over to the {place} of the {board}",
            "have the {block} finish at the {place} of the {board}",
            "to the {place} of the {board}, {bring} the {block}",
            "the {block} should be {brought} to the {place} of the {board}",
            "the {place} of the {board} is where the {block} belongs",
            "the {block} belongs at the {place} of the {board}",
        ),
        "relative": (
            "{drag} the {block} {direction}",
            "{direction} is the way to {drag} the {block}",
            "the {block} should be {dragged} {direction}",
            "the {block} has to go {direction}",
            "{direction} is where the {block} goes",
            "{direction} goes the {block}",
            "{nudge} the {block} {slightly} {direction}",
            "{nudge} the {block} {direction} {slightly}",
            "{slightly} {direction}, {nudge} the {block}",
            "the {block} should be {nudged} {slightly} {direction}",
            "the {block} has to go {slightly} {direction}",
            "{slightly} {direction} is where the {block} goes",
        ),
        "block_relative": (
            "{bring} the {block} {side} the {reference}",
            "have the {block} sit {side} the {reference}",
            "the {block} should sit {side} the {reference}",
            "{side} the {reference}, {bring} the {block}",
            "{side} the {reference} is where the {block} goes",
            "{side} the {reference} should be the {block}",
        ),
        "separate": (
            "isolate the {block} from {others}",
            "split the {block} off from {others}",
            "get the {block} clear of {others}",
            "away from {others}, {drag} the {block}",
            "from {others}, isolate the {block}",
            "the {block} should be isolated from {others}",
            "clear of {others} is where the {block} goes",
        ),
        "point": (
            "reach for the {block}",
            "show me the {block}",
            "{steer} {arm} over to the {block}",
            "{towards} the {block}, {steer} {arm}",
            "{arm} should be {steered} {beside} the {block}",
            "the {block} is what {arm} should reach for",
            "the {block} is the one to indicate",
        ),
        "corner": (
            "{bring} the {block} over to the {corner} corner",
            "tuck the {block} into the {corner} corner of the {board}",
            "into the {corner} corner, {bring} the {block}",
            "the {block} should be {brought} into the {corner} corner",
            "the {corner} corner of the {board} is where the {block} belongs",
            "the {block} belongs in the {corner} corner",
        ),
    },
}

# Slots that do not change the meaning.
WORDS: Mapping[str, tuple[str, ...]] = {
    "push": ("push", "move", "slide"),
    "to": ("to", "towards", "close to", "next to", "near"),
    "near": ("close to", "next to", "near"),
    "into": ("into", "to"),
    "at": ("at", "to", "towards"),
    "arm": ("the arm", "your arm", "the robot arm"),
    "board": ("board", "table"),
    "slightly": ("slightly", "a bit", "a little", "a little bit", "somewhat"),
    # held out
    "bring": ("bring", "take", "guide", "drag", "shove", "steer"),
    "brought": ("brought", "taken", "guided", "dragged", "shoved", "steered"),
    "drag": ("drag", "shove", "guide", "steer"),
    "dragged": ("dragged", "shoved", "guided", "steered"),
    "nudge": ("nudge", "drag", "shove", "guide", "steer"),
    "nudged": ("nudged", "dragged", "shoved", "guided", "steered"),
    "steer": ("steer", "guide", "bring"),
    "steered": ("steered", "guided", "brought"),
    "towards": ("to", "towards"),
    "beside": ("close to", "next to", "beside", "alongside"),
}


def _diagonal(vertical: str, side: str) -> tuple[str, ...]:
    vertical_first = (f"{vertical} and {side}", f"{vertical} and to the {side}")
    side_first = (f"{side} and {vertical}", f"to the {side} and {vertical}")
    by_turns = (
        f"{vertical} and then {side}",
        f"{vertical} and then to the {side}",
        f"{side} and then {vertical}",
        f"to the {side} and then {vertical}",
    )
    return (*vertical_first, *side_first, *by_turns, f"diagonally {vertical} and {side}", f"diagonally {side} and {vertical}")


def _beyond_corner(above: str, top: str, upper: str, side: str) -> tuple[str, ...]:
    return (f"to the {top} {side} of", f"to the {top} {side} side of", f"to the {upper} {side} of", f"{above} and to the {side} of")


# Slots that say a field of the meaning: the field, and the phrases for each of its values.
PHRASES: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "direction": (
        "direction",
        {
            "up": ("up", "upwards"),
            "down": ("down", "downwards"),
            "left": ("left", "to the left", "leftwards"),
            "right": ("right", "to the right", "rightwards"),
            "up left": _diagonal("up", "left"),
            "up right": _diagonal("up", "right"),
            "down left": _diagonal("down", "left"),
            "down right": _diagonal("down", "right"),
        },
    ),
    "side": (
        "direction",
        {
            "up": ("above", "just above", "to the top side of"),
            "down": ("below", "just below", "to the bottom side of"),
            "left": ("to the left of", "just to the left of", "to the left side of"),
            "right": ("to the right of", "just to the right of", "to the right side of"),
            "up left": _beyond_corner("above", "top", "upper", "left"),
            "up right": _beyond_corner("above", "top", "upper", "right"),
            "down left": _beyond_corner("below", "bottom", "lower", "left"),
            "down right": _beyond_corner("below", "bottom", "lower", "right"),
        },
    ),
    "place": (
        "place",
        {
            "top": ("top", "top side", "top edge"),
            "bottom": ("bottom", "bottom side", "bottom edge"),
            "left": ("left side", "left edge"),
            "right": ("right side", "right edge"),
            "center": ("center", "middle"),
            "top left": ("top left", "top left side", "upper left", "upper left side"),
            "top right": ("top right", "top right side", "upper right", "upper right side"),
            "bottom left": ("bottom left", "bottom left side", "lower left", "lower left side"),
            "bottom right": ("bottom right", "bottom right side", "lower right", "lower right side"),
        },
    ),
    "corner": (
        "place",
        {
            "top left": ("top left", "upper left"),
            "top right": ("top right", "upper right"),
            "bottom left": ("bottom left", "lower left"),
            "bottom right": ("bottom right", "lower right"),
        },
    ),
}

# The slot {others}: the blocks by name, or all blocks but those named, or all others on the table.
MAX_NAMED = 5  # the longest names still fit 120 bytes
MAX_LEFT_OUT = 3  # with MAX_NAMED, enough to say any group on a table of up to ten blocks
ALL_BUT = "all blocks except"
THE_REST = ("the rest of the blocks", "all other blocks", "the other blocks")


class InvalidInstructionError(EFMError, ValueError):
    """An instruction, or a meaning, that makes no sense on this table."""


@dataclass(frozen=True)
class Meaning:
    """What a sentence asks for. A field that the family does not use keeps its default.

    Raises:
        UnknownNameError: a name that is not one of the valid ones.
        InvalidInstructionError: fields that do not belong together.
    """

    family: str  # one of FAMILIES
    block: str  # the block that moves or, in family "point", that the arm moves to
    reference: str | None = None  # block2block, block_relative: the other block
    place: str | None = None  # absolute: one of PLACES; corner: one of CORNERS
    direction: str | None = None  # relative, block_relative: one of DIRECTIONS
    far: bool | None = None  # relative: False says "slightly"
    avoid: tuple[str, ...] = ()  # separate: the blocks it is separated from, sorted

    def __post_init__(self) -> None:
        one_of("family", self.family, FAMILIES)
        for block in (self.block, *self.avoid):
            one_of("block", block, BLOCKS)
        for field in ("reference", "place", "direction", "far", "avoid"):
            self._check_field(field)
        if self.block == self.reference or self.block in self.avoid:
            raise InvalidInstructionError(f"the {self.block} is related to itself. Name another block beside it.")
        if list(self.avoid) != sorted(set(self.avoid)):
            raise InvalidInstructionError(f"avoid is {self.avoid}: give each block once, in sorted order.")

    def _check_field(self, field: str) -> None:
        value, used = getattr(self, field), FIELDS[self.family]
        if (value is None or value == ()) == (field in used):
            raise InvalidInstructionError(f"{field} is {value!r}. The family {self.family!r} has: {', '.join(['block', *used])}.")
        if field in used and field != "avoid" and value not in used[field]:
            one_of(field, value, [str(valid) for valid in used[field]])


def meanings(blocks: Sequence[str], families: Iterable[str] = FAMILIES) -> Iterator[Meaning]:
    """Yields everything that can be meant with these blocks on the table."""
    for family, block in product(families, blocks):
        others = sorted(set(blocks) - {block})
        fields: dict[str, Sequence[Any]] = {"reference": others, "avoid": _groups_of(others) if family == "separate" else ()}
        values = [fields.get(field, valid) for field, valid in FIELDS[family].items()]
        yield from (Meaning(family, block, **dict(zip(FIELDS[family], choice, strict=True))) for choice in product(*values))


def sentences(meaning: Meaning, blocks: Sequence[str], split: str = "train") -> list[str]:
    """Returns every sentence of the split that says this with these blocks on the table, each once.

    Returns none for one kind of meaning: to be separated from more than 5 blocks while more than 3 others are left out. That takes a
    table of more than ten blocks.

    Raises:
        UnknownNameError: no such block or split.
        InvalidInstructionError: the meaning has a block that is not on the table.
    """
    return [
        template.format_map(dict(zip(_slots(template), words, strict=True)))
        for template in _templates(meaning, blocks, split)
        for words in product(*(_choices(slot, meaning, blocks) for slot in _slots(template)))
    ]


def say(meaning: Meaning, blocks: Sequence[str], rng: np.random.Generator, split: str = "train") -> str:
    """Returns one of `sentences`: a template drawn uniformly, then the words of each slot.

    Raises:
        UnknownNameError: no such block or split.
        InvalidInstructionError: the meaning has a block that is not on the table, or no sentence says it.
    """
    templates = _templates(meaning, blocks, split)
    if not templates:
        raise InvalidInstructionError(
            f"no sentence separates a block from {len(meaning.avoid)} of {len(blocks) - 1} others: name at most {MAX_NAMED}, "
            f"or leave out at most {MAX_LEFT_OUT}."
        )
    template = _draw(templates, rng)
    return template.format_map({slot: _draw(_choices(slot, meaning, blocks), rng) for slot in _slots(template)})


def all_sentences(blocks: Sequence[str], split: str = "train") -> Iterator[str]:
    """Yields every sentence that could be said with these blocks on the table, each once."""
    for meaning in meanings(blocks):
        yield from sentences(meaning, blocks, split)


def names(block: str, blocks: Sequence[str]) -> list[str]:
    """Returns what a block may be called: "red moon" always, "red block" and "moon" where no other block on the table is one."""
    colour, shape = block.split()
    return [name for name in (block, f"{colour} block", shape) if len(_called(name, blocks)) == 1]


def parse(text: str, blocks: Sequence[str], families: Iterable[str] = FAMILIES) -> Meaning:
    """Returns what a sentence of either split means; the inverse of `say`.

    Ignores case, extra spaces and one final full stop, and takes the blocks of a list in any order.

    Raises:
        UnknownNameError: no such block in `blocks`.
        InvalidInstructionError: not a sentence of these families, or one that does not fit the blocks on the table.
    """
    if not isinstance(text, str):
        raise InvalidInstructionError(f"an instruction is a sentence, a str; got {text!r}.")
    _check_table(blocks)
    families = tuple(families)
    family, template, phrases = _read(text, blocks, families)
    if family not in families:
        raise InvalidInstructionError(
            f"{text!r} is of the family {family!r}. This env has: {', '.join(families)}.{_examples(blocks, families)}"
        )
    block = _resolve(phrases.pop("block"), blocks)
    fields: dict[str, Any] = {"far": "slightly" not in template} if family == "relative" else {}
    for slot, phrase in phrases.items():
        if slot == "reference":
            fields["reference"] = _resolve(phrase, blocks)
        elif slot == "others":
            fields["avoid"] = _resolve_group(phrase, block, blocks)
        else:
            field, table = PHRASES[slot]
            fields[field] = next(value for value, said in table.items() if phrase in said)
    return Meaning(family, block, **fields)


def _check_table(blocks: Sequence[str]) -> None:
    for block in blocks:
        if block not in BLOCKS:
            one_of("block", block, BLOCKS)


def _groups_of(blocks: Sequence[str]) -> list[tuple[str, ...]]:
    return [group for size in range(1, len(blocks) + 1) for group in combinations(blocks, size)]


# Saying.


def _draw(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _templates(meaning: Meaning, blocks: Sequence[str], split: str) -> list[str]:
    """Returns the templates for a meaning; its groups are filled in, with a slot for each block's name."""
    one_of("split", split, SPLITS)
    _check_table(blocks)
    for block in (meaning.block, meaning.reference, *meaning.avoid):
        if block is not None and block not in blocks:
            raise _not_on_table(block, blocks)
    templates = [t for t in TEMPLATES[split][meaning.family] if ("slightly" in t) == (meaning.far is False)]
    if meaning.family != "separate":
        return templates
    return [template.replace("{others}", group) for template, group in product(templates, _groups(meaning, blocks))]


def _slots(template: str) -> list[str]:
    return re.findall("{(.+?)}", template)


def _choices(slot: str, meaning: Meaning, blocks: Sequence[str]) -> Sequence[str]:
    if slot in WORDS:
        return WORDS[slot]
    if slot in PHRASES:
        field, table = PHRASES[slot]
        return table[getattr(meaning, field)]
    return names(getattr(meaning, slot, slot), blocks)  # "block", "reference", or the block itself: see _groups


def _groups(meaning: Meaning, blocks: Sequence[str]) -> list[str]:
    """Returns the ways to say which blocks to avoid, with slots: "the {blue cube} and the {green star}"."""
    left_out = sorted(set(blocks) - {meaning.block, *meaning.avoid})
    groups = list(THE_REST) if not left_out and len(meaning.avoid) > 1 else []
    if len(meaning.avoid) <= MAX_NAMED:
        groups.append(_listed(meaning.avoid))
    elif 0 < len(left_out) <= MAX_LEFT_OUT:
        groups.append(f"{ALL_BUT} {_listed(left_out)}")
    return groups


def _listed(blocks: Sequence[str]) -> str:
    *first, last = (f"{{{block}}}" for block in blocks)
    if len(first) < 2:
        return " and ".join(f"the {slot}" for slot in (*first, last))
    return f"the {', '.join(first)} and {last}"


# Reading.

_COLOUR, _SHAPE = "|".join(COLOURS), "|".join(SHAPES)
_KNOWN_NAME = rf"(?:(?:{_COLOUR}) (?:{_SHAPE}|block)|{_SHAPE})"
_ANY_NAME = r"(?:[^\s,]+ )?[^\s,]+"  # to tell which word of a sentence is wrong
_ALL_TEMPLATES = [(family, template) for tables in TEMPLATES.values() for family in FAMILIES for template in tables[family]]


def _read(text: str, blocks: Sequence[str], families: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """Returns the family, the template and what is in its slots; of several loose readings, the one with the fewest unknown names."""
    sentence = " ".join(text.lower().split()).removesuffix(".").rstrip()
    too_long = len(sentence.encode()) > MAX_BYTES
    found = [] if too_long else list(islice(_matches(sentence, _KNOWN_NAME), 1)) or list(_matches(sentence, _ANY_NAME))
    if not found:
        reason = f" It has more than {MAX_BYTES} bytes." if too_long else ""
        raise InvalidInstructionError(f"not an instruction: {text!r}.{reason}{_examples(blocks, families)}")
    return min(found, key=lambda match: sum(_is_unknown(match[2].get(slot)) for slot in ("block", "reference")))


def _matches(sentence: str, name: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    for family, template in _ALL_TEMPLATES:
        match = _pattern(template, name).fullmatch(sentence)
        if match:
            yield family, template, match.groupdict()


@cache
def _pattern(template: str, name: str) -> re.Pattern[str]:
    return re.compile("".join(literal + _slot_pattern(slot, name) for literal, slot, _, _ in Formatter().parse(template)))


def _slot_pattern(slot: str | None, name: str) -> str:
    if slot is None:
        return ""
    if slot in WORDS:
        return f"(?:{'|'.join(WORDS[slot])})"
    if slot in PHRASES:
        return f"(?P<{slot}>{'|'.join(phrase for said in PHRASES[slot][1].values() for phrase in said)})"
    if slot == "others":
        return rf"(?P<others>{'|'.join(THE_REST)}|(?:{ALL_BUT} )?the {name}(?:(?:, | and )(?:the )?{name})*)"
    return f"(?P<{slot}>{name})"


def _called(name: str, blocks: Sequence[str]) -> list[str]:
    words = name.removesuffix(" block")
    return [block for block in blocks if words in block]


def _is_unknown(name: str | None) -> bool:
    return name is not None and not re.fullmatch(_KNOWN_NAME, name)


def _resolve(name: str, blocks: Sequence[str]) -> str:
    if _is_unknown(name):
        raise InvalidInstructionError(
            f"unknown block: {name!r}. Colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}. On the table: {', '.join(blocks)}."
        )
    meant = _called(name, blocks)
    if not meant:
        raise _not_on_table(name, blocks)
    if len(meant) > 1:
        raise InvalidInstructionError(f"ambiguous block: {name!r}. {' and '.join(meant)} are on the table: name one by colour and shape.")
    return meant[0]


def _resolve_group(phrase: str, block: str, blocks: Sequence[str]) -> tuple[str, ...]:
    listed = phrase.removeprefix(f"{ALL_BUT} ")
    named = [] if phrase in THE_REST else [_resolve(name.removeprefix("the "), blocks) for name in re.split(", | and ", listed)]
    if named and listed == phrase:
        return tuple(sorted(named))
    return tuple(sorted(set(blocks) - {block, *named}))


def _not_on_table(name: str, blocks: Sequence[str]) -> InvalidInstructionError:
    return InvalidInstructionError(f"no {name} is on the table. On the table: {', '.join(blocks)}.")


def _examples(blocks: Sequence[str], families: Sequence[str]) -> str:
    """Returns " Examples: …": the first sentence of each family."""
    first = [meaning for family in families for meaning in islice(meanings(blocks, [family]), 1)]
    return " Examples: " + "; ".join(repr(sentences(meaning, blocks)[0]) for meaning in first) + "."
