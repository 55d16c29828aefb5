"""Pictures of Gaussians, as the release's CUDA rasteriser makes them.

Front-to-back alpha blending of projected Gaussians (`splat_projection`). Alpha below 1/255 is skipped, alpha is at
most 0.99, and a pixel is done before less than 1e-4 of the background's light would be left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from atoken.assets import splat_gsplat, splat_torch
from atoken.assets.cameras import Camera
from atoken.assets.gaussians import Gaussians
from atoken.assets.splat_projection import View, project, project_arrays
from atoken.errors import InputError

__all__ = ["Renderer", "over", "render", "render_views", "renderer_for"]

Renderer = Literal["auto", "compiled", "torch", "gsplat"]


def render(
    gaussians: Gaussians,
    camera: Camera,
    height: int,
    width: int,
    *,
    near: float = 0.2,
    far: float = math.inf,
    kernel: float = 0.1,
    renderer: Renderer = "auto",
) -> Tensor:
    """Draw Gaussians as a camera sees them: `render_views` for one camera.

    Returns:
        [height, width, 4].
    """
    return render_views(
        gaussians, [camera], height, width, near=near, far=far, kernel=kernel, renderer=renderer
    ).squeeze(0)


def render_views(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    height: int,
    width: int,
    *,
    near: float = 0.2,
    far: float = math.inf,
    kernel: float = 0.1,
    renderer: Renderer = "auto",
) -> Tensor:
    """Draw Gaussians as cameras see them.

    Three renderers draw the same picture:
    - "compiled", on the processor, with gradients in float32; the fastest there;
    - "torch", anywhere, in float64 too; differs from the first by rounding alone (1e-5);
    - "gsplat", on CUDA and with gradients, the fastest there, where that package is installed with its CUDA code. It
      cuts at other borders, so that pixels differ by up to 0.05 and by less than 1e-3 in the mean: `splat_gsplat`
      tells how.

    "auto" takes gsplat on CUDA where it can be used, else torch; on the processor compiled code, but torch where
    gradients are wanted in float64 (a part of `gaussians` requires them and autograd is on). Name one where pictures of
    two machines are compared: what "auto" takes depends on what is installed. `renderer_for` tells it. Gradients are
    the first derivatives alone; those of "compiled" and "torch" are the same bits each time.

    Args:
        gaussians: any number, none too.
        cameras: where to look from, at least one; intrinsics without skew.
        height, width: of the pictures, in pixels.
        near, far: centres at this depth or nearer, or farther than that, are left out whole. The release states 0.8
            and 1.6, but they only enter a projection matrix there: its rasteriser cuts at 0.2 alone, the default.
        kernel: variance in square pixels that the 2D filter adds; 0 for none.
        renderer: one of the three, or "auto".

    Returns:
        [cameras, height, width, 4] in the dtype of `gaussians` (float32 where compiled code or gsplat draws): red,
        green and blue times alpha (premultiplied), and alpha in 0 to 1. Colours may pass 1 as in 3DGS: see
        `Gaussians.colours`. `over` lays it over a background.

    Raises:
        InputError: NaN or infinite Gaussians (the part is named), no camera, a size, plane or kernel out of range,
            skewed intrinsics, half precision, or a renderer that cannot draw there.
    """
    if not cameras:
        raise InputError("pictures need at least one camera")
    if height < 1 or width < 1:
        raise InputError(f"a picture has at least one pixel, not {height}x{width}")
    if not 0 < near < far or math.isnan(far):
        raise InputError(f"near and far must satisfy 0 < near < far, got {near} and {far}")
    if not 0 <= kernel < math.inf:
        raise InputError(f"kernel must be 0 or a positive variance in square pixels, got {kernel}")
    if gaussians.means.dtype not in (torch.float32, torch.float64):
        raise InputError(f"Gaussians are drawn in float32 or float64, not {gaussians.means.dtype}; use .to(dtype=...)")
    for camera in cameras:
        (fx, skew, _), (skew_y, fy, _), bottom = camera.intrinsics.tolist()
        if skew or skew_y or bottom != [0, 0, 1] or fx <= 0 or fy <= 0:
            raise InputError(
                f"splats need intrinsics [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], not {camera.intrinsics.tolist()}"
            )
    views = [View(camera, height, width, near, far, kernel) for camera in cameras]
    chosen = renderer_for(gaussians, renderer)
    if chosen == "gsplat":
        return splat_gsplat.render(gaussians, views)
    if chosen == "torch":
        return splat_torch.blend([project(gaussians, view) for view in views], height, width)
    from atoken.assets import splat_numba

    if _followed(gaussians):
        return torch.stack([splat_numba.blend_followed(project(gaussians, view), height, width) for view in views])
    return torch.stack([splat_numba.blend(project_arrays(gaussians, view), height, width) for view in views])


def renderer_for(gaussians: Gaussians, renderer: Renderer = "auto") -> Renderer:
    """What `render` draws these Gaussians with, now.

    Raises:
        InputError: an unknown renderer, or one that cannot draw where the Gaussians are or give their gradients.
    """
    cuda = gaussians.means.is_cuda
    precise = _followed(gaussians) and gaussians.means.dtype != torch.float32
    if renderer == "auto":
        if cuda:
            return "gsplat" if splat_gsplat.missing() is None else "torch"
        return "torch" if precise else "compiled"
    if renderer not in get_args(Renderer):
        raise InputError(f"Gaussians are drawn by {', '.join(get_args(Renderer))}, not {renderer!r}")
    device = gaussians.means.device
    if renderer == "gsplat":
        if not cuda:
            raise InputError(f'gsplat draws on CUDA alone, and the Gaussians are on {device}; use renderer="torch"')
        if reason := splat_gsplat.missing():
            raise InputError(f'{reason}; pip install gsplat, or use renderer="torch"')
    if renderer == "compiled" and (cuda or precise):
        why = f"are on {device}" if cuda else f"are {gaussians.means.dtype} and want gradients"
        raise InputError(
            f"compiled code draws on the processor, with gradients in float32, and the Gaussians {why}; "
            'use renderer="torch"'
        )
    return renderer


def _followed(gaussians: Gaussians) -> bool:
    return torch.is_grad_enabled() and gaussians.requires_grad


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
