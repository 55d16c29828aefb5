"""Which cells of a grid a triangle touches: the separating axis test, for many triangles at once."""

from __future__ import annotations

import numpy as np

__all__ = ["touched_cells"]

_CHUNK = 1 << 19
"""Pairs of a triangle and a cell that are tested together: about 100 MB."""


def touched_cells(triangles: np.ndarray, resolution: int) -> np.ndarray:
    """Cells of the cube [0, resolution]^3 of unit cells that at least one triangle touches.

    The cells tried for a triangle are those of Open3D's `VoxelGrid`: per axis from the floor of its least
    coordinate on, one more than its rounded extent needs; borders count as touching. A triangle that lies in the
    plane between two cells is therefore in the upper one alone.

    Args:
        triangles: float64 ``[F, 3, 3]``, in cells.
        resolution: cells along a side.

    Returns:
        bool ``[resolution, resolution, resolution]``.
    """
    taken = np.zeros((resolution,) * 3, bool)
    low, high = triangles.min(1), triangles.max(1)
    first = np.floor(low).astype(np.int64)
    spans = np.rint(high - low).astype(np.int64) + 2
    cells = spans.prod(1)
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    offset, size = (normal * triangles[:, 0]).sum(1), np.abs(normal).sum(1)
    # What the plane of a triangle misses is dropped early, with a margin far above rounding.
    reach = size * (0.5 + 1e-9 * resolution)
    begin = 0
    while begin < len(triangles):
        # As many triangles as fit, and always one: the largest has (resolution + 2)^3 pairs.
        end = begin + max(int(np.searchsorted(np.cumsum(cells[begin : begin + _CHUNK]), _CHUNK, "right")), 1)
        owner = np.repeat(np.arange(begin, end), cells[begin:end])
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(cells[begin:end]) - cells[begin:end], cells[begin:end])
        deep, rest = rank % spans[owner, 2], rank // spans[owner, 2]
        cell = first[owner] + np.stack([rest // spans[owner, 1], rest % spans[owner, 1], deep], axis=1)
        near = np.abs(np.einsum("nk,nk->n", normal[owner], cell + 0.5) - offset[owner]) <= reach[owner]
        near &= ((cell >= 0) & (cell < resolution)).all(1)
        owner, cell = owner[near], cell[near]
        hit = cell[_touch(triangles[owner] - (cell + 0.5)[:, None])]
        taken[tuple(hit.T)] = True
        begin = end
    return taken


def _touch(triangles: np.ndarray) -> np.ndarray:
    """Does each triangle ``[N, 3, 3]`` touch the unit cube around 0? bool ``[N]``, borders included."""
    # The cube's own axes first: they settle most pairs, and the rest is costly.
    touching: np.ndarray = ((triangles.min(1) <= 0.5) & (triangles.max(1) >= -0.5)).all(1)
    left = np.flatnonzero(touching)
    corners = triangles[left]
    edges = np.roll(corners, -1, axis=1) - corners
    normal = np.cross(edges[:, 0], edges[:, 1])
    distance = np.abs((normal * corners[:, 0]).sum(1))
    apart = distance > 0.5 * np.abs(normal).sum(1)
    for edge in range(3):
        for axis in range(3):
            # The cross product of an edge and an axis of the cube has a 0 along that axis.
            j, k = (axis + 1) % 3, (axis + 2) % 3
            along_j, along_k = -edges[:, edge, k], edges[:, edge, j]
            shadow = corners[:, :, j] * along_j[:, None] + corners[:, :, k] * along_k[:, None]
            reach = 0.5 * (np.abs(along_j) + np.abs(along_k))
            apart |= (shadow.min(1) > reach) | (shadow.max(1) < -reach)
    touching[left[apart]] = False
    return touching
