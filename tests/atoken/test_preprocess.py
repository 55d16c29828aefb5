"""Sizes that the release's resize rules give, worked out by hand from its source's rules."""

import pytest
import torch

from atoken.errors import InputError
from atoken.patches import pack_pixels
from atoken.preprocess import process_image


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((41, 102), (80, 80)),  # 0.784 x 41 = 32.16 rounds to 32, which is not above the least: the larger ratio
        ((43, 102), (32, 80)),  # 33.7 rounds to 34: the smaller ratio, then a multiple of 16
        ((20, 30), (32, 48)),  # below the least side: scaled up by 1.6
        ((70, 50), (64, 48)),  # within both: only cropped
    ],
)
def test_sides_are_judged_after_rounding(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = torch.full((*size, 3), 127.5)
    assert process_image(image, min_resolution=(32, 32), max_resolution=(80, 80)).shape[:2] == expected


def test_a_square_length_needs_no_resolutions() -> None:
    image = torch.rand(50, 70, 3) * 255
    alone = process_image(image, square_image_length=48)
    assert alone.shape == (32, 48, 3)
    assert torch.equal(
        alone, process_image(image, min_resolution=(32, 32), max_resolution=(64, 64), square_image_length=48)
    )


def test_a_side_that_vanishes_is_refused() -> None:
    # Of area 16 x 16 at this aspect: sqrt(42 / 62) * 16 = 13.2 columns, less than one patch of 16.
    with pytest.raises(InputError, match="62x42 would be resized to 16x0"):
        process_image(torch.zeros(62, 42, 3), square_image_length=16)


def test_short_clips_are_left_for_packing_to_fill() -> None:
    image = torch.full((16, 16, 3), 255, dtype=torch.uint8)
    assert torch.equal(process_image(image), torch.ones(16, 16, 3))
    tokens = pack_pixels([process_image(image)]).features.view(4, -1)
    assert (tokens[0] == 1).all()
    assert (tokens[1:] == 0).all()
