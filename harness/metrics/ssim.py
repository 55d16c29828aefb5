"""Structural similarity in the two flavours that papers use.

For windows of two images x and y with means mu, variances and covariance sigma,
``SSIM = (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2))``.
With u = x + y and v = x - y this is ``(1 - a)(1 - b)`` where ``a = mu_v^2 / (mu_u^2/2 + mu_v^2/2 + C1)``
and ``b = sigma_v^2 / (sigma_u^2/2 + sigma_v^2/2 + C2)``: four filtered maps instead of five, and only
sigma_v^2, small where the images agree, has to be exact. All in units of 8-bit steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.column import ColumnMetric

Moments = tuple[Tensor, Tensor, Tensor, Tensor]

_SIGMA = 1.5
_RADIUS = 5
_BOX = 7


def _gaussian(x: Tensor, y: Tensor) -> Moments:
    """As torchmetrics' StructuralSimilarityIndexMeasure: 11x11, sigma 1.5, the images continued by reflection."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    weights = (bell / bell.sum()).tolist()
    x, y = x.to(torch.float32), y.to(torch.float32)
    u, v = (x + y).sub_(255), x - y
    # float32 rounds a filtered square to some 1e-7 of it, and the result to that over C2 = 58: below 1e-5 only
    # while the squared error is moderate (20 dB).
    if torch.linalg.vector_norm(v) > (650 * v.numel()) ** 0.5:
        v = v.to(torch.float64)
    moments = []
    for signal in (u, v):
        padded = F.pad(signal, (_RADIUS,) * 4, mode="reflect")
        mean, square = _weighted(padded, weights), _weighted(padded.square_(), weights)
        moments.append((mean.to(torch.float32), square.addcmul_(mean, mean, value=-1).to(torch.float32)))
    (mean_u, variance_u), (mean_v, variance_v) = moments
    return mean_u, mean_v, variance_u, variance_v


def _weighted(maps: Tensor, weights: Sequence[float]) -> Tensor:
    # Shifted sums beat torch's depthwise convolution on CPU four times over.
    for axis in (-2, -1):
        length = maps.shape[axis] - len(weights) + 1
        total = maps.narrow(axis, 0, length) * weights[0]
        for shift, weight in enumerate(weights[1:], 1):
            total.add_(maps.narrow(axis, shift, length), alpha=weight)
        maps = total
    return maps


def _uniform(x: Tensor, y: Tensor) -> Moments:
    """As skimage.metrics.structural_similarity: 7x7, sample covariance, windows that lie inside; exact in integers."""
    x, y = x.to(torch.int16), y.to(torch.int16)
    maps = torch.stack((x + y - 255, x - y))
    sums = _boxes(maps).to(torch.int32)
    maps = maps.to(torch.int32)
    variances = _boxes(maps * maps).mul_(_BOX**2).sub_(sums * sums)
    mean_u, mean_v = (sums.to(torch.float32) / _BOX**2).unbind()
    variance_u, variance_v = (variances.to(torch.float32) / (_BOX**2 * (_BOX**2 - 1))).unbind()
    return mean_u, mean_v, variance_u, variance_v


def _boxes(maps: Tensor) -> Tensor:
    """Sums over 7x7 windows in the maps' own integers: 49 x 255 fits int16, 49 x 255^2 int32."""
    for axis in (-2, -1):
        length = maps.shape[axis] - _BOX + 1
        two = maps.narrow(axis, 0, length + 5) + maps.narrow(axis, 1, length + 5)
        four = two.narrow(axis, 0, length) + two.narrow(axis, 2, length)
        maps = four.add_(two.narrow(axis, 4, length)).add_(maps.narrow(axis, 6, length))
    return maps


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """How the windows' moments are taken.

    Attributes:
        moments: ``[3, H, W]`` twice -> float32 ``[3, h, w]`` mean and variance of ``x + y - 255`` and ``x - y``.
        window: for the record.
        inputs: which images it can measure, the default first.
        images: interval that 0..255 is mapped to where the protocol does not say.
        smallest: smallest side of an image that has a value (reflection needs more than its 5 pixels).
    """

    moments: Callable[[Tensor, Tensor], Moments]
    window: str
    inputs: tuple[str, ...]
    images: tuple[float, float]
    smallest: int


FLAVOURS: Mapping[str, Flavour] = {
    "gaussian": Flavour(
        moments=_gaussian,
        window="11x11, sigma 1.5",
        inputs=("8bit", "clamped"),
        images=(-1.0, 1.0),
        smallest=_RADIUS + 1,
    ),
    "skimage": Flavour(moments=_uniform, window="7x7 uniform", inputs=("8bit",), images=(0.0, 1.0), smallest=_BOX),
}


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
    shift, span = 255 + 2 * images[0] / step, data_range / step
    # Image by image: the maps stay in the processor's cache.
    with torch.inference_mode():
        pairs = zip(reference, reconstruction, strict=True)
        deficits = [_NONE if _equal(x, y) else _deficit(chosen.moments(x, y), shift, span) for x, y in pairs]
    return 1 - torch.stack(deficits).cpu().numpy()


_NONE = torch.zeros((), dtype=torch.float64)


def _equal(x: Tensor, y: Tensor) -> bool:
    """Whether an image came back exactly: 1 then, without arithmetic. On a GPU the question costs more than that."""
    return x.device.type == "cpu" and torch.equal(x, y)


def _deficit(moments: Moments, shift: float, span: float) -> Tensor:
    """``1 - SSIM`` of an image; `shift` is what u = x + y - 255 lacks when the images' zero is elsewhere."""
    mean_u, mean_v, variance_u, variance_v = moments
    luminance = mean_v * mean_v
    luminance /= (mean_u + shift).square_().add_(luminance).mul_(0.5).add_((0.01 * span) ** 2)
    structure = variance_v / (variance_u + variance_v).mul_(0.5).add_((0.03 * span) ** 2)
    # 1 - (1 - a)(1 - b) = a + b - a b
    return torch.addcmul(luminance, luminance, structure, value=-1).add_(structure).mean(dtype=torch.float64)


class Ssim(ColumnMetric):
    """Mean over images of `ssim`; see `harness.metrics.registry.METRICS` for the options."""

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
        if flavour not in FLAVOURS:
            raise BenchError(f"{name}: SSIM flavour {flavour!r}; there are: {', '.join(FLAVOURS)}")
        chosen = FLAVOURS[flavour]
        if input not in chosen.inputs:
            raise BenchError(f"{name}: SSIM {flavour} of input {input!r}; there are: {', '.join(chosen.inputs)}")
        low, high = chosen.images if images is None else images
        if not low < high:
            raise BenchError(f"{name}: images is {images}, not an interval [low, high]")
        if data_range is not None and data_range <= 0:
            raise BenchError(f"{name}: data_range is {data_range}, not above 0")
        self.flavour = flavour
        self.clamped = input == "clamped"
        self.images = (float(low), float(high))
        self.data_range = float(high - low if data_range is None else data_range)
        parameters: dict[str, Any] = {
            "flavour": flavour,
            "input": input,
            "window": chosen.window,
            "images": list(self.images),
            "data_range": self.data_range,
        }
        if self.data_range != high - low:
            parameters["note"] = f"data_range is not the images' own {high - low:g}, as in the code that it imitates"
        undefined = f"image smaller than {chosen.smallest}x{chosen.smallest}"
        super().__init__(name, resamples, parameters=parameters, undefined=undefined)

    def values(self, pairs: Pairs) -> np.ndarray:
        reference, reconstruction = pairs.reference_u8, pairs.reconstruction_u8
        if self.clamped:
            reference, reconstruction = _steps(pairs.reference), _steps(pairs.reconstruction)
        return ssim(reference, reconstruction, self.flavour, images=self.images, data_range=self.data_range)


def _steps(images: Tensor) -> Tensor:
    """[-1, 1] clamped, in units of 8-bit steps, not rounded."""
    return images.clamp(-1, 1).add(1).mul(127.5)
