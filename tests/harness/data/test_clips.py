"""Prepared frames of a clip: the right ones, no more than asked for, ahead by a bound, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.video import read_video
from harness.data import open_clips
from harness.data.base import Clip, ClipShape, SampleError
from harness.data.clips import AHEAD, prepared_blocks, prepared_shape, read_ahead
from harness.data.geometry import ShapeError
from harness.data.prepare import Pipeline
from harness.errors import BenchError
from tests.harness.data.conftest import write_clip, write_sequence

NATIVE = Pipeline.parse("rgb|native")
SHAPE = ClipShape(height=20, width=24, rate=Fraction(24))


class Counting:
    """A clip of `total` grey frames, frame k of level k mod 256; knows how many were decoded and whether it is open."""

    def __init__(self, total: int, breaks_at: int | None = None) -> None:
        self.total, self.breaks_at = total, breaks_at
        self.decoded = 0
        self.open = False
        self.closed_by: threading.Thread | None = None

    def clip(self) -> Clip:
        return Clip(shape=SHAPE, sha256="", blocks=self.blocks)

    def frame(self, number: int) -> np.ndarray:
        return np.full((20, 24, 3), number % 256, np.uint8)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        self.open = True
        try:
            for start in range(0, self.total, size):
                numbers = range(start, min(start + size, self.total))
                for number in numbers:
                    if number == self.breaks_at:
                        raise SampleError("a.mp4", f"truncated after {number} frames")
                    self.decoded += 1
                yield np.stack([self.frame(number) for number in numbers])
        finally:
            self.open = False
            self.closed_by = threading.current_thread()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@settings(deadline=None, max_examples=40)
@given(total=st.integers(1, 40), limit=st.none() | st.integers(1, 50), size=st.integers(1, 17))
def test_every_frame_once_in_order_in_whole_blocks(total: int, limit: int | None, size: int) -> None:
    source = Counting(total)
    blocks = list(prepared_blocks(source.clip(), NATIVE, limit, size))
    wanted = min(total, total if limit is None else limit)
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert 0 < len(blocks[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0, 0, 0], np.arange(wanted))
    assert source.decoded == wanted
    assert not source.open


def test_of_a_four_hour_clip_only_the_beginning_is_read() -> None:
    source = Counting(4 * 3600 * 24)
    blocks = list(prepared_blocks(source.clip(), NATIVE, 300, 16))
    assert sum(map(len, blocks)) == 300
    assert source.decoded == 300
    assert not source.open


def test_no_more_than_the_bound_is_read_ahead() -> None:
    source = Counting(10_000)
    blocks = prepared_blocks(source.clip(), NATIVE, None, 4)
    for taken in (1, 2, 3):
        next(blocks)
        # One block waits, and one is being made; the thread has had time to go too far.
        deadline = time.monotonic() + 5
        while source.decoded < 4 * (taken + AHEAD + 1) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert source.decoded == 4 * (taken + AHEAD + 1)
    blocks.close()
    assert not source.open
    assert source.closed_by is not threading.current_thread()


def test_a_clip_that_nobody_asks_for_is_not_opened() -> None:
    source = Counting(10)
    prepared_blocks(source.clip(), NATIVE, None, 4).close()
    assert source.decoded == 0


def test_closing_stops_the_work_within_a_frame() -> None:
    class Slow(Counting):
        def blocks(self, size: int) -> Iterator[np.ndarray]:
            for block in super().blocks(size):
                time.sleep(0.02)
                yield block

    source = Slow(1_000)
    blocks = prepared_blocks(source.clip(), NATIVE, None, 50)
    next(blocks)
    decoded = source.decoded
    began = time.monotonic()
    blocks.close()
    assert source.decoded <= decoded + 2
    assert time.monotonic() - began < 0.5  # what is left of the block would take a second


def test_a_broken_file_comes_after_the_blocks_before_it() -> None:
    source = Counting(20, breaks_at=10)
    blocks = prepared_blocks(source.clip(), NATIVE, None, 4)
    assert [len(next(blocks)), len(next(blocks))] == [4, 4]
    with pytest.raises(SampleError, match=r"a\.mp4: truncated after 10 frames"):
        next(blocks)
    assert not source.open
    assert list(prepared_blocks(source.clip(), NATIVE, 8, 4))[-1][-1, 0, 0, 0] == 7  # the limit lies before it


def test_frames_are_prepared_as_images_are() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 40, 70, 3), dtype=np.uint8)
    shape = ClipShape(height=40, width=70, rate=Fraction(24))
    clip = Clip(shape=shape, sha256="", blocks=lambda size: iter(noise[i : i + size] for i in range(0, 7, size)))
    for text in ("rgb|resize_short(33,bicubic)|center_crop_multiple(16)", "rgb|resize_short_above(33,lanczos)"):
        pipeline = Pipeline.parse(text)
        got = np.concatenate(list(prepared_blocks(clip, pipeline, None, 3)))
        np.testing.assert_array_equal(got, np.stack([pipeline(frame) for frame in noise]))
        assert got.shape[1:3] == prepared_shape(shape, pipeline)
    assert prepared_shape(shape, Pipeline.parse("rgb|resize_short(33,bicubic)|center_crop_multiple(16)")) == (32, 48)


def test_full_hd_is_cropped_to_1072_rows() -> None:
    shape = ClipShape(height=1080, width=1920, rate=Fraction(24))
    assert prepared_shape(shape, Pipeline.parse("rgb|native|center_crop_multiple(16)")) == (1072, 1920)


def test_a_pipeline_that_leaves_8_bit_is_refused() -> None:
    text = "rgb|to_tensor|normalize"
    with pytest.raises(BenchError, match=r"prepare 'rgb\|to_tensor\|normalize': .* must stay 8-bit"):
        prepared_shape(SHAPE, Pipeline.parse(text))
    source = Counting(10)
    with pytest.raises(BenchError, match="8-bit"):
        next(prepared_blocks(source.clip(), Pipeline.parse(text), None, 4))
    assert source.decoded == 0


def test_frames_that_cannot_be_cropped_are_refused() -> None:
    blocks = prepared_blocks(Counting(10).clip(), Pipeline.parse("rgb|center_crop_multiple(32)"), None, 4)
    with pytest.raises(ShapeError, match="24 x 20 pixels: a side is below 32"):
        next(blocks)


def test_frames_of_another_size_are_refused() -> None:
    class Changing(Counting):
        def frame(self, number: int) -> np.ndarray:
            return super().frame(number) if number < 6 else np.zeros((20, 30, 3), np.uint8)

    source = Changing(10)
    blocks = prepared_blocks(source.clip(), NATIVE, None, 4)
    assert len(next(blocks)) == 4
    with pytest.raises(ShapeError, match="frame 6 is 30 x 20 pixels after preparation, and the clip's are 24 x 20"):
        list(blocks)
    assert not source.open


def test_read_ahead_gives_all_items_and_then_the_exception() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("six")

    ahead = read_ahead(items())
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="six"):
        next(ahead)
    assert list(read_ahead(iter(range(100)), ahead=7)) == list(range(100))


def test_an_abandoned_generator_ends_its_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(range(100)))
    assert next(ahead) == 0
    assert threading.active_count() == before + 1
    del ahead
    assert threading.active_count() == before


def test_the_protocol_chooses_between_the_two_conversions_of_colour(tmp_path: Path) -> None:
    """TokenBench's script reads through ffmpeg, whose fast conversion is a grey level darker on average."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "a.mp4", noise, codec="libx264", pixels="yuv420p")
    write_sequence(tmp_path / "b", noise)
    dataset = open_clips("folder", tmp_path)
    for text, colour in (("rgb|native", "accurate"), ("rgb(ffmpeg)|native", "ffmpeg")):
        pipeline = Pipeline.parse(text)
        file, folder = (np.concatenate(list(prepared_blocks(dataset.open(i), pipeline, None, 3))) for i in (0, 1))
        np.testing.assert_array_equal(file, read_video(path, colour=colour))  # type: ignore[arg-type]
        np.testing.assert_array_equal(folder, noise)
    assert (read_video(path) != read_video(path, colour="ffmpeg")).any()
