"""What the pages of clips and of assets share: figures beside those of other tokenizers, values of each picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.errors import BenchError
from reports import numbers
from reports.clips import FilmShot, Shelf
from reports.model import Metric
from reports.records import FRAMES, Record
from reports.tables import metric_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The clip or asset under one tokenizer.

    Attributes:
        page: of it under that tokenizer, relative to the report's root; None where that run does not show it.
        here: whether it is the page's own.
        figures: one text for each column, a dash where it has no value.
    """

    record: Record
    page: str | None
    here: bool
    figures: tuple[str, ...]
    values: tuple[float | None, ...]


def rows_of(shelf: Shelf, shot: FilmShot) -> tuple[list[Metric], list[Row]]:
    """The metrics that any tokenizer has for this clip or asset, and a row for each of them."""
    records = shelf.same(shot)
    found = [(record, shelf.row(record, shot.id)) for record in records]
    names = dict.fromkeys(cell.name for record in records for cell in record.cells)
    metrics = []
    for name in names:
        values = [value for _, row in found if (value := number(row.get(name))) is not None]
        if values:
            unit = next(cell.unit for record in records if (cell := record.cell(name)) is not None)
            metrics.append(metric_of(records, name, numbers.decimals_for(values, unit)))
    rows = []
    for record, row in found:
        cells = tuple(number(row.get(metric.name)) for metric in metrics)
        texts = tuple(
            numbers.DASH if value is None else numbers.figure(value, metric.decimals)
            for value, metric in zip(cells, metrics, strict=True)
        )
        here = record is shot.record
        page = shot.page if here else shelf.pages(record).get(shot.id)
        rows.append(Row(record=record, page=page, here=here, figures=texts, values=cells))
    return metrics, rows


def number(value: object) -> float | None:
    """A figure of the per-sample table; None for a gap, and for NaN: the metric has no value for that sample."""
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def values_of(record: Record, sample: str) -> dict[str, np.ndarray]:
    """Values of each frame of a clip or each measured view of an asset, by metric: float64 ``[frames]``.

    In the protocol's order; two metrics that differ in how they average them have one entry. Empty where the run has
    no such table.

    Raises:
        BenchError: the file is damaged.
    """
    path = record.folder / FRAMES
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path, filters=[("id", "=", sample)]).sort_by("frame")
        names = [name for name in table.column_names if name not in ("id", "frame")]
        found = {name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in names}
    except (OSError, ValueError, KeyError) as error:  # what pyarrow raises of a damaged file is a ValueError
        raise BenchError(f"{path}: not a readable table ({error}); run it again or remove the folder") from None
    ordered = [name for name in families_of(record) if name in found]
    distinct: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*ordered, *sorted(found)]):
        values = found[name]
        if not any(np.allclose(values, other, rtol=1e-6, atol=0, equal_nan=True) for other in distinct.values()):
            distinct[name] = values
    return distinct


def families_of(record: Record) -> dict[str, str]:
    """The protocol's metrics: name of the column -> what it is."""
    return {str(m.get("name")): str(m.get("metric")) for m in record.protocol["content"].get("metrics", ())}


def timing(row: Mapping[str, Any]) -> tuple[str, str]:
    """The fact of how long a sample took."""
    return ("Time", f"encoded in {row['encode_ms'] / 1000:.3g} s, decoded in {row['decode_ms'] / 1000:.3g} s")
