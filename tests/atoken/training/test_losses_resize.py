"""Squares against Pillow's bilinear resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from atoken.training.losses import to_square

SIZES = ((40, 64), (17, 16), (300, 100), (40, 64), (48, 48))


def _images(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*size, 3, generator=generator) * 2 - 1 for size in SIZES]


@pytest.mark.parametrize("side", [48, 224])
def test_each_image_is_stretched_as_pillow_does(side: int) -> None:
    images = _images()
    squares = to_square(images, side)
    assert squares.shape == (len(SIZES), 3, side, side)
    assert squares.dtype == torch.float32
    for image, square in zip(images, squares, strict=True):
        for channel in range(3):
            picture = Image.fromarray(image[..., channel].numpy(), mode="F")
            wanted = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(square[channel], wanted, atol=5e-5)


def test_an_image_of_that_size_is_untouched_and_company_changes_nothing() -> None:
    images = _images()
    squares = to_square(images, 48)
    assert torch.equal(squares[4], images[4].permute(2, 0, 1))
    for image, square in zip(images, squares, strict=True):
        assert torch.equal(to_square([image], 48)[0], square)


def test_gradients_reach_every_image() -> None:
    images = [image.double().requires_grad_() for image in _images()]
    assert torch.autograd.gradcheck(lambda *some: to_square(some, 7), tuple(images[1:2]))
    # Bilinear weights sum to 1: the mean of the squares passes on a whole unit to each image.
    gradients = torch.autograd.grad(to_square(images, 16).mean(dim=(1, 2, 3)).sum(), images)
    assert [gradient.sum().item() for gradient in gradients] == pytest.approx([1.0] * len(SIZES))


def test_half_precision_is_widened_first() -> None:
    images = [image.bfloat16() for image in _images()]
    with torch.autocast("cpu", torch.bfloat16):
        squares = to_square(images, 32)
    assert torch.equal(squares, to_square([image.float() for image in images], 32))
