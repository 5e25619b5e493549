"""Where a model runs, and what to do when it doesn't fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from efm_envs.errors import EFMError, one_of

CHOICES = ("auto", "cpu", "cuda")

ADVICE = {
    "micro_batch": "lower it: rows in memory at a time, same result",
    "gradient_checkpointing": "set it to True: activations are computed twice, not kept; same result",
    "batch": "lower it: rows a step",
    "image_size": "lower it, when demonstrations are collected, or take a model that sees smaller images",
    "lora_rank": "lower it, but not to 0, which trains all weights",
}
"""What each setting does to memory; those that leave the result as it is come first."""


def pick_device(wanted: str = "auto") -> torch.device:
    """Returns the device; "auto" takes a GPU if there is one.

    Raises:
        EFMError: a GPU is asked for and there is none, or the name is none of `CHOICES`.
    """
    one_of("device", wanted, CHOICES)
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        build = "has no CUDA" if torch.version.cuda is None else f"is made for CUDA {torch.version.cuda} and finds no GPU"
        raise EFMError(f"device='cuda' needs a GPU; this torch ({torch.__version__}) {build}. Take device='cpu', or device='auto'.")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


@contextmanager
def explain_out_of_memory(**settings: object) -> Iterator[None]:
    """Turns a GPU's out-of-memory error into one that says which settings to change.

    Args:
        **settings: their present values, for example `batch=64`; of `ADVICE` only these are named, or all if there are none.

    Raises:
        EFMError: in place of `torch.OutOfMemoryError`.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        names = [name for name in ADVICE if name in settings] or list(ADVICE)
        lines = [f"  {name}{f' (now {settings[name]})' if name in settings else ''}: {ADVICE[name]}" for name in names]
        reason = str(error).split(". ")[0].strip().rstrip(".")
        raise EFMError("\n".join([f"the GPU's memory is full ({reason}). Change, in this order:", *lines])) from error


def device_for(backbone: str, wanted: str = "auto") -> torch.device:
    """Returns the device of a model: "auto" leaves all but `hf` on the processor, where small ones are as fast, and the same everywhere."""
    return pick_device("cpu" if wanted == "auto" and backbone != "hf" else wanted)
