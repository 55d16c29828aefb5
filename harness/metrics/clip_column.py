"""Metrics of videos with one value per clip: of its totals, or the mean of its frames' values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from harness.data.base import ClipShape
from harness.metrics.clip_base import ClipMeasured, ClipMeter, ClipMetric, ClipTotals
from harness.metrics.column import MeanColumn


class TotalsColumn(MeanColumn, ClipMetric):
    """Base of the metrics that look at no frame: the mean over clips."""

    @abstractmethod
    def value(self, totals: ClipTotals) -> float:
        """Of one clip."""

    def start(self, shape: ClipShape) -> ClipMeter:  # noqa: ARG002
        return _TotalsMeter(self)


class _TotalsMeter(ClipMeter):
    def __init__(self, metric: TotalsColumn) -> None:
        self._metric = metric

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        pass

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        return ClipMeasured(columns={self._metric.name: self._metric.value(totals)})


class FrameColumn(MeanColumn, ClipMetric):
    """Base of the metrics that measure each frame as an image: the mean over a clip's frames, then over clips.

    The frames' values are the clip's curve over time. A clip of one frame has the value of the image metric.
    """

    def __init__(self, name: str, resamples: int, *, parameters: Mapping[str, Any], undefined: str) -> None:
        average = {"average": "mean over a clip's frames, then over clips"}
        super().__init__(name, resamples, parameters=average | dict(parameters), undefined=undefined)
        self.frame_columns = (name,)

    @abstractmethod
    def values(self, reference: Tensor, reconstruction: Tensor) -> np.ndarray:
        """What is kept of each frame.

        Args:
            reference, reconstruction: uint8 ``[n, 3, H, W]``.

        Returns:
            float64 ``[n]``, to the bit independent of which frames come together.
        """

    def start(self, shape: ClipShape) -> ClipMeter:  # noqa: ARG002
        return _FrameMeter(self)

    def measured(self, values: np.ndarray, totals: ClipTotals) -> ClipMeasured:  # noqa: ARG002
        """The clip's figures, from `values` of all its frames."""
        return ClipMeasured(columns={self.name: float(values.mean())}, frames={self.name: values})


class _FrameMeter(ClipMeter):
    def __init__(self, metric: FrameColumn) -> None:
        self._metric = metric
        self._values: list[np.ndarray] = []

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        self._values.append(self._metric.values(reference, reconstruction))

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        return self._metric.measured(np.concatenate(self._values), totals)
