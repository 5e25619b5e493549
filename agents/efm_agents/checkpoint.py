"""Checkpoints: one safetensors file each, whose header carries the JSON config. No pickles; written whole or not at all.

A file is written under a temporary name, flushed to the disk, and renamed. One file is one rename: there is no moment at which weights
and config belong to different versions.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from efm_envs.errors import CheckpointError

FORMAT = "efm_agents.checkpoint/1"
SUFFIX = ".safetensors"

Tensors = dict[str, torch.Tensor]


def save_checkpoint(path: Path, kind: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    """Writes tensors and config.

    Args:
        path: the file; it is replaced only once the new one is complete.
        kind: what it is a checkpoint of; `load_checkpoint` insists on it.
        tensors: by name.
        config: JSON-able.
    """
    header = json.dumps({"format": FORMAT, "kind": kind, **config}, sort_keys=True)
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, metadata={"config": header})
    write_atomically(path, data)


def load_checkpoint(path: Path, kind: str) -> tuple[Tensors, dict[str, Any]]:
    """Returns tensors and config of a checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or a checkpoint of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            config = json.loads((file.metadata() or {})["config"])
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}.") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete checkpoint ({error}): it was cut short or is another kind of file.") from error
    if config.get("format") != FORMAT or config.get("kind") != kind:
        raise CheckpointError(
            f"{path} is a checkpoint of {config.get('kind')!r} in format {config.get('format')!r}; expected {kind!r} in {FORMAT!r}."
        )
    return tensors, config


def find_checkpoint(path: Path | str, name: str) -> Path:
    """Returns the checkpoint file `name` of a run's folder; a path of a file is returned as it is."""
    path = Path(path)
    if path.is_file() or path.suffix == SUFFIX:
        return path
    found = path / "checkpoints" / f"{name}{SUFFIX}"
    if not found.is_file():
        raise CheckpointError(
            f"no {name!r} checkpoint in {path}: expected the folder of a run that holds checkpoints/{name}{SUFFIX}, or such a file. "
            "`efm sft` makes one."
        )
    return found


def fingerprint(path: Path) -> str:
    """Returns a hash of the file: weights and config."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file by one that holds `data`, so that a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")  # always the same one: whoever is killed leaves at most this
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_weights(network: torch.nn.Module) -> Tensors:
    """Returns a network's weights as they are now, to be kept while it goes on learning."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def pack(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Returns the tensors with `prefix/` before each name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Returns the tensors under `prefix/`, without it."""
    return {name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def pack_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> Tensors:
    """Returns an optimiser's moments as tensors `prefix/parameter/moment`; its settings are the run's config."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}/{i}/{name}": value for i, moments in state.items() for name, value in moments.items()}


def unpack_optimizer(prefix: str, tensors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimiser back the moments that `pack_optimizer` took."""
    state: dict[int, Tensors] = {}
    for name, value in unpack(prefix, tensors).items():
        index, _, moment = name.partition("/")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
