"""Which voxels of the unit cube an asset fills: from depth maps as the AToken release, or from the mesh as TRELLIS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atoken.assets.cameras import Camera
from atoken.assets.mesh import Mesh
from atoken.assets.triangle_boxes import touched_cells
from atoken.errors import InputError

__all__ = ["MAX_POINTS", "RESOLUTION", "occupied_by_mesh", "occupied_by_points", "unprojected", "voxel_centres"]

RESOLUTION = 64
"""Voxels along a side of the cube [-0.5, 0.5]^3."""

MAX_POINTS = 500_000
"""The release keeps a random subset of this many points."""

_INSET = 1e-6
"""TRELLIS moves vertices this far into the cube before it looks for their voxels."""


def unprojected(depth: np.ndarray, cameras: Sequence[Camera], *, corner: bool = False) -> np.ndarray:
    """Points of the surface that depth maps show.

    Args:
        depth: ``[V, H, W]``, the camera's z; below 0 where there is nothing.
        cameras: V of them.
        corner: take the depth of pixel (i, j) to be that of its corner (i / H, j / W), as the release does. Our
            renderer measures it at the centre.

    Returns:
        float64 ``[N, 3]`` in the world, view after view, row after row.
    """
    if depth.ndim != 3 or len(depth) != len(cameras):
        raise InputError(f"depth is [views, height, width] with a camera for each, not {depth.shape}, {len(cameras)}")
    shift = 0.0 if corner else 0.5
    points = []
    for picture, camera in zip(depth, cameras, strict=True):
        rows, columns = np.nonzero(picture >= 0)
        z = picture[rows, columns].astype(np.float64)
        u, v = (columns + shift) / picture.shape[1], (rows + shift) / picture.shape[0]
        # Column by column: a product with a 3 x 3 matrix wakes every thread that BLAS has, for nothing.
        to_world = camera.world_to_camera[:3, :3].T @ np.linalg.inv(camera.intrinsics)
        ray = u[:, None] * to_world[:, 0] + v[:, None] * to_world[:, 1] + to_world[:, 2]
        points.append(z[:, None] * ray + camera.position)
    return np.concatenate(points) if points else np.zeros((0, 3))


def occupied_by_points(
    points: np.ndarray, resolution: int = RESOLUTION, *, most: int | None = MAX_POINTS, seed: int = 0
) -> np.ndarray:
    """Voxels with a point in them, as the release has it: a point on a border is in both.

    Args:
        points: ``[N, 3]``; those outside of the cube count for nothing.
        resolution: voxels along a side.
        most: of more points, a random subset of this many is taken, drawn from `seed` (the release draws without
            one); None takes all, which costs little here.
        seed: see `most`.

    Returns:
        int32 ``[L, 3]``, (i, j, k) along x, y, z, in the order of ``argwhere``.
    """
    if most is not None and len(points) > most:
        points = points[np.sort(np.random.default_rng(seed).choice(len(points), most, replace=False))]
    place = (points + 0.5) * resolution
    taken = np.zeros((resolution,) * 3, bool)
    # Where a coordinate is whole, the voxel below shares the border: floor and ceil - 1 differ there alone.
    upper, lower = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64) - 1
    _take(taken, upper)
    shared = np.flatnonzero((upper != lower).any(1))
    for choice in range(1, 8):
        axes = np.array([choice & 1, choice & 2, choice & 4], bool)
        _take(taken, np.where(axes, lower[shared], upper[shared]))
    return _coordinates(taken)


def occupied_by_mesh(mesh: Mesh, resolution: int = RESOLUTION) -> np.ndarray:
    """Voxels that the surface passes through, as TRELLIS has it (Open3D's `VoxelGrid` of a mesh): hidden ones too.

    Returns:
        as `occupied_by_points`.
    """
    vertices = np.clip(mesh.vertices, -0.5 + _INSET, 0.5 - _INSET)
    return _coordinates(touched_cells((vertices[mesh.faces] + 0.5) * resolution, resolution))


def voxel_centres(coords: np.ndarray, resolution: int = RESOLUTION) -> np.ndarray:
    """Centres of voxels ``[L, 3]`` in the world, float64."""
    return np.asarray((coords + 0.5) / resolution - 0.5)


def _take(taken: np.ndarray, cells: np.ndarray) -> None:
    inside = ((cells >= 0) & (cells < len(taken))).all(1)
    taken[tuple(cells[inside].T)] = True


def _coordinates(taken: np.ndarray) -> np.ndarray:
    return np.argwhere(taken).astype(np.int32)
