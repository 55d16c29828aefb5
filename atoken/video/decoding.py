"""Frames of a video file through PyAV, one by one."""

from __future__ import annotations

import math
import os
import struct
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atoken.media import MediaError
from atoken.video.colour import Colour, RgbConverter
from atoken.video.containers import stated_size, without_index

if TYPE_CHECKING:
    import av

__all__ = ["decoded", "opened", "stated_rate", "upright", "video_stream"]

# Named, so that a file cannot choose a reader that follows it to other files (playlists, concat lists).
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "yuv4mpegpipe",
    "gif",
    "apng",
    "flv",
    "asf",
    "ogg",
    "ivf",
    "m4v",
    "h264",
    "hevc",
    "obu",
    "mxf",
    "wav",  # never a video, but said to be a sound file rather than no file at all
)
# As container_options: with options, PyAV 15 frees what it never had where streams show up late (.mpg), and crashes.
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"}

_CONVERTING = 4
"""Frames that are converted at the same time, on as many cores."""


def opened(path: Path) -> Any:
    """The open container of a video file, as a context.

    Raises:
        MediaError: missing, not to be read, no regular file, empty, or no video.
    """
    import av

    if path.exists() and not path.is_file():
        raise MediaError(f"{path}: not a regular file")
    try:
        # "file:" keeps a name such as "concat:a|b" from being more than a name.
        return av.open(f"file:{path}", container_options=_OPTIONS, metadata_errors="replace")
    except (OSError, av.FFmpegError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise MediaError(f"{path}: {_reason(error)}") from None
        raise _unreadable(path, "not a video, or its header is damaged") from None


def video_stream(container: Any, path: Path) -> Any:
    """The stream that counts: no cover art; the default one, then the largest, then the first (as ffmpeg does).

    Raises:
        MediaError: no such stream, or no decoder for it.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise _unreadable(path, "the file holds no video stream")
    decodable = [s for s in streams if s.codec_context is not None]
    if not decodable:
        raise _unreadable(path, "no decoder for its codec; convert it with a full ffmpeg first")
    return max(decodable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))


def stated_rate(stream: Any) -> Fraction | None:
    """Average frames per second by the file, or its base rate; None where it states neither."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate:
            return Fraction(rate)
    return None


def decoded(path: Path, colour: Colour) -> Generator[np.ndarray, None, None]:
    """Upright frames, uint8 RGB ``[H, W, 3]``, in the order of presentation; the file is read as they are asked for.

    Up to 21 frames are decoded ahead (16 by libavcodec's threads, 5 being converted). The memory of a frame is its own.

    Raises:
        MediaError: see `atoken.video`.
    """
    import av

    done = 0
    with opened(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        try:
            with closing(_converted(_frames(container, stream), path, colour)) as converted:
                for pixels in converted:
                    yield pixels
                    done += 1
        except av.FFmpegError as error:
            raise MediaError(_broken(path, done, _reason(error))) from None
        except _DamagedError as error:
            raise MediaError(_broken(path, done, str(error))) from None
        if done == 0:
            none = "the video stream holds no frame"
            stated = f"the file was cut off before its {stream.frames} frames; copy or download it again"
            raise _unreadable(path, stated if stream.frames else none)
        # Some cut files just end. They count as whole if all frames of the video came before the cut.
        if stated_size(path) > path.stat().st_size and not 0 < stream.frames <= done:
            raise MediaError(_broken(path, done, "cut off"))


class _DamagedError(Exception):
    """A frame that is not whole."""


def _frames(container: Any, stream: Any) -> Generator[av.VideoFrame, None, None]:
    cut = False
    for packet in container.demux(stream):
        # Packets without data stand for "as before" in AVI and end PyAV's demuxing; the decoder
        # would take either for the end of the stream.
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            cut = True
            break
        yield from packet.decode()
    yield from stream.decode(None)  # what B-frames and threads held back
    if cut:
        raise _DamagedError("a frame's data end early")


def _converted(frames: Iterator[av.VideoFrame], path: Path, colour: Colour) -> Generator[np.ndarray, None, None]:
    """Upright RGB of each frame; a few are converted at a time, since one core converts slower than others decode."""
    import av

    threads = min(_CONVERTING, os.cpu_count() or 1)
    # One more than threads, and used in turn: no two frames in work share one.
    converters = [RgbConverter(colour, str(path)) for _ in range(threads + 1)]

    def finished(frame: av.VideoFrame, number: int) -> np.ndarray:
        return upright(converters[number % len(converters)](frame), frame, path)

    waiting: deque[Future[np.ndarray]] = deque()
    failure: Exception | None = None
    numbers = count()
    with ThreadPoolExecutor(threads) as pool:
        more = True
        while more or waiting:
            while more and len(waiting) < len(converters):
                try:
                    frame = next(frames)
                    if frame.is_corrupt:
                        raise _DamagedError("damaged data")
                    waiting.append(pool.submit(finished, frame, next(numbers)))
                except StopIteration:
                    more = False
                except (av.FFmpegError, _DamagedError) as error:
                    # The frames before it are whole and come first.
                    more, failure = False, error
            if waiting:
                yield waiting.popleft().result()
    if failure is not None:
        raise failure


def _broken(path: Path, count: int, reason: str) -> str:
    reason = _cut(path) or reason
    return f"{path}: truncated or damaged after {count} frames ({reason}); copy or download it again"


def _unreadable(path: Path, reason: str) -> MediaError:
    """Why not even one frame can be had: emptiness and missing bytes before what they lead to."""
    if path.stat().st_size == 0:
        return MediaError(f"{path}: the file is empty")
    cut = without_index(path) or _cut(path)
    return MediaError(f"{path}: {f'{cut}; copy or download it again' if cut else reason}")


def _cut(path: Path) -> str | None:
    size, stated = path.stat().st_size, stated_size(path)
    return f"cut off: it has {size:,} of the {stated:,} bytes that it states" if stated > size else None


def upright(pixels: np.ndarray, frame: av.VideoFrame, path: Path) -> np.ndarray:
    """A view of the pixels as the display matrix (ISO/IEC 14496-12: x' = ax + cy, y' = bx + dy) wants them seen."""
    a, b, c, d = _display_matrix(frame)
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    # Files hold sines and cosines rounded in several ways: a hundredth is 0.6 degrees.
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        degrees = math.degrees(math.atan2(b, a))
        raise MediaError(f"{path}: the display matrix turns it by {degrees:.1f} degrees; re-encode it upright")
    if crossed > straight:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if d < 0 else pixels


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d of the frame's display matrix, to any scale; the identity's where it has none."""
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV stumbles over side data of a kind that it has no name for; the angle it still tells.
        angle = math.radians(frame.rotation)
        return math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    return a, b, c, d


def _reason(error: Exception) -> str:
    """One line of an exception's own words."""
    words = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return words.splitlines()[0]
