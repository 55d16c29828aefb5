"""Table 3 of the data that was measured here and the paper does not print: one row for a tokenizer, its figures put
together from the records of several experiments."""

from __future__ import annotations

from dataclasses import dataclass

from reports import numbers, paper
from reports.build import Report
from reports.capabilities import tokenizer_key
from reports.lines import SECTIONS
from reports.model import Figure, Line, Metric, Panel
from reports.states import StateCell, StateRow

__all__ = ["Composed", "composed"]

TABLE = "table03"


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Rows as table 3 has them, on other data.

    Attributes:
        data: for each of the table's groups that has figures, the data that they were measured on.
    """

    table: paper.Table
    rows: tuple[StateRow, ...]
    data: tuple[tuple[str, str], ...]


def composed(report: Report) -> Composed | None:
    """Table 3 from the records on other data than the paper's; None where there are none."""
    table = paper.load(TABLE)
    found: dict[tuple[str, str], tuple[Line, dict[int, StateCell]]] = {}
    data: dict[str, str] = {}
    for experiment in report.experiments.values():
        for fills in experiment.fills:
            panel = _panel(report, experiment.name) if fills.table == TABLE else None
            if panel is None:
                continue
            group = next(iter(fills.group.values()))
            columns = {name: table.column(group, last) for name, last in fills.columns.items()}
            for line in panel.lines:
                if line.record is None:
                    continue
                cells = found.setdefault(tokenizer_key(line.record.card), (line, {}))[1]
                for metric, figure in zip(panel.metrics, line.figures, strict=True):
                    if metric.name in columns and figure.value is not None:
                        cells.setdefault(columns[metric.name], _cell(line, metric, figure))
                        data.setdefault(f"{group}: {experiment.name}", panel.title)
    kept = [entry for entry in found.values() if entry[1]]
    if not kept:
        return None
    order = list(SECTIONS.values())
    kept.sort(key=lambda entry: order.index(entry[0].section))
    return Composed(table=table, rows=tuple(_row(table, *entry) for entry in kept), data=tuple(data.items()))


def _panel(report: Report, experiment: str) -> Panel | None:
    """Of the data that the paper does not print, the panel with most tokenizers; the first of several."""
    panels = [
        panel
        for comparison in report.comparisons
        if comparison.primary and comparison.experiment.name == experiment
        for panel in comparison.panels
        if panel.printed is None
    ]
    return max(panels, key=lambda panel: len(panel.measured), default=None)


def _cell(line: Line, metric: Metric, figure: Figure) -> StateCell:
    return StateCell(state="measured", text="", figure=figure, metric=metric, record=line.record)


def _row(table: paper.Table, line: Line, cells: dict[int, StateCell]) -> StateRow:
    known = {"Comp. Ratio": line.compression, "Latent Channels": line.latent, "Token Type": line.token_type}
    made = []
    for place, column in enumerate(table.columns):
        if column.metric:
            made.append(cells.get(place, StateCell(state="blank", text=numbers.DASH)))
        else:
            text = line.name if place == table.method else known.get(column.header, "-")
            made.append(StateCell(state="text", text=numbers.DASH if text == "-" else text))
    return StateRow(name=line.name, section=line.section, badges=(), cells=tuple(made), record=line.record)
