"""The release's `process_image`: resize rules and crop of its data loaders (FACTS section 5)."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from atoken.errors import InputError

__all__ = ["process_image"]


def process_image(
    image: Tensor,
    *,
    min_resolution: Sequence[int] | None = None,
    max_resolution: Sequence[int] | None = None,
    square_image_length: int | None = None,
    size_factor: int = 16,
) -> Tensor:
    """Resize by the release's rules, crop to a multiple of `size_factor`, scale to [-1, 1].

    Without resolutions nothing is resized. With `square_image_length` L the area becomes about
    L x L at the same aspect. Else sizes below `min_resolution` are scaled up, sizes above
    `max_resolution` down, and what still exceeds the latter is cropped. Resizing is bilinear
    WITHOUT antialiasing, as the release does it.

    Clips shorter than a patch are left short: packing fills them with mid grey (0 here). The
    release's loaders fill uint8 clips before scaling, with 127, which is 1/255 darker.

    Args:
        image: [H, W, C] or [T, H, W, C], values 0..255.
        min_resolution, max_resolution: (rows, columns), both or neither.
        square_image_length: side of the square of equal area; the resolutions play no part then.

    Returns:
        Float32 of the same number of dimensions, centre-cropped, in [-1, 1].

    Raises:
        InputError: another shape, one resolution without the other, or nothing left to crop.
    """
    if image.ndim not in (3, 4):
        raise InputError(f"expected [H, W, C] or [T, H, W, C], got {list(image.shape)}")
    if (min_resolution is None) != (max_resolution is None):
        raise InputError("give both min_resolution and max_resolution, or neither")
    clip = image if image.ndim == 4 else image.unsqueeze(0)
    clip = clip.to(torch.float32)
    height, width = clip.shape[1:3]
    limit = (height, width)
    if square_image_length is not None:
        limit = _square(height, width, square_image_length, size_factor)
        clip = _resize(clip, limit)
    elif min_resolution is not None and max_resolution is not None:
        limit = (max_resolution[0], max_resolution[1])
        clip = _resize(clip, _bounded(height, width, (min_resolution[0], min_resolution[1]), limit))
    rows = min(clip.shape[1], limit[0]) // size_factor * size_factor
    columns = min(clip.shape[2], limit[1]) // size_factor * size_factor
    if not rows or not columns:
        raise InputError(f"{height}x{width} is smaller than {size_factor}x{size_factor}")
    top, left = (clip.shape[1] - rows) // 2, (clip.shape[2] - columns) // 2
    clip = clip[:, top : top + rows, left : left + columns] / 127.5 - 1.0
    return clip if image.ndim == 4 else clip[0]


def _square(height: int, width: int, length: int, factor: int) -> tuple[int, int]:
    columns = sqrt(width / height) * length
    rows = columns * height / width
    return int(rows // factor * factor), int(columns // factor * factor)


def _bounded(height: int, width: int, smallest: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    if height < smallest[0] or width < smallest[1]:
        scale = max(smallest[0] / height, smallest[1] / width)
    elif height > largest[0] or width > largest[1]:
        ratios = (largest[0] / height, largest[1] / width)
        scale = min(ratios)
        # "Above" is judged on the rounded sides, as the release does.
        if round(height * scale) <= smallest[0] or round(width * scale) <= smallest[1]:
            scale = max(ratios)
    else:
        return height, width
    return round(height * scale), round(width * scale)


def _resize(clip: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(clip.shape[1:3]) == size:
        return clip
    if 0 in size:
        height, width = clip.shape[1:3]
        raise InputError(f"{height}x{width} would be resized to {size[0]}x{size[1]}; give larger resolutions")
    moved = interpolate(clip.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False, antialias=False)
    return moved.permute(0, 2, 3, 1)
