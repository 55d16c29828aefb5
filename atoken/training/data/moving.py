"""Short clips made of photographs that pan, zoom and turn: motion below a pixel without a video's compression.

The prior is plain and written down here, not fitted to any clip: a quarter of the groups stands still, the others
pan by 0.05 to 8 pixels a frame (log-uniform, any direction); each zooms and turns a little; each frame has a
little noise of its own, as a camera's has.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

STILL = 0.25
PAN = (0.05, 8.0)
"""Pixels a frame, slowest and fastest."""
ZOOM = TURN = 0.004
"""Standard deviations, of the factor's logarithm and of the angle in radians, a frame."""
SHRINK = (1.0, 2.0)
"""Pixels of the photograph for one of the clip: clips show scenes more sharply than photographs at full size."""
NOISE = 2.0
"""Grey levels: largest standard deviation."""


def moving_clip(photo: Tensor, *, frames: int, side: int, random: torch.Generator, stride: float = 1.0) -> Tensor:
    """A square clip of one photograph in motion.

    Args:
        photo: uint8 ``[H, W, 3]``; what lies outside is its reflection.
        side: of the clip's frames, in pixels.
        random: what decides place, scale, motion and noise; a CPU generator.
        stride: how many frames of the motion lie between two of the clip.

    Returns:
        uint8 ``[frames, side, side, 3]``.
    """

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    height, width = photo.shape[:2]
    shrink = draw(*SHRINK)
    speed = 0.0 if draw() < STILL else math.exp(draw(*map(math.log, PAN)))
    direction = draw(0, 2 * math.pi)
    zoom, turn = (ZOOM * torch.randn(2, generator=random)).tolist()
    reach = shrink * side / 2
    row, column = (draw(min(reach, n / 2), max(n - reach, n / 2)) for n in (height, width))

    # Of each frame: (row, column) of its centre, and the steps in the photograph down and across the frame.
    t = stride * torch.arange(frames, dtype=torch.float64)
    factor, angle, way = shrink * torch.exp(zoom * t), turn * t, shrink * speed * t
    cos, sin = factor * angle.cos(), factor * angle.sin()
    centre = torch.stack([column + way * math.cos(direction), row + way * math.sin(direction)], dim=-1)
    down, across = torch.stack([sin, cos], dim=-1), torch.stack([cos, -sin], dim=-1)
    # grid_sample counts (column, row) from -1 to 1.
    scale = 2 / torch.tensor([width, height])
    centre, down, across = ((scale * part)[:, None, None].float() for part in (centre, down, across))
    steps = torch.arange(side) + 0.5 - side / 2
    places = centre - 1 + steps[:, None, None] * down + steps[:, None] * across
    pixels = photo.permute(2, 0, 1).float().expand(frames, -1, -1, -1)
    # Each pixel is the mean of 2x2 samples: at a whole shrink factor nothing is skipped, and a frame between two
    # pixels is as sharp as one on them.
    smooth = torch.zeros(frames, 3, side, side)
    for y, x in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)):
        grid = places + (y * down + x * across)
        smooth += F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    smooth = smooth.mul_(0.25).permute(0, 2, 3, 1)
    noise = draw(0, NOISE) * torch.randn(smooth.shape, generator=random)
    return (smooth + noise).round_().clamp_(0, 255).to(torch.uint8)
