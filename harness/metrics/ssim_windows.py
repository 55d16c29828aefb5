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

from harness.metrics.psnr import squared_errors
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


@dataclass(frozen=True, slots=True)
class Job:
    """A strip of one channel of one pair of images.

    Attributes:
        index: of the pair.
        x, y: the channels' planes ``[H, W]``.
        first, end: rows of windows.
    """

    index: int
    x: Tensor
    y: Tensor
    first: int
    end: int


def _means(rows: Callable[[Job], Tensor], pairs: Sequence[Pair], edge: int) -> list[Tensor]:
    """Mean over windows and channels of each pair.

    The sums of rows are added up as one sequence, so how a plane is cut into strips moves no bit.

    Args:
        rows: sums over each row of windows of a strip, float64 ``[end - first]``.
        edge: windows that a plane's side has less than pixels.
    """
    channels, height, width = pairs[0][0].shape
    device = pairs[0][0].device
    cuts = list(strips(height - edge, width, device))
    jobs = [Job(i, x[c], y[c], *cut) for i, (x, y) in enumerate(pairs) for c in range(channels) for cut in cuts]
    sums = on_threads(rows, jobs, device)
    each = channels * len(cuts)
    windows = channels * (height - edge) * (width - edge)
    return [torch.cat(sums[i : i + each]).sum() / windows for i in range(0, len(sums), each)]


def _row_sums(values: Tensor, width: int, edge: int) -> Tensor:
    """Sums over rows of values that lie row after row, `width` apart, without the `edge` last of each row."""
    whole = values.new_empty(values.numel() + edge)  # the last row ends before its edge
    whole[: values.numel()] = values
    return whole.view(-1, width)[:, : width - edge].sum(dim=1, dtype=torch.float64)


def _gaussian(pairs: Sequence[Pair], scale: Scale) -> list[Tensor]:
    """As torchmetrics' StructuralSimilarityIndexMeasure: 11x11, sigma 1.5, the images continued by reflection."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    weights = (bell / bell.sum()).tolist()
    # float32 rounds a filtered square to some 1e-7 of it, and the result to that over C2 = 58: below 1e-5 only
    # while the squared error is moderate (20 dB).
    errors = squared_errors(*zip(*pairs, strict=True)) / pairs[0][0].numel()
    kinds = [torch.float64 if error > 650 else torch.float32 for error in errors]

    def rows(job: Job) -> Tensor:
        return _gaussian_rows(job, kinds[job.index], weights, scale)

    return _means(rows, pairs, 0)


@torch.inference_mode()
def _gaussian_rows(job: Job, kind: torch.dtype, weights: Sequence[float], scale: Scale) -> Tensor:
    """Sum of ``1 - SSIM`` over each row of pixels; `kind` is the precision of the difference's moments."""
    height, width = job.x.shape
    # Rows beyond the first and the last are those before them, as in a mirror.
    around = torch.arange(job.first - _RADIUS, job.end + _RADIUS, device=job.x.device).abs_()
    around = torch.minimum(around, 2 * (height - 1) - around)
    x, y = (
        F.pad(plane.index_select(0, around).to(torch.float32), (_RADIUS, _RADIUS), mode="reflect")
        for plane in (job.x, job.y)
    )
    # mu_x^2 + mu_y^2 = mu_u^2 / 2 + mu_v^2 / 2 with u = x + y, and so the variances.
    u, v = (x + y).sub_(255), (x - y).to(kind)
    moments = []
    for signal in (u, v):
        mean, square = _weighted(signal, weights), _weighted(signal.square_(), weights)
        moments.append((mean.to(torch.float32), square.addcmul_(mean, mean, value=-1).to(torch.float32)))
    (mean_u, variance_u), (mean_v, variance_v) = moments
    luminance = mean_v * mean_v
    luminance /= (mean_u + (255 - 2 * scale.zero)).square_().add_(luminance).mul_(0.5).add_(scale.c1)
    structure = variance_v / (variance_u + variance_v).mul_(0.5).add_(scale.c2)
    # 1 - (1 - a)(1 - b) = a + b - a b
    deficit = torch.addcmul(luminance, luminance, structure, value=-1).add_(structure)
    return _row_sums(deficit, width + 2 * _RADIUS, 2 * _RADIUS)


def _weighted(plane: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted sums over windows ``[K, K]``: ``[R, W]`` -> ``[(R - K + 1) W - K + 1]``, row after row as `_boxes`."""
    values = plane.flatten()
    # Shifted sums beat torch's depthwise convolution on CPU four times over.
    for step in (plane.shape[1], 1):
        length = values.numel() - (len(weights) - 1) * step
        total = values[:length] * weights[0]
        for place, weight in enumerate(weights[1:], 1):
            total.add_(values[place * step : place * step + length], alpha=weight)
        values = total
    return values


def _uniform(pairs: Sequence[Pair], scale: Scale) -> list[Tensor]:
    """As skimage.metrics.structural_similarity: 7x7, sample covariance, windows that lie inside.

    In whole numbers up to the last division.
    """
    return _means(lambda job: _uniform_rows(job, scale), pairs, _BOX - 1)


@torch.inference_mode()
def _uniform_rows(job: Job, scale: Scale) -> Tensor:
    """Sum of ``1 - SSIM`` over each row of windows.

    With N = 49 values to a window and S for sums, ``a = (Sx - Sy)^2 / (Sx^2 + Sy^2 + N^2 C1)`` and
    ``b = (N S(x-y)^2 - (Sx - Sy)^2) / (N S(x^2 + y^2) - (Sx^2 + Sy^2) + N (N - 1) C2)``; the largest number is
    49^2 (255^2 + 255^2), a seventh of what int32 holds.
    """
    n, width = _BOX**2, job.x.shape[1]
    x, y = (plane[job.first : job.end + _BOX - 1].to(torch.int16).contiguous() for plane in (job.x, job.y))
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
    return _row_sums(luminance.add_(structure).sub_(both), width, _BOX - 1)


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
