"""From a decoder's frame to 8-bit RGB.

The matrix is the one that the frame is tagged with: BT.601, BT.709, BT.2020 (non-constant luminance),
SMPTE 240M or FCC; BT.601 where there is no tag, whatever the size, as in ffmpeg. The range is full
where the frame says so, and limited (16..235) otherwise; grey is always taken as 0..255, as in ffmpeg.
Chroma lies in the middle between its luma samples (ffmpeg's convention too, also for codecs that define
another place).

Two conversions exist, since they differ by more than many a tokenizer from the next:

- ``accurate``: bicubic chroma and exact rounding, the bits of ``ffmpeg -sws_flags
  bicubic+accurate_rnd+full_chroma_int``. Within 0.52 of a grey level of the formula in real numbers
  where no chroma has to be interpolated (1.5 in full range of more than 8 bits, where ffmpeg has white
  at 255 x 2^(bits - 8)).
- ``ffmpeg``: the bits of ``ffmpeg -pix_fmt rgb24`` without flags, and so of imageio, mediapy (TokenBench's
  script) and torchcodec. Its fast path for 8-bit 4:2:0 and 4:2:2 repeats chroma and rounds
  down: about 1.1 grey levels too dark on average, 42 to 50 dB from the accurate one on real clips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atoken.media import MediaError

if TYPE_CHECKING:
    import av

__all__ = ["Colour", "RgbConverter"]

Colour = Literal["accurate", "ffmpeg"]

# libswscale's flags; PyAV names only the first.
_BICUBIC = 0x4
_FULL_CHROMA_INT = 0x2000
_ACCURATE_RND = 0x40000
_FLAGS = {"accurate": _BICUBIC | _FULL_CHROMA_INT | _ACCURATE_RND, "ffmpeg": _BICUBIC}

# ISO/IEC 23091-2, table 4, and libswscale's tables by the same numbers. 0 (RGB), 2 (not said) and 3 (reserved)
# tell nothing about YUV.
_BT601 = 5
_MATRICES = {0: _BT601, 1: 1, 2: _BT601, 3: _BT601, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9}
_UNREAD = {8: "YCgCo", 10: "BT.2020 constant luminance", 14: "ICtCp"}
_LIMITED, _FULL = 1, 2


class RgbConverter:
    """Converts the frames of one stream, which errors call `name`; keeps libswscale's tables from frame to frame."""

    def __init__(self, colour: Colour, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._colour, self._name = colour, name
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame as stored (not turned), uint8 RGB ``[H, W, 3]``, in memory that may be the frame's own.

        Raises:
            MediaError: a colour matrix that libswscale does not know.
        """
        layout = frame.format
        grey = len(layout.components) < 3
        yuv = not layout.is_rgb and not grey
        tag = int(frame.colorspace) if yuv else _BT601
        if yuv and tag not in _MATRICES:
            name = _UNREAD.get(tag, f"number {tag}")
            raise MediaError(f"{self._name}: the colour matrix {name} is not supported; convert the clip to BT.709")
        matrix = _MATRICES[tag]
        full = grey or layout.is_rgb or frame.color_range == _FULL or layout.name.startswith("yuvj")
        # PyAV sets matrix and range only where source and target differ in one. RGB has neither, and
        # libswscale would go from the one to the other by way of YUV.
        target = matrix if layout.is_rgb else 1 if matrix == _BT601 else _BT601
        # libswscale gives the same bits by way of planes, and twice to three times as fast.
        planar = yuv and self._colour == "accurate"
        converted = self._reformatter.reformat(
            frame,
            format="gbrp" if planar else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=target,
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_FLAGS[self._colour],
        )
        height, width = frame.height, frame.width
        if not planar:
            return _rows(converted.planes[0])[:, : 3 * width].reshape(height, width, 3)
        pixels = np.empty((height, width, 3), np.uint8)
        for channel, plane in zip((1, 2, 0), converted.planes, strict=True):
            pixels[..., channel] = _rows(plane)[:, :width]
        return pixels


def _rows(plane: Any) -> np.ndarray:
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
