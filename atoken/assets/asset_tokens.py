"""Assets <-> pixel tokens (FACTS section 9): a voxel is a token at (t, x, y, z) = (0, i, j, k).

Its patch lies in the first of the token's frames, scaled to [-1, 1], as an image's does; the other frames are mid
grey. (The release writes t = 1, which every temporal tile counts from its own start: the result is the same.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.assets.asset import Asset, check_voxels
from atoken.errors import InputError
from atoken.tokens import ItemSpec, SparseTokens

__all__ = ["asset_coords", "asset_spec", "check_asset", "fill_asset", "patch_channels"]


def patch_channels(patch: tuple[int, int, int]) -> int:
    """Values of one frame of a token, which is what an asset's voxel holds."""
    return patch[1] * patch[2] * 3


def asset_spec(asset: Asset, patch: tuple[int, int, int]) -> ItemSpec:
    """What the asset is.

    Raises:
        InputError: its features are not those of this patch.
    """
    wanted = patch_channels(patch)
    if asset.features.shape[1] != wanted:
        raise InputError(
            f"an asset's voxels hold {wanted} values each ({patch[1]} x {patch[2]} pixels), got "
            f"{asset.features.shape[1]}"
        )
    return ItemSpec.of_voxels(len(asset))


def asset_coords(asset: Asset) -> Tensor:
    """Positions [L, 4] int32 of the asset's tokens, in the order of its voxels, on its device."""
    return F.pad(asset.coords, (1, 0))


def fill_asset(rows: Tensor, asset: Asset) -> None:
    """Write the voxels' pixels into the zeroed token rows [L, token channels] of their asset."""
    scaled = asset.features.detach().to(rows) * 2.0 - 1.0
    rows[:, : scaled.shape[1]] = scaled


def check_asset(item: SparseTokens) -> None:
    """Make sure that the tokens of one asset are voxels of it.

    Raises:
        InputError: another number than its spec says, several times, or no voxel coordinates.
    """
    spec, coords = item.items[0], item.coords
    if spec.voxels != len(coords):
        raise InputError(f"asset of {spec.voxels} voxels: it has {len(coords)} tokens; keep all tokens")
    if not torch.equal(coords[:, 0], coords[:1, 0].expand(len(coords))):
        raise InputError("asset: its tokens lie at several times; all voxels have one t")
    try:
        check_voxels(coords[:, 1:])
    except InputError as error:
        raise InputError(f"asset: {error}") from None
