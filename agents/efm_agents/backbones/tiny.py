"""`tiny`: a small transformer over tokens: proprioception, objects as a set, words of the instruction, image patches.

A question (act? how many steps are left?) is a learned vector. It reads tokens by attention, several times over: the things that are there,
and the words of the instruction, which tell it what to look for next. Tokens do not read each other, as in the Perceiver (Jaegle et al.
2021): what they mean together is worked out in the question, which costs a processor a fraction of full self-attention.

An object is found by what it is called, not by where it is: its key is made of its name, and its value is what is known of it. A word is
heard together with the object that it names. Without either, the model learned its demonstrations by heart before it had learned which
words mean which object: with 2,000 demonstrations it found the block that is to be pushed, and never the other one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efm_agents.backbones.base import ACTION, ASKED, STEPS_TO_GO, Backbone
from efm_agents.inputs import NUMBERS, OBJECTS, PADDING, WORDS, Inputs, Reads
from efm_envs.errors import EFMError

ABSENT = -1e9  # the score of a token that is not there; finite, so that there may be none at all
SHARPNESS = 8.0  # of the match between words and names at first; a match is 0.7 for one word of a name of two, and 1.4 for both
NOTHING = 0.4  # the match at first at which a word names nothing

Pairs = tuple[Tensor, Tensor]  # keys and values, each (B, n, W)


class TinyBackbone(Backbone):
    """Questions that read tokens.

    Args:
        reads: what it reads.
        width: of tokens and questions.
        blocks: how often a question reads.
        heads: of the attention.
        patch: pixels a side of an image's patches.
        shared: whether both questions are answered by the same weights; else each has tokens and blocks of its own.
    """

    def __init__(self, reads: Reads, width: int = 64, blocks: int = 3, heads: int = 4, patch: int = 16, shared: bool = True) -> None:
        super().__init__(reads, width)
        made = {asked: Reader(reads, width, blocks, heads, patch) for asked in ((ACTION,) if shared else (ACTION, STEPS_TO_GO))}
        self.readers = nn.ModuleDict(made)
        self.questions = nn.ParameterDict({asked: nn.Parameter(0.02 * torch.randn(width)) for asked in ASKED})

    def parameters_for(self, asked: str) -> list[nn.Parameter]:
        """Returns the weights that one question alone uses."""
        return [self.questions[asked], *(self.readers[asked].parameters() if len(self.readers) > 1 and asked in self.readers else [])]

    def forward(self, inputs: Inputs, asked: str) -> Tensor:
        """Returns (B, W)."""
        reader = self.readers[asked if asked in self.readers else ACTION]
        read: Tensor = reader(self.questions[asked], {**inputs, NUMBERS: self.standardised(inputs)})
        return read


class Reader(nn.Module):
    """Tokens, and the blocks that read them."""

    def __init__(self, reads: Reads, width: int, blocks: int, heads: int, patch: int) -> None:
        super().__init__()
        if width % heads:
            raise EFMError(f"the width of 'tiny' is a multiple of its heads; got width {width} and {heads} heads.")
        self.words = nn.Embedding(2 + len(reads.vocabulary), width, padding_idx=PADDING)
        self.sentence = Sentence(reads, width) if reads.vocabulary else None
        self.things = nn.ModuleList(
            [*_number_tokens(reads, width), *(PatchTokens(camera, reads.image_size, patch, width) for camera in reads.cameras)]
        )
        self.objects = reads.names.index(OBJECTS) if reads.objects and OBJECTS in reads.names else None
        self.blocks = nn.ModuleList(Block(width, heads, listens=bool(reads.vocabulary)) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, question: Tensor, inputs: Inputs) -> Tensor:
        """Returns (B, W)."""
        read = question.expand(len(inputs[NUMBERS]), -1)
        keys, values = zip(*(things(inputs, self.words) for things in self.things), strict=True)
        objects = values[self.objects] if self.objects is not None else None
        said = self.sentence(inputs, self.words, objects) if self.sentence is not None and WORDS in inputs else None
        there = torch.cat([key.expand(len(read), -1, -1) for key in keys], dim=1), torch.cat(values, dim=1)
        is_silent = (inputs[WORDS] == PADDING).unsqueeze(-1) if said is not None else None
        for block in self.blocks:
            read = block(read, there, said, is_silent)
        normed: Tensor = self.norm(read)
        return normed


class Block(nn.Module):
    """Listens to the instruction, looks at the things that are there, and thinks."""

    def __init__(self, width: int, heads: int, listens: bool) -> None:
        super().__init__()
        self.before_reading, self.before_thinking = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = Attention(width, heads)
        self.listen = Attention(width, heads) if listens else None
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, read: Tensor, there: Pairs, said: Pairs | None, is_silent: Tensor | None) -> Tensor:
        """Returns (B, W) for what was read so far (B, W), what is there, what was said, and which words of it are none (B, L, 1)."""
        asked = self.before_reading(read)
        read = read + self.look(asked, there, None)
        if self.listen is not None and said is not None:
            read = read + self.listen(asked, said, is_silent)
        thought: Tensor = read + self.think(self.before_thinking(read))
        return thought


class Attention(nn.Module):
    """One question's attention to some tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, asked: Tensor, tokens: Pairs, is_absent: Tensor | None) -> Tensor:
        """Returns (B, W) for the question (B, W) and keys and values (B, n, W), of which some are absent (B, n, 1)."""
        keys, values = (part.unflatten(-1, (self.heads, -1)) for part in tokens)  # (B, n, heads, W / heads)
        query = self.query(asked).unflatten(-1, (1, self.heads, -1))
        scores = (query * keys).sum(dim=-1) * keys.shape[-1] ** -0.5  # (B, n, heads)
        if is_absent is not None:
            scores = scores.masked_fill(is_absent, ABSENT)
        weights = scores.softmax(dim=1)
        out: Tensor = self.out((weights.unsqueeze(-1) * values).sum(dim=1).flatten(1))
        return out


class Sentence(nn.Module):
    """A token for each word: what it is, where it stands, and which thing it names.

    A word names the objects in whose names it occurs, the more so if the word before it does, too ("red moon"): words and names have the
    same embeddings, so that this holds before anything was learned.
    """

    def __init__(self, reads: Reads, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(reads.longest, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.sharpness, self.nothing = nn.Parameter(torch.tensor(SHARPNESS)), nn.Parameter(torch.tensor(NOTHING))
        names = reads.object_ids()
        self.register_buffer(
            "names", torch.tensor(names, dtype=torch.int64).view(len(names), len(names[0]) if names else 0), persistent=False
        )

    def forward(self, inputs: Inputs, words: nn.Embedding, objects: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns keys and values, each (B, L, W), where the objects have values (B, n, W)."""
        heard = words(inputs[WORDS])
        said = heard + self.places
        values = self.value(said)
        if objects is not None:
            values = values + self.named(F.normalize(heard, dim=-1), F.normalize(words(self.names).sum(dim=1), dim=-1)) @ objects
        return self.key(said), values

    def named(self, heard: Tensor, names: Tensor) -> Tensor:
        """Returns (B, L, n): how much each word (B, L, W) names each object (n, W)."""
        matches = heard @ names.T
        matches = matches + F.pad(matches, (0, 0, 1, 0))[:, :-1]  # and the word before
        none = self.nothing.expand(*matches.shape[:-1], 1)
        weights: Tensor = (self.sharpness * torch.cat([matches, none], dim=-1)).softmax(dim=-1)
        return weights[..., :-1]


class NumberTokens(nn.Module):
    """A token for each of some things that are equally many numbers. A key is what a thing is called, a value what is known of it.

    Args:
        start: where the numbers begin.
        size: numbers of each thing.
        names: word ids of each thing's name, (n, longest), filled up with PADDING; a thing without a name has only PADDING.
        width: of the tokens.
    """

    names: Tensor

    def __init__(self, start: int, size: int, names: Sequence[Sequence[int]], width: int) -> None:
        super().__init__()
        self.start, self.count, self.size = start, len(names), size
        self.register_buffer("names", torch.tensor(names).view(len(names), -1), persistent=False)
        self.embed = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
        self.keys, self.values = nn.Parameter(torch.randn(self.count, width)), nn.Parameter(torch.randn(self.count, width))
        self.key_of_name = nn.Linear(width, width)

    def forward(self, inputs: Inputs, words: nn.Embedding) -> tuple[Tensor, Tensor]:
        """Returns keys (n, W) and values (B, n, W)."""
        numbers = inputs[NUMBERS][:, self.start : self.start + self.count * self.size].unflatten(-1, (self.count, self.size))
        keys: Tensor = self.keys + self.key_of_name(words(self.names).sum(dim=1))
        values: Tensor = self.values + self.embed(numbers)
        return keys, values


def _number_tokens(reads: Reads, width: int) -> list[NumberTokens]:
    """Returns a token for each observation of numbers, and one for each object where it lists objects."""
    made, start = [], 0
    for name, size in zip(reads.names, reads.sizes, strict=True):
        names = reads.object_ids() if name == OBJECTS and reads.objects else [[PADDING]]
        if size % len(names):
            raise EFMError(f"{name} has {size} numbers, which cannot be equally many for each of {', '.join(reads.objects)}.")
        made.append(NumberTokens(start, size // len(names), names, width))
        start += size
    return made


class PatchTokens(nn.Module):
    """A token for each patch of an image, after three convolutions."""

    def __init__(self, camera: str, image_size: tuple[int, int], patch: int, width: int) -> None:
        super().__init__()
        self.camera = camera
        rows, columns = (-(-side // patch) for side in image_size)
        self.embed = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=5, stride=4, padding=2),
            nn.GELU(),
            nn.Conv2d(32, width, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d((rows, columns)),
        )
        self.places = nn.Parameter(torch.randn(rows * columns, 2 * width))

    def forward(self, inputs: Inputs, words: nn.Embedding) -> tuple[Tensor, Tensor]:
        """Returns keys and values, each (B, n, W)."""
        pixels = inputs[self.camera].movedim(-1, 1).float() / 127.5 - 1.0
        keys, values = (self.embed(pixels).flatten(2).movedim(1, -1) + self.places).chunk(2, dim=-1)
        return keys, values
