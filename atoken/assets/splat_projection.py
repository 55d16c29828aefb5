"""Where Gaussians fall in a picture: the part of splatting that all renderers of `splat` share.

EWA projection as 3D Gaussian splatting does it, with the 2D filter of mip-splatting: the covariance on the picture
grows by a kernel, and the opacity shrinks by the square root of the ratio of the determinants. Constants and cuts
are those of the CUDA rasteriser that the release renders with (mip-splatting's `diff-gaussian-rasterization`,
`forward.cu` and `auxiliary.h`), so that a picture can be compared with the release's.

The arithmetic is written once, with operators that numpy and torch share: torch where gradients are wanted, numpy
where they are not. Both round alike, so both draw the same Gaussians in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from atoken.assets.cameras import Camera
from atoken.assets.gaussians import Gaussians
from atoken.errors import InputError

__all__ = ["ALPHA_CUT", "TILE", "Projected", "View", "project", "project_arrays"]

A = TypeVar("A", Tensor, np.ndarray)

TILE = 16
"""Side of a tile in pixels. A Gaussian reaches all pixels of the tiles that its square of 3 sigma touches, so this is
part of what a picture looks like and not only of how it is computed."""

ALPHA_CUT = 1 / 255
"""Less than this is not blended."""

_SMALLEST_AREA = 1e-6
"""Determinant in pixels^4: a Gaussian below it is not drawn. Keeps the ratio of determinants from dividing by 0 too."""

_BLOCK = 16384
"""Gaussians that numpy projects at once: few enough for the cache."""


@dataclass(frozen=True, slots=True)
class View:
    """What is seen: a camera without skew, the picture's size in pixels, and the filter (see `splat.render`)."""

    camera: Camera
    height: int
    width: int
    near: float
    far: float
    kernel: float


@dataclass(frozen=True, slots=True, eq=False)
class Projected(Generic[A]):
    """Gaussians that can be seen, nearest first; M of the N given.

    Attributes:
        centres: [M, 2], (x, y) in pixels; whole numbers are centres of pixels.
        conics: [M, 3], inverse of the 2D covariance (xx, xy, yy), per square pixel.
        opacities: [M], after the filter.
        colours: [M, 3].
        tiles: [M, 4] int32 (left, top, right, bottom), right and bottom exclusive, in tiles.
    """

    centres: A
    conics: A
    opacities: A
    colours: A
    tiles: A


def project(gaussians: Gaussians, view: View) -> Projected[Tensor]:
    """Project, cull and sort; differentiable in everything but the order and what is culled.

    Raises:
        InputError: as of `splat.render`.
    """
    gaussians.check_finite()
    depths = _camera_axes(gaussians.means, view)[2].detach()
    ahead = ((depths > view.near) & (depths <= view.far)).nonzero().squeeze(1)
    near = gaussians[ahead]
    flat = _Flat.of(near.means, near.rotations, near.scales, near.opacities, view)
    with torch.no_grad():
        tiles = _tiles(flat, view)
        drawn = _drawn(flat, tiles).nonzero().squeeze(1)
    order = _nearest_first(gaussians, ahead[drawn].cpu().numpy(), depths[ahead[drawn]].cpu().numpy())
    index = drawn[torch.from_numpy(order).to(drawn.device)]
    return Projected(
        torch.stack([flat.x, flat.y], dim=1)[index],
        (torch.stack([flat.yy, -flat.xy, flat.xx], dim=1) / flat.area.unsqueeze(1))[index],
        flat.opacity[index],
        near.colours[index],
        torch.stack(tiles, dim=1)[index].to(torch.int32),
    )


def project_arrays(gaussians: Gaussians, view: View) -> Projected[np.ndarray]:
    """`project` in float32 without gradients, on the processor.

    Raises:
        InputError: as of `splat.render`.
    """
    gaussians.check_finite()
    # Activated by torch here as there: all that comes after are operations that round correctly, so alike.
    parts = (gaussians.means, gaussians.rotations, gaussians.scales, gaussians.opacities, gaussians.colours)
    means, rotations, scales, opacities, colours = (part.detach().to("cpu", torch.float32).numpy() for part in parts)
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, max(len(means), 1), _BLOCK):
        depths = _camera_axes(means[start : start + _BLOCK], view)[2]
        ahead = start + np.flatnonzero((depths > view.near) & (depths <= view.far))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
            flat = _Flat.of(means[ahead], rotations[ahead], scales[ahead], opacities[ahead], view)
        tiles = _tiles(flat, view)
        drawn = np.flatnonzero(_drawn(flat, tiles))
        conics = np.stack([flat.yy, -flat.xy, flat.xx], axis=1) / flat.area[:, None]
        columns = (ahead, depths[ahead - start], np.stack([flat.x, flat.y], axis=1), conics, flat.opacity)
        found.append(tuple(column[drawn] for column in (*columns, np.stack(tiles, axis=1).astype(np.int32))))
    index, depths, centres, conics, opacities, tiles_of = (
        np.concatenate(column) for column in zip(*found, strict=True)
    )
    order = _nearest_first(gaussians, index, depths)
    return Projected(centres[order], conics[order], opacities[order], colours[index[order]], tiles_of[order])


@dataclass(frozen=True, slots=True, eq=False)
class _Flat(Generic[A]):
    """Gaussians on the picture, each attribute [N]: centre and covariance in pixels, its determinant with the filter
    (`area`) and without (`small`), opacity with the filter."""

    x: A
    y: A
    xx: A
    xy: A
    yy: A
    area: A
    small: A
    opacity: A

    @classmethod
    def of(cls, means: A, rotations: A, scales: A, opacities: A, view: View) -> _Flat[A]:
        """Project Gaussians in front of the camera, given by activated values.

        Raises:
            InputError: so large that their squares overflow.
        """
        width, height, kernel = view.width, view.height, view.kernel
        fx, cx = float(view.camera.intrinsics[0, 0] * width), float(view.camera.intrinsics[0, 2] * width)
        fy, cy = float(view.camera.intrinsics[1, 1] * height), float(view.camera.intrinsics[1, 2] * height)
        x, y, z = _camera_axes(means, view)
        # torch divides a number by a tensor in two steps; so that numpy rounds alike, here it is two.
        closeness = 1 / z
        slope_x, slope_y = x * closeness, y * closeness
        centre_x, centre_y = fx * slope_x + (cx - 0.5), fy * slope_y + (cy - 0.5)
        # The covariance is projected by a slope no further out than 0.15 pictures past the border: it explodes there.
        slope_x = slope_x.clip(-(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
        slope_y = slope_y.clip(-(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
        # The three axes of each ellipsoid, as they look in the picture.
        axes = _axes(rotations, scales, view)
        across = [(ax - slope_x * az) * (fx * closeness) for ax, _, az in axes]
        down = [(ay - slope_y * az) * (fy * closeness) for _, ay, az in axes]
        xx = across[0] * across[0] + across[1] * across[1] + across[2] * across[2]
        yy = down[0] * down[0] + down[1] * down[1] + down[2] * down[2]
        xy = across[0] * down[0] + across[1] * down[1] + across[2] * down[2]
        # The determinant xx yy - xy^2 as a sum of squares: the difference would lose all digits of a thin Gaussian.
        i, j, k = (across[m] * down[n] - across[n] * down[m] for m, n in ((0, 1), (0, 2), (1, 2)))
        small = i * i + j * j + k * k
        area = small + kernel * (xx + yy) + kernel * kernel
        # inf - inf and inf * 0 are NaN: one test sees them all.
        if not bool(((centre_x + centre_y + area) * 0 == 0).all()):
            raise InputError("Gaussians: means or scales are too large to be projected in their dtype; rescale them")
        ratio = small.clip(_SMALLEST_AREA) / (area.clip(_SMALLEST_AREA) + 1e-6)
        opacity = opacities * _root(ratio + 1e-6)
        return cls(centre_x, centre_y, xx + kernel, xy, yy + kernel, area, small, opacity)


def _root(squared: A) -> A:
    """Square root, rounded correctly: torch's own is not in float32, and numpy's is."""
    return squared**0.5 if isinstance(squared, np.ndarray) else (squared.double() ** 0.5).to(squared.dtype)


def _camera_axes(means: A, view: View) -> list[A]:
    """x, y and z of positions [N, 3] in the camera's axes, each [N]."""
    turn, shift = view.camera.world_to_camera[:3, :3].tolist(), view.camera.world_to_camera[:3, 3].tolist()
    return [part + by for part, by in zip(_turned(turn, [means[:, i] for i in range(3)]), shift, strict=True)]


def _turned(turn: list[list[float]], parts: list[A]) -> list[A]:
    """Rotate vectors given by component.

    Spelt out, not as a matrix product: every Gaussian goes through the same operations wherever it stands in the
    set, so that a permuted set gives the same picture to the last bit.
    """
    return [row[0] * parts[0] + row[1] * parts[1] + row[2] * parts[2] for row in turn]


def _axes(rotations: A, scales: A, view: View) -> list[list[A]]:
    """Half axes (1 sigma) of the ellipsoids in the camera's axes: three of three components, each [N]."""
    turn = view.camera.world_to_camera[:3, :3].tolist()
    w, x, y, z = (rotations[:, i] for i in range(4))
    columns = (
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    )
    return [[part * scales[:, i] for part in _turned(turn, column)] for i, column in enumerate(columns)]


def _tiles(flat: _Flat[A], view: View) -> list[A]:
    """Tiles that the square of 3 sigma of the longer axis touches: left, top, right and bottom, whole numbers."""
    middle = 0.5 * (flat.xx + flat.yy)
    longest = middle + _root((middle * middle - flat.area).clip(0.1))
    radius = -(-3 * _root(longest) // 1)  # rounded up
    right, bottom = -(-view.width // TILE), -(-view.height // TILE)
    return [
        ((flat.x - radius) / TILE).clip(0, right) // 1,
        ((flat.y - radius) / TILE).clip(0, bottom) // 1,
        ((flat.x + radius + (TILE - 1)) / TILE).clip(0, right) // 1,
        ((flat.y + radius + (TILE - 1)) / TILE).clip(0, bottom) // 1,
    ]


def _drawn(flat: _Flat[A], tiles: list[A]) -> A:
    """Which have an area, pass the cut of alpha somewhere, and touch a tile of the picture."""
    left, top, right, bottom = tiles
    return (flat.small > _SMALLEST_AREA) & (flat.opacity >= ALPHA_CUT) & (right > left) & (bottom > top)


def _nearest_first(gaussians: Gaussians, index: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Order by depth of the Gaussians `index`; those of one depth go by their own numbers, not by their place."""
    order = np.argsort(depths, kind="stable")
    same = depths[order][1:] == depths[order][:-1]
    if same.any():
        tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        members = order[tied]
        rows = gaussians[torch.from_numpy(index[members]).to(gaussians.means.device)]
        parts = (rows.means, rows.features_dc, rows.log_scales, rows.quaternions, rows.opacity_logits.unsqueeze(1))
        keys = torch.cat(parts, dim=1).detach().cpu().numpy()
        order[tied] = members[np.lexsort((*keys.T, depths[members]))]
    return order
