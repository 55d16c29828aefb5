"""Polygons to triangles."""

from __future__ import annotations

import numpy as np

from atoken.assets.sources import AssetError

__all__ = ["MAX_CORNERS", "cut", "triangles"]

MAX_CORNERS = 5000
"""Cutting a polygon takes time with the square of its corners: some 10 s for as many."""


def cut(rings: np.ndarray, sizes: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut many polygons into triangles.

    Args:
        rings: ``[R]``, the corners of all polygons one after another, indices into `vertices`.
        sizes: ``[P]``, how many corners each has; those of less than 3 vanish.
        vertices: ``[V, 3]``.

    Returns:
        ``[F, 3]`` places in `rings`, and ``[F]`` the polygon of each triangle.

    Raises:
        AssetError: a polygon of more than `MAX_CORNERS` corners.
    """
    if int(sizes.max(initial=0)) > MAX_CORNERS:
        raise AssetError(f"has a face of {sizes.max()} corners, more than {MAX_CORNERS}; cut it into triangles")
    starts = np.cumsum(sizes) - sizes
    threes, fours = np.flatnonzero(sizes == 3), np.flatnonzero(sizes == 4)
    corners = vertices[rings[starts[fours, None] + np.arange(4)]]
    inward = np.zeros(len(fours), bool)
    with np.errstate(all="ignore"):  # vertices that are not finite are refused later, where all formats meet
        # A quadrangle bent inwards at corner 1 or 3 is cut from there: a fan from 0 would cover what lies outside.
        normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        for i in (1, 3):
            turn = np.cross(corners[:, i] - corners[:, i - 1], corners[:, (i + 1) % 4] - corners[:, i])
            inward |= (turn * normal).sum(1) < 0
    ways = np.array([[[0, 1, 2], [0, 2, 3]], [[1, 2, 3], [1, 3, 0]]])
    places = [
        starts[threes, None] + np.arange(3),
        (starts[fours, None, None] + ways[inward.astype(int)]).reshape(-1, 3),
    ]
    owners = [threes, fours.repeat(2)]
    for polygon in np.flatnonzero(sizes > 4):
        start = starts[polygon]
        found = start + np.array(triangles(vertices[rings[start : start + sizes[polygon]]]))
        places.append(found)
        owners.append(np.full(len(found), polygon))
    return np.concatenate(places), np.concatenate(owners)


def triangles(corners: np.ndarray) -> list[tuple[int, int, int]]:
    """Cut a polygon into triangles, by clipping ears; it may be bent inwards.

    Args:
        corners: ``[n, 3]``, n at least 3, in order; about flat.

    Returns:
        n - 2 triples of indices into `corners`, turning as the polygon does. Where no ear can be found (the
        polygon crosses itself, or has no area) the rest is cut as a fan.
    """
    count = len(corners)
    if count == 3:
        return [(0, 1, 2)]
    points = np.asarray(corners, np.float64)
    ahead = np.roll(points, -1, axis=0)
    # Newell's normal: of a polygon that is bent or not quite flat too.
    with np.errstate(all="ignore"):  # as above
        normal = np.cross(points - points[0], ahead - points[0]).sum(0)
    axis = int(np.abs(normal).argmax())
    flat = points[:, [(axis + 1) % 3, (axis + 2) % 3]] * np.array([1.0 if normal[axis] >= 0 else -1.0, 1.0])
    plane: list[tuple[float, float]] = [(float(x), float(y)) for x, y in flat]
    if all(_turn(plane[i - 1], plane[i], plane[(i + 1) % count]) >= 0 for i in range(count)):
        return _fan(list(range(count)))
    left = list(range(count))
    result: list[tuple[int, int, int]] = []
    while len(left) > 3:
        ear = next((i for i in range(len(left)) if _is_ear(plane, left, i)), None)
        if ear is None:
            return result + _fan(left)
        result.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    return [*result, (left[0], left[1], left[2])]


def _fan(ring: list[int]) -> list[tuple[int, int, int]]:
    return [(ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Twice the area of the triangle; positive where it turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _is_ear(plane: list[tuple[float, float]], left: list[int], i: int) -> bool:
    a, b, c = left[i - 1], left[i], left[(i + 1) % len(left)]
    if _turn(plane[a], plane[b], plane[c]) <= 0:
        return False
    corner = {plane[a], plane[b], plane[c]}
    return not any(
        plane[p] not in corner
        and _turn(plane[a], plane[b], plane[p]) >= 0
        and _turn(plane[b], plane[c], plane[p]) >= 0
        and _turn(plane[c], plane[a], plane[p]) >= 0
        for p in left
        if p not in (a, b, c)
    )
