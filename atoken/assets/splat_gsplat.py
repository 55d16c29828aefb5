"""Draw Gaussians on a CUDA device with gsplat (1.5 or newer).

Its "antialiased" mode with `eps2d` = kernel is the 2D filter of mip-splatting. Where it differs from
`splat_projection` and the release's rasteriser: alpha is at most 0.999 (there 0.99); a Gaussian reaches 3.33 sigma
by axis (there the tiles within 3 sigma of the longer axis), so that it fades out where there a faint border of at
most 1.1 % alpha is cut off; and Gaussians of one depth go by their place in the set.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from atoken.assets.gaussians import Gaussians
from atoken.assets.splat_projection import View
from atoken.errors import InputError

__all__ = ["render"]

_FARTHEST = 1e10
"""gsplat's own bound, where no `far` is given."""


def render(gaussians: Gaussians, view: View) -> Tensor:
    """As `splat.render`, differentiable.

    Raises:
        InputError: gsplat is not installed, or NaN or infinity among the values.
    """
    try:
        gsplat = importlib.import_module("gsplat")
    except ImportError as error:
        raise InputError(
            f"Gaussians on {gaussians.means.device} are drawn by gsplat, which cannot be imported ({error}): "
            "pip install gsplat, or move them with .to('cpu')"
        ) from None
    gaussians.check_finite()
    # In pixels, as gsplat wants it.
    intrinsics = view.camera.intrinsics * [[view.width], [view.height], [1]]
    colours, alphas, _ = gsplat.rasterization(
        means=gaussians.means.float(),
        quats=gaussians.rotations.float(),
        scales=gaussians.scales.float(),
        opacities=gaussians.opacities.float(),
        colors=gaussians.colours.float(),
        viewmats=gaussians.means.new_tensor(view.camera.world_to_camera[None], dtype=torch.float32),
        Ks=gaussians.means.new_tensor(intrinsics[None], dtype=torch.float32),
        width=view.width,
        height=view.height,
        near_plane=view.near,
        far_plane=min(view.far, _FARTHEST),
        eps2d=view.kernel,
        rasterize_mode="antialiased",
    )
    return torch.cat([colours[0], alphas[0]], dim=-1)
