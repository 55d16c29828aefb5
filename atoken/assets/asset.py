"""3D assets as the tokenizer takes them and gives them back: occupied voxels, each with a patch of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from atoken.tokens import VOXEL_GRID

if TYPE_CHECKING:
    from atoken.assets.mesh import Mesh
    from atoken.assets.mesh_to_asset import Recipe

__all__ = ["Asset", "VoxelFeatures", "check_voxels"]

RANGE_SLACK = 1e-3
"""Tolerance on [0, 1] for rounding in half precision."""


@dataclass(frozen=True, eq=False, init=False, slots=True)
class Asset:
    """A 3D object in the release's cube: voxels of a 64^3 grid that its surface fills, with their colours.

    The voxels may stand in any order: the order of an asset's rows is that of its tokens, and of all that is
    made of them. Reordering rows reorders results, and changes no value beyond the last float bits; but the noise of
    a sample is drawn row by row.

    Attributes:
        features: [L, C] floating point in [0, 1], C = 768 for the release's patches of 16 x 16: pixels of one
            patch, flattened as (row, column, RGB).
        coords: [L, 3] int32, voxel (i, j, k) along x, y, z, 0 to 63, no two alike.
        name: for messages.
    """

    features: Tensor
    coords: Tensor
    name: str = ""

    def __init__(
        self, features: Tensor | np.ndarray[Any, Any], coords: Tensor | np.ndarray[Any, Any], name: str = ""
    ) -> None:
        """Arrays or tensors; tensors are shared, not copied, where their dtype can stay.

        Raises:
            InputError: no voxel, other shapes, features that are not finite or not in [0, 1], coordinates that
                are no whole numbers, lie outside of the grid or occur twice.
        """
        what = f"{name}: " if name else ""
        rows, places = _tensor(features), _tensor(coords)
        if rows.ndim != 2 or tuple(places.shape) != (len(rows), 3):
            raise InputError(
                f"{what}an asset has features [L, C] and coords [L, 3], got {list(rows.shape)}, {list(places.shape)}"
            )
        if not rows.numel():
            raise InputError(f"{what}the asset is empty: it has no voxel, or no features")
        if not rows.is_floating_point():
            raise InputError(f"{what}an asset's features are floats in [0, 1], not {rows.dtype}; divide pixels by 255")
        low, high = (float(value) for value in rows.detach().aminmax())
        if not -RANGE_SLACK <= low <= high <= 1 + RANGE_SLACK:
            raise InputError(f"{what}an asset's features must be finite and in [0, 1], got {low:g}..{high:g}")
        try:
            check_voxels(places)
        except InputError as error:
            raise InputError(f"{what}{error}") from None
        object.__setattr__(self, "features", rows)
        object.__setattr__(self, "coords", places.to(torch.int32))
        object.__setattr__(self, "name", name)

    @classmethod
    def from_mesh(cls, mesh: Mesh | Path | str, recipe: Recipe | None = None, *, cache: Path | None = None) -> Asset:
        """Look at a mesh from all around and make voxels of what is seen: `atoken.assets.mesh_to_asset`.

        Args:
            mesh: a file of `atoken.assets.mesh.FORMATS`, or what `load_mesh` gave.
            recipe: number of views, how voxels and colours are found; the release's way unless given.
            cache: a folder in which rendered views are kept for the next time.

        Raises:
            AssetError: a file that is no mesh that can be rendered; the line names it and why.
        """
        from atoken.assets.mesh_to_asset import voxelise

        return voxelise(mesh, recipe, cache=cache)

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.coords)


@dataclass(frozen=True, eq=False, slots=True)
class VoxelFeatures:
    """What the tokenizer's decoder gives for an asset, and what a Gaussian decoder takes.

    Attributes:
        features: [L, C] float32, about [-1, 1], not clamped: (pixels in 0..1) * 2 - 1 as they went in.
        coords: [L, 3] int32, the voxel of each, in the order of the tokens.
    """

    features: Tensor
    coords: Tensor

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.coords)


def check_voxels(coords: Tensor) -> None:
    """Make sure that voxel coordinates [L, 3] are whole, inside of the grid and no two alike.

    Raises:
        InputError: they are not; the line names the first voxel that is at fault.
    """
    if coords.is_floating_point() or coords.is_complex() or coords.dtype == torch.bool:
        raise InputError(f"voxel coordinates are whole numbers, not {coords.dtype}")
    places = coords.detach().to(torch.int64)
    outside = ((places < 0) | (places >= VOXEL_GRID)).any(dim=1)
    if bool(outside.any()):
        raise InputError(
            f"{int(outside.sum())} of {len(places)} voxels lie outside of 0 to {VOXEL_GRID - 1}, "
            f"first {_first(places, outside)}"
        )
    keys = (places[:, 0] * VOXEL_GRID + places[:, 1]) * VOXEL_GRID + places[:, 2]
    twice = torch.bincount(keys, minlength=1)[keys] > 1
    if bool(twice.any()):
        raise InputError(f"voxel {_first(places, twice)} occurs more than once; give each voxel one row")


def _first(places: Tensor, bad: Tensor) -> Sequence[int]:
    found: list[int] = places[int(bad.nonzero()[0])].tolist()
    return found


def _tensor(values: Any) -> Tensor:
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "uif" or values.dtype.itemsize > 8 or not values.dtype.isnative:
            raise InputError(f"an asset's arrays are of numbers, float32 and int32 for example, not {values.dtype}")
        # torch shares the memory; it cannot share read-only or negatively strided arrays.
        plain = np.ascontiguousarray(values)
        values = torch.from_numpy(plain if plain.flags.writeable else plain.copy())
    if not isinstance(values, Tensor):
        raise InputError(f"an asset takes arrays or tensors, not {type(values).__name__}")
    return values
