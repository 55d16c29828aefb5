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

    # Each pixel is the mean of 2x2 samples: at a whole shrink factor nothing is skipped, and a frame between two
    # pixels is as sharp as one on them.
    steps = (torch.arange(2 * side) + 0.5) / 2 - side / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    clip = []
    for number in range(frames):
        t = stride * number
        factor, angle, way = shrink * math.exp(zoom * t), turn * t, shrink * speed * t
        rows = row + way * math.sin(direction) + factor * (math.cos(angle) * y - math.sin(angle) * x)
        columns = column + way * math.cos(direction) + factor * (math.sin(angle) * y + math.cos(angle) * x)
        clip.append(torch.stack([2 * columns / width - 1, 2 * rows / height - 1], dim=-1))
    pixels = photo.permute(2, 0, 1).float().expand(frames, -1, -1, -1)
    sampled = F.grid_sample(pixels, torch.stack(clip), mode="bilinear", padding_mode="reflection", align_corners=False)
    smooth = F.avg_pool2d(sampled, 2).permute(0, 2, 3, 1)
    noise = draw(0, NOISE) * torch.randn(smooth.shape, generator=random)
    return (smooth + noise).round_().clamp_(0, 255).to(torch.uint8)
