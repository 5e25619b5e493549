"""Which blocks are on the table (google-research/language-table, environments/blocks.py)."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from efm_envs.tasks.language_table.shapes import COLORS, SHAPES

FOUR = ("red moon", "blue cube", "green star", "yellow pentagon")
EIGHT = ("red moon", "red pentagon", "blue moon", "blue cube", "green cube", "green star", "yellow star", "yellow pentagon")
SIXTEEN = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
BLOCK_SETS = {"4": FOUR, "8": EIGHT, "16-train": SIXTEEN, "16-test": SIXTEEN}
FEWEST, MOST = 4, 10  # blocks of the 16 on the table
TRAIN_SHARE = 0.9  # of all combinations

Subset = tuple[str, ...]


@functools.cache
def subsets(block_set: str) -> Sequence[Subset]:
    """Returns the combinations of blocks from which a set draws those of an episode.

    The train and test combinations of the 16 are the published ones: the same order, the same shuffle by numpy's legacy generator.
    """
    if block_set in ("4", "8"):
        return (BLOCK_SETS[block_set],)
    every = [c for k in range(FEWEST, MOST + 1) for c in itertools.combinations(SIXTEEN, k)]
    order = np.arange(len(every))
    np.random.RandomState(0).shuffle(order)
    cut = int(len(every) * TRAIN_SHARE)
    chosen = order[:cut] if block_set == "16-train" else order[cut:]
    return tuple(every[i] for i in chosen)
