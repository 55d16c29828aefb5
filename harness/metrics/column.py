"""Metrics with one value per image, whose cell is the mean over images with a bootstrap interval."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.metrics.base import Cell, Features, Metric, Pairs
from harness.metrics.bootstrap import mean_interval


class ColumnMetric(Metric):
    """Base of the metrics with one column, called like the metric.

    A column holds not-a-number where the metric has no meaning for an image (too small for a window, no rate).
    Such images are left out of the mean: the cell's `n` is without them and its parameters count them.

    Args:
        name: of column and cell; a subclass that measures with unofficial weights says so in `title`, the cell's.
        resamples: of the bootstrap.
        unit, parameters: as in `Cell`.
        undefined: why a value may be missing; the reason of the absent cell where all are.
    """

    unit = ""

    def __init__(self, name: str, resamples: int, *, parameters: Mapping[str, Any], undefined: str) -> None:
        self.name = name
        self.title = name
        self.columns = (name,)
        self.resamples = resamples
        self.parameters = dict(parameters)
        self.undefined = undefined

    @abstractmethod
    def values(self, pairs: Pairs) -> np.ndarray:
        """float64 ``[N]``."""

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        return {self.name: self.values(pairs)}, {}

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        values = table[self.name]
        defined = values[~np.isnan(values)]
        missing = f"{len(values) - len(defined)} of {len(values)}: {self.undefined}"
        absent = None if len(defined) else (self.undefined if len(values) else "no sample was measured")
        return [
            Cell(
                name=self.title,
                value=None if absent else float(defined.mean()),
                interval=mean_interval(defined, count=self.resamples, seed=seed),
                n=len(defined),
                higher_is_better=self.higher_is_better,
                unit=self.unit,
                absent=absent,
                parameters={
                    **self.parameters,
                    **({"undefined": missing} if len(defined) < len(values) else {}),
                    **self.remarks(defined),
                },
            )
        ]

    def remarks(self, values: np.ndarray) -> dict[str, Any]:  # noqa: ARG002
        """What else the cell should say of these values, for its parameters."""
        return {}
