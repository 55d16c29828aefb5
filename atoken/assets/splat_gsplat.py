"""Draw Gaussians on a CUDA device with gsplat (1.5 or newer).

Its "antialiased" mode with `eps2d` = kernel is the 2D filter of mip-splatting. Where it differs from
`splat_projection` and the release's rasteriser: alpha is at most 0.999 (there 0.99); a Gaussian reaches 3.33 sigma
by axis (there the tiles within 3 sigma of the longer axis), so that it fades out where there a faint border of at
most 1.1 % alpha is cut off; and Gaussians of one depth go by their place in the set. Its gradients are sums of
atomic additions, so that their last bits change from call to call.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from atoken.assets.gaussians import Gaussians
from atoken.assets.splat_projection import View

__all__ = ["missing", "render"]

_FARTHEST = 1e10
"""gsplat's own bound, where no `far` is given."""


def missing() -> str | None:
    """Why gsplat cannot draw here, or None. Where it has no compiled code but a compiler, this may compile it."""
    found = _gsplat()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _gsplat() -> ModuleType | str:
    try:
        package = importlib.import_module("gsplat")
        # The package itself can be imported where there is neither its compiled code nor a CUDA compiler.
        backend = importlib.import_module("gsplat.cuda._backend")
    except (ImportError, RuntimeError, OSError) as error:  # the latter two where its code cannot be compiled
        return f"gsplat cannot be imported ({' '.join(str(error).split())[:300]})"
    if backend._C is None:
        return "gsplat has neither compiled CUDA code nor a CUDA compiler (nvcc) here"
    return package


def render(gaussians: Gaussians, views: Sequence[View]) -> Tensor:
    """As `splat.render_views`, differentiable; the views differ in their cameras alone.

    Raises:
        InputError: NaN or infinity among the values.
    """
    gsplat = _gsplat()
    assert not isinstance(gsplat, str), gsplat
    gaussians.check_finite()
    view = views[0]
    if not len(gaussians):  # it does not take none
        return gaussians.means.new_zeros((len(views), view.height, view.width, 4), dtype=torch.float32)
    turns = [other.camera.world_to_camera.tolist() for other in views]
    # In pixels, as gsplat wants it.
    intrinsics = [(other.camera.intrinsics * [[view.width], [view.height], [1]]).tolist() for other in views]
    colours, alphas, _ = gsplat.rasterization(
        means=gaussians.means.float(),
        quats=gaussians.rotations.float(),
        scales=gaussians.scales.float(),
        opacities=gaussians.opacities.float(),
        colors=gaussians.colours.float(),
        viewmats=gaussians.means.new_tensor(turns, dtype=torch.float32),
        Ks=gaussians.means.new_tensor(intrinsics, dtype=torch.float32),
        width=view.width,
        height=view.height,
        near_plane=view.near,
        far_plane=min(view.far, _FARTHEST),
        eps2d=view.kernel,
        rasterize_mode="antialiased",
    )
    return torch.cat([colours, alphas], dim=-1)
