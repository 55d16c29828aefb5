"""The report as data: one line for each figure, exact, in CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from io import StringIO
from typing import Any

from reports.build import Report
from reports.model import Comparison, Figure, Line, Metric
from reports.numbers import DASH
from reports.protocols import ProtocolPanel
from reports.records import Record
from reports.states import StateCell, TableState

FIELDS = (
    *("table", "section", "tokenizer", "token_type", "spec", "dataset", "dataset_title"),
    *("protocol", "protocol_sha256", "dtype"),
    *("metric", "unit", "higher_is_better", "printed", "measured", "low", "high", "level", "difference"),
    *("n_used", "n_expected", "best", "printed_best", "absent", "run"),
)
CELL_FIELDS = (
    *("table", "section", "row", "column", "state", "printed", "measured", "seen", "low", "high", "level"),
    *("difference", "n_used", "n_expected", "run", "command", "other_means", "missing", "source"),
)
SPREAD_FIELDS = ("dataset_title", "metric", "unit", "higher_is_better", "tokenizer", "protocol", "measured", "spread")


def figures(report: Report, comparison: Comparison) -> list[dict[str, Any]]:
    """Every figure of a comparison, printed or measured or both, as a row with the keys `FIELDS`.

    Values keep every digit; what is not there is None.
    """
    rows = []
    for panel in comparison.panels:
        for line in panel.lines:
            pairs = [*zip(panel.metrics, line.figures, strict=True), *zip(panel.further, line.further, strict=True)]
            for metric, figure in pairs:
                if figure.printed is not None or figure.cell is not None:
                    name = comparison.table.name if comparison.table is not None else ""
                    where = {"table": name, "dataset": panel.dataset, "dataset_title": panel.title}
                    rows.append(where | _row(report, line, metric, figure))
    return [{field: row[field] for field in FIELDS} for row in rows]


def _row(report: Report, line: Line, metric: Metric, figure: Figure) -> dict[str, Any]:
    record, cell = line.record, figure.cell
    low, high = cell.interval if cell is not None and cell.interval is not None else (None, None)
    return {
        "section": line.section,
        "tokenizer": line.name,
        "token_type": None if line.token_type == "-" else line.token_type,
        "spec": None if record is None else record.spec,
        "protocol": None if record is None else record.protocol["name"],
        "protocol_sha256": None if record is None else record.protocol["sha256"],
        "dtype": None if record is None else record.settings.get("dtype"),
        "metric": metric.name,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "printed": None if figure.printed is None else figure.printed.value,
        "measured": figure.value,
        "low": low,
        "high": high,
        "level": None if low is None or cell is None else cell.level,
        "difference": figure.difference,
        "n_used": None if cell is None else cell.n,
        "n_expected": figure.expected,
        "best": figure.best,
        "printed_best": figure.printed_best,
        "absent": None if cell is None else cell.absent,
        "run": None if record is None else report.slug(record),
    }


def cells(report: Report, state: TableState) -> list[dict[str, Any]]:
    """Every cell of a table of the paper that is no description, as a row with the keys `CELL_FIELDS`.

    ``printed`` is text, as the paper has it; ``state`` is one of `reports.states.State`.
    """
    rows = []
    for row in state.rows:
        for column, cell in zip(state.table.columns, row.cells, strict=True):
            if cell.state == "text":
                continue
            known: dict[str, Any] = dict.fromkeys(CELL_FIELDS)
            known |= {"table": state.table.name, "section": row.section or None, "row": row.name}
            known |= {"column": column.header, "state": cell.state}
            known["printed"] = cell.text if cell.text not in ("", DASH) else None
            known |= _cell_measured(report, cell) if cell.state == "measured" else {}
            if cell.way is not None:
                known |= {"command": cell.way.command or None, "other_means": cell.way.how or None}
            if cell.missing is not None:
                known |= {"missing": cell.missing.what, "source": cell.missing.source}
            rows.append(known)
    return rows


def _cell_measured(report: Report, cell: StateCell) -> dict[str, Any]:
    source = cell.record or cell.source
    run = report.slug(source) if isinstance(source, Record) else (source.folder.name if source is not None else None)
    figure = cell.figure
    if figure is None or figure.cell is None:
        return {"measured": cell.tick, "seen": cell.seen, "run": run}
    low, high = figure.cell.interval or (None, None)
    return {
        "measured": figure.value,
        "low": low,
        "high": high,
        "level": None if low is None else figure.cell.level,
        "difference": figure.difference,
        "n_used": figure.cell.n,
        "n_expected": figure.expected,
        "run": run,
    }


def spread_rows(panels: Iterable[ProtocolPanel]) -> list[dict[str, Any]]:
    """Every figure of the tables of protocols as a row with the keys `SPREAD_FIELDS`."""
    return [
        {
            "dataset_title": panel.title,
            "metric": spread.metric.name,
            "unit": spread.metric.unit,
            "higher_is_better": spread.metric.higher_is_better,
            "tokenizer": row.name,
            "protocol": protocol,
            "measured": value,
            "spread": row.spread,
        }
        for panel in panels
        for spread in panel.spreads
        for row in spread.rows
        for protocol, value in zip(spread.protocols, row.values, strict=True)
        if value is not None
    ]


def to_csv(rows: list[dict[str, Any]], fields: Iterable[str]) -> str:
    """RFC 4180 with a header; None is an empty field, infinity ``inf``, truth ``true`` or ``false``."""
    stream = StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(fields), lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()})
    return stream.getvalue()


def to_json(rows: list[dict[str, Any]]) -> str:
    """A list of objects. JSON has no infinity: it is the string ``Infinity``, which Python and JavaScript read back."""

    def plain(value: object) -> object:
        if isinstance(value, float) and math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value

    clean = [{key: plain(value) for key, value in row.items()} for row in rows]
    return json.dumps(clean, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
