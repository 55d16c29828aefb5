"""Resizing and cropping to the letter of the libraries that published evaluations use.

Each function says whose arithmetic it follows; the tests compare it with that library pixel for pixel.

Pillow resizes in two passes with a rounding to 8 bits between them. Up to version 12 the columns came first;
from 13 on, images more than twice as tall as wide go rows first, which moves pixels by a few levels. Published
figures were made columns first, so both passes are done here one by one in that order, whatever Pillow is
installed. Tensors are resized in the same two passes, as torch does inside. In a pass each line depends on that
line alone: so only the lines that the crop keeps are computed, some at a time, without a change to any pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

# Resizes [H, W, 3] along one axis, the other staying as it is, to (height, width).
Kernel = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def _pillow(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), resample))


FILTERS: dict[str, Kernel] = {
    "bicubic": partial(_pillow, resample=Image.Resampling.BICUBIC),
    "bilinear": partial(_pillow, resample=Image.Resampling.BILINEAR),
    "lanczos": partial(_pillow, resample=Image.Resampling.LANCZOS),
    "box": partial(_pillow, resample=Image.Resampling.BOX),
}


def tensor_bilinear(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What torchvision's ``Resize`` (bilinear, antialiased) does to a float32 tensor, here ``[H, W, 3]``."""
    import torch

    if pixels.shape[1] == size[1] == 1:
        # torch (2.14) returns the first pixel everywhere where a single column is resized.
        return tensor_bilinear(pixels.repeat(2, axis=1), (size[0], 2))[:, :1]
    # The layout decides which kernel runs, and kernels differ in the last bit: ToTensor gives [C, H, W] in
    # that order in memory.
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()[None]
    resized = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


# No step may hold more pixels than this at once (Pillow takes 4 bytes a pixel, a float tensor 12).
MAX_PIXELS = 1 << 24


class ShapeError(ValueError):
    """Pixels of a shape that a step cannot take; the line says which."""


class TooLargeError(ShapeError):
    """An image of an extreme shape: resized, it would be larger than `MAX_PIXELS`."""

    def __init__(self, source: Sequence[int], result: tuple[int, int]) -> None:
        (h, w, *_), (new_h, new_w) = source, result
        super().__init__(
            f"{w} x {h} pixels would be resized to {new_w} x {new_h}: above the limit of {MAX_PIXELS} pixels"
        )


@dataclass(frozen=True, slots=True)
class Crop:
    """A centre crop: zeros added on each side of an image that is too small, then the window cut out.

    Attributes:
        pad: zeros to add at the left, top, right and bottom.
        top, left: corner of the window in the padded image.
    """

    pad: tuple[int, int, int, int]
    top: int
    left: int


def center_crop_of(shape: Sequence[int], size: int) -> Crop:
    """Where torchvision's ``CenterCrop(size)`` cuts: half offsets round to even, small sides are padded.

    Args:
        shape: height and width (and whatever follows).
    """
    height, width, *_ = shape
    missing_h, missing_w = max(size - height, 0), max(size - width, 0)
    pad = (missing_w // 2, missing_h // 2, (missing_w + 1) // 2, (missing_h + 1) // 2)
    top = round((height + missing_h - size) / 2.0)
    left = round((width + missing_w - size) / 2.0)
    return Crop(pad, top, left)


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """torchvision's ``CenterCrop(size)`` on ``[H, W, 3]`` of any dtype."""
    crop = center_crop_of(pixels.shape, size)
    left, top, right, bottom = crop.pad
    if any(crop.pad):
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)))
    return pixels[crop.top : crop.top + size, crop.left : crop.left + size]


def center_crop_multiple(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """The largest centre crop whose sides are multiples; half offsets are floored, as in AToken's release.

    Raises:
        ShapeError: a side is smaller than one multiple.
    """
    height, width = pixels.shape[:2]
    new_h, new_w = height // multiple * multiple, width // multiple * multiple
    if not (new_h and new_w):
        raise ShapeError(f"{width} x {height} pixels: a side is below {multiple}, and nothing is left to crop")
    top, left = (height - new_h) // 2, (width - new_w) // 2
    return pixels[top : top + new_h, left : left + new_w]


def short_side_rounded(shape: Sequence[int], size: int) -> tuple[int, int]:
    """``(height, width)`` as TokenBench's preprocessing has it: the long side is rounded, halves up."""
    height, width, *_ = shape
    short, long = sorted((height, width))
    new_long = int(long * size / short + 0.5)
    return (size, new_long) if height <= width else (new_long, size)


def short_side(shape: Sequence[int], size: int) -> tuple[int, int]:
    """``(height, width)`` after torchvision's ``Resize(size)``: the long side is truncated to an integer."""
    height, width, *_ = shape
    short, long = sorted((height, width))
    new_long = int(size * long / short)
    return (size, new_long) if height <= width else (new_long, size)


def same_area(shape: Sequence[int], size: int, multiple: int) -> tuple[int, int]:
    """``(height, width)`` of the same aspect and about ``size x size`` pixels, floored to multiples as AToken's
    release does it (`atoken.preprocess.process_image`, ``square_image_length``).

    Raises:
        ShapeError: a side would be smaller than one multiple.
    """
    height, width, *_ = shape
    columns = math.sqrt(width / height) * size
    rows = columns * height / width
    new_h, new_w = int(rows // multiple * multiple), int(columns // multiple * multiple)
    if not (new_h and new_w):
        raise ShapeError(f"{width} x {height} pixels at the area of {size} x {size}: a side would be below {multiple}")
    return new_h, new_w


def resize(pixels: np.ndarray, size: tuple[int, int], kernel: Kernel) -> np.ndarray:
    """Resize ``[H, W, 3]`` to ``size = (height, width)``.

    Args:
        kernel: one of `FILTERS` for uint8 (``Image.resize`` of Pillow up to 12), `tensor_bilinear` for float32.

    Raises:
        TooLargeError: the result would have more than `MAX_PIXELS` pixels, and more than the image has.
    """
    if math.prod(size) > max(MAX_PIXELS, math.prod(pixels.shape[:2])):
        raise TooLargeError(pixels.shape, size)
    return _resize_region(pixels, size, kernel, (0, 0), size)


def resize_window(
    pixels: np.ndarray, size: tuple[int, int], kernel: Kernel, *, top: int, left: int, window: int
) -> np.ndarray:
    """The ``window x window`` pixels at ``(top, left)`` of what `resize` would give, in bounded memory.

    Raises:
        TooLargeError: one line of the resized image would have more than `MAX_PIXELS` pixels.
    """
    if max(size) > MAX_PIXELS:
        raise TooLargeError(pixels.shape, size)
    return _resize_region(pixels, size, kernel, (top, left), (window, window))


def _resize_region(
    pixels: np.ndarray, size: tuple[int, int], kernel: Kernel, corner: tuple[int, int], region: tuple[int, int]
) -> np.ndarray:
    columns = _resize_axis(pixels, 1, size[1], kernel, first=corner[1], keep=region[1])
    return _resize_axis(columns, 0, size[0], kernel, first=corner[0], keep=region[0])


def _resize_axis(pixels: np.ndarray, axis: int, new: int, kernel: Kernel, *, first: int, keep: int) -> np.ndarray:
    """One pass: resize one axis to ``new`` lines and keep ``keep`` of them from ``first``."""
    step = max(1, MAX_PIXELS // max(new, pixels.shape[axis]))
    strips = []
    for start in range(0, pixels.shape[1 - axis], step):
        if axis:
            strip = pixels[start : start + step]
            strips.append(kernel(strip, (strip.shape[0], new))[:, first : first + keep])
        else:
            strip = pixels[:, start : start + step]
            strips.append(kernel(strip, (new, strip.shape[1]))[first : first + keep])
    return np.concatenate(strips, axis=1 - axis) if len(strips) > 1 else strips[0]


def adm_center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """guided-diffusion's ``center_crop_arr`` of uint8 ``[H, W, 3]``: the crop of ADM and its heirs.

    Halves with a box filter while the short side is at least twice ``size``, then resizes bicubically
    (sides rounded half to even), then cuts at floored offsets.

    Raises:
        TooLargeError: the long side would exceed `MAX_PIXELS`.
    """
    height, width = pixels.shape[:2]
    while min(height, width) >= 2 * size:
        height, width = height // 2, width // 2
        pixels = resize(pixels, (height, width), FILTERS["box"])
    scale = size / min(height, width)
    new_h, new_w = round(height * scale), round(width * scale)
    top, left = (new_h - size) // 2, (new_w - size) // 2
    return resize_window(pixels, (new_h, new_w), FILTERS["bicubic"], top=top, left=left, window=size)
