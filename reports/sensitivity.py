"""How far the choice of protocol alone moves the figures of one tokenizer, beside the paper's gaps between systems.

`reports.protocols` shows the same of whatever runs are there; this is one tokenizer in full: intervals, differences to
the default protocol, and what keeps two protocols from being compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.experiment import Experiment
from harness.records import NAME
from reports import paper
from reports.lines import default_protocol
from reports.model import Metric
from reports.protocols import spreads
from reports.records import Record, RecordCell, read
from reports.tables import metric_of

if TYPE_CHECKING:
    from harness.sensitivity import Outcome  # which imports torch

__all__ = ["Gaps", "MetricRow", "MetricSpread", "Sensitivity", "build", "gaps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """A metric under one protocol.

    Attributes:
        record: None where this protocol was not measured.
        cell: None where the protocol has no metric of this name, or was not measured.
        difference: to the default protocol; None where one of both has no finite value or other samples.
        apart: why this value cannot be compared with the others; None where it can.
        settings: what sets the metric apart from the same name under other protocols (``flavour gaussian``).
    """

    protocol: str
    record: Record | None
    cell: RecordCell | None
    difference: float | None
    apart: str | None
    settings: str

    @property
    def value(self) -> float | None:
        """The measured value, None where absent or not measured."""
        return None if self.cell is None else self.cell.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Differences between neighbours in a column of the paper: systems of one block, ranked by their printed figures.

    Attributes:
        table, column: where they are printed: ``Table 4``, ``ImageNet / PSNR↑``.
        values: one for each pair of neighbours, smallest first; equal figures have the gap 0.
    """

    table: str
    column: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    def below(self, spread: float) -> int:
        """How many are smaller than ``spread``."""
        return sum(gap < spread for gap in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpread:
    """One metric under all protocols.

    Attributes:
        spread: largest less smallest of the finite values that can be compared; None for fewer than two.
        gaps: of the paper's columns that these figures fill; empty where the dataset is none that the paper prints.
    """

    metric: Metric
    rows: tuple[MetricRow, ...]
    spread: float | None
    gaps: tuple[Gaps, ...]

    @property
    def measured(self) -> bool:
        """Whether any protocol gives a value."""
        return any(row.value is not None for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One tokenizer under every protocol of an experiment.

    Attributes:
        default: name of the protocol that `run` takes on this dataset.
        definitions: protocol -> what it does, of those that were measured.
        unmeasured: protocol -> why there is no record of it.
    """

    experiment: Experiment
    title: str
    spec: str
    dataset: str
    used: int
    expected: int | None
    default: str
    protocols: tuple[str, ...]
    definitions: Mapping[str, str]
    unmeasured: Mapping[str, str]
    metrics: tuple[MetricSpread, ...]
    records: tuple[Record, ...]

    @property
    def absent(self) -> dict[str, list[str]]:
        """Why metrics have no value under any protocol: reason -> their names."""
        found: dict[str, list[str]] = {}
        for spread in self.metrics:
            if not spread.measured:
                reasons = dict.fromkeys(row.cell.absent for row in spread.rows if row.cell and row.cell.absent)
                found.setdefault("; ".join(reasons), []).append(spread.metric.name)
        return found


def build(experiment: Experiment, outcomes: Sequence[Outcome]) -> Sensitivity:
    """Read the records and compare them.

    Raises:
        BenchError: a record that cannot be read.
    """
    by_name = {one.protocol: read(one.folder / NAME) for one in outcomes if one.folder is not None}
    records = list(by_name.values())
    first = by_name.get(default_protocol(experiment, str(records[0].dataset["name"])), records[0])
    default = default_protocol(experiment, str(first.dataset["name"]))
    panels = spreads(experiment, records)
    names = tuple(one.protocol for one in outcomes)
    metrics = dict.fromkeys(cell.name for record in (first, *records) for cell in record.cells)
    return Sensitivity(
        experiment=experiment,
        title=first.title,
        spec=first.spec,
        dataset=str(first.dataset["title"]),
        used=first.used,
        expected=first.expected,
        default=default,
        protocols=names,
        definitions=dict(panels[0].definitions) if panels else {},
        unmeasured={one.protocol: one.reason for one in outcomes if one.reason is not None},
        metrics=tuple(_spread(experiment, name, names, by_name, default) for name in metrics),
        records=tuple(records),
    )


def _spread(
    experiment: Experiment, name: str, protocols: Sequence[str], records: Mapping[str, Record], default: str
) -> MetricSpread:
    cells = {one: record.cell(name) for one, record in records.items()}
    samples = {one: _samples(records[one], cell) for one, cell in cells.items() if cell and cell.value is not None}
    # The default's samples, or those of most protocols: the first of equals, so that the order decides and no chance.
    usual = samples.get(default) or (Counter(samples.values()).most_common(1)[0][0] if samples else None)
    reference = cells.get(default)
    rows = []
    for one in protocols:
        cell = cells.get(one)
        apart = _apart(one in records, cell, samples.get(one) == usual)
        rows.append(
            MetricRow(
                protocol=one,
                record=records.get(one),
                cell=cell,
                difference=None if apart or one == default else _difference(cell, reference),
                apart=apart,
                settings="" if cell is None else _settings(cell, [other for other in cells.values() if other]),
            )
        )
    finite = [row.value for row in rows if row.apart is None and row.value is not None and math.isfinite(row.value)]
    dataset = next(iter(records.values())).dataset["name"]
    return MetricSpread(
        metric=metric_of(list(records.values()), name),
        rows=tuple(rows),
        spread=max(finite) - min(finite) if len(finite) > 1 else None,
        gaps=tuple(gaps(experiment, str(dataset), name)),
    )


def _difference(cell: RecordCell | None, other: RecordCell | None) -> float | None:
    if cell is None or other is None or cell.value is None or other.value is None:
        return None
    change = cell.value - other.value
    return change if math.isfinite(change) else None


def _samples(record: Record, cell: RecordCell | None) -> tuple[object, ...]:
    """What must be equal for two values to be of the same samples."""
    failed = sorted(str(one["id"]) for one in record.samples["failed"])
    return (record.dataset["ids_sha256"], *failed, None if cell is None else cell.n)


def _apart(measured: bool, cell: RecordCell | None, same: bool) -> str | None:
    if not measured:
        return "not measured"
    if cell is None:
        return "has no metric of this name"
    if cell.value is None:
        return f"absent: {cell.absent}"
    if not math.isfinite(cell.value):
        return "not finite"
    return None if same else f"of other samples (n = {cell.n})"


def _settings(cell: RecordCell, cells: Sequence[RecordCell]) -> str:
    """The parameters of a cell that are not the same in all."""

    def text(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)

    missing = object()
    told = [
        f"{key} {text(value)}"
        for key, value in cell.parameters.items()
        if any(other.parameters.get(key, missing) != value for other in cells)
    ]
    return ", ".join(told)


def gaps(experiment: Experiment, dataset: str, metric: str) -> list[Gaps]:
    """The gaps of each column of the paper that a metric on a dataset fills; a column printed twice counts once."""
    found: dict[tuple[float, ...], Gaps] = {}
    for fills in experiment.fills:
        if dataset not in fills.group or metric not in fills.columns:
            continue
        table = paper.load(fills.table)
        column = table.column(fills.group[dataset], fills.columns[metric])
        values: list[float] = []
        for block in dict.fromkeys(table.block(row) for row in table.rows):
            figures = [one for row in block if (one := table.printed(row, column)) is not None]
            printed = sorted(one.value for one in figures)
            # As exact as they are printed: 29.72 - 29.70 is 0.02.
            decimals = max((one.decimals for one in figures), default=0)
            values += (round(high - low, decimals) for low, high in pairwise(printed))
        if values:
            ordered = tuple(sorted(values))
            made = Gaps(table=f"Table {table.number}", column=table.columns[column].header, values=ordered)
            found.setdefault(ordered, made)
    return list(found.values())
