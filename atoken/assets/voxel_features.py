"""What colours a voxel: 16 x 16 patches of the views, looked up where the voxel's centre is seen.

The paper reads two ways: its text gathers and averages over the relevant views, its figure 3 and the release take
the view nearest to the voxel. The release does so without asking whether that view sees the voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from atoken.assets.cameras import Camera
from atoken.assets.voxels import RESOLUTION, voxel_centres
from atoken.config import Gathering
from atoken.errors import InputError

__all__ = ["PATCH", "SIDE", "nearest_patches", "patches_of_views", "voxel_features"]

SIDE = 256
"""Pixels along the side of a view when it is cut."""

PATCH = 16
"""Pixels along the side of a patch; as many patches lie along the side of a view."""

CHANNELS = 3 * PATCH * PATCH


def patches_of_views(pictures: np.ndarray) -> np.ndarray:
    """Cut views as the release does: to 256 x 256 by PIL's LANCZOS, then into patches.

    Args:
        pictures: uint8 RGB ``[V, H, W, 3]``, square, on the ground that they shall be seen on (the release: black).

    Returns:
        uint8 ``[V, 256, 768]``: patches row after row, each flattened as (row, column, channel).
    """
    from PIL import Image

    if pictures.ndim != 4 or pictures.shape[1] != pictures.shape[2] or pictures.shape[3] != 3:
        raise InputError(f"views are square RGB pictures [views, side, side, 3], not {pictures.shape}")
    cut = np.empty((len(pictures), SIDE // PATCH, SIDE // PATCH, PATCH, PATCH, 3), np.uint8)
    for number, picture in enumerate(pictures):
        image = Image.fromarray(picture)
        if image.width != SIDE:
            image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        rows = np.asarray(image).reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH, 3)
        cut[number] = rows.transpose(0, 2, 1, 3, 4)
    return cut.reshape(len(pictures), -1, CHANNELS)


def voxel_features(
    coords: np.ndarray,
    patches: np.ndarray,
    cameras: Sequence[Camera],
    *,
    depth: np.ndarray | None = None,
    gathering: Gathering = "nearest",
    resolution: int = RESOLUTION,
) -> np.ndarray:
    """The colours that views give to voxels.

    Args:
        coords: ``[L, 3]``, as `occupied_by_points` gives them.
        patches: ``[V, 256, 768]``, as `patches_of_views` gives them.
        cameras: V of them.
        depth: ``[V, H, W]``, wanted by all but ``nearest``.
        gathering: ``nearest`` takes the view with the smallest depth of the voxel's centre, seen or not, as the
            release; ``visible`` the nearest of those that see it; ``average`` the mean over those that see it. A
            voxel that no view sees is given the nearest view whose picture it falls into.
        resolution: voxels along the side of the cube.

    Returns:
        float32 ``[L, 768]`` in 0..1; zeros where a voxel falls outside of the picture.
    """
    if gathering not in get_args(Gathering):
        raise InputError(f"voxels gather {', '.join(get_args(Gathering))}, not {gathering!r}")
    if not len(cameras) == len(patches) > 0:
        raise InputError(f"{len(patches)} views and {len(cameras)} cameras; give one for each, and at least one")
    if gathering == "nearest":
        return _looked_up(patches, *nearest_patches(coords, cameras, resolution))
    if depth is None or len(depth) != len(cameras):
        raise InputError(f"{gathering!r} wants the depth of each view, to know which voxels it sees")
    place, z = _places(coords, cameras, resolution)
    seen = _seen(coords, cameras, depth, resolution) & (place >= 0) & (z > 0)
    if gathering == "average":
        return _average(patches, place, z, seen)
    view = _nearest(z, seen, place)
    return _looked_up(patches, view, _of(place, view))


def nearest_patches(
    coords: np.ndarray, cameras: Sequence[Camera], resolution: int = RESOLUTION
) -> tuple[np.ndarray, np.ndarray]:
    """The release's choice for each voxel: the view with the smallest depth of its centre, and where that lies in it.

    Returns:
        views ``[L]``, and patches ``[L]``: row times 16 plus column, -1 outside of the picture.
    """
    place, z = _places(coords, cameras, resolution)
    view = z.argmin(0)
    return view, _of(place, view)


def _places(coords: np.ndarray, cameras: Sequence[Camera], resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each voxel's centre in each view: its patch, -1 outside of the picture, and its depth, both ``[V, L]``."""
    centres = voxel_centres(coords, resolution)
    place, depth = np.empty((len(cameras), len(coords)), np.int16), np.empty((len(cameras), len(coords)))
    last = SIDE // PATCH - 1
    for number, camera in enumerate(cameras):
        uv, depth[number] = camera.project(centres)
        # torch's grid_sample (nearest, align_corners): 0 and 1 are the centres of the outermost patches, halves go to
        # the even one. Not floor(16 u).
        column, row = np.rint(np.clip(uv * last, -2, last + 2)).T
        inside = (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
        place[number] = np.where(inside, row * (last + 1) + column, -1)
    return place, depth


def _seen(coords: np.ndarray, cameras: Sequence[Camera], depth: np.ndarray, resolution: int) -> np.ndarray:
    """bool ``[V, L]``: the pixel at the voxel's centre shows a surface, and none that hides the voxel. Says nothing of
    voxels outside of the picture or behind it.

    The surface that fills a voxel may lie anywhere in it: half its diagonal is granted.
    """
    centres, granted = voxel_centres(coords, resolution), 0.5 * 3**0.5 / resolution
    seen = np.empty((len(cameras), len(coords)), bool)
    height, width = depth.shape[1:]
    for number, camera in enumerate(cameras):
        uv, z = camera.project(centres)
        column, row = np.clip(np.floor(uv * [width, height]), 0, [width - 1, height - 1]).astype(np.int64).T
        surface = depth[number, row, column]
        seen[number] = (surface >= 0) & (z <= surface + granted)
    return seen


def _nearest(z: np.ndarray, seen: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The nearest view of those that see; else of those whose picture it falls into; else of all."""
    view = z.argmin(0)
    for good in ((place >= 0) & (z > 0), seen):
        better = np.where(good, z, np.inf).argmin(0)
        view = np.where(good.any(0), better, view)
    return np.asarray(view)


def _of(place: np.ndarray, view: np.ndarray) -> np.ndarray:
    return np.asarray(place[view, np.arange(len(view))])


def _looked_up(patches: np.ndarray, view: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    features = patches[view, chosen].astype(np.float32) / np.float32(255)
    features[chosen < 0] = 0
    return np.asarray(features)


def _average(patches: np.ndarray, place: np.ndarray, z: np.ndarray, seen: np.ndarray) -> np.ndarray:
    features = np.zeros((seen.shape[1], CHANNELS), np.float32)
    # Sums of bytes are exact in float32 up to 2^24 / 255 views, so that their order moves no bit.
    for number in range(len(patches)):
        mine = np.flatnonzero(seen[number])
        features[mine] += patches[number, place[number, mine]]
    count = seen.sum(0)
    features /= np.float32(255) * np.maximum(count, 1)[:, None].astype(np.float32)
    unseen = np.flatnonzero(count == 0)
    if len(unseen):
        view = _nearest(z[:, unseen], seen[:, unseen], place[:, unseen])
        features[unseen] = _looked_up(patches, view, _of(place[:, unseen], view))
    return features
