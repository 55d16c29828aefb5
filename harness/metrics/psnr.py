"""Peak signal-to-noise ratio of 8-bit images and videos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.clip_base import ClipMeasured, ClipTotals
from harness.metrics.clip_column import FrameColumn
from harness.metrics.column import ColumnMetric
from harness.metrics.strips import chunks, on_threads

TOKENBENCH_EPSILON = 2.0**-23
"""Added to the root of the MSE in NVIDIA's TokenBench (dcbb7d5): the spacing of float32 at 1."""


def psnr(reference: Tensor, reconstruction: Tensor) -> np.ndarray:
    """``10 log10(255^2 / MSE)`` of each image, the MSE taken over its pixels and channels.

    Args:
        reference, reconstruction: uint8 ``[N, 3, H, W]``.

    Returns:
        float64 ``[N]`` in dB; infinity for identical images. The squared errors are summed exactly, so
        the value does not depend on device, batch or threads.
    """
    return decibels(squared_errors(reference, reconstruction), reference[0].numel())


def squared_errors(reference: Iterable[Tensor], reconstruction: Iterable[Tensor]) -> np.ndarray:
    """Sum of the squared differences of each image ``[3, H, W]``: float64 ``[N]``; of uint8 exact, whole numbers."""
    pieces = [list(chunks(*pair)) for pair in zip(reference, reconstruction, strict=True)]
    device = pieces[0][0][0].device
    sums = on_threads(lambda pair: _squared_error(*pair), chain.from_iterable(pieces), device)
    return np.asarray(torch.stack(sums).view(len(pieces), -1).sum(dim=1).cpu().numpy(), dtype=np.float64)


def decibels(squared_error: np.ndarray, count: int) -> np.ndarray:
    """``10 log10(255^2 / MSE)`` of summed squared errors over `count` values."""
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 * count / squared_error), dtype=np.float64)


def _squared_error(x: Tensor, y: Tensor) -> Tensor:
    # Whole numbers below 2^53 in float64 add up exactly in any order.
    return (x.to(torch.float32) - y).square_().sum(dtype=torch.float64)


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

    def remarks(self, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
        values = table[self.name]
        identical = int(np.isinf(values).sum())
        return {"identical": f"{identical} of {len(values)} images"} if identical else {}


class ClipPsnr(FrameColumn):
    """Mean of the clips' dB.

    Args:
        mse: ``frame``: a clip's dB is the mean of its frames' dB. ``clip``: it is the dB of one MSE over all
            its frames, which its worst frames decide and which is never above the mean of the frames' dB.
        epsilon: added to the root of the MSE, in grey levels. Above 0, an identical frame or clip has a finite
            value that the cell names; with 0 it has infinity, and the cell counts them. By default that of
            TokenBench for ``clip``, 0 for ``frame``.

    Raises:
        BenchError: no such `mse`, or an epsilon below 0.
    """

    higher_is_better = True
    unit = "dB"

    def __init__(self, *, name: str, resamples: int, mse: str = "frame", epsilon: float | None = None) -> None:
        if mse not in ("frame", "clip"):
            raise BenchError(f"{name}: mse is {mse!r}; there are: frame, clip")
        if epsilon is None:
            epsilon = TOKENBENCH_EPSILON if mse == "clip" else 0.0
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or epsilon < 0:
            raise BenchError(f"{name}: epsilon is {epsilon!r}, not a number from 0 on")
        self.pooled = mse == "clip"
        self.epsilon = float(epsilon)
        average = "dB of one MSE over a clip's frames" if self.pooled else "mean of the dB of a clip's frames"
        parameters: dict[str, Any] = {"peak": 255, "images": "8-bit", "mse": mse, "epsilon": self.epsilon}
        parameters["average"] = f"{average}, then mean over clips"
        super().__init__(name, resamples, parameters=parameters, undefined="not a number")
        self.identical = f"{name} identical frames"
        self.columns = (name, self.identical)

    def values(self, reference: Tensor, reconstruction: Tensor) -> np.ndarray:
        return squared_errors(reference, reconstruction)

    def measured(self, values: np.ndarray, totals: ClipTotals) -> ClipMeasured:
        count = 3 * totals.shape.height * totals.shape.width
        # Of one MSE over all frames, the epsilon is none of the curve's.
        frames = decibels(values, count) if self.pooled else self._decibels(values, count)
        value = self._decibels(values.sum(), count * len(values)) if self.pooled else frames.mean()
        identical = float((values == 0).sum())
        return ClipMeasured(columns={self.name: float(value), self.identical: identical}, frames={self.name: frames})

    def _decibels(self, squared_error: np.ndarray, count: int) -> np.ndarray:
        if not self.epsilon:
            return decibels(squared_error, count)
        return np.asarray(20 * np.log10(255 / (np.sqrt(squared_error / count) + self.epsilon)))

    def remarks(self, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
        identical = table[self.identical]
        if not identical.any():
            return {}
        count = f"{identical.sum():.0f} frames in {(identical > 0).sum()} of {len(identical)} clips"
        if self.epsilon:
            count += f"; no error at all is {20 * np.log10(255 / self.epsilon):.2f} dB by the epsilon"
        return {"identical": count}
