"""What the HTML pages show beyond the tables: printed tables with their headers, a run's facts and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from harness.errors import BenchError
from reports import numbers, paper, plots
from reports.model import Metric
from reports.records import SAMPLES, Record, RecordCell
from reports.tables import metric_of


def header_rows(table: paper.Table) -> list[list[dict[str, Any]]]:
    """The header of a printed table as rows of cells with their spans.

    The last row has a leaf for each column, which is what is sorted by; above them the groups, and empty cells.
    """
    depth = max(len(column.levels) for column in table.columns)
    rows: list[list[dict[str, Any]]] = []
    for level in range(depth - 1):
        cells: list[dict[str, Any]] = []
        last: tuple[str, ...] | None = None
        for index, column in enumerate(table.columns):
            above = column.levels[: level + 1] if len(column.levels) - 1 > level else ()
            if above and above == last:
                cells[-1]["columns"] += 1
            else:
                info = not column.metric and index != table.method
                cells.append({"leaf": False, "text": above[-1] if above else "", "columns": 1, "info": info})
            last = above
        rows.append(cells)
    leaves = []
    for index, column in enumerate(table.columns):
        first = "descending" if column.higher_is_better else "ascending"
        cell = {"leaf": True, "text": column.levels[-1], "column": index, "metric": column.metric}
        leaves.append({**cell, "first": first})
    return [*rows, leaves]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """A record's cell with the column it would stand in."""

    metric: Metric
    cell: RecordCell


def cell_rows(record: Record) -> list[CellRow]:
    """Every cell of a record."""
    return [CellRow(metric=metric_of([record], cell.name), cell=cell) for cell in record.cells]


def read_samples(record: Record) -> dict[str, list[Any]] | None:
    """The run's per-sample table; None where the folder has none.

    Raises:
        BenchError: the file is damaged.
    """
    path = record.folder / SAMPLES
    if not path.is_file():
        return None
    try:
        return dict(pq.read_table(path).to_pydict())
    except (OSError, ValueError) as error:  # what pyarrow raises of a damaged file is a ValueError
        raise BenchError(f"{path}: not a readable table ({error}); run it again or remove the folder") from None


_DESCRIBE = ("label", "predicted", "height", "width", "height_in", "width_in", "frames")
_SEVERAL = {"video": "frames", "asset": "views"}
_UNITS = {"encode_ms": "ms", "decode_ms": "ms"}
_HIGHER = {"margin": True, "score": True}
_RIGHT_OR_WRONG = {0, 100}
"""Percent of one sample: two bars would say what the run's figure says."""
_LAST = ("tokens", "encode", "decode")


def sample_plots(record: Record, samples: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """A histogram for each numeric column that differs between samples; metrics first, times last."""
    made = []
    for name, column in samples.items():
        values = [value for value in column if isinstance(value, int | float) and not isinstance(value, bool)]
        if name in _DESCRIBE or len(values) != len(column) or len(set(values)) < 2 or set(values) <= _RIGHT_OR_WRONG:
            continue
        cell = record.cell(name)
        unit = _UNITS.get(name, cell.unit if cell is not None else "")
        decimals = numbers.decimals_for([value for value in values if np.isfinite(value)], unit)
        svg: Markup | None = plots.histogram(values, name, unit, decimals)
        if svg is not None:
            made.append({"name": name.replace("_ms", ""), "unit": unit, "svg": svg, "last": name in _UNITS})
    return sorted(made, key=lambda plot: plot["last"] or plot["name"] == "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """A sample of a run: its size in words, and a value and its text for each metric (None: not defined for it)."""

    id: str
    size: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """The samples that a run's page lists.

    Attributes:
        metrics: numeric columns, metrics first, times last.
        rows: the worst first by the first metric.
        total: samples of the run; more than rows where only the worst and the best of each metric are listed.
        each: how many of those.
    """

    metrics: tuple[Metric, ...]
    rows: tuple[SampleRow, ...]
    total: int
    each: int


LISTED = 200
"""Samples that a page lists in full: a table of more takes a phone seconds to lay out."""
EACH = 50


def gallery_metrics(record: Record) -> list[str]:
    """What the samples of a run's gallery were chosen by, one for each entry."""
    chosen = [picture.metric for picture in record.gallery]
    chosen += [film.metric for film in (*record.clips, *record.assets)]
    return chosen + [guess.metric for guess in record.guesses]


def sample_table(record: Record, samples: Mapping[str, list[Any]]) -> SampleTable | None:
    """The samples with all their figures; of more than `LISTED` the `EACH` worst and best by each metric."""
    metrics, columns = [], []
    for name, column in samples.items():
        values = [_defined(value) for value in column]
        told = [value for value in values if value is not None]
        # What is the same for all (a shard's mean time, a metric of an exact reconstruction) orders nothing.
        if name in _DESCRIBE or any(isinstance(value, str | bool) for value in column) or len(set(told)) < 2:
            continue
        cell = record.cell(name)
        unit = _UNITS.get(name, cell.unit if cell is not None else "")
        higher = False if name in _UNITS else cell.higher_is_better if cell is not None else _HIGHER.get(name)
        decimals = numbers.decimals_for([value for value in told if np.isfinite(value)], unit)
        title = name.removesuffix("_ms") if name in _UNITS else name
        metrics.append(Metric(name=title, higher_is_better=higher, unit=unit, decimals=decimals))
        columns.append(values)
    if not metrics:
        return None
    # What the gallery is chosen by leads; of right and wrong it says how surely.
    leads = gallery_metrics(record)[:1]
    places = sorted(
        range(len(metrics)), key=lambda place: (metrics[place].name not in leads, metrics[place].name in _LAST)
    )
    metrics, columns = [metrics[place] for place in places], [columns[place] for place in places]
    orders = [_worst_first(column, metric) for column, metric in zip(columns, metrics, strict=True)]
    total = len(samples["id"])
    # Those that the first metric is not defined for come last.
    listed = [*orders[0], *sorted(set(range(total)) - set(orders[0]))]
    if total > LISTED:
        kept = {place for order in orders for place in (*order[:EACH], *order[-EACH:])}
        listed = [place for place in listed if place in kept]
    rows = []
    for place in listed:
        here = tuple(column[place] for column in columns)
        texts = tuple(
            numbers.DASH if value is None else numbers.figure(value, metric.decimals)
            for value, metric in zip(here, metrics, strict=True)
        )
        rows.append(
            SampleRow(id=str(samples["id"][place]), size=_size(record, samples, place), values=here, texts=texts)
        )
    return SampleTable(metrics=tuple(metrics), rows=tuple(rows), total=total, each=EACH)


def _defined(value: object) -> float | None:
    """None where the metric is not defined for a sample, which is neither worst nor best."""
    if not isinstance(value, int | float) or np.isnan(value):
        return None
    return float(value)


def _worst_first(column: list[float | None], metric: Metric) -> list[int]:
    told = [(value, place) for place, value in enumerate(column) if value is not None]
    sign = -1 if metric.higher_is_better is False else 1
    return [place for _, place in sorted((sign * value, place) for value, place in told)]


def _size(record: Record, samples: Mapping[str, list[Any]], place: int) -> str:
    size = ""
    if "height" in samples and "width" in samples:
        size = f"{samples['width'][place]} × {samples['height'][place]}"
    if record.modality in _SEVERAL and "frames" in samples:
        size += f" × {samples['frames'][place]} {_SEVERAL[record.modality]}"
    return size


def facts(record: Record) -> list[dict[str, Any]]:
    """Protocol, data, tokenizer, weights, versions, time and shards as titled lists."""
    raw = record.raw
    protocol = {"sha256": record.protocol["sha256"], **dict(record.protocol["content"])}
    metrics = protocol.pop("metrics", [])
    for metric in metrics:
        options = {key: value for key, value in metric.items() if key != "name"}
        protocol[f"metric {metric.get('name', '')}"] = options
    samples = {key: value for key, value in record.samples.items() if key != "failed"}
    if "noted" in samples:
        samples["noted"] = [f"{entry['id']}: {entry['note']}" for entry in samples["noted"]]
    groups: list[tuple[str, Mapping[str, Any], bool]] = [
        ("Protocol", protocol, True),
        ("Tokenizer", {"spec": record.spec, **record.card}, True),
        ("Data", {**record.dataset, **samples}, True),
        ("Texts", raw.get("understanding", {}), True),
        ("Code", raw.get("code", {}), False),
        ("Settings", record.settings, False),
        ("Environment", _flat(raw.get("environment", {})), False),
        ("Metric weights", raw.get("weights", {}), False),
        ("Time and memory", {**raw.get("time", {}), **raw.get("memory", {})}, False),
        ("Shards", {shard["file"]: f"n = {shard['n']}, {shard['sha256']}" for shard in raw.get("shards", [])}, False),
    ]
    return [
        {"title": title, "open": opened, "rows": [(key, plain(value)) for key, value in group.items()]}
        for title, group, opened in groups
        if group
    ]


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(environment)
    return {**{k: v for k, v in flat.items() if k != "packages"}, **dict(flat.get("packages", {}))}


def plain(value: object) -> str:
    """A field as text for people: lists and mappings without brackets, None as a dash."""
    if value is None or value in ({}, [], ""):
        return numbers.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return numbers.count(value) if isinstance(value, int) and abs(value) >= 10_000 else str(value)
