"""A video of an env while it runs."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import imageio.v2 as imageio

from efm_envs.errors import EFMError, missing_extra
from efm_envs.task import Array


class Recording:
    """A video file that grows by a picture at a time. A context manager: at its end, or at `close`, the file is complete.

    Args:
        path: the file, .mp4 or .gif. Its folder is made.
        draw: returns the next picture (H, W, 3) uint8.
        fps: pictures a second.
        row: the env's number, for who owns several recordings.

    Attributes:
        pictures: how many there are so far.

    Raises:
        EFMError: a file of another kind.
        MissingExtraError: an .mp4 without what writes it.
    """

    def __init__(self, path: str | os.PathLike[str], draw: Callable[[], Array], fps: float, row: int = 0) -> None:
        self.path, self.row, self.pictures = Path(path), row, 0
        self._draw = draw
        self._writer: Any = _writer(self.path, fps)

    @property
    def is_open(self) -> bool:
        """Whether pictures are still taken."""
        return self._writer is not None

    def add(self) -> None:
        """Adds a picture of the present."""
        self._writer.append_data(self._draw())
        self.pictures += 1

    def close(self) -> None:
        """Completes the file; more than once does no harm."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _writer(path: Path, fps: float) -> Any:
    if path.suffix not in (".mp4", ".gif"):
        raise EFMError(f"a video is a file .mp4 or .gif; got {str(path)!r}.")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise missing_extra("a video as .mp4 (a .gif does without)", "agents")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        return imageio.get_writer(path, duration=1000 / fps, loop=0)
    return imageio.get_writer(path, fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=2)
