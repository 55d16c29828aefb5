"""The project's one reader and writer of video: files and folders of numbered images, as blocks of 8-bit RGB.

Frames come as stored, each once and in the order of presentation, whatever their time stamps.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from atoken.media import MediaError, is_image, read_image

__all__ = ["Video", "VideoInfo", "VideoWriter", "frame_rate", "open_video", "read_video", "write_video"]

MAX_VIDEO_BYTES = 8 * 2**30
"""`read_video` holds a clip whole; more decoded bytes than this are refused before they are held."""

SEQUENCE_RATE = Fraction(24)
"""Frames per second of a folder of images that nobody gave a rate: that of DAVIS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What is known of a clip before its frames are read: upright size, mean frames per second, stated count."""

    height: int
    width: int
    rate: Fraction
    frames: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A clip that is read block by block; holds no open file, so it can be sent to another process."""

    path: Path
    info: VideoInfo
    reader: Literal["pyav", "torchcodec"] = "pyav"

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Frames from the first on, uint8 RGB ``[size, H, W, 3]`` (the last block may hold fewer)."""
        with closing(_frames(self.path)) as frames:
            block: list[np.ndarray] = []
            for frame in frames:
                block.append(frame)
                if len(block) == size:
                    yield np.stack(block)
                    block = []
            if block:
                yield np.stack(block)


def open_video(
    source: Path | str, *, reader: Literal["pyav", "torchcodec"] = "pyav", rate: Fraction | None = None
) -> Video:
    """Look at a clip: its first frame is decoded for its size."""
    path = Path(source)
    with closing(_frames(path)) as frames:
        first = next(frames)
    height, width = first.shape[:2]
    if path.is_dir():
        info = VideoInfo(height=height, width=width, rate=rate or SEQUENCE_RATE, frames=len(_numbered(path)))
    else:
        with _container(path) as container:
            stream = container.streams.video[0]
            stated = rate or stream.average_rate or stream.guessed_rate
            count = stream.frames or None
        if not stated:
            raise MediaError(f"{path}: the file does not say its frame rate")
        info = VideoInfo(height=height, width=width, rate=stated, frames=count)
    return Video(path=path, info=info, reader=reader)


def read_video(path: Path | str) -> np.ndarray:
    """All frames of a clip, uint8 RGB ``[T, H, W, 3]``."""
    video = open_video(path)
    limit = MAX_VIDEO_BYTES // (video.info.height * video.info.width * 3)
    blocks = []
    count = 0
    for block in video.blocks(16):
        count += len(block)
        if count > limit:
            raise MediaError(
                f"{path}: more than {MAX_VIDEO_BYTES / 2**30:.0f} GiB when decoded; cut it or scale it down"
            )
        blocks.append(block)
    return np.concatenate(blocks)


def frame_rate(path: Path | str) -> Fraction:
    """Average frames per second of a clip."""
    return open_video(path).info.rate


class VideoWriter:
    """Writes frames without loss, as they come: FFV1 in RGB, in a Matroska file (``.mkv``)."""

    def __init__(self, path: Path | str, rate: Fraction) -> None:
        import av

        self._container = av.open(str(path), "w", format="matroska")
        self._rate = rate
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, block: np.ndarray) -> None:
        """Append frames, uint8 RGB ``[n, H, W, 3]``."""
        import av

        if self._stream is None:
            self._stream = self._container.add_stream("ffv1", rate=self._rate)
            self._stream.height, self._stream.width = block.shape[1:3]
            self._stream.pix_fmt = "bgr0"  # RGB: a YUV format would round the colours.
        for pixels in block:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def write_video(path: Path, frames: np.ndarray | Iterable[np.ndarray], rate: Fraction) -> None:
    """Write all frames, uint8 RGB ``[T, H, W, 3]``, with a `VideoWriter`."""
    with VideoWriter(path, rate) as writer:
        writer.write(np.asarray(frames))


def _frames(path: Path) -> Generator[np.ndarray, None, None]:
    shape: tuple[int, ...] | None = None
    count = 0
    for pixels in _images(path) if path.is_dir() else _decoded(path):
        if shape is not None and pixels.shape != shape:
            raise MediaError(f"{path}: frame {count} has another size than the first")
        shape = pixels.shape
        count += 1
        yield pixels
    if not count:
        raise MediaError(f"{path}: the video stream holds no frame")


def _numbered(folder: Path) -> list[Path]:
    found = {int(re.findall(r"\d+", p.stem)[-1]): p for p in folder.iterdir() if is_image(p)}
    return [found[number] for number in sorted(found)]


def _images(folder: Path) -> Iterator[np.ndarray]:
    yield from map(read_image, _numbered(folder))


def _decoded(path: Path) -> Iterator[np.ndarray]:
    import av

    count = 0
    try:
        with _container(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise MediaError(f"{path}: truncated or damaged after {count} frames")
                for frame in packet.decode():
                    count += 1
                    yield np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: {_reason(error)}") from None


def _container(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path))
    except (OSError, av.FFmpegError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        raise MediaError(f"{path}: {'the file is empty' if empty else _reason(error)}") from None
    if not container.streams.video:
        container.close()
        raise MediaError(f"{path}: the file holds no video stream")
    return container


def _reason(error: Exception) -> str:
    words = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return words.splitlines()[0]
