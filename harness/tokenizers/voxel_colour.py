"""A floor without weights for 3D assets: each voxel's mean colour as one round Gaussian.

What a picture shows at a pixel lies in a voxel of the 64^3 grid; a voxel's colour is the mean of all pixels of all
input views that show it (so what no view shows is not there), three numbers to a token. A Gaussian and not a cube:
it passes through the same blending as what a learned decoder gives, opens in splat viewers, and a cube's hard
corners are errors that no reader would hold against 64^3 voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atoken.assets.gaussians import SH_DEGREE_0, Gaussians
from atoken.assets.voxels import RESOLUTION, unprojected, voxel_centres
from atoken.errors import InputError
from harness.errors import BenchError
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, GaussianPictures, InputViews
from harness.tokenizers.base import LatentMode, TokenizerCard

if TYPE_CHECKING:
    from atoken.assets.mesh import Mesh
    from atoken.assets.render import Views

SIGMA = 0.35
"""Standard deviation in voxels. On models that are none of the samples it had the highest PSNR of 0.2 to 0.35 in views
of 512 x 512 (smaller ones leave holes) and of 0.35 to 0.7 in views of 256 x 256 (larger ones blur)."""

OPACITY = 0.99
"""At a Gaussian's centre. 0.9 is within 0.1 dB of it."""


class VoxelColour(AssetTokenizer):
    """Mean colours on the grid."""

    card = TokenizerCard(
        name="voxel-colour",
        title="voxel-colour (floor)",
        modalities=("asset",),
        token_type="transform",
        latent_size=3,
        source="no model: mean colours of the input views in 64^3 voxels",
        settings={"grid": RESOLUTION, "shape": "isotropic Gaussian", "sigma_voxels": SIGMA, "opacity": OPACITY},
    )

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def encode_asset(
        self,
        mesh: Mesh,
        inputs: InputViews,
        *,
        latent: LatentMode,  # noqa: ARG002 - there is nothing to sample
        seed: int,  # noqa: ARG002
    ) -> EncodedAsset:
        coords, colours = mean_colours(inputs.render(mesh))
        if not len(coords):
            raise InputError(f"{mesh.name}: no view shows anything of it; is all of it transparent?")
        return EncodedAsset(payload=(coords, colours), tokens=len(coords), voxels=len(coords))

    def decode_asset(self, encoded: EncodedAsset) -> GaussianPictures:
        coords, colours = encoded.payload
        return GaussianPictures(balls(coords, colours, SIGMA, OPACITY).to(self._device))


def mean_colours(views: Views) -> tuple[np.ndarray, np.ndarray]:
    """Voxels that views show, and the mean of the pixels that show them.

    Returns:
        int32 ``[L, 3]`` in the order of ``argwhere``, and float32 sRGB in 0..1 ``[L, 3]``.
    """
    cells = np.floor((unprojected(views.depth, views.cameras) + 0.5) * RESOLUTION).astype(np.int64)
    # The surface of the cube itself belongs to the outermost voxels.
    cells = np.clip(cells, 0, RESOLUTION - 1)
    flat = (cells[:, 0] * RESOLUTION + cells[:, 1]) * RESOLUTION + cells[:, 2]
    pixels = views.colours[views.depth >= 0]
    counts = np.bincount(flat, minlength=RESOLUTION**3)
    taken = np.flatnonzero(counts)
    sums = np.stack([np.bincount(flat, pixels[:, channel], RESOLUTION**3)[taken] for channel in range(3)], axis=1)
    colours = sums / counts[taken, None] / 255
    coords = np.stack(np.unravel_index(taken, (RESOLUTION,) * 3), axis=1)
    return coords.astype(np.int32), colours.astype(np.float32)


def balls(coords: np.ndarray, colours: np.ndarray, sigma: float, opacity: float) -> Gaussians:
    """One round Gaussian at each voxel's centre.

    Args:
        coords: ``[L, 3]``.
        colours: ``[L, 3]``, sRGB in 0..1.
        sigma: standard deviation in voxels.
        opacity: at the centre.
    """
    count = len(coords)
    return Gaussians.of(
        means=torch.from_numpy(voxel_centres(coords)).float(),
        features_dc=(torch.from_numpy(colours) - 0.5) / SH_DEGREE_0,
        scales=torch.full((count, 3), sigma / RESOLUTION),
        rotations=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        opacities=torch.full((count,), opacity),
    )


def create(argument: str | None, *, device: str, dtype: str) -> VoxelColour:  # noqa: ARG001
    """Factory of ``voxel-colour``; `dtype` moves nothing.

    Raises:
        BenchError: an argument is given.
    """
    if argument:
        raise BenchError(f"voxel-colour takes no argument, got {argument!r}")
    return VoxelColour(device)
