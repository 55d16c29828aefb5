"""Single frames of a video file by their numbers, without decoding all that lies before them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from atoken.media import MediaError
from atoken.video.clip import open_video
from atoken.video.colour import Colour, RgbConverter
from atoken.video.decoding import opened, stated_rate, upright, video_stream

__all__ = ["SeekableVideo"]

_BLOCK = 8


class SeekableVideo:
    """The frames that `atoken.video.open_video` gives, by number.

    Packets' time stamps tell which keyframe lies before a frame. Where they cannot (none, or two alike, or what comes
    out of the decoder does not bear them), frames are counted from the first on. Holds no open file.

    Attributes:
        path: of the file.
        rate: frames per second by the file.
    """

    def __init__(self, path: Path, *, colour: Colour = "accurate") -> None:
        """Read the file's packets, which are not decoded.

        Raises:
            MediaError: no video that can be read.
        """
        self.path, self._colour = path, colour
        with opened(path) as container:
            stream = video_stream(container, path)
            rate = stated_rate(stream)
            self._stamps, self._keys = _index(container, stream, path)
        if rate is None:
            raise MediaError(f"{path}: the file does not say its frame rate")
        self.rate: Fraction = rate
        self._count = len(self._stamps)
        if not self._stamps:
            self._count_frames()

    def __len__(self) -> int:
        """How many frames there are."""
        return self._count

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """Some frames, uint8 RGB ``[T, H, W, 3]``.

        Args:
            numbers: rising, from 0 on.

        Raises:
            MediaError: a frame that cannot be decoded or that is not there, or of another size than the first.
        """
        found = self._sought(numbers) if self._stamps else None
        if found is None:
            # The stamps do not tell the frames apart: never try again.
            self._stamps = []
            found = self._counted(numbers)
        if len({frame.shape for frame in found}) > 1:
            raise MediaError(f"{self.path}: its frames change their size; cut the clip there")
        return np.stack(found)

    def _sought(self, numbers: Sequence[int]) -> list[np.ndarray] | None:
        import av

        stamps = [self._stamps[number] for number in numbers]
        found: list[np.ndarray] = []
        convert = RgbConverter(self._colour, str(self.path))
        try:
            with opened(self.path) as container:
                stream = video_stream(container, self.path)
                # Whoever reads at random has processes for it.
                stream.codec_context.thread_count = 1
                for key, wanted in groupby(stamps, lambda stamp: self._keys[bisect_right(self._keys, stamp) - 1]):
                    container.seek(key, stream=stream, backward=True)
                    for frame in _picked(container.decode(stream), list(wanted)):
                        if frame is None:
                            return None
                        if frame.is_corrupt:
                            raise MediaError(f"{self.path}: damaged data")
                        # A copy: the converter's memory is used again.
                        found.append(np.ascontiguousarray(upright(convert(frame), frame, self.path)))
        except av.FFmpegError as error:
            raise MediaError(f"{self.path}: {error.strerror or error}") from None
        return found

    def _counted(self, numbers: Sequence[int]) -> list[np.ndarray]:
        wanted, found, place = set(numbers), [], 0
        for block in open_video(self.path, colour=self._colour).blocks(_BLOCK):
            found += [frame for number, frame in enumerate(block, place) if number in wanted]
            place += len(block)
            if len(found) == len(wanted):
                return found
        raise MediaError(f"{self.path}: has {place} frames, not {numbers[-1] + 1}")

    def _count_frames(self) -> None:
        self._count = sum(len(block) for block in open_video(self.path, colour=self._colour).blocks(_BLOCK))


def _index(container: Any, stream: Any, path: Path) -> tuple[list[int], list[int]]:
    """Time stamps of all frames and of keyframes, sorted; none where they are of no use."""
    import av

    stamps: list[int | None] = []
    keys: list[int] = []
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            stamps.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from None
    known = sorted(stamp for stamp in stamps if stamp is not None)
    keys.sort()
    if len(set(known)) < len(stamps) or not keys or keys[0] > known[0]:
        return [], []
    return known, keys


def _picked(frames: Iterator[Any], stamps: list[int]) -> Iterator[Any]:
    """The frames with these time stamps, in order; None in place of one that does not come."""
    for stamp in stamps:
        frame = next((frame for frame in frames if frame.pts is None or frame.pts >= stamp), None)
        yield frame if frame is not None and frame.pts == stamp else None
