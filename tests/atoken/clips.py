"""Small clips made on the spot, and what ffmpeg's own program makes of them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

# ffmpeg's flags for our two conversions.
FLAGS = {"accurate": ("-sws_flags", "bicubic+accurate_rnd+full_chroma_int"), "ffmpeg": ()}


def ffmpeg(*arguments: object) -> bytes:
    """Run ffmpeg's program; what it writes to its standard output."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    done = subprocess.run([program, "-v", "error", "-nostdin", *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def by_ffmpeg(path: Path, shape: tuple[int, int], colour: str = "accurate") -> np.ndarray:
    """All frames of a clip as ffmpeg's program gives them, uint8 RGB ``[T, H, W, 3]``."""
    raw = ffmpeg("-i", path, *FLAGS[colour], "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, *shape, 3)


def moving(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Uint8 RGB ``[frames, H, W, 3]``: coloured squares that shift by a few pixels, so that B-frames pay."""
    rng = np.random.default_rng(height + width)
    picture = rng.integers(0, 256, (height // 8 + 9, width // 8 + 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    starts = [(3 * t % 64, 2 * t % 64) for t in range(frames)]
    return np.stack([picture[y : y + height, x : x + width] for y, x in starts])


def write_clip(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    pts: Iterable[int] | None = None,
    options: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Encode RGB frames at 25 per second; `settings` go to the codec context, `pts` are in 1/25 s."""
    with av.open(str(path), "w", options=dict(container or {})) as file:
        stream = file.add_stream(codec, rate=25, options=dict(options or {}))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for pixels, time in zip(frames, pts or range(len(frames)), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def turn(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Set the display matrix in the track header of an MP4 file (ISO 14496-12, version 0)."""
    file = bytearray(path.read_bytes())
    numbers = [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)]
    struct.pack_into(">9i", file, file.index(b"tkhd") + 4 + 4 + 20 + 8 + 8, *numbers, 1 << 30)
    path.write_bytes(file)
