"""The two windows of structural similarity: what each image lacks to an SSIM of 1.

For windows of two images x and y with means mu, variances and covariance sigma,
``SSIM = (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2))``.
With v = x - y this is ``(1 - a)(1 - b)`` where ``a = mu_v^2 / (mu_x^2 + mu_y^2 + C1)`` and
``b = sigma_v^2 / (sigma_x^2 + sigma_y^2 + C2)``: four filtered maps instead of five, and only sigma_v^2,
small where the images agree, has to be exact. All in units of 8-bit steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.metrics.strips import on_threads, strips

Pair = tuple[Tensor, Tensor]

_SIGMA = 1.5
_RADIUS = 5
_BOX = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What the images' values mean.

    Attributes:
        zero: place of 0 in 8-bit steps from black: 0, or 127.5 where black is -1 and white 1.
        span: the range in the constants ``C = (K span)^2``, in 8-bit steps; K1 = 0.01, K2 = 0.03.
    """

    zero: float
    span: float

    @property
    def c1(self) -> float:
        return (0.01 * self.span) ** 2

    @property
    def c2(self) -> float:
        return (0.03 * self.span) ** 2


def _gaussian(pairs: Sequence[Pair], scale: Scale) -> list[Tensor]:
    """As torchmetrics' StructuralSimilarityIndexMeasure: 11x11, sigma 1.5, the images continued by reflection."""
    return on_threads(lambda pair: _gaussian_deficit(*pair, scale), pairs, pairs[0][0].device)


@torch.inference_mode()
def _gaussian_deficit(x: Tensor, y: Tensor, scale: Scale) -> Tensor:
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    weights = (bell / bell.sum()).tolist()
    x, y = x.to(torch.float32), y.to(torch.float32)
    # mu_x^2 + mu_y^2 = mu_u^2 / 2 + mu_v^2 / 2 with u = x + y, and so the variances.
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
    luminance = mean_v * mean_v
    luminance /= (mean_u + (255 - 2 * scale.zero)).square_().add_(luminance).mul_(0.5).add_(scale.c1)
    structure = variance_v / (variance_u + variance_v).mul_(0.5).add_(scale.c2)
    # 1 - (1 - a)(1 - b) = a + b - a b
    return torch.addcmul(luminance, luminance, structure, value=-1).add_(structure).mean(dtype=torch.float64)


def _weighted(maps: Tensor, weights: Sequence[float]) -> Tensor:
    # Shifted sums beat torch's depthwise convolution on CPU four times over.
    for axis in (-2, -1):
        length = maps.shape[axis] - len(weights) + 1
        total = maps.narrow(axis, 0, length) * weights[0]
        for shift, weight in enumerate(weights[1:], 1):
            total.add_(maps.narrow(axis, shift, length), alpha=weight)
        maps = total
    return maps


def _uniform(pairs: Sequence[Pair], scale: Scale) -> list[Tensor]:
    """As skimage.metrics.structural_similarity: 7x7, sample covariance, windows that lie inside.

    Whole numbers up to the last division, and rows that are summed one by one: how a frame is cut into strips
    does not move a bit. A strip of a 1080p frame takes 5 MB of temporaries.
    """
    channels, height, width = pairs[0][0].shape
    device = pairs[0][0].device
    cuts = [(first, end + _BOX - 1) for first, end in strips(height - _BOX + 1, width, device)]
    jobs = [(x[c, a:b], y[c, a:b]) for x, y in pairs for c in range(channels) for a, b in cuts]
    rows = on_threads(lambda job: _uniform_rows(*job, scale), jobs, device)
    each = channels * len(cuts)
    windows = channels * (height - _BOX + 1) * (width - _BOX + 1)
    return [torch.cat(rows[i : i + each]).sum() / windows for i in range(0, len(rows), each)]


@torch.inference_mode()
def _uniform_rows(x: Tensor, y: Tensor, scale: Scale) -> Tensor:
    """Sum of ``1 - SSIM`` over each row of windows of two planes: uint8 ``[R, W]`` twice -> float64 ``[R - 6]``.

    With N = 49 values to a window and S for sums, ``a = (Sx - Sy)^2 / (Sx^2 + Sy^2 + N^2 C1)`` and
    ``b = (N S(x-y)^2 - (Sx - Sy)^2) / (N S(x^2 + y^2) - (Sx^2 + Sy^2) + N (N - 1) C2)``; the largest number is
    49^2 (255^2 + 255^2), a seventh of what int32 holds.
    """
    n, width = _BOX**2, x.shape[1]
    x, y = (plane.to(torch.int16).contiguous() for plane in (x, y))
    v, squares = (x - y).to(torch.int32), x.to(torch.int32)
    y_wide = y.to(torch.int32)
    squares = _boxes(squares.mul_(squares).addcmul_(y_wide, y_wide))
    differences = _boxes(v.mul_(v))
    x, y = _boxes(x), _boxes(y)
    v = (x - y).to(torch.int32)
    v.mul_(v)
    energy, y_wide = x.to(torch.int32), y.to(torch.int32)
    energy.mul_(energy).addcmul_(y_wide, y_wide)
    # Both without their signs, which the quotient loses: one operation less each.
    structure = torch.sub(v, differences, alpha=n).to(torch.float32)
    structure /= torch.sub(energy, squares, alpha=n).to(torch.float32).sub_(n * (n - 1) * scale.c2)
    if scale.zero:
        # Where 0 is no grey level, sums differ from those of the levels; float32 holds the half steps exactly.
        x, y = (s.to(torch.float32).sub_(n * scale.zero) for s in (x, y))
        brightness = x.mul_(x).add_(y.mul_(y))
    else:
        brightness = energy.to(torch.float32)
    luminance = v.to(torch.float32).div_(brightness.add_(n**2 * scale.c1))
    both = luminance * structure
    deficit = luminance.add_(structure).sub_(both)
    # Rows go on through the next row's start (see `_boxes`): what does not lie in a window of this row is left out.
    rows = deficit.new_empty(deficit.numel() + _BOX - 1)
    rows[: deficit.numel()] = deficit
    return rows.view(-1, width)[:, : width - _BOX + 1].sum(dim=1, dtype=torch.float64)


def _boxes(plane: Tensor) -> Tensor:
    """Sums over 7x7 windows in the plane's own integers: ``[R, W]`` -> ``[(R - 6) W - 6]``, row after row.

    The plane is taken as one long row, because operations without a gap are the fastest: the six sums that begin
    at the end of each row reach over its border and are for the caller to drop.
    """
    values = plane.flatten()
    for step in (plane.shape[1], 1):
        length = values.numel() - 6 * step
        two = values[: length + 4 * step] + values[step : length + 5 * step]
        four = two[:length] + two[2 * step : length + 2 * step]
        values = four.add_(two[4 * step :]).add_(values[6 * step :])
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """How the windows' moments are taken.

    Attributes:
        deficits: pairs of images ``[3, H, W]`` of one size -> float64 scalars: the mean of ``1 - SSIM`` over an
            image's windows and channels.
        window: for the record.
        inputs: which images it can measure, the default first.
        images: interval that 0..255 is mapped to where the protocol does not say.
        smallest: smallest side of an image that has a value (reflection needs more than its 5 pixels).
    """

    deficits: Callable[[Sequence[Pair], Scale], list[Tensor]]
    window: str
    inputs: tuple[str, ...]
    images: tuple[float, float]
    smallest: int


FLAVOURS: Mapping[str, Flavour] = {
    "gaussian": Flavour(
        deficits=_gaussian,
        window="11x11, sigma 1.5",
        inputs=("8bit", "clamped"),
        images=(-1.0, 1.0),
        smallest=_RADIUS + 1,
    ),
    "skimage": Flavour(deficits=_uniform, window="7x7 uniform", inputs=("8bit",), images=(0.0, 1.0), smallest=_BOX),
}
