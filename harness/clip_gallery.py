"""Pictures of one clip: original, reconstruction and error map side by side, as a small video and a poster."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from harness.gallery import ERROR_MAX, error_map
from harness.storage import make_folder, write_atomically

MOST_FRAMES = 150
"""Frames that are shown of a longer clip, about 5 s: enough for a dozen tiles of 16 frames, and still a small file."""

LONGEST_SIDE = 480
"""Panels are reduced, or small ones enlarged, by an integer, to the largest size with no side above this."""

_BT709 = 1  # The same number stands for it as matrix, primaries and transfer curve.
_LIMITED = 1
# One thread and no frames held back: the bytes are the same on every machine with this encoder. Quality 36 with a
# bound on the rate: noise in the error map would cost ten times what the pictures do.
_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "36", "b": "900k"}
_KEY_FRAMES = 32


def write_clip(
    folder: Path,
    stem: str,
    frames: Iterator[tuple[np.ndarray, np.ndarray]],
    *,
    rate: Fraction,
) -> dict[str, Any]:
    """Write ``<stem>.webm`` and ``<stem>.png`` into a run's gallery.

    The video is VP9 in BT.709 colours, which browsers play without licensed codecs. The poster is lossless: the
    shown frame with the largest squared error. Error maps are those of `harness.gallery.error_map`, but that the
    differences are averaged before they are coloured where panels are reduced.

    Args:
        folder: the gallery, directly below the run's folder.
        frames: original and reconstruction, uint8 RGB ``[H, W, 3]`` each, in order; read one by one and no
            further than they are shown.
        rate: frames per second.

    Returns:
        Of the record's gallery entry: ``video``, ``poster`` (paths below the run's folder), ``frames`` (how many are
        shown: the first ones, at most `MOST_FRAMES`), ``poster_frame`` (its index), ``rate``, ``height`` and
        ``width`` of one of the three panels, ``scale`` (panel pixels per frame pixel), ``error_max``, ``lossless``
        (every shown frame came back bit for bit).

    Raises:
        BenchError: the folder cannot be written.
        ValueError: no frames.
    """
    make_folder(folder)
    encoder: _Encoder | None = None
    poster: np.ndarray
    worst, poster_frame, shown = -1.0, 0, 0
    try:
        for original, reconstruction in islice(frames, MOST_FRAMES):
            panels = _Panels(*original.shape[:2])
            difference = np.maximum(original, reconstruction) - np.minimum(original, reconstruction)
            picture = panels.compose(original, reconstruction, difference)
            if encoder is None:
                encoder = _Encoder(picture.shape[0], picture.shape[1], rate)
            encoder.write(picture)
            flat = difference.ravel().astype(np.float32)
            error = float(flat @ flat)
            if error > worst:
                worst, poster, poster_frame = error, picture, shown
            shown += 1
        if encoder is None:
            raise ValueError(f"{stem}: no frames to show")
        video = encoder.finish()
    finally:
        if encoder is not None:
            encoder.close()
    write_atomically(folder / f"{stem}.webm", video)
    data = io.BytesIO()
    Image.fromarray(poster).save(data, "PNG", compress_level=6)
    write_atomically(folder / f"{stem}.png", data.getvalue())
    return {
        "video": f"{folder.name}/{stem}.webm",
        "poster": f"{folder.name}/{stem}.png",
        "frames": shown,
        "poster_frame": poster_frame,
        "rate": float(rate),
        "height": poster.shape[0],
        "width": poster.shape[1] // 3,
        "scale": panels.scale,
        "error_max": ERROR_MAX,
        "lossless": worst == 0,
    }


class _Panels:
    """Sets a frame, its reconstruction and their error side by side, at an integer scale and with even sides."""

    def __init__(self, height: int, width: int) -> None:
        longest = max(height, width)
        self._reduce = -(-longest // LONGEST_SIDE)
        self._enlarge = max(1, LONGEST_SIDE // longest)
        # Video has one colour for 2 x 2 pixels, and the error map is all colour (and all noise): it gets cells of
        # that size, which survive.
        self._cell = 2 if self._enlarge == 1 else 1

    @property
    def scale(self) -> float:
        return self._enlarge / self._reduce

    def compose(self, original: np.ndarray, reconstruction: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """uint8 ``[h, 3 w, 3]``, h and w even; `difference` is the absolute one, uint8 ``[H, W, 3]``."""
        red, green, blue = np.moveaxis(difference, 2, 0)
        sums = red.astype(np.float32) + green + blue
        pictures = [_reduced(original, self._reduce), _reduced(reconstruction, self._reduce)]
        height, width = pictures[0].shape[:2]
        errors = _COLOURS[np.rint(_reduced(sums, self._reduce * self._cell)).astype(np.int16)]
        panels = [*pictures, _enlarged(errors, self._cell)[:height, :width]]
        larger = [_enlarged(panel, self._enlarge) for panel in panels]
        # An odd side gets its last row or column twice: chroma is stored for 2 x 2 pixels.
        edge = ((0, height * self._enlarge % 2), (0, width * self._enlarge % 2), (0, 0))
        return np.concatenate([np.pad(panel, edge, mode="edge") for panel in larger], axis=1)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means over boxes of pixels; those at the edge may be smaller."""
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).reduce((min(factor, width), min(factor, height))))


def _enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(pixels, factor, 0), factor, 1)


def _colours() -> np.ndarray:
    """The error map's colour of each sum of the three channels' differences, uint8 ``[766, 3]``."""
    sums = np.arange(3 * 255 + 1)[None, :, None]
    channels = ((sums + np.array([2, 1, 0])) // 3).astype(np.uint8)
    colours: np.ndarray = error_map(np.zeros_like(channels), channels)[0]
    return colours


_COLOURS = _colours()


class _Encoder:
    """A WebM file in memory, written frame by frame."""

    def __init__(self, height: int, width: int, rate: Fraction) -> None:
        import av

        self._data = io.BytesIO()
        # bitexact: no random identifiers and no versions in the file.
        self._container = av.open(self._data, "w", format="webm", options={"fflags": "+bitexact"})
        # PyAV's stubs lack what is set below.
        self._stream = cast(Any, self._container.add_stream("libvpx-vp9", rate=rate, options=_VP9))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        codec = self._stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED
        codec.thread_count, codec.gop_size = 1, _KEY_FRAMES

    def write(self, picture: np.ndarray) -> None:
        """Encode one frame, uint8 RGB ``[H, W, 3]``."""
        import av

        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The whole file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._data.getvalue()

    def close(self) -> None:
        """Let go of the file. One that is left open takes the process with it when it is collected."""
        self._container.close()
