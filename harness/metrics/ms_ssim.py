"""Multi-scale structural similarity of views (Wang, Simoncelli and Bovik 2003), as torchmetrics computes it.

Five scales, each half of the one before by 2 x 2 means. Of the first four the mean contrast term counts, of the last
the mean SSIM, with the exponents of the paper. Windows are Gaussian, 11 x 11, sigma 1.5, the images continued by
reflection; contrast is taken of the pixels that need none of it. Terms below 0 count as 0.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.metrics.asset_base import ViewPair, checked_ground
from harness.metrics.asset_column import ViewColumn

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = 176
"""torchmetrics refuses less: at the last scale a side must be above the window's 10 steps."""

_SIGMA = 1.5
_RADIUS = 5
_MULTIPLE = 8


def ms_ssim(reference: Tensor, reconstruction: Tensor) -> np.ndarray:
    """MS-SSIM of each image, peak 1.

    Args:
        reference, reconstruction: uint8 ``[N, C, H, W]``.

    Returns:
        float64 ``[N]``; not-a-number where H or W is below `SMALLEST`.
    """
    if min(reference.shape[-2:]) < SMALLEST:
        return np.full(len(reference), np.nan)
    # In float64: in float32 the variances of flat grounds drown in rounding.
    x, y = (images.to(torch.float64) / 255 for images in (reference, reconstruction))
    terms = []
    for scale in range(len(EXPONENTS)):
        similarity, contrast = _terms(x, y)
        terms.append((similarity if scale == len(EXPONENTS) - 1 else contrast).clamp_min(0))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    exponents = torch.tensor(EXPONENTS, dtype=torch.float64, device=reference.device)[:, None]
    return np.asarray((torch.stack(terms) ** exponents).prod(dim=0).cpu().numpy())


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast term of each image: float64 ``[N]``."""
    moments = _filtered(torch.cat([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5)
    luminance, both = mean_x * mean_y, mean_x**2 + mean_y**2
    variances = (square_x - mean_x**2).clamp_min(0) + (square_y - mean_y**2).clamp_min(0)
    contrast = (2 * (product - luminance) + 0.03**2) / (variances + 0.03**2)
    similarity = (2 * luminance + 0.01**2) / (both + 0.01**2) * contrast
    inner = contrast[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return similarity.flatten(1).mean(1), inner.flatten(1).mean(1)


def _filtered(images: Tensor) -> Tensor:
    """Gaussian means around each pixel, the images continued by reflection."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    wide = F.pad(images, (_RADIUS,) * 4, mode="reflect")
    for axis in (-2, -1):
        # Shifted sums: torch's depthwise convolution is several times slower on CPU.
        length = wide.shape[axis] - 2 * _RADIUS
        weights = (bell / bell.sum()).tolist()
        total = wide.narrow(axis, 0, length) * weights[0]
        for place, weight in enumerate(weights[1:], 1):
            total.add_(wide.narrow(axis, place, length), alpha=weight)
        wide = total
    return wide


def to_multiple(images: Tensor) -> Tensor:
    """Images with sides that are multiples of 8, as AToken's release wants them; others are made smaller.

    The release's resampling is not among the facts that we have: ours is bilinear, to the multiple below. No shipped
    protocol has such sides.
    """
    height, width = (side - side % _MULTIPLE for side in images.shape[-2:])
    if (height, width) == tuple(images.shape[-2:]):
        return images
    sized = F.interpolate(images.to(torch.float64), (height, width), mode="bilinear", align_corners=False)
    return sized.round_().to(torch.uint8)


class MsSsim(ViewColumn):
    """Mean over assets of the mean of `ms_ssim` over an asset's 8-bit views on a plain ground.

    Raises:
        BenchError: no such background.
    """

    higher_is_better = True

    def __init__(self, *, name: str, resamples: int, background: str = "black") -> None:
        self.ground = checked_ground(name, background)
        parameters = {
            "window": "gaussian 11x11, sigma 1.5, reflected edges",
            "exponents": list(EXPONENTS),
            "images": [0.0, 1.0],
            "data_range": 1.0,
            "background": background,
        }
        super().__init__(name, resamples, parameters=parameters, undefined=f"views smaller than {SMALLEST}x{SMALLEST}")

    def value(self, pair: ViewPair) -> float:
        reference, reconstruction = (to_multiple(view) for view in pair.on(self.ground))
        return float(ms_ssim(reference, reconstruction)[0])
