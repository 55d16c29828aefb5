"""The steps of understanding protocols against torchvision's and the release's own rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from atoken.preprocess import process_image
from harness.data.prepare import Pipeline
from harness.errors import BenchError

sides = st.integers(16, 90)
shapes = st.tuples(sides, sides)


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([16, 33, 64]))
def test_squashing_is_torchvisions_resize_to_a_square(shape: tuple[int, int], size: int) -> None:
    # Taller than wide, Pillow 13 may go rows first, which published figures did not (see `harness.data.geometry`).
    pixels = noise((min(shape), max(shape)))
    theirs = transforms.Resize((size, size), InterpolationMode.BICUBIC)(Image.fromarray(pixels))
    assert np.array_equal(Pipeline.parse(f"rgb|resize({size},bicubic)")(pixels), np.asarray(theirs))


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_the_area_rule_has_the_releases_sides(shape: tuple[int, int]) -> None:
    pixels = noise(shape)
    wanted = process_image(torch.from_numpy(pixels), square_image_length=64, size_factor=4)
    made = Pipeline.parse("rgb|resize_area(64,4,bicubic)")(pixels)
    assert made.shape == tuple(wanted.shape)
    assert made.dtype == np.uint8
    rows, columns = shape
    assert made.shape[0] * made.shape[1] <= 64 * 64
    assert made.shape[0] / made.shape[1] == pytest.approx(rows / columns, rel=0.5)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_the_releases_ways_are_its_own(shape: tuple[int, int]) -> None:
    pixels = noise(shape)
    image = torch.from_numpy(pixels)
    area = Pipeline.parse("rgb|release_area(32,4)")(pixels)
    assert np.array_equal(area, process_image(image, square_image_length=32, size_factor=4).numpy())
    crop = Pipeline.parse("rgb|release_crop(32,4)")(pixels)
    wanted = process_image(image, min_resolution=(32, 32), max_resolution=(32, 32), size_factor=4)
    assert np.array_equal(crop, wanted.numpy())
    assert area.dtype == crop.dtype == np.float32


def test_a_strip_that_has_no_area_left_names_its_shape() -> None:
    for step in ("resize_area(64,16,bicubic)", "release_area(64,16)"):
        with pytest.raises(ValueError, match=r"4x400|400 x 4"):
            Pipeline.parse(f"rgb|{step}")(noise((4, 400)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rgb|resize(64)", r"resize\(N,FILTER\)"),
        ("rgb|resize_area(64,bicubic)", r"resize_area\(N,M,FILTER\)"),
        ("rgb|release_area(64,16)|resize(64,bicubic)", r"takes 8-bit pixels, but gets \[-1, 1\]"),
    ],
)
def test_a_wrong_step_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Pipeline.parse(text)
