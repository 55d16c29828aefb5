"""Metrics with one value per sample, whose cell is the mean over samples with a bootstrap interval."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.metrics.base import Aggregated, Cell, Features, Metric, Pairs
from harness.metrics.bootstrap import mean_interval


class MeanColumn(Aggregated):
    """Base of the metrics with one column, called like the metric.

    A column holds not-a-number where the metric has no meaning for a sample (too small for a window, no rate).
    Such samples are left out of the mean: the cell's `n` is without them and its parameters count them.

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

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        values = table[self.name]
        defined = values[~np.isnan(values)]
        reason = self.why(table)
        missing = f"{len(values) - len(defined)} of {len(values)}: {reason}"
        absent = None if len(defined) else (reason if len(values) else "no sample was measured")
        return [
            Cell(
                name=self.title,
                value=None if absent else float(defined.mean()),
                interval=mean_interval(defined, count=self.resamples, seed=seed),
                n=len(defined),
                higher_is_better=self.higher_is_better,
                unit=self.unit,
                absent=absent,
                applies=self.applies(table),
                parameters={
                    **self.parameters,
                    **({"undefined": missing} if len(defined) < len(values) else {}),
                    **self.remarks(table),
                },
            )
        ]

    def why(self, table: Mapping[str, np.ndarray]) -> str:  # noqa: ARG002
        """Why samples of this table have no value, where some have none."""
        return self.undefined

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:  # noqa: ARG002
        """As in `Cell`."""
        return True

    def remarks(self, table: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """What else the cell should say of these samples, for its parameters."""
        return {}


class ColumnMetric(MeanColumn, Metric):
    """Base of such metrics of images."""

    @abstractmethod
    def values(self, pairs: Pairs) -> np.ndarray:
        """float64 ``[N]``."""

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        return {self.name: self.values(pairs)}, {}
