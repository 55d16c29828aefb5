"""Sizes that the release's resize rules give, worked out by hand from its source's rules."""

import pytest
import torch

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
