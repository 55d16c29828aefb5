"""Pictures of one asset: a turntable of original, reconstruction and error map, and its Gaussians for a viewer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atoken.assets.cameras import Camera, orbit
from harness.clip_gallery import write_clip

if TYPE_CHECKING:
    from atoken.assets.gaussians import Gaussians

TURN = 24
"""Views of a full turn, 15 degrees apart."""

SIDE = 384
"""Pixels along a view's sides."""

PITCH = 20.0
"""Degrees above the horizon from which the turntable is seen."""

GROUND = (74, 94, 118)
"""Colour (RGB, 0 to 255) that the views are laid on. Much furniture is grey, from black to white, or of wood: it all
stands out from a dull blue."""

MOST_GAUSSIANS = 100_000
"""Gaussians that a gallery keeps, 6.8 MB: a report of a dozen assets still opens at once."""

_RATE = Fraction(8)  # A full turn in 3 s.
_START = -math.pi / 2  # The front: models in axes with z up look along -y.


def turntable() -> list[Camera]:
    """The cameras of a full turn, from the asset's front; seen from above they go round counterclockwise."""
    pitch = math.radians(PITCH)
    return [orbit(_START + 2 * math.pi * view / TURN, pitch) for view in range(TURN)]


def write_asset(
    folder: Path,
    stem: str,
    views: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    tokens: int,
    voxels: int | None = None,
    splat: Gaussians | None = None,
) -> dict[str, Any]:
    """Write ``<stem>.webm``, ``<stem>.png`` and, of Gaussians, ``<stem>.ply`` into a run's gallery.

    Video, poster and error maps are those of `harness.clip_gallery.write_clip`, with a view for a frame.

    Args:
        folder: the gallery, directly below the run's folder.
        views: original and reconstruction from each camera of `turntable`, in its order: float32 RGBA
            ``[H, W, 4]``, premultiplied, nominally in 0..1.
        tokens, voxels: of the asset's code; voxels None where it has no grid.
        splat: the reconstruction, where it is made of Gaussians.

    Returns:
        Of the record's gallery entry: ``video``, ``poster``, ``splat`` (paths below the run's folder; splat None
        without Gaussians), ``views`` (how many are shown), ``poster_view``, ``rate``, ``height``, ``width``,
        ``scale``, ``error_max`` and ``lossless`` as of `write_clip`, ``ground`` (the colour that all lie on),
        ``rms`` (of each shown view: root of the mean squared error in grey levels of 255, on that ground),
        ``tokens``, ``voxels``, ``gaussians`` (None without any), ``splat_gaussians`` (how many of them are in
        the file: at most `MOST_GAUSSIANS`, those that cover most).

    Raises:
        BenchError: the folder cannot be written.
        InputError: NaN or infinity among the Gaussians.
        ValueError: no views.
    """
    rms: list[float] = []
    clip = write_clip(folder, stem, _laid(views, rms), rate=_RATE)
    entry = {name: clip[name] for name in ("video", "poster", "rate", "height", "width", "scale", "error_max")}
    entry |= {"views": clip["frames"], "poster_view": clip["poster_frame"], "lossless": clip["lossless"]}
    entry |= {"ground": list(GROUND), "rms": rms, "tokens": tokens, "voxels": voxels}
    if splat is None:
        return {**entry, "splat": None, "gaussians": None, "splat_gaussians": None}
    from atoken.assets.gaussian_files import save_ply

    kept = _thinned(splat)
    save_ply(kept, folder / f"{stem}.ply")
    entry["splat"] = f"{folder.name}/{stem}.ply"
    return {**entry, "gaussians": len(splat), "splat_gaussians": len(kept)}


def _laid(views: Iterable[tuple[np.ndarray, np.ndarray]], rms: list[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for pair in views:
        original, reconstruction = (_on_ground(view) for view in pair)
        error = original.astype(np.float32) - reconstruction
        rms.append(round(float(np.sqrt(np.square(error).mean())), 4))
        yield original, reconstruction


def _on_ground(view: np.ndarray) -> np.ndarray:
    colours = 255 * view[..., :3] + np.array(GROUND, np.float32) * (1 - view[..., 3:])
    return np.asarray(np.rint(np.clip(colours, 0, 255)).astype(np.uint8))


def _thinned(splat: Gaussians) -> Gaussians:
    """At most `MOST_GAUSSIANS`: those with the most opacity times area, in their order."""
    if len(splat) <= MOST_GAUSSIANS:
        return splat
    longest = splat.log_scales.topk(2, dim=1).values.sum(dim=1)
    # Logarithms: an area may underflow.
    weight = splat.opacities.log() + longest
    return splat[weight.topk(MOST_GAUSSIANS).indices.sort().values]
