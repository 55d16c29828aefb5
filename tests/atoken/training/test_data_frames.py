"""Which frames of a clip, at which stride; which part of a picture, at which size."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoken.training.data.frames import draw_count, draw_frames
from atoken.training.data.source import PassedOverError, SampleError
from atoken.training.data.views import Cut, draw_cut, draw_side
from atoken.training.tasks import ImageTask, VideoTask
from tests.atoken.training.pictures import picture

RECON = VideoTask(samples=1, share=1, resolution=(16, 64), frames=(8, 16), strides=((1, 3), (4, 12)))
SIDE = st.integers(1, 700)
SEED = st.integers(0, 2**32)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(count=st.integers(4, 400), seed=SEED)
def test_frames_at_a_stride(count: int, seed: int) -> None:
    wanted = draw_count(RECON, rng(seed))
    assert wanted in (8, 12, 16)
    numbers = draw_frames(count, Fraction(25), RECON, wanted, rng(seed))
    assert len(numbers) == min(wanted, count // 4 * 4)
    assert 0 <= numbers[0] <= numbers[-1] < count
    strides = set(np.diff(numbers).tolist())
    assert len(strides) == 1
    stride = strides.pop()
    assert 1 <= stride <= 12
    if count > 15 * 12:
        assert len(numbers) == wanted


def test_every_stride_and_every_start_is_drawn() -> None:
    found = [draw_frames(200, Fraction(25), RECON, 8, rng(seed)) for seed in range(600)]
    assert {f[1] - f[0] for f in found} == set(range(1, 13))
    # One range of the two first, then a stride of it: 3 small ones are as frequent as 9 large ones.
    assert 240 < sum(f[1] - f[0] <= 3 for f in found) < 360
    assert min(f[0] for f in found) < 5
    assert max(f[-1] for f in found) == 199


def test_short_clips() -> None:
    # 16 frames at stride 12 need 181.
    assert {len(draw_frames(31, Fraction(25), RECON, 16, rng(seed))) for seed in range(50)} == {16}
    assert max(np.diff(draw_frames(31, Fraction(25), RECON, 16, rng(seed))).max() for seed in range(50)) == 2
    assert draw_frames(6, Fraction(25), RECON, 16, rng(0)) in [list(range(s, s + 4)) for s in range(3)]
    with pytest.raises(SampleError, match="3 frames, needs 4"):
        draw_frames(3, Fraction(25), RECON, 16, rng(0))


@given(
    count=st.integers(4, 5000),
    rate=st.fractions(Fraction(1), Fraction(120), max_denominator=1001),
    fps=st.sampled_from([0.5, 1.0, 2.0, 8.0, 60.0]),
    seed=SEED,
)
def test_frames_at_a_rate(count: int, rate: Fraction, fps: float, seed: int) -> None:
    task = VideoTask(samples=1, share=1, resolution=(16, 64), frames=(4, 64), fps=fps)
    assert draw_count(task, rng(seed)) == 64
    numbers = draw_frames(count, rate, task, 64, rng(seed))
    assert len(numbers) % 4 == 0
    assert 4 <= len(numbers) <= 64
    steps = np.diff(numbers)
    assert (steps >= 1).all()
    assert 0 <= numbers[0] <= numbers[-1] < count
    step = max(float(rate) / fps, 1.0)
    fits = int((count - 1) / step) + 1
    if fits >= 4:
        assert len(numbers) == min(64, fits // 4 * 4)
        assert np.abs(steps - step).max() <= 1.0
    else:
        assert len(numbers) == 4
        assert np.ptp(steps) <= 1  # spread evenly


def test_a_minute_at_one_frame_a_second() -> None:
    task = VideoTask(samples=1, share=1, resolution=(16, 64), frames=(4, 64), fps=1)
    numbers = draw_frames(61 * 24, Fraction(24), task, 64, rng(0))
    assert len(numbers) == 60
    assert set(np.diff(numbers).tolist()) == {24}


# -- Views -----------------------------------------------------------------------------------


@given(height=SIDE, width=SIDE, seed=SEED)
def test_whole_images_keep_their_shape_and_are_not_enlarged_without_need(height: int, width: int, seed: int) -> None:
    task = ImageTask(samples=1, share=1, resolution=(64, 256))
    try:
        cut = draw_cut(height, width, task, 0, rng(seed))
    except SampleError:
        assert max(height, width) > 3 * min(height, width) or min(height, width) < 64
        return
    assert cut.height % 16 == cut.width % 16 == 0
    left, top, right, lower = cut.box
    assert 0 <= left < right <= width
    assert 0 <= top < lower <= height
    # The middle, at one scale both ways, and less than a patch lost.
    assert abs((left + right) / 2 - width / 2) <= 0.5
    assert abs((top + lower) / 2 - height / 2) <= 0.5
    native = (height * width) ** 0.5
    if (right - left, lower - top) == (cut.width, cut.height):
        scale = 1.0
    else:
        # The part is cut to whole pixels.
        low = max(cut.width / (right - left + 0.5), cut.height / (lower - top + 0.5))
        high = min(cut.width / (right - left - 0.5), cut.height / (lower - top - 0.5))
        assert low <= high
        scale = min(max(low, 64 / native), high)
        assert native * scale >= 64 - 1e-6
        assert native * low <= 256 + 1e-6
        assert low <= max(1.0, 64 / native)
    assert width * scale - cut.width < 16 * 1.05
    assert height * scale - cut.height < 16 * 1.05
    assert not cut.mirrored


def test_whole_images_of_the_size_wanted_come_as_they_are() -> None:
    image = picture(0, 100, 75)
    cut = draw_cut(100, 75, ImageTask(samples=1, share=1, resolution=(256, 256)), 0, rng(0))
    assert (cut.height, cut.width) == (288, 208)  # enlarged to what the lowest asks
    cut = draw_cut(100, 75, ImageTask(samples=1, share=1, resolution=(64, 4096)), 0, rng(1))
    np.testing.assert_array_equal(cut.of(image[None])[0], image[2:98, 5:69])


def test_sizes_of_whole_images_fill_the_range() -> None:
    task = ImageTask(samples=1, share=1, resolution=(64, 256))
    sides = {draw_cut(512, 512, task, 0, rng(seed)).height for seed in range(300)}
    assert sides == set(range(64, 256, 16))  # 256 itself is the end of the range


@given(height=SIDE, width=SIDE, seed=SEED, side=st.sampled_from([16, 48, 128]))
def test_crops_are_the_images_own_pixels(height: int, width: int, seed: int, side: int) -> None:
    task = ImageTask(samples=1, share=1, resolution=(16, 128), view="crop")
    if min(height, width) < side:
        with pytest.raises(PassedOverError, match=f"{width}x{height} pixels, needs {side}"):
            draw_cut(height, width, task, side, rng(seed))
        return
    cut = draw_cut(height, width, task, side, rng(seed))
    assert (cut.height, cut.width) == (side, side)
    image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    left, top = map(int, cut.box[:2])
    part = image[:, top : top + cut.height, left : left + cut.width]
    np.testing.assert_array_equal(cut.of(image), part[:, :, ::-1] if cut.mirrored else part)


def test_crops_reach_every_place_and_half_are_mirrored() -> None:
    task = ImageTask(samples=1, share=1, resolution=(32, 32), view="crop")
    cuts = [draw_cut(34, 33, task, 32, rng(seed)) for seed in range(400)]
    assert {cut.box[:2] for cut in cuts} == {(x, y) for x in range(2) for y in range(3)}
    assert 160 < sum(cut.mirrored for cut in cuts) < 240


@given(height=st.integers(16, 700), width=st.integers(16, 700), seed=SEED)
def test_resized_crops_are_squares_of_a_large_enough_part(height: int, width: int, seed: int) -> None:
    task = ImageTask(samples=1, share=1, resolution=(64, 64), view="resized-crop", smallest_part=0.5)
    cut = draw_cut(height, width, task, 64, rng(seed))
    left, top, right, lower = cut.box
    assert (cut.height, cut.width) == (64, 64)
    assert 0 <= left < right <= width
    assert 0 <= top < lower <= height
    aspect = (right - left) / (lower - top)
    assert 0.7 < aspect < 1.43  # 3/4 to 4/3, sides rounded
    if 0.75 <= width / height <= 4 / 3:
        assert (right - left) * (lower - top) >= 0.5 * height * width * 0.93


def test_images_are_shrunk_without_aliasing() -> None:
    # Lines of one pixel, black and white: what shrinks them by taking every fourth sees one of the two.
    lines = np.zeros((1, 256, 256, 3), np.uint8)
    lines[:, ::2] = 255
    small = Cut((0, 0, 256, 256), 64, 64).of(lines)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 1


@pytest.mark.parametrize("size", [(48, 64), (32, 96), (192, 240)])
def test_sizes_change_as_by_pils_bicubic(size: tuple[int, int]) -> None:
    from PIL import Image

    clip = np.stack([picture(seed, 120, 160) for seed in range(3)])
    clip.flags.writeable = False
    ours = Cut((16, 8, 144, 104), *size, mirrored=True).of(clip)
    for frame, result in zip(clip, ours, strict=True):
        theirs = Image.fromarray(frame[8:104, 16:144]).resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(theirs)[:, ::-1].astype(int) - result).max() <= 2


@pytest.mark.parametrize("step", [16, 32, 48])
def test_sides_are_the_lowest_and_multiples_of_the_step(step: int) -> None:
    task = ImageTask(samples=1, share=1, resolution=(32, 112), side_step=step)
    assert {draw_side(task, rng(seed)) for seed in range(100)} == set(range(32, 113, step))
