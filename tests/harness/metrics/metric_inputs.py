"""Image pairs for the metrics' tests."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.prepare import to_unit_range
from harness.metrics.base import Pairs


def pairs_of(reference: Tensor, reconstruction: Tensor) -> Pairs:
    """Pairs of two uint8 ``[N, 3, H, W]`` batches."""
    return Pairs(
        reference=to_unit_range(reference),
        reconstruction=to_unit_range(reconstruction),
        reference_u8=reference,
        reconstruction_u8=reconstruction,
        tokens=[1] * len(reference),
    )


def images(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth random images with a little noise, uint8 ``[N, 3, H, W]``: nearer to photographs than noise is."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return (smooth * 255 + torch.randn(smooth.shape, generator=random) * 6).clamp(0, 255).round().to(torch.uint8)


def disturbed(batch: Tensor, strength: float = 12, seed: int = 1) -> Tensor:
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(seed)) * strength
    return (batch + noise).clamp(0, 255).round().to(torch.uint8)
