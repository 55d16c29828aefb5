"""Images of any size to the square that perceptual networks were trained on (paper 3.4: 224 x 224 by interpolation).

The paper names no interpolation. Here: bilinear, with the kernel widened when an image shrinks (antialias), over the
whole image whatever its aspect; this is Pillow's `BILINEAR`. Without the widening an image above 448 pixels would have
pixels that no perceptual term sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.training.losses.precision import widened

__all__ = ["SIDE", "to_square"]

SIDE = 224
"""Pixels along the side (paper 3.4)."""


def to_square(images: Sequence[Tensor], side: int = SIDE) -> Tensor:
    """Stretch images to squares, differentiably.

    On CUDA the gradient is summed in no fixed order (torch has no deterministic kernel for it).

    Args:
        images: each [H, W, 3] of any size, in [-1, 1] or beyond.

    Returns:
        [N, 3, side, side] float32; not clamped. An image of that size comes back as it is.
    """
    # Images of one size share a kernel launch; in a batch of crops that is all of them.
    sizes: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    parts = []
    for members in sizes.values():
        batch = widened(torch.stack([images[index] for index in members])).permute(0, 3, 1, 2)
        parts.append(F.interpolate(batch, size=(side, side), mode="bilinear", align_corners=False, antialias=True))
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([index for members in sizes.values() for index in members]).argsort()
    return torch.cat(parts)[order.to(parts[0].device)]
