"""Opening a clip, and its frames in blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from atoken.media import MediaError
from atoken.video.colour import Colour
from atoken.video.decoding import decoded, opened, stated_rate, video_stream
from atoken.video.sequences import image_sequence, numbered
from atoken.video.torchcodec_reader import decoded_by_torchcodec

__all__ = ["Reader", "Video", "VideoInfo", "frame_rate", "open_video", "read_video"]

Reader = Literal["pyav", "torchcodec"]

SEQUENCE_RATE = Fraction(24)
"""Frames per second of a folder of images for which none was given: DAVIS's."""

MAX_VIDEO_BYTES = 8 * 2**30
"""`read_video` holds a clip whole; more decoded bytes than this are refused before they are held."""

_FIRST_ALLOCATION = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What is known of a clip without reading it to its end.

    Attributes:
        height: rows of the upright frame.
        width: columns of the upright frame.
        rate: average frames per second.
        frames: how many there are by the file's header, None where it does not say. Only reading tells.
    """

    height: int
    width: int
    rate: Fraction
    frames: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A clip whose first frame could be read. It holds no open file, so it can be sent to another process."""

    path: Path
    info: VideoInfo
    reader: Reader = "pyav"
    colour: Colour = "accurate"

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All frames in order, from the first on at each call, read as they are asked for.

        Args:
            size: frames to a block; the last block may hold fewer.

        Returns:
            an iterator over uint8 RGB ``[size, H, W, 3]``; each block is the caller's. The file is
            closed at the end, on an error, and when the iterator is closed or forgotten.

        Raises:
            MediaError: while iterating, see `atoken.video`.
        """
        if size < 1:
            raise ValueError(f"a block has at least 1 frame, not {size}")
        return _in_blocks(self._frames(), size)

    def _frames(self) -> Iterator[np.ndarray]:
        wanted = (self.info.height, self.info.width)
        with closing(_decoded(self.path, self.reader, self.colour)) as frames:
            for number, frame in enumerate(frames):
                if frame.shape[:2] != wanted:
                    sizes = "{1}x{0}, not {3}x{2}".format(*frame.shape[:2], *wanted)
                    raise MediaError(f"{self.path}: frame {number} is {sizes} as before; cut the clip there")
                yield frame


def open_video(
    source: Path | str, *, reader: Reader = "pyav", colour: Colour = "accurate", rate: Fraction | None = None
) -> Video:
    """Look at a clip: its header and its first frame are read.

    Args:
        source: a video file, or a folder of numbered images.
        reader: ``pyav``, or ``torchcodec`` where that is installed; it gives the same frames, but only
            with the colour ``ffmpeg``, and looks through the whole file before the first frame. Which is
            the faster depends on machine and clip: `benchmarks.speed.video_reader` measures both.
        colour: how frames become RGB, see `atoken.video.colour`. Images of a folder need no choice.
        rate: frames per second in place of what the file says; for a folder 24 unless given.

    Raises:
        MediaError: missing, empty, no video, damaged at the beginning; of an unknown rate with none given.
    """
    if reader == "torchcodec" and colour != "ffmpeg":
        raise ValueError(f'the reader torchcodec knows the colour "ffmpeg" only, not {colour!r}')
    path = Path(source)
    if path.is_dir():
        rate, count = rate or SEQUENCE_RATE, len(numbered(path))
    else:
        with opened(path) as container:
            stream = video_stream(container, path)
            rate, count = rate or stated_rate(stream), stream.frames
        if rate is None:
            raise MediaError(f"{path}: the file does not say its frame rate; give one")
    with closing(_decoded(path, "pyav", colour)) as frames:
        first = next(frames)
    if reader == "torchcodec" and not path.is_dir():
        with closing(decoded_by_torchcodec(path)) as frames:
            if not np.array_equal(next(frames), first):
                raise MediaError(f"{path}: torchcodec's first frame is another (it mirrors none); take the reader pyav")
    height, width = first.shape[:2]
    info = VideoInfo(height=height, width=width, rate=rate, frames=count or None)
    return Video(path=path, info=info, reader=reader, colour=colour)


def read_video(path: Path | str, *, colour: Colour = "accurate") -> np.ndarray:
    """All frames of a clip at once, uint8 RGB ``[T, H, W, 3]``.

    Raises:
        MediaError: as `open_video` and `Video.blocks`, or more than `MAX_VIDEO_BYTES` decoded.
    """
    blocks: list[np.ndarray] = []
    size = 0
    for block in open_video(path, colour=colour).blocks(_FIRST_ALLOCATION):
        size += block.nbytes
        if size > MAX_VIDEO_BYTES:
            limit = f"{MAX_VIDEO_BYTES / 2**30:.0f} GiB"
            raise MediaError(f"{path}: more than {limit} when decoded; cut it or scale it down")
        blocks.append(block)
    return np.concatenate(blocks)


def frame_rate(path: Path | str) -> Fraction:
    """Average frames per second of a clip.

    Raises:
        MediaError: as `open_video`.
    """
    return open_video(path).info.rate


def _decoded(path: Path, reader: Reader, colour: Colour) -> Generator[np.ndarray, None, None]:
    if path.is_dir():
        return image_sequence(path)
    return decoded_by_torchcodec(path) if reader == "torchcodec" else decoded(path, colour)


def _in_blocks(frames: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Blocks that grow by doubling: `size` may be far above the length of the clip."""
    block: np.ndarray | None = None
    filled = 0
    for frame in frames:
        if block is None:
            block = np.empty((min(size, _FIRST_ALLOCATION), *frame.shape), np.uint8)
        elif filled == len(block):
            larger = np.empty((min(size, 2 * filled), *frame.shape), np.uint8)
            larger[:filled] = block
            block = larger
        block[filled] = frame
        filled += 1
        if filled == size:
            yield block
            block, filled = None, 0
    if block is not None:
        yield block[:filled]
