"""Where a run's figures go beside its own files: TensorBoard, trackio, wandb. An error says how to install what is not there."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from efm_envs.errors import missing_extra, one_of

PROJECT = "efm-envs"


class Logger(Protocol):
    """Takes figures."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes figures by name, at a step (an optimiser step of stage 1, a round of stage 2)."""

    def close(self) -> None:
        """Writes what is left."""


class TensorBoardLogger:
    """Event files in the run's folder, under `tensorboard/`; `tensorboard --logdir runs` shows all runs.

    Args:
        folder: of the run.
        step: of the last checkpoint; what an earlier process logged beyond it is not shown again.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        writer = _imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.writer = writer(folder / "tensorboard", purge_step=step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes figures by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


class TrackerLogger:
    """trackio or wandb, which take the same calls.

    Args:
        name: of the package.
        folder: of the run, which is the run's name there.
        config: the run's settings.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.run = _imported(name, name).init(project=PROJECT, name=folder.resolve().name, config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes figures by name."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Writes what is left."""
        self.run.finish()


LOGGERS = ("tensorboard", "trackio", "wandb")


def make_loggers(names: Sequence[str], folder: Path, config: Mapping[str, Any], step: int) -> list[Logger]:
    """Returns the loggers of some names, for a run that goes on after `step`.

    Raises:
        UnknownNameError: there is none of that name.
        MissingExtraError: it is not installed.
    """
    made: list[Logger] = []
    for name in names:
        one_of("logger", name, LOGGERS)
        made.append(TensorBoardLogger(folder, config, step) if name == "tensorboard" else TrackerLogger(name, folder, config))
    return made


def figures(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Returns the figures of a row of a log, named `PREFIX/NAME`."""
    return {f"{prefix}/{name}": float(v) for name, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(f"logging to {package}", package) from error
