"""Which part of an image or clip is taken, and at what size: `view`, `resolution` and `smallest_part` of a task.

Sizes change by torch's bicubic on bytes with antialiasing (PIL's BICUBIC within two grey levels, in a fifth of its
time): the filter widens with the factor, so that nothing is skipped. Where the size stays, the pixels do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from atoken.training.data.source import PassedOverError, SampleError
from atoken.training.tasks import ImageTask

__all__ = ["Cut", "draw_cut", "draw_side"]

PATCH = 16
_ASPECTS = (3 / 4, 4 / 3)
"""Of a part that is stretched to a square, width by height."""
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a picture, and the size that it becomes.

    Attributes:
        box: left, top, right, lower border in pixels of the picture.
        height, width: of the result.
        mirrored: left and right change places.
    """

    box: tuple[int, int, int, int]
    height: int
    width: int
    mirrored: bool = False

    def of(self, frames: np.ndarray) -> np.ndarray:
        """The part of each frame, uint8 [T, height, width, 3] of [T, H, W, 3]; a view where no size changes."""
        left, top, right, lower = self.box
        part = frames[:, top:lower, left:right]
        if part.shape[1:3] != (self.height, self.width):
            # torch warns of what it must not write to.
            planes = torch.from_numpy(part if part.flags.writeable else part.copy()).permute(0, 3, 1, 2)
            resized = F.interpolate(planes, (self.height, self.width), mode="bicubic", antialias=True)
            part = resized.permute(0, 2, 3, 1).numpy()
        return part[:, :, ::-1] if self.mirrored else part


def draw_side(task: ImageTask, rng: np.random.Generator) -> int:
    """A side within the task's resolution, a multiple of 16."""
    low, high = task.resolution
    return low + task.side_step * int(rng.integers((high - low) // task.side_step + 1))


def draw_cut(height: int, width: int, task: ImageTask, side: int, rng: np.random.Generator) -> Cut:
    """The part of a picture of that height and width.

    Args:
        side: drawn for the step; "whole" draws a size of its own.

    Raises:
        SampleError: a side would have fewer than 16 pixels.
    """
    if task.view == "whole":
        return _whole(height, width, task, rng)
    if task.view == "crop":
        if min(height, width) < side:
            raise PassedOverError(f"{width}x{height} pixels, needs {side} on each side")
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        return Cut((left, top, left + side, top + side), side, side, mirrored=bool(rng.random() < 0.5))
    return _stretched(height, width, task, side, rng)


def _whole(height: int, width: int, task: ImageTask, rng: np.random.Generator) -> Cut:
    low, high = task.resolution
    native = math.sqrt(height * width)
    scale = max(low, min(rng.uniform(low, high), native)) / native
    # Forgiving rounding: 255.99999 is 256.
    h, w = (int(size * scale + 1e-6) // PATCH * PATCH for size in (height, width))
    if min(h, w) < PATCH:
        raise _small(height, width, f" at a mean side of {scale * native:.0f}")
    if scale == 1:
        return _middle(height, width, h, w)
    left, top, right, lower = _middle(height, width, min(round(h / scale), height), min(round(w / scale), width)).box
    return Cut((left, top, right, lower), h, w)


def _middle(height: int, width: int, h: int, w: int) -> Cut:
    top, left = (height - h) // 2, (width - w) // 2
    return Cut((left, top, left + w, top + h), h, w)


def _stretched(height: int, width: int, task: ImageTask, side: int, rng: np.random.Generator) -> Cut:
    """As torchvision's RandomResizedCrop: area and aspect are drawn until the part fits, else the middle is taken."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(task.smallest_part, 1.0)
        aspect = math.exp(rng.uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            break
    else:
        low, high = _ASPECTS
        w, h = min(width, round(height * high)), min(height, round(width / low))
        top, left = (height - h) // 2, (width - w) // 2
    return Cut((left, top, left + w, top + h), side, side, mirrored=bool(rng.random() < 0.5))


def _small(height: int, width: int, where: str = "") -> SampleError:
    return SampleError(f"{width}x{height} pixels{where}, needs {PATCH} on each side")
