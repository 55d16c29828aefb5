"""The pictures of a prepared asset as a task wants them: how many, how large, premultiplied."""

from __future__ import annotations

import numpy as np

from atoken.assets.cameras import Camera
from atoken.training.data.prepared import Prepared
from atoken.training.data.source import SampleError

__all__ = ["chosen_pictures", "pictures_problem", "premultiplied"]


def pictures_problem(own: int, side: int, count: int, size: int) -> str | None:
    """What is wrong with `own` pictures of `side` pixels where `count` of `size` pixels are wanted; None if nothing."""
    if own < count:
        return f"has {own} pictures, renders asks for {count}; prepare it with --pictures {count} or more"
    if side % size:
        return (
            f"its pictures have {side} pixels a side, no multiple of render_size {size}; prepare it again with "
            f"--picture-size {size}"
        )
    return None


def chosen_pictures(
    asset: Prepared, count: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[Camera, ...]]:
    """Some of an asset's pictures, drawn without repetition.

    Args:
        size: pixels along a side; that of the asset's pictures is it, or a multiple.

    Returns:
        uint8 [count, size, size, 4], sRGB with premultiplied alpha, and their cameras.

    Raises:
        SampleError: the asset has fewer pictures, or of another size.
    """
    total, own = asset.pictures.shape[:2]
    problem = pictures_problem(total, own, count, size)
    if problem is not None:
        raise SampleError(problem)
    places = rng.choice(total, count, replace=False)
    return premultiplied(asset.pictures[places], own // size), tuple(asset.cameras[int(place)] for place in places)


def premultiplied(pictures: np.ndarray, factor: int = 1) -> np.ndarray:
    """Bytes with straight alpha as bytes with premultiplied, means over squares of `factor` pixels.

    Args:
        pictures: uint8 [V, S, S, 4].

    Returns:
        uint8 [V, S / factor, S / factor, 4].
    """
    values = pictures.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255.0
    if factor > 1:
        count, side = len(values), values.shape[1] // factor
        values = values.reshape(count, side, factor, side, factor, 4).mean(axis=(2, 4))
    return np.rint(values).astype(np.uint8)
