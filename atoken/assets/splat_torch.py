"""Blend projected Gaussians in torch, tile by tile: differentiable, on any device, for training at small sizes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected

__all__ = ["LARGEST_ALPHA", "LEAST_LIGHT", "blend"]

LARGEST_ALPHA = 0.99
"""No Gaussian hides more than this of what lies behind it."""

LEAST_LIGHT = 1e-4
"""A pixel is done before the Gaussian that would leave less of the background's light than this."""

_CHUNK = 1024
"""Gaussians that are blended at once: 1024 x 256 pixels are 1 MiB for each intermediate in float32."""


def blend(projected: Projected[Tensor], height: int, width: int) -> Tensor:
    """Blend front to back: [height, width, 4], colour times alpha and alpha.

    Each tile's chunks are computed again in the backward pass, so that memory holds the intermediates of one chunk
    and not of the whole picture.
    """
    down, across = -(-height // TILE), -(-width // TILE)
    left, top, right, bottom = projected.tiles.unbind(dim=1)
    rows = []
    for row in range(down):
        of_row = ((top <= row) & (row < bottom)).nonzero().squeeze(1)
        line = []
        for column in range(across):
            inside = (left[of_row] <= column) & (column < right[of_row])
            line.append(_tile(projected, of_row[inside], row, column))
        rows.append(torch.cat(line, dim=1))
    return torch.cat(rows, dim=0)[:height, :width]


def _tile(projected: Projected[Tensor], index: Tensor, row: int, column: int) -> Tensor:
    """[TILE, TILE, 4] from the Gaussians `index`, nearest first."""
    centres = projected.centres
    side = torch.arange(TILE, dtype=centres.dtype, device=centres.device)
    pixels = torch.cartesian_prod(side + row * TILE, side + column * TILE).flip(1)
    picture = pixels.new_zeros(len(pixels), 4)
    light = pixels.new_ones(len(pixels))
    live = light > 0
    for start in range(0, len(index), _CHUNK):
        given = (projected, index[start : start + _CHUNK], pixels, light, live)
        added, light, live = checkpoint(_chunk, *given, use_reentrant=False)
        picture = picture + added
        if not live.any():
            break
    return picture.reshape(TILE, TILE, 4)


def _chunk(
    projected: Projected[Tensor], index: Tensor, pixels: Tensor, light: Tensor, live: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What K Gaussians add to P pixels [P, 4], the light that they leave [P], and the pixels not done yet [P]."""
    dx, dy = (projected.centres[index].unsqueeze(1) - pixels).unbind(dim=-1)
    a, b, c = projected.conics[index].unsqueeze(2).unbind(dim=1)
    power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
    alpha = (projected.opacities[index].unsqueeze(1) * power.exp()).clamp_max(LARGEST_ALPHA)
    alpha = torch.where((alpha >= ALPHA_CUT) & (power <= 0), alpha, 0)
    after = light * (1 - alpha).cumprod(dim=0)
    # The light only falls, so the first Gaussian that would leave too little ends the pixel with all behind it.
    drawn = live & (after.detach() >= LEAST_LIGHT)
    before = torch.cat([light.unsqueeze(0), after[:-1]])
    weights = torch.where(drawn, alpha * before, 0)
    added = torch.cat([weights.T @ projected.colours[index], weights.sum(dim=0).unsqueeze(1)], dim=1)
    return added, after[-1], drawn[-1]
