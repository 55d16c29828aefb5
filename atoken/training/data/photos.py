"""Photographs to measure on, decoded, and what measuring and starting share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoken.media import MediaError, is_image, list_media, read_image
from atoken.training.errors import TrainingError

__all__ = ["PATCH", "Photos", "center_crop", "load_photos", "patches"]

PATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Photos:
    """Decoded images.

    Attributes:
        ids: file names relative to the folder, sorted.
        pixels: uint8 [H, W, 3] each; sizes differ.
        skipped: "name: reason" of files that could not be used.
    """

    ids: list[str]
    pixels: list[np.ndarray]
    skipped: list[str]


def load_photos(folder: Path, *, smallest: int = PATCH) -> Photos:
    """Decode every image under `folder`.

    Broken files, and those with a side below `smallest` pixels, are left out and named in `skipped`.

    Raises:
        TrainingError: no such folder, or nothing in it that can be used.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; give a folder of images")
    ids, images, skipped = [], [], []
    try:
        paths = [path for path in list_media([folder]) if is_image(path)]
    except MediaError as error:
        raise TrainingError(str(error)) from None
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            pixels = read_image(path, name)
        except MediaError as error:
            skipped.append(str(error))
            continue
        if min(pixels.shape[:2]) < smallest:
            skipped.append(f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels, needs {smallest} on each side")
            continue
        ids.append(name)
        images.append(pixels)
    if not images:
        reason = f" (first: {skipped[0]})" if skipped else ""
        raise TrainingError(f"{folder}: no usable image in it{reason}; give a folder of images")
    return Photos(ids, images, skipped)


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` x `size` of [H, W, 3]; odd excess goes to the lower right."""
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def patches(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Whole 16x16x3 patches of images, from the upper left: float64 [N, 768] in [-1, 1]."""
    rows = []
    for image in pixels:
        h, w = (side // PATCH for side in image.shape[:2])
        cells = image[: h * PATCH, : w * PATCH].reshape(h, PATCH, w, PATCH, 3).transpose(0, 2, 1, 3, 4)
        rows.append(cells.reshape(h * w, -1))
    return np.concatenate(rows) / 127.5 - 1.0
