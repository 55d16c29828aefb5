"""Assets at a fraction of their size: as many voxels along each axis, so that a small machine can train on them.

A voxel's 64^3 grid has tens of thousands of voxels for a large asset, and attention costs their square. At half the
size a quarter of them is left, each of the size that it always has, and a camera at half the distance sees the same.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from atoken.assets.cameras import Camera
from atoken.tokens import VOXEL_GRID
from atoken.training.data.prepared import Prepared

__all__ = ["shrunk"]


def shrunk(asset: Prepared, factor: int, rng: np.random.Generator) -> Prepared:
    """The asset at 1 / `factor` of its size about the grid's centre.

    Args:
        factor: 1 leaves it as it is.
        rng: decides which of the voxels that fall into one stays, with its pixels.
    """
    if factor == 1:
        return asset
    order = rng.permutation(len(asset.coords))
    half = VOXEL_GRID // 2
    coords = (asset.coords[order].astype(np.int64) - half) // factor + half
    _, first = np.unique(coords, axis=0, return_index=True)
    return dataclasses.replace(
        asset,
        index=asset.index[order][first],
        coords=coords[first].astype(np.uint8),
        cameras=tuple(_closer(camera, factor) for camera in asset.cameras),
    )


def _closer(camera: Camera, factor: int) -> Camera:
    world = camera.world_to_camera.copy()
    world[:3, 3] /= factor
    return Camera(world, camera.intrinsics)
