"""What a model reads: numbers, an instruction, images. From observations, as envs give them, to tensors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efm_envs.data import Episode
from efm_envs.errors import EFMError
from efm_envs.observations import INSTRUCTION, PIXELS, decode_instruction

NUMBERS, WORDS = "numbers", "words"
OBJECTS = "environment_state"  # the observation that lists objects
PADDING, UNKNOWN = 0, 1  # word ids that no word has
FEWEST_WORDS = 2  # an instruction that never changes need not be read

Inputs = dict[str, Tensor]
"""A batch, by name: `numbers` (B, F) float32, `words` (B, L) int64, and for each camera `pixels/NAME` (B, H, W, 3) uint8."""


@dataclass(frozen=True)
class Reads:
    """What a model reads of an observation.

    Attributes:
        names: observations that are vectors of numbers, in the order in which they are joined.
        sizes: numbers in each.
        cameras: observations that are images.
        image_size: (height, width) of the images; (0, 0) if there are none.
        vocabulary: the words that it knows; empty if it reads no instruction.
        longest: most words of an instruction.
        objects: names of the things that `environment_state` lists, if it is such a list.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (0, 0)
    vocabulary: tuple[str, ...] = ()
    longest: int = 0
    objects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Looks words up."""
        object.__setattr__(self, "_ids", {word: 2 + i for i, word in enumerate(self.vocabulary)})
        object.__setattr__(self, "_seen", {})

    @classmethod
    def of(cls, episodes: Sequence[Episode], objects: Sequence[str] = ()) -> "Reads":
        """Returns what there is to read in demonstrations, and the words of their instructions (none if they are always the same).

        Args:
            episodes: the demonstrations.
            objects: names of what `environment_state` lists, as `Task.object_names` has them.
        """
        first = episodes[0].observations
        names = tuple(name for name in first if name != INSTRUCTION and not name.startswith(PIXELS))
        cameras = tuple(name for name in first if name.startswith(PIXELS))
        sizes = {tuple(first[camera].shape[1:3]) for camera in cameras} or {(0, 0)}
        if len(sizes) > 1:
            raise EFMError(f"cameras of one model have one image size; got {sorted(sizes)}. Collect demonstrations with image_size=(H, W).")
        sentences = {e.instruction for e in episodes} if INSTRUCTION in first else set()
        said = [words_of(sentence) for sentence in sentences] if len(sentences) >= FEWEST_WORDS else []
        named = [words_of(name) for name in objects] if said else []
        vocabulary = tuple(sorted({word for words in (*said, *named) for word in words}))
        numbers = tuple(int(first[name].shape[1]) for name in names)
        return cls(names, numbers, cameras, sizes.pop(), vocabulary, max(map(len, said), default=0), tuple(objects))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Reads":
        """Returns what `to_config` wrote down."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """Returns JSON-able values."""
        return asdict(self)

    @property
    def observations(self) -> tuple[str, ...]:
        """Names of all observations that are read."""
        return (*self.names, *self.cameras, *((INSTRUCTION,) if self.vocabulary else ()))

    def __call__(self, observations: Mapping[str, np.ndarray]) -> Inputs:
        """Returns a batch for observations of which each value is (B, …).

        Raises:
            EFMError: one of them is missing, or has another shape.
        """
        self.check(observations)
        inputs = {NUMBERS: torch.from_numpy(np.concatenate([observations[name] for name in self.names], axis=-1, dtype=np.float32))}
        if self.vocabulary:
            inputs[WORDS] = torch.from_numpy(self.word_ids(observations[INSTRUCTION]))
        return inputs | {camera: torch.from_numpy(np.ascontiguousarray(observations[camera])) for camera in self.cameras}

    def word_ids(self, instructions: np.ndarray) -> np.ndarray:
        """Returns (B, longest) int64: ids of the words of instructions (B, bytes) uint8, filled up with PADDING."""
        seen: dict[bytes, np.ndarray] = self._seen  # type: ignore[attr-defined]
        rows = []
        for row in instructions:
            key = row.tobytes()
            if key not in seen:
                seen[key] = self._ids_of(decode_instruction(row))
            rows.append(seen[key])
        return np.stack(rows)

    def object_ids(self) -> list[list[int]]:
        """Returns the word ids of each object's name, filled up with PADDING; only PADDING if no instruction is read."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        names = [[ids.get(word, PADDING) for word in words_of(name)] for name in self.objects]
        longest = max(map(len, names), default=0)
        return [name + [PADDING] * (longest - len(name)) for name in names]

    def _ids_of(self, sentence: str) -> np.ndarray:
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        found = [ids.get(word, UNKNOWN) for word in words_of(sentence)[: self.longest]]
        return np.array(found + [PADDING] * (self.longest - len(found)), np.int64)

    def check(self, observations: Mapping[str, np.ndarray]) -> None:
        """Refuses observations that lack something, or in which something has another shape."""
        missing = [name for name in self.observations if name not in observations]
        if missing:
            wants = "pixels_state" if self.cameras else "state"
            raise EFMError(
                f"the model reads {', '.join(self.observations)}; the observation lacks {', '.join(missing)}: it has "
                f"{', '.join(observations)}. Make the env as its demonstrations were made, for example with obs_mode={wants!r}"
                + (f" and cameras={[c.removeprefix(PIXELS) for c in self.cameras]}." if self.cameras else ".")
            )
        expected = {**{n: (s,) for n, s in zip(self.names, self.sizes, strict=True)}, **{c: (*self.image_size, 3) for c in self.cameras}}
        for name, shape in expected.items():
            if observations[name].shape[1:] != shape:
                raise EFMError(
                    f"the model reads {name} of shape {shape}; the observation's is {observations[name].shape[1:]}: another env?"
                )


def words_of(sentence: str) -> list[str]:
    """Returns the words of a sentence, in small letters, without punctuation.

    >>> words_of("Push the red moon, slightly.")
    ['push', 'the', 'red', 'moon', 'slightly']
    """
    return re.findall(r"[a-z0-9']+", sentence.lower())


def take(inputs: Inputs, rows: Any) -> Inputs:
    """Returns some rows of a batch."""
    return {name: value[rows] for name, value in inputs.items()}


def join(batches: Sequence[Inputs]) -> Inputs:
    """Returns several batches as one."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def size_of(inputs: Inputs) -> int:
    """Returns the number of rows, B."""
    return len(next(iter(inputs.values())))
