"""Writing video without loss: FFV1 in RGB, in a Matroska file (``.mkv``)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["VideoWriter", "write_video"]


class VideoWriter:
    """Writes frames as they come; reading gives the very same values back.

    A context manager: the file is whole when the context ends without an error. Write to the path
    that `atoken.files.replacing` gives: no half file stays behind, and a full disk gets its line.

    Args:
        path: the file; one that is there is written over.
        rate: frames per second.

    Raises:
        OSError: the system refused to write (full disk, no such folder), also in `write` and at the end.
        ValueError: the context ended without a frame.
    """

    def __init__(self, path: Path | str, rate: Fraction) -> None:
        self._path, self._rate = Path(path), rate
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        import av

        self._container = av.open(f"file:{self._path}", "w", format="matroska")
        return self

    def write(self, block: np.ndarray) -> None:
        """Append frames, uint8 RGB ``[n, H, W, 3]``, of the size of the first.

        Raises:
            OSError: the system refused to write.
            ValueError: another shape or type.
        """
        import av

        if block.dtype != np.uint8 or block.ndim != 4 or block.shape[-1] != 3 or 0 in block.shape[1:]:
            raise ValueError(f"frames must be uint8 [n, H, W, 3], not {block.dtype} {list(block.shape)}")
        height, width = block.shape[1:3]
        if self._stream is None:
            self._stream = self._container.add_stream("ffv1", rate=self._rate)
            self._stream.height, self._stream.width = height, width
            self._stream.pix_fmt = "bgr0"  # RGB: a YUV format would round the colours
        if (height, width) != (self._stream.height, self._stream.width):
            before = f"{self._stream.width}x{self._stream.height}"
            raise ValueError(f"{self._path}: a frame is {width}x{height}, not {before} as before")
        for pixels in block:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
        except OSError:
            # The first error says more than that the file could not be closed after it.
            if kind is None:
                raise
        if kind is None and self._stream is None:
            raise ValueError(f"{self._path}: a video needs at least one frame")


def write_video(path: Path | str, frames: np.ndarray, rate: Fraction) -> None:
    """Write a clip that is held whole, uint8 RGB ``[T, H, W, 3]``, with a `VideoWriter`."""
    with VideoWriter(path, rate) as writer:
        writer.write(frames)
