"""Seams: whether the reconstruction's error jumps where one tile of the tokenizer ends and the next begins.

The error of a frame is ``e = reconstruction - reference``. Its step from frame t to t + 1 is the mean over pixels and
channels of ``(e[t+1] - e[t])^2``: how the reconstruction changes beside how the reference does, so a scene cut is no
step of its own. Across space the step from one row (column) to the next is that mean over the row, all frames and
channels. A tile of T frames has a border after every T-th frame; all other steps lie inside a tile.

Seam of a clip, in dB: the level ``10 log10(step)`` at a border less the median level of its nearest steps inside,
eight on either side; of all borders of the clip the median. 0 dB: borders are like any other place. 3 dB: the error's
step is twice as large there. Below 0: it is smaller (frames that two tiles share and blend).

Why so, and not the ratio of all border steps to all inside steps:
- Steps follow what is seen (motion, texture) more than they follow tiles. Against its own neighbours a border is
  judged by the content around it.
- Where the picture is cut or flashes the error starts anew, where a frame is repeated it stands still: single steps a
  hundred times larger or smaller than the others, which rule any mean and no median.
- Steps below 1/6 count as 1/6: so much rounding two frames to 8 bits makes of nothing. Without it, a picture that
  stands still in a codec that leaves it alone would have an infinite seam from any difference at all.
- Over clips it is the mean of the dB, the geometric mean of ratios: each clip counts alike, however large its errors.
A clip has few borders (six in 100 frames), so its own figure varies by a decibel or two; that of a set is what counts.

A tokenizer with tokens of several frames (rows, columns) has edges between them inside a tile too. ``inside: all``
compares with all steps there: what the eye meets at a border beside what it meets elsewhere. ``inside: tokens``
compares with the edges between tokens alone: what cutting into tiles adds to what tokens do by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.metrics.clip_base import ClipMeasured, ClipMeter, ClipMetric, ClipTotals
from harness.metrics.column import MeanColumn
from harness.metrics.strips import chunks, on_threads, strips

LEAST = 1 / 6
"""The least step, in squared grey levels: two roundings to 8 bits, each of variance 1/12."""
NEAREST = 8
"""Steps inside on either side that a border is compared with."""
AXES = ("time", "space")
INSIDE = ("all", "tokens")


def seam(steps: np.ndarray, begins: Sequence[int], spacing: int = 1) -> np.ndarray:
    """What the level of the step at each border exceeds that of its neighbours by.

    Args:
        steps: float64 ``[n - 1]``, from each of n frames (rows, columns) to the next.
        begins: frames (rows, columns) with which another tile begins.
        spacing: steps inside a tile count where they lead to a multiple of this.

    Returns:
        float64 ``[borders]`` in dB; empty where there is no border, or no step inside to compare with.
    """
    levels = 10 * np.log10(np.maximum(steps, LEAST))
    end = np.arange(1, len(steps) + 1)
    border = np.isin(end, begins)
    borders, inside = np.flatnonzero(border), np.flatnonzero(~border & (end % spacing == 0))
    if not len(inside):
        return np.empty(0)
    after = np.searchsorted(inside, borders)
    near = [inside[max(0, place - NEAREST) : place + NEAREST] for place in after]
    return np.array([levels[at] - np.median(levels[those]) for at, those in zip(borders, near, strict=True)])


class Seam(MeanColumn, ClipMetric):
    """Mean over clips of the median over a clip's borders of `seam`.

    Keeps beside it how many borders a clip has, not-a-number where the tokenizer has no such tiles. The curve over
    time is the step from the frame before, in squared grey levels; not-a-number for the first frame.

    Args:
        axis: ``time``: borders between frames; ``space``: between rows and between columns.
        inside: ``all`` steps inside tiles, or those between ``tokens``; see above.

    Raises:
        BenchError: an option that does not exist.
    """

    higher_is_better = False
    unit = "dB"

    def __init__(self, *, name: str, resamples: int, axis: str = "time", inside: str = "all") -> None:
        if axis not in AXES:
            raise BenchError(f"{name}: seams of axis {axis!r}; there are: {', '.join(AXES)}")
        if inside not in INSIDE:
            raise BenchError(f"{name}: inside is {inside!r}; there are: {', '.join(INSIDE)}")
        parameters = {
            "axis": axis,
            "inside": inside,
            "images": "8-bit",
            "step": "mean squared change of the error to the next frame (row, column), in dB; at least 1/6",
            "compared": f"each border with the median of the {NEAREST} nearest steps inside tiles on either side",
            "average": "median over a clip's borders, then mean over clips",
        }
        super().__init__(name, resamples, parameters=parameters, undefined="")
        self.axis = axis
        self.tokens = inside == "tokens"
        self.borders = f"{name} borders"
        self.columns = (name, self.borders)
        self.frame_columns = (name,) if axis == "time" else ()

    def start(self, shape: ClipShape) -> ClipMeter:
        return _TimeMeter(self) if self.axis == "time" else _SpaceMeter(self, shape)

    def measured(self, axes: Mapping[int, np.ndarray], totals: ClipTotals, *, identical: bool) -> dict[str, float]:
        """A clip's columns.

        Args:
            axes: steps along each axis of the tile: 0 for frames, 1 for rows, 2 for columns.
            identical: whether there is no error at all.
        """
        found = []
        for axis, steps in axes.items():
            tile = None if totals.tile is None else totals.tile[axis]
            spacing = None if totals.compression is None else totals.compression[axis]
            spacing = spacing if self.tokens else 1
            if tile is not None and spacing is not None and tile > spacing:
                begins = range(tile, totals.frames, tile) if axis == 0 else totals.borders[axis - 1]
                found.append(seam(steps, begins, spacing))
        if not found:
            return {self.name: np.nan, self.borders: np.nan}
        excess = np.concatenate(found)
        value = np.nan if identical or not len(excess) else float(np.median(excess))
        return {self.name: value, self.borders: float(len(excess))}

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:
        borders = table[self.borders]
        return not len(borders) or not bool(np.isnan(borders).all())

    def why(self, table: Mapping[str, np.ndarray]) -> str:
        borders = table[self.borders][np.isnan(table[self.name])]
        parts = {"time": ("frames", "time"), "space": ("rows or columns", "space")}[self.axis]
        several = "several tokens" if self.tokens else f"several {parts[0]}"
        found = {
            f"the tokenizer does not cut {parts[1]} into tiles of {several}": np.isnan(borders).any(),
            "no more than one tile": (borders == 0).any(),
            "identical, no error that could have a seam": (borders > 0).any(),
        }
        return "; ".join(reason for reason, seen in found.items() if seen)


class _TimeMeter(ClipMeter):
    """Holds the last frame's error, 2 bytes a value."""

    def __init__(self, metric: Seam) -> None:
        self._metric = metric
        self._last: list[Tensor] | None = None
        self._steps: list[Tensor] = []

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        for pair in zip(reference, reconstruction, strict=True):
            pieces = list(chunks(*pair))
            last = [None] * len(pieces) if self._last is None else self._last
            jobs = [(x, y, before) for (x, y), before in zip(pieces, last, strict=True)]
            done = on_threads(lambda job: _time_step(*job), jobs, reference.device)
            self._last = [error for error, _ in done]
            self._steps.append(torch.stack([total for _, total in done]).sum())

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        steps = torch.stack(self._steps).cpu().numpy() / (3 * totals.shape.height * totals.shape.width)
        # The first is no step but the first frame's squared error.
        columns = self._metric.measured({0: steps[1:]}, totals, identical=not steps.any())
        steps[0] = np.nan
        return ClipMeasured(columns=columns, frames={self._metric.name: steps})


@torch.inference_mode()
def _time_step(x: Tensor, y: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """A piece's error, int16, and the sum of the squares of its change from the frame before."""
    error = y.to(torch.int16).sub_(x)
    return error, _squares(error if last is None else error - last).sum(dtype=torch.float64)


class _SpaceMeter(ClipMeter):
    """Holds sums along the rows and columns of all frames."""

    def __init__(self, metric: Seam, shape: ClipShape) -> None:
        self._metric = metric
        self._rows = torch.zeros(shape.height, dtype=torch.float64)
        self._columns = torch.zeros(shape.width - 1, dtype=torch.float64)
        self._error = torch.zeros((), dtype=torch.bool)

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        height, width = reference.shape[-2:]
        cuts = list(strips(height, width, reference.device))
        planes = zip(reference.flatten(0, 1), reconstruction.flatten(0, 1), strict=True)
        # With the row that follows: the step to it is this strip's.
        jobs = [(x[a : b + 1], y[a : b + 1], b - a) for x, y in planes for a, b in cuts]
        done = on_threads(lambda job: _space_steps(*job), jobs, reference.device)
        rows = torch.cat([rows for rows, _, _ in done]).view(-1, height).sum(dim=0)
        self._rows += rows.cpu()
        self._columns += torch.stack([columns for _, columns, _ in done]).sum(dim=0).cpu()
        self._error |= torch.stack([some for _, _, some in done]).any().cpu()

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        height, width = totals.shape.height, totals.shape.width
        rows = self._rows[:-1].numpy() / (3 * totals.frames * width)
        columns = self._columns.numpy() / (3 * totals.frames * height)
        found = self._metric.measured({1: rows, 2: columns}, totals, identical=not bool(self._error))
        return ClipMeasured(columns=found)


@torch.inference_mode()
def _space_steps(x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the first `rows` rows of a plane's strip: sums of squares along the step down from each row (0 from the
    plane's last) and along the step across from each column, and whether there is an error."""
    error = y.to(torch.int16).sub_(x)
    down = error.new_zeros(rows, dtype=torch.float64)
    torch.sum(_squares(error[1:] - error[:-1]), dim=1, dtype=torch.float64, out=down[: len(error) - 1])
    error = error[:rows]
    across = _squares(error[:, 1:] - error[:, :-1]).sum(dim=0, dtype=torch.float64)
    return down, across, error.any()


def _squares(difference: Tensor) -> Tensor:
    """Whole numbers up to 510^2, which float32 holds."""
    return difference.to(torch.float32).square_()
