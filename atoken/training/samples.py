"""Pictures of what a model in training makes of images: original, reconstruction and error, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atoken.files import replacing
from atoken.tokenizer import AToken
from atoken.training.data import center_crop

__all__ = ["comparison", "save_picture"]

SIZE = 256
GAIN = 4
"""Times that the error is shown brighter than it is."""


def comparison(model: AToken, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [256 n, 768, 3]: centre crops, their reconstructions, and the absolute error, four times as bright.

    Args:
        pixels: uint8 [H, W, 3], 256 pixels or more on each side.
    """
    crops = [center_crop(image, SIZE) for image in pixels]
    rows = []
    for crop, rebuilt in zip(crops, model.decode(model.encode(crops)), strict=True):
        error = np.abs(rebuilt.astype(np.int16) - crop) * GAIN
        rows.append(np.concatenate([crop, rebuilt, error.clip(0, 255).astype(np.uint8)], axis=1))
    return np.concatenate(rows)


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """Write a PNG.

    Raises:
        WriteError: the system refused.
    """
    with replacing(path) as aside:
        Image.fromarray(pixels).save(aside, "PNG")
