"""Small files of every kind that a dataset meets: images, clips and folders of frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., bytes]


def grey_frames(count: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """uint8 ``[count, H, W, 3]``; frame k has level 10 k."""
    return np.full((count, *size, 3), 10 * np.arange(count, dtype=np.uint8)[:, None, None, None])


def write_clip(
    path: Path,
    frames: np.ndarray,
    rate: Fraction = Fraction(25),
    codec: str = "ffv1",
    pixels: str = "bgr0",
) -> Path:
    """Encode frames, without loss unless told otherwise; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sequence(folder: Path, frames: np.ndarray, name: str = "{:05d}.png") -> Path:
    """One image a frame."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


@pytest.fixture(scope="session")
def image_bytes() -> MakeImage:
    """Encode a small picture whose grey level is ``level``: ``image_bytes(level, "JPEG", size=(h, w))``."""

    def make(level: int = 0, kind: str = "PNG", size: tuple[int, int] = (6, 9)) -> bytes:
        data = io.BytesIO()
        Image.fromarray(np.full((*size, 3), level, np.uint8)).save(data, kind)
        return data.getvalue()

    return make
