"""H.264 and AV1 as streams through PyAV: frames in, packets out, frames back, with a bounded look-ahead.

Frames are stored as 8-bit 4:2:0 in BT.709, limited range, and the stream says so. libswscale converts both ways
with accurate rounding and bicubic chroma, back to RGB as `atoken.video` reads any clip. What is counted is what the
decoder needs: packets with their headers (parameter sets, sequence headers), without a container and without the
message in which x264 writes its own name and options into every stream (about 5,500 bit, more than many a short
clip).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from atoken.errors import InputError
from atoken.video.colour import RgbConverter
from harness.data.base import ClipShape
from harness.errors import BenchError

# libswscale's bicubic, full chroma input, accurate rounding and bit-exactness.
SWSCALE = 0x4 | 0x4000 | 0x40000 | 0x80000
BT709, LIMITED, FULL = 1, 1, 2  # as av.video.reformatter.Colorspace and ColorRange number them
# Of both encoders; SVT-AV1 goes wrong silently beyond 65,536.
LONGEST_SIDE = 16384
# Both encoders weigh frames by how long they last; beyond this the weight says nothing, and SVT-AV1 refuses.
SLOWEST, FASTEST = Fraction(1), Fraction(240)
NAL_START = re.compile(rb"\x00?\x00\x00\x01")
NAL_SEI = 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoFormat:
    """A video codec with every setting that moves its rate or its pixels.

    Attributes:
        name, title: as in a specification and in a table.
        encoder, decoder: FFmpeg's names.
        crfs: the constant rate factors that may be asked for, by rising quality (falling factor).
        smallest_side: in pixels, what the encoder takes; smaller frames are padded up to it.
        options: of the encoder.
    """

    name: str
    title: str
    encoder: str
    decoder: str
    crfs: tuple[float, ...]
    smallest_side: int
    options: dict[str, str]

    def encode(self, frames: Iterable[np.ndarray], shape: ClipShape, crf: float) -> Iterator[bytes]:
        """Packets of a clip, one for each frame, in decoding order.

        Args:
            frames: each uint8 RGB ``[H, W, 3]``; sides are padded at the lower and right edges by repetition.
            shape: of the frames.

        Raises:
            InputError: a side beyond `LONGEST_SIDE`.
        """
        context = self._context(shape, crf)
        convert = _converter()
        for index, pixels in enumerate(frames):
            frame = convert(self._padded(pixels))
            frame.pts = index
            yield from map(self._stripped, context.encode(frame))
        yield from map(self._stripped, context.encode(None))

    def decode(self, packets: Iterable[bytes], shape: ClipShape) -> Iterator[np.ndarray]:
        """Frames of a clip in order, uint8 RGB ``[H, W, 3]``."""
        import av

        # One thread: a second one only delays the frames by one more.
        context: Any = av.CodecContext.create(self.decoder, "r")
        context.thread_count = 1
        convert = RgbConverter("accurate", self.title)
        for packet in chain(map(av.Packet, packets), (None,)):
            for frame in context.decode(packet):
                yield convert(frame)[: shape.height, : shape.width]

    def settings(self) -> dict[str, Any]:
        """For the card. The encoder's version is part of it: another one writes other streams."""
        return {
            "encoder": _version(self),
            "options": dict(self.options),
            "pixels": "8-bit 4:2:0, BT.709, limited range; libswscale, bicubic, accurate rounding",
            "padding": f"by repetition to even sides, at least {self.smallest_side}",
            "rate": "packets with their headers; no container, no message with the encoder's name",
        }

    def _context(self, shape: ClipShape, crf: float) -> Any:
        """An encoder for one clip."""
        import av

        if max(shape.height, shape.width) > LONGEST_SIDE:
            raise InputError(
                f"{self.title} takes at most {LONGEST_SIDE} pixels a side, the frames have {shape.width}x{shape.height}"
            )

        # SVT-AV1 writes a page about itself to stderr unless it is told otherwise before its first use, and of errors
        # one for each clip that is given up midway (a broken file, a long clip in the gallery). Real ones are raised.
        os.environ.setdefault("SVT_LOG", "0")
        try:
            context: Any = av.CodecContext.create(self.encoder, "w")
        except av.codec.codec.UnknownCodecError:
            raise BenchError(
                f"{self.name}: this PyAV has no {self.encoder}; the wheels of PyAV have it (pip install --force av)"
            ) from None
        context.height, context.width = self._sides(shape.height, shape.width)
        context.pix_fmt = "yuv420p"
        rate = min(max(shape.rate, SLOWEST), FASTEST).limit_denominator(1001)
        context.framerate, context.time_base = rate, 1 / rate
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        # x264 writes other bits with another number of threads, so the number is fixed; SVT-AV1 does not (its
        # own number is in the options).
        context.thread_count = 1
        context.options = {**self.options, "crf": f"{crf:g}"}
        context.open()
        return context

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        return max(height + height % 2, self.smallest_side), max(width + width % 2, self.smallest_side)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        rows, columns = self._sides(height, width)
        return np.pad(pixels, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")

    def _stripped(self, packet: Any) -> bytes:
        """A packet without x264's message about itself."""
        data = bytes(packet)
        if self.decoder != "h264":
            return data
        starts = list(NAL_START.finditer(data))
        ends = [start.start() for start in starts[1:]] + [len(data)]
        units = zip(starts, ends, strict=True)
        return b"".join(data[start.start() : end] for start, end in units if data[start.end()] & 31 != NAL_SEI)


# Presets medium and 6 take about the same time. Both encoders aim at the least squared error (for x264 that is a
# choice, for SVT-AV1 the default), since PSNR is what tokenizers are compared by first: on bigbuckbunny at CRF 32 it
# is 0.4 dB more for 3 % fewer bits than x264's default, which aims at texture.
H264 = VideoFormat(
    name="h264",
    title="H.264",
    encoder="libx264",
    decoder="h264",
    crfs=tuple(51 - q / 2 for q in range(101)),
    smallest_side=2,
    # Without cpu-independent x264 (core 165) writes other bits from call to call: its fast macroblock tree rounds
    # by where memory happens to lie.
    options={"preset": "medium", "tune": "psnr", "g": "250", "x264-params": "cpu-independent=1"},
)
AV1 = VideoFormat(
    name="av1",
    title="AV1",
    encoder="libsvtav1",
    decoder="libdav1d",
    crfs=tuple(63.0 - q for q in range(63)),
    smallest_side=64,
    options={"preset": "6", "g": "250", "svtav1-params": "tune=1:lp=2"},
)


@cache
def _version(form: VideoFormat) -> str:
    """The encoder, its build where it says so, and the libraries around it."""
    import av

    context = form._context(ClipShape(height=64, width=64, rate=Fraction(24)), form.crfs[0])
    frame = _converter()(np.zeros((64, 64, 3), np.uint8))
    frame.pts = 0
    data = b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    build = re.search(rb"x264 - (core \d+)", data)
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    named = f"{form.encoder} ({build[1].decode()})" if build else form.encoder
    return f"{named}, PyAV {av.__version__}, libavcodec {libavcodec}"


def _converter() -> Callable[[np.ndarray], Any]:
    """Makes a frame in BT.709 of uint8 RGB ``[H, W, 3]``; keeps libswscale's tables from frame to frame."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def convert(pixels: np.ndarray) -> Any:
        converted = reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format="yuv420p",
            dst_colorspace=BT709,
            src_color_range=FULL,
            dst_color_range=LIMITED,
            interpolation=SWSCALE,
        )
        converted.colorspace, converted.color_range = BT709, LIMITED
        return converted

    return convert
