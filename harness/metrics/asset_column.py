"""Metrics of 3D assets with one value per asset: a count, or the mean of its views' values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from harness.metrics.asset_base import AssetMeasured, AssetMeter, AssetMetric, AssetTotals, ViewPair, checked_ground
from harness.metrics.clip_column import FrameColumn
from harness.metrics.column import MeanColumn

AVERAGE = "mean over an asset's views, then over assets"


class ViewColumn(MeanColumn, AssetMetric):
    """Base of the metrics that measure each view as an image: the mean over an asset's views, then over assets.

    A view without a value (no foreground in it) is left out of its asset's mean.
    """

    def __init__(self, name: str, resamples: int, *, parameters: Mapping[str, Any], undefined: str) -> None:
        super().__init__(name, resamples, parameters={"average": AVERAGE} | dict(parameters), undefined=undefined)
        self.frame_columns = (name,)

    @abstractmethod
    def value(self, pair: ViewPair) -> float:
        """Of one view."""

    def start(self) -> AssetMeter:
        return _ViewMeter(self)


class _ViewMeter(AssetMeter):
    def __init__(self, metric: ViewColumn) -> None:
        self._metric = metric
        self._values: list[float] = []

    def update(self, pair: ViewPair) -> None:
        self._values.append(self._metric.value(pair))

    def finish(self, totals: AssetTotals) -> AssetMeasured:  # noqa: ARG002
        values, name = np.array(self._values), self._metric.name
        return AssetMeasured(columns={name: mean_of_views(values)}, views={name: values})


def mean_of_views(values: np.ndarray) -> float:
    """Of those that are there."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


class OnGround(ViewColumn):
    """A metric of frames, of an asset's views on a plain ground: SSIM and LPIPS as of videos.

    Args:
        metric: measures single frames; its name, options and weights are this one's.
        background: one of `harness.metrics.asset_base.GROUNDS`.

    Raises:
        BenchError: no such background.
    """

    def __init__(self, metric: FrameColumn, background: str = "black") -> None:
        parameters = {**metric.parameters, "average": AVERAGE, "background": checked_ground(metric.name, background)}
        undefined = metric.undefined.replace("frames", "views")
        super().__init__(metric.name, metric.resamples, parameters=parameters, undefined=undefined)
        self._metric, self._ground = metric, background
        self.title, self.weights = metric.title, metric.weights
        self.higher_is_better = metric.higher_is_better

    def value(self, pair: ViewPair) -> float:
        return float(self._metric.values(*pair.on(self._ground))[0])


class Count(MeanColumn, AssetMetric):
    """Mean number of tokens, voxels or Gaussians of an asset.

    Args:
        of: which of `AssetTotals`.
    """

    looks = False
    higher_is_better = False

    def __init__(self, *, name: str, resamples: int, of: Literal["tokens", "voxels", "gaussians"]) -> None:
        super().__init__(name, resamples, parameters={}, undefined=f"the tokenizer makes no {of}")
        self.of = self.unit = of

    def start(self) -> AssetMeter:
        return _CountMeter(self)

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:
        values = table[self.name]
        return not len(values) or not bool(np.isnan(values).all())


class _CountMeter(AssetMeter):
    def __init__(self, metric: Count) -> None:
        self._metric = metric

    def update(self, pair: ViewPair) -> None:
        pass

    def finish(self, totals: AssetTotals) -> AssetMeasured:
        count: int | None = getattr(totals, self._metric.of)
        return AssetMeasured(columns={self._metric.name: float("nan") if count is None else float(count)})
