"""What the HTML pages show beyond the tables: printed tables with their headers, a run's facts and samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from harness.errors import BenchError
from harness.experiment import Experiment
from reports import numbers, paper, plots
from reports.build import Report
from reports.model import Metric
from reports.records import SAMPLES, Record, RecordCell
from reports.tables import metric_of


def printed_part(table: paper.Table, groups: Iterable[str]) -> paper.Table:
    """The table with its descriptive columns and those below some groups only."""
    wanted = set(groups)
    kept = [place for place, column in enumerate(table.columns) if not column.metric or column.group in wanted]
    rows = tuple(replace(row, values=tuple(row.values[place] for place in kept)) for row in table.rows)
    columns = tuple(table.columns[place] for place in kept)
    return replace(table, columns=columns, rows=rows, method=kept.index(table.method))


def header_rows(table: paper.Table) -> list[list[dict[str, Any]]]:
    """The header of a printed table as rows of cells with their spans; leaves carry their column."""
    depth = max(len(column.levels) for column in table.columns)
    rows: list[list[dict[str, Any]]] = []
    for level in range(depth):
        cells: list[dict[str, Any]] = []
        last: tuple[str, ...] | None = None
        for index, column in enumerate(table.columns):
            if len(column.levels) - 1 == level:
                first = "descending" if column.higher_is_better else "ascending"
                cell = {"leaf": True, "text": column.levels[-1], "column": index, "metric": column.metric}
                cells.append({**cell, "rows": depth - level, "first": first})
                last = None
            elif len(column.levels) - 1 > level:
                above = column.levels[: level + 1]
                if above == last:
                    cells[-1]["columns"] += 1
                else:
                    cells.append({"leaf": False, "text": column.levels[level], "columns": 1})
                last = above
        rows.append(cells)
    return rows


def printed_rows(table: paper.Table) -> list[dict[str, Any]]:
    """The body of a printed table: strings as printed, best figures marked, sort keys beside."""
    rows = []
    for row in table.rows:
        block = table.block(row)
        cells = []
        for index, (column, text) in enumerate(zip(table.columns, row.values, strict=True)):
            figure = table.printed(row, index) if column.metric else None
            heads = index == table.method
            shown = row.key if heads else ("–" if text == "-" else text)
            cells.append(
                {
                    "text": shown,
                    "heads": heads,
                    "metric": column.metric,
                    "best": figure is not None and figure.value == table.best(index, block),
                    "sort": None if text == "-" else (text if figure is None else figure.value),
                }
            )
        rows.append({"section": row.group, "cells": cells})
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An experiment that fills a paper table, and how many tokenizers were measured for it."""

    experiment: Experiment
    measured: int


def statuses(report: Report, name: str) -> list[Status]:
    """Which experiments fill a table of the paper."""
    found = []
    for experiment in report.experiments.values():
        datasets = {dataset for fills in experiment.fills if fills.table == name for dataset in fills.group}
        if any(fills.table == name for fills in experiment.fills):
            runs = [r for r in report.records if r.experiment == experiment.name and r.dataset["name"] in datasets]
            found.append(Status(experiment=experiment, measured=len({run.tokenizer_key for run in runs})))
    return found


def table_index(report: Report) -> list[dict[str, Any]]:
    """The 13 tables with one line each on where they stand."""
    entries = []
    for name in paper.names():
        known = statuses(report, name)
        measured = sum(status.measured for status in known)
        if measured:
            state, said = "measured", f"{measured} row{'s' if measured > 1 else ''} measured here"
        elif any(status.experiment.status == "built" for status in known):
            state, said = "ready", "can be measured"
        elif known:
            state, said = "planned", f"planned: {', '.join(status.experiment.name for status in known)}"
        else:
            state, said = "printed", "printed figures only"
        entries.append({"table": paper.load(name), "state": state, "said": said})
    return entries


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


_DESCRIBE = ("label", "height", "width", "height_in", "width_in", "frames")
_SEVERAL = {"video": "frames", "asset": "views"}
_UNITS = {"encode_ms": "ms", "decode_ms": "ms"}


def sample_plots(record: Record, samples: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """A histogram for each numeric column that differs between samples; metrics first, times last."""
    made = []
    for name, column in samples.items():
        values = [value for value in column if isinstance(value, int | float) and not isinstance(value, bool)]
        if name in _DESCRIBE or len(values) != len(column) or len(set(values)) < 2:
            continue
        cell = record.cell(name)
        unit = _UNITS.get(name, cell.unit if cell is not None else "")
        decimals = numbers.decimals_for([value for value in values if np.isfinite(value)], unit)
        svg: Markup | None = plots.histogram(values, name, unit, decimals)
        if svg is not None:
            made.append({"name": name.replace("_ms", ""), "unit": unit, "svg": svg, "last": name in _UNITS})
    return sorted(made, key=lambda plot: plot["last"] or plot["name"] == "tokens")


def extremes(record: Record, samples: Mapping[str, list[Any]], each: int = 5) -> dict[str, Any] | None:
    """The worst and the best samples by the gallery's metric (the first cell's without a gallery)."""
    chosen_by = [picture.metric for picture in record.gallery]
    chosen_by += [film.metric for film in (*record.clips, *record.assets)]
    names = chosen_by[:1] or [cell.name for cell in record.cells[:1]]
    if not names or names[0] not in samples or len(samples["id"]) < 2:
        return None
    cell = record.cell(names[0])
    higher, unit = (cell.higher_is_better, cell.unit) if cell is not None else (True, "")
    values = [float("nan") if value is None else float(value) for value in samples[names[0]]]
    decimals = numbers.decimals_for([value for value in values if np.isfinite(value)], unit)
    # NaN: the metric is not defined for that sample, so it is neither worst nor best.
    defined = [place for place, value in enumerate(values) if not np.isnan(value)]
    order = sorted(defined, key=lambda place: values[place] if higher else -values[place])
    places: list[int | None] = list(order)
    if len(order) > 2 * each:
        places = [*order[:each], None, *order[-each:]]

    def row(place: int) -> dict[str, str]:
        size = ""
        if "height" in samples and "width" in samples:
            size = f"{samples['width'][place]} × {samples['height'][place]}"
        if record.modality in _SEVERAL and "frames" in samples:
            size += f" × {samples['frames'][place]} {_SEVERAL[record.modality]}"
        text = f"{numbers.figure(values[place], decimals)} {unit}".rstrip()
        return {"id": str(samples["id"][place]), "size": size, "value": text}

    return {"metric": names[0], "rows": [None if place is None else row(place) for place in places]}


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
