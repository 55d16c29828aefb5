"""Folders of numbered images, such as DAVIS's ``00000.jpg``, as clips."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path

import numpy as np

from atoken.media import MediaError, is_image, read_image

__all__ = ["image_sequence", "numbered"]

_NUMBER = re.compile(r"(\d+)(?=\D*$)")


def numbered(folder: Path) -> list[Path]:
    """The images of a folder in the order of the last number in their names; hidden files and others are left out.

    Raises:
        MediaError: no image, a name without a number, one number twice, a number missing between
            the first and the last, or a folder that cannot be read.
    """
    try:
        images = sorted(p for p in folder.iterdir() if is_image(p) and not p.name.startswith("."))
    except OSError as error:
        raise MediaError(f"{folder}: {error.strerror or error}") from None
    if not images:
        raise MediaError(f"{folder}: the folder holds no image; give a video file, or a folder of numbered frames")
    frames: dict[int, Path] = {}
    for image in images:
        number = _NUMBER.search(image.stem)
        if number is None:
            raise MediaError(f"{image}: no number in its name tells its place in the sequence; rename or remove it")
        other = frames.setdefault(int(number[0]), image)
        if other is not image:
            raise MediaError(f"{image}: has the same number as {other.name}; keep one sequence to a folder")
    order = sorted(frames)
    for before, after in pairwise(order):
        if after != before + 1:
            gap = f"frame {before + 1} is" if after == before + 2 else f"frames {before + 1} to {after - 1} are"
            raise MediaError(f"{folder}: {gap} missing after {frames[before].name}")
    return [frames[number] for number in order]


def image_sequence(folder: Path) -> Generator[np.ndarray, None, None]:
    """The frames, uint8 RGB ``[H, W, 3]``, by the rules of `atoken.media.read_image`.

    Raises:
        MediaError: as `numbered`, or an image that cannot be read.
    """
    for image in numbered(folder):
        yield read_image(image)
