"""Peak signal-to-noise ratio of 8-bit images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.metrics.base import Pairs
from harness.metrics.column import ColumnMetric


def psnr(reference: Tensor, reconstruction: Tensor) -> np.ndarray:
    """``10 log10(255^2 / MSE)`` of each image, the MSE taken over its pixels and channels.

    Args:
        reference, reconstruction: uint8 ``[N, 3, H, W]``.

    Returns:
        float64 ``[N]`` in dB; infinity for identical images. The squared errors are summed exactly, so
        the value does not depend on device, batch or threads.
    """
    errors = torch.stack([_squared_error(*pair) for pair in zip(reference, reconstruction, strict=True)])
    peak = 255.0**2 * math.prod(reference.shape[1:])
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(peak / errors.cpu().numpy()), dtype=np.float64)


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    # Whole numbers below 2^53 in float64 add up exactly in any order; image by image, so that the
    # temporaries stay in the processor's cache.
    return a.to(torch.float32).sub_(b).square_().sum(dtype=torch.float64)


class Psnr(ColumnMetric):
    """Mean of the images' dB.

    It is infinite as soon as one image is identical, and the cell says how many are. (Strict JSON has no
    infinity; `harness.records` says how a record spells it.)
    """

    higher_is_better = True
    unit = "dB"

    def __init__(self, *, name: str, resamples: int) -> None:
        parameters = {"peak": 255, "images": "8-bit", "average": "mean of per-image dB"}
        super().__init__(name, resamples, parameters=parameters, undefined="not a number")

    def values(self, pairs: Pairs) -> np.ndarray:
        return psnr(pairs.reference_u8, pairs.reconstruction_u8)

    def remarks(self, values: np.ndarray) -> dict[str, Any]:
        identical = int(np.isinf(values).sum())
        return {"identical": f"{identical} of {len(values)} images"} if identical else {}
