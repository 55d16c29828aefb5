"""The pictures of a clip: what a player reads in them, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from harness.clip_gallery import LONGEST_SIDE, MOST_FRAMES, write_clip
from harness.gallery import ERROR_MAX, error_map

Pair = tuple[np.ndarray, np.ndarray]


def pairs(n: int, height: int, width: int, noise: int = 20) -> list[Pair]:
    """A moving gradient, and the same with noise that is largest in the middle frame."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    made = []
    for place in range(n):
        original = np.stack([3 * x + 5 * place, 2 * y, np.full_like(x, 8 * place)], axis=2) % 256
        level = noise + (noise if place == n // 2 else 0)
        change = rng.integers(-level, level + 1, original.shape)
        made.append((original.astype(np.uint8), np.clip(original + change, 0, 255).astype(np.uint8)))
    return made


def write(folder: Path, made: list[Pair], rate: Fraction = Fraction(24)) -> dict[str, Any]:
    return write_clip(folder / "gallery", "000003", iter(made), rate=rate)


def frames(folder: Path, entry: dict[str, Any]) -> list[np.ndarray]:
    """Decoded, each pixel with the colour of its 2 x 2, by the formula of ITU-R BT.709 with its limited range."""
    with av.open(folder / entry["video"]) as container:
        return [_rgb(frame) for frame in container.decode(video=0)]


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    def plane(place: int, height: int, width: int) -> np.ndarray:
        data = np.frombuffer(frame.planes[place], np.uint8).reshape(-1, frame.planes[place].line_size)
        return data[:height, :width].astype(float)

    luma = (plane(0, frame.height, frame.width) - 16) / 219
    blue, red = (
        ((plane(place, frame.height // 2, frame.width // 2) - 128) / 224).repeat(2, 0).repeat(2, 1) for place in (1, 2)
    )
    r, b = luma + 2 * (1 - 0.2126) * red, luma + 2 * (1 - 0.0722) * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / (1 - 0.2126 - 0.0722)
    return np.clip(np.rint(255 * np.stack([r, g, b], axis=2)), 0, 255).astype(np.uint8)


def poster(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(folder / entry["poster"]))


def test_the_video_is_what_browsers_play_without_licensed_codecs(tmp_path: Path) -> None:
    entry = write(tmp_path, pairs(5, 50, 70), Fraction(30_000, 1001))
    assert entry["video"] == "gallery/000003.webm"
    with av.open(tmp_path / entry["video"]) as container:
        assert "webm" in container.format.name
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt) in [("vp9", "yuv420p"), ("libvpx-vp9", "yuv420p")]
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert float(stream.average_rate) == pytest.approx(30_000 / 1001, rel=1e-3)
        assert (context.width, context.height) == (3 * entry["width"], entry["height"])


def test_the_panels_are_original_reconstruction_and_error(tmp_path: Path) -> None:
    made = pairs(4, 60, 80)
    entry = write(tmp_path, made)
    assert (entry["height"], entry["width"], entry["scale"]) == (360, 480, 6.0)
    shown = poster(tmp_path, entry)[::6, ::6]  # enlarged 6 times: every pixel six times
    original, reconstruction = made[entry["poster_frame"]]
    np.testing.assert_array_equal(shown[:, :80], original)
    np.testing.assert_array_equal(shown[:, 80:160], reconstruction)
    np.testing.assert_array_equal(shown[:, 160:], error_map(original, reconstruction))


def test_the_poster_is_the_frame_with_the_largest_error(tmp_path: Path) -> None:
    made = pairs(7, 40, 40)
    entry = write(tmp_path, made)
    errors = [np.mean((a.astype(float) - b.astype(float)) ** 2) for a, b in made]
    assert entry["poster_frame"] == int(np.argmax(errors)) == 3
    assert entry["lossless"] is False
    exact = write(tmp_path, [(a, a) for a, _ in made])
    assert (exact["poster_frame"], exact["lossless"]) == (0, True)
    assert not poster(tmp_path, exact)[:, 2 * exact["width"] :].any()


def test_the_video_shows_every_frame_in_its_colours(tmp_path: Path) -> None:
    # Flat frames, so that only the colour conversion and its tags can be wrong, not the coder.
    colours = [(250, 10, 20), (10, 240, 30), (20, 30, 235), (128, 128, 128)]
    made = [(np.full((64, 64, 3), c, np.uint8), np.full((64, 64, 3), c, np.uint8) // 2) for c in colours]
    entry = write(tmp_path, made)
    decoded = frames(tmp_path, entry)
    assert len(decoded) == entry["frames"] == 4
    width = entry["width"]
    for (original, reconstruction), frame in zip(made, decoded, strict=True):
        wanted = (original[0, 0], reconstruction[0, 0], error_map(original, reconstruction)[0, 0])
        for place, colour in enumerate(wanted):
            middle = frame[entry["height"] // 2, place * width + width // 2]
            np.testing.assert_allclose(middle.astype(int), colour, atol=8)


def test_a_narrow_error_keeps_its_colour_when_chroma_is_halved(tmp_path: Path) -> None:
    original = np.full((270, 480, 3), 90, np.uint8)
    reconstruction = original.copy()
    reconstruction[:, 240] += 64  # one column, as wide as the error map's cells leave it: half the scale's end
    entry = write(tmp_path, [(original, reconstruction)] * 3)
    assert entry["scale"] == 1.0
    wanted = error_map(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 32, np.uint8))[0, 0].astype(int)
    column = frames(tmp_path, entry)[-1][100:200, 2 * 480 + 240].astype(int).mean(axis=0)
    assert np.abs(column - wanted).max() < 40
    np.testing.assert_array_equal(poster(tmp_path, entry)[100, 2 * 480 + 240], wanted)


def test_large_clips_are_reduced_by_whole_numbers_and_differences_before_colours(tmp_path: Path) -> None:
    original = np.zeros((540, 960, 3), np.uint8)
    reconstruction = original.copy()
    reconstruction[::4, ::4] = 16 * 16 // 4  # 4 x 4 pixels hold one of 64: 4 on average
    entry = write(tmp_path, [(original, reconstruction)])
    assert (entry["height"], entry["width"], entry["scale"]) == (270, 480, 0.5)
    wanted = error_map(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 4, np.uint8))[0, 0]
    np.testing.assert_array_equal(poster(tmp_path, entry)[10:200, 970:1400], np.broadcast_to(wanted, (190, 430, 3)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (33, 17), (301, 299), (2, 1500), (1081, 7), (481, 481)])
@pytest.mark.parametrize("n", [1, 2])
def test_any_size_and_a_single_frame(tmp_path: Path, size: tuple[int, int], n: int) -> None:
    entry = write(tmp_path, pairs(n, *size))
    assert entry["height"] % 2 == entry["width"] % 2 == 0
    assert max(entry["height"], entry["width"]) <= LONGEST_SIDE
    decoded = frames(tmp_path, entry)
    assert [frame.shape for frame in decoded] == [(entry["height"], 3 * entry["width"], 3)] * n
    assert poster(tmp_path, entry).shape == decoded[0].shape
    assert entry["frames"] == n


@pytest.mark.parametrize(
    "rate", [Fraction(1, 2), Fraction(24), Fraction(30_000, 1001), Fraction(13978, 583), Fraction(240)]
)
def test_any_rate(tmp_path: Path, rate: Fraction) -> None:
    entry = write(tmp_path, pairs(4, 16, 16), rate)
    assert entry["rate"] == float(rate)
    with av.open(tmp_path / entry["video"]) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([float(place / rate) for place in range(4)], abs=1e-3)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    made = pairs(20, 96, 130)
    entry = write(tmp_path / "a", made)
    assert write(tmp_path / "b", made) == entry
    for kind in ("video", "poster"):
        assert (tmp_path / "a" / entry[kind]).read_bytes() == (tmp_path / "b" / entry[kind]).read_bytes()


def test_no_more_is_read_than_shown(tmp_path: Path) -> None:
    (pair,) = pairs(1, 8, 8)
    read = 0

    def endless() -> Iterator[Pair]:
        nonlocal read
        while True:
            read += 1
            yield pair

    entry = write_clip(tmp_path, "x", endless(), rate=Fraction(30))
    assert read == entry["frames"] == MOST_FRAMES
    assert entry["error_max"] == ERROR_MAX


def test_a_clip_without_frames_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x: no frames"):
        write_clip(tmp_path, "x", iter(()), rate=Fraction(24))
