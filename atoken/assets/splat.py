"""Pictures of Gaussians, as the release's CUDA rasteriser makes them.

Front-to-back alpha blending of projected Gaussians (`splat_projection`). Alpha below 1/255 is skipped, alpha is at
most 0.99, and a pixel is done before less than 1e-4 of the background's light would be left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from atoken.assets import splat_torch
from atoken.assets.cameras import Camera
from atoken.assets.gaussians import Gaussians
from atoken.assets.splat_projection import View, project, project_arrays
from atoken.errors import InputError

__all__ = ["over", "render"]


def render(
    gaussians: Gaussians,
    camera: Camera,
    height: int,
    width: int,
    *,
    near: float = 0.2,
    far: float = math.inf,
    kernel: float = 0.1,
) -> Tensor:
    """Draw Gaussians as a camera sees them.

    On CUDA gsplat draws. On the processor compiled code draws; where gradients are wanted (a part of `gaussians`
    requires them and autograd is on) torch does, with memory for one tile at a time: for small pictures.

    Args:
        gaussians: any number, none too.
        camera: where to look from; intrinsics without skew.
        height, width: of the picture, in pixels.
        near, far: centres at this depth or nearer, or farther than that, are left out whole. The release states 0.8
            and 1.6, but they only enter a projection matrix there: its rasteriser cuts at 0.2 alone, the default.
        kernel: variance in square pixels that the 2D filter adds; 0 for none.

    Returns:
        [height, width, 4] in the dtype of `gaussians` (float32 where compiled code or gsplat draws): red, green and
        blue times alpha (premultiplied), and alpha in 0 to 1. Colours may pass 1 as in 3DGS: see
        `Gaussians.colours`. `over` lays it over a background.

    Raises:
        InputError: NaN or infinite Gaussians (the part is named), a size, plane or kernel out of range, skewed
            intrinsics, half precision, or CUDA without gsplat.
    """
    if height < 1 or width < 1:
        raise InputError(f"a picture has at least one pixel, not {height}x{width}")
    if not 0 < near < far or math.isnan(far):
        raise InputError(f"near and far must satisfy 0 < near < far, got {near} and {far}")
    if not 0 <= kernel < math.inf:
        raise InputError(f"kernel must be 0 or a positive variance in square pixels, got {kernel}")
    if gaussians.means.dtype not in (torch.float32, torch.float64):
        raise InputError(f"Gaussians are drawn in float32 or float64, not {gaussians.means.dtype}; use .to(dtype=...)")
    (fx, skew, _), (skew_y, fy, _), bottom = camera.intrinsics.tolist()
    if skew or skew_y or bottom != [0, 0, 1] or fx <= 0 or fy <= 0:
        raise InputError(
            f"splats need intrinsics [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], not {camera.intrinsics.tolist()}"
        )
    view = View(camera, height, width, near, far, kernel)
    if gaussians.means.is_cuda:
        from atoken.assets import splat_gsplat

        return splat_gsplat.render(gaussians, view)
    if torch.is_grad_enabled() and gaussians.requires_grad:
        return splat_torch.blend(project(gaussians, view), height, width)
    from atoken.assets import splat_numba

    return splat_numba.blend(project_arrays(gaussians, view), height, width)


def over(picture: Tensor, background: Sequence[float] | Tensor) -> Tensor:
    """Lay a premultiplied picture over a plain background.

    Args:
        picture: [..., 4] as of `render`.
        background: red, green and blue.

    Returns:
        [..., 3], the picture's dtype.
    """
    plain = torch.as_tensor(background, dtype=picture.dtype, device=picture.device)
    if tuple(plain.shape) != (3,):
        raise InputError(f"a background is red, green and blue, not {list(plain.shape)}")
    return picture[..., :3] + (1 - picture[..., 3:]) * plain
