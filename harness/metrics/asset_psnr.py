"""Peak signal-to-noise ratio of an asset's views, and how much of them the asset fills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.errors import BenchError
from harness.metrics.asset_base import AssetMeasured, AssetMeter, AssetMetric, AssetTotals, ViewPair, checked_ground
from harness.metrics.asset_column import ViewColumn, mean_of_views
from harness.metrics.column import MeanColumn
from harness.metrics.psnr import decibels, squared_errors


class AssetPsnr(MeanColumn, AssetMetric):
    """Mean of the assets' dB, of 8-bit views on a plain ground.

    Args:
        mse: ``view``: an asset's dB is the mean of its views' dB. ``asset``: it is the dB of one MSE over all its
            views, as AToken's release takes it over the views of a call; never above the mean of the views' dB.
        background: ``black`` or ``white``.
        foreground: only pixels that the original covers by half or more. What a small asset leaves free is right in
            any reconstruction and raises a whole picture's dB; what a reconstruction paints beside it is not seen so.

    Raises:
        BenchError: an option that does not exist.
    """

    higher_is_better = True
    unit = "dB"

    def __init__(
        self, *, name: str, resamples: int, mse: str = "view", background: str = "black", foreground: bool = False
    ) -> None:
        if mse not in ("view", "asset"):
            raise BenchError(f"{name}: mse is {mse!r}; there are: view, asset")
        if not isinstance(foreground, bool):
            raise BenchError(f"{name}: foreground is {foreground!r}, not true or false")
        self.pooled, self.foreground = mse == "asset", foreground
        self.ground = checked_ground(name, background)
        average = "dB of one MSE over an asset's views" if self.pooled else "mean of the dB of an asset's views"
        parameters: dict[str, Any] = {"peak": 255, "images": "8-bit", "mse": mse, "background": background}
        parameters["pixels"] = "those that the original covers by half or more" if foreground else "all"
        parameters["average"] = f"{average}, then mean over assets"
        super().__init__(name, resamples, parameters=parameters, undefined="no view shows the asset")
        self.frame_columns = (name,)

    def start(self) -> AssetMeter:
        return _PsnrMeter(self)

    def remarks(self, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
        values = table[self.name]
        identical = int(np.isinf(values).sum())
        what = "all views identical" if self.pooled else "a view identical"
        return {"identical": f"{what}: {identical} of {len(values)} assets"} if identical else {}


class _PsnrMeter(AssetMeter):
    def __init__(self, metric: AssetPsnr) -> None:
        self._metric = metric
        self._errors: list[float] = []
        self._counts: list[int] = []

    def update(self, pair: ViewPair) -> None:
        reference, reconstruction = pair.on(self._metric.ground)
        if self._metric.foreground:
            reference, reconstruction = (view[..., pair.foreground] for view in (reference, reconstruction))
        self._counts.append(reference.numel())
        self._errors.append(float(squared_errors(reference, reconstruction)[0]) if reference.numel() else 0.0)

    def finish(self, totals: AssetTotals) -> AssetMeasured:  # noqa: ARG002
        errors, counts = np.array(self._errors), np.array(self._counts)
        values = np.array([_decibels(e, c) for e, c in zip(errors, counts, strict=True)])
        value = _decibels(errors.sum(), counts.sum()) if self._metric.pooled else mean_of_views(values)
        return AssetMeasured(columns={self._metric.name: value}, views={self._metric.name: values})


def _decibels(squared_error: float, count: int) -> float:
    return float(decibels(np.array(squared_error), int(count))) if count else float("nan")


class ForegroundFraction(ViewColumn):
    """Share of the pixels that the original covers by half or more: how much of a view there is to get wrong."""

    higher_is_better = True

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(name, resamples, parameters={}, undefined="not a number")

    def value(self, pair: ViewPair) -> float:
        return float(pair.foreground.double().mean())
