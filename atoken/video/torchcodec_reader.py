"""Frames of a video file through torchcodec, an optional package that needs FFmpeg's shared libraries."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np

from atoken.media import MediaError
from atoken.video.containers import stated_size
from atoken.video.decoding import opened, video_stream

__all__ = ["decoded_by_torchcodec"]

_AT_ONCE = 8


def decoded_by_torchcodec(path: Path) -> Generator[np.ndarray, None, None]:
    """The frames that `decoded` gives with colour "ffmpeg". The packets of the whole file are looked through first.

    Raises:
        MediaError: torchcodec or FFmpeg's libraries are missing, or as `decoded`.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined,import-not-found,unused-ignore]
    except (ImportError, RuntimeError, OSError):
        raise MediaError(
            f'{path}: the reader torchcodec is not installed, or finds no FFmpeg; install "atoken[video]" '
            "and a system's ffmpeg, or take the reader pyav"
        ) from None
    with opened(path) as container:
        index, stated = video_stream(container, path).index, video_stream(container, path).frames
    count = 0
    try:
        decoder = VideoDecoder(path, stream_index=index, dimension_order="NHWC", num_ffmpeg_threads=0)
        while count < len(decoder):
            frames = decoder.get_frames_in_range(count, min(count + _AT_ONCE, len(decoder)))
            yield from frames.data.numpy()
            count += len(frames.data)
    except (RuntimeError, ValueError, IndexError) as error:
        # Streams without all time stamps (MPEG-PS, B-frames in AVI) among others.
        raise MediaError(
            f"{path}: torchcodec stops after {count} frames ({' '.join(str(error).split())}); take the reader pyav"
        ) from None
    if stated_size(path) > path.stat().st_size and not 0 < stated <= count:
        raise MediaError(f"{path}: truncated after {count} frames; copy or download it again")
