"""Structural similarity of images and videos, in the two flavours that papers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.clip_column import FrameColumn
from harness.metrics.column import ColumnMetric
from harness.metrics.ssim_windows import FLAVOURS, Scale


def ssim(
    reference: Tensor, reconstruction: Tensor, flavour: str, *, images: tuple[float, float], data_range: float
) -> np.ndarray:
    """SSIM of each image: mean over pixels and channels, K1 = 0.01, K2 = 0.03.

    Args:
        reference, reconstruction: uint8 ``[N, 3, H, W]``, or for ``gaussian`` float32 in 0..255.
        flavour: one of `FLAVOURS`.
        images: the interval that 0..255 is mapped to; SSIM's luminance term is not indifferent to it.
        data_range: the range in the constants ``C = (K range)^2``.

    Returns:
        float64 ``[N]``; not-a-number where H or W is below `Flavour.smallest`.
    """
    chosen = FLAVOURS[flavour]
    if min(reference.shape[-2:]) < chosen.smallest:
        return np.full(len(reference), np.nan)
    step = (images[1] - images[0]) / 255
    scale = Scale(zero=-images[0] / step, span=data_range / step)
    values = np.ones(len(reference))
    pairs = list(zip(reference, reconstruction, strict=True))
    different = [index for index, pair in enumerate(pairs) if not _equal(*pair)]
    if different:
        deficits = chosen.deficits([pairs[index] for index in different], scale)
        values[different] -= torch.stack(deficits).cpu().numpy()
    return values


def _equal(x: Tensor, y: Tensor) -> bool:
    """Whether an image came back exactly: 1 then, without arithmetic. On a GPU the question costs more than that."""
    return x.device.type == "cpu" and torch.equal(x, y)


class _Options:
    """What a protocol chose, checked.

    Raises:
        BenchError: a flavour, input, interval or range that does not exist.
    """

    def __init__(
        self,
        name: str,
        flavour: str,
        given: str,
        images: Sequence[float] | None,
        data_range: float | None,
    ) -> None:
        if flavour not in FLAVOURS:
            raise BenchError(f"{name}: SSIM flavour {flavour!r}; there are: {', '.join(FLAVOURS)}")
        chosen = FLAVOURS[flavour]
        if given not in chosen.inputs:
            raise BenchError(f"{name}: SSIM {flavour} of input {given!r}; there are: {', '.join(chosen.inputs)}")
        low, high = chosen.images if images is None else images
        if not low < high:
            raise BenchError(f"{name}: images is {images}, not an interval [low, high]")
        if data_range is not None and data_range <= 0:
            raise BenchError(f"{name}: data_range is {data_range}, not above 0")
        self.flavour = flavour
        self.images = (float(low), float(high))
        self.data_range = float(high - low if data_range is None else data_range)
        self.parameters: dict[str, Any] = {
            "flavour": flavour,
            "input": given,
            "window": chosen.window,
            "images": list(self.images),
            "data_range": self.data_range,
        }
        if self.data_range != high - low:
            note = f"data_range is not the images' own {high - low:g}, as in the code that it imitates"
            self.parameters["note"] = note
        self.undefined = f"{{}} smaller than {chosen.smallest}x{chosen.smallest}"

    def measure(self, reference: Tensor, reconstruction: Tensor) -> np.ndarray:
        return ssim(reference, reconstruction, self.flavour, images=self.images, data_range=self.data_range)


class Ssim(ColumnMetric):
    """Mean over images of `ssim`; see `harness.metrics.families.METRICS` for the options."""

    higher_is_better = True

    def __init__(
        self,
        *,
        name: str,
        resamples: int,
        flavour: str = "gaussian",
        input: str = "8bit",
        images: Sequence[float] | None = None,
        data_range: float | None = None,
    ) -> None:
        """Raises BenchError for a flavour, input, interval or range that does not exist."""
        self.options = _Options(name, flavour, input, images, data_range)
        self.clamped = input == "clamped"
        undefined = self.options.undefined.format("image")
        super().__init__(name, resamples, parameters=self.options.parameters, undefined=undefined)

    def values(self, pairs: Pairs) -> np.ndarray:
        if self.clamped:
            return self.options.measure(_steps(pairs.reference), _steps(pairs.reconstruction))
        return self.options.measure(pairs.reference_u8, pairs.reconstruction_u8)


def _steps(images: Tensor) -> Tensor:
    """[-1, 1] clamped, in units of 8-bit steps, not rounded."""
    return images.clamp(-1, 1).add(1).mul(127.5)


class ClipSsim(FrameColumn):
    """Mean over clips of the mean of `ssim` over a clip's 8-bit frames; options as for images."""

    higher_is_better = True

    def __init__(
        self,
        *,
        name: str,
        resamples: int,
        flavour: str = "gaussian",
        images: Sequence[float] | None = None,
        data_range: float | None = None,
    ) -> None:
        """Raises BenchError for a flavour, interval or range that does not exist."""
        self.options = _Options(name, flavour, "8bit", images, data_range)
        undefined = self.options.undefined.format("frames")
        super().__init__(name, resamples, parameters=self.options.parameters, undefined=undefined)

    def values(self, reference: Tensor, reconstruction: Tensor) -> np.ndarray:
        return self.options.measure(reference, reconstruction)
