"""A panel as rows of plain cells, which Markdown and LaTeX only have to dress."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reports import numbers
from reports.build import letter, panel_reasons
from reports.model import Figure, Metric, Panel
from reports.protocols import ProtocolPanel, Spread
from reports.states import MARKS, NAMES, StateCell, TableState


@dataclass(frozen=True, slots=True)
class GridCell:
    """A cell: its text, a smaller remark after it (interval, n), a footnote's letter, and whether it is best."""

    text: str
    remark: str = ""
    mark: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table in plain text.

    Attributes:
        groups: (text, columns) of the upper header row; empty where there is one header row only.
        header: leaf headers; the first ``left`` columns are text, the others figures.
        rows: a section's title, or the cells of a line.
    """

    title: str
    caption: str
    groups: tuple[tuple[str, int], ...]
    header: tuple[str, ...]
    left: int
    rows: tuple[str | tuple[GridCell, ...], ...]
    footnotes: tuple[tuple[str, str], ...]


def panel_grid(panel: Panel, caption: str) -> Grid:
    """Printed, measured and difference for each metric where the paper prints the dataset; else measured alone."""
    both = panel.printed is not None and bool(panel.measured)
    reasons = panel_reasons(panel)
    parts = ("paper", "here", "Δ") if both else (None,)
    labels = [f"{metric.label} ({metric.unit})" if metric.unit else metric.label for metric in panel.metrics]
    header = ["Tokenizer", *(["Compression", "Latent", "Type"] if panel.described else [])]
    header += ["n used / expected"] if panel.measured else []
    left = len(header)
    header += [part or label for label in labels for part in parts]
    rows: list[str | tuple[GridCell, ...]] = []
    section = None
    for line in panel.lines:
        if line.section != section:
            section = line.section
            rows.append(section)
        name = line.name + "".join(f" ({badge})" for badge in line.badges)
        cells = [GridCell(name)]
        if panel.described:
            cells += [GridCell(_dash(text)) for text in (line.compression, line.latent, line.token_type)]
        if panel.measured:
            cells.append(GridCell(line.n or numbers.DASH))
        for metric, figure in zip(panel.metrics, line.figures, strict=True):
            cells += _cells(panel, metric, figure, reasons, both=both)
        rows.append(tuple(cells))
    return Grid(
        title=panel.title,
        caption=caption,
        groups=(("", left), *((label, 3) for label in labels)) if both else (),
        header=tuple(header),
        left=left,
        rows=tuple(rows),
        footnotes=tuple((letter(reasons, reason), reason) for reason in reasons),
    )


def _cells(panel: Panel, metric: Metric, figure: Figure, reasons: tuple[str, ...], *, both: bool) -> Iterator[GridCell]:
    if panel.printed is not None:
        yield GridCell(figure.printed.text if figure.printed else numbers.DASH, strong=figure.printed_best)
    if both or panel.printed is None:
        yield _measured(metric, figure, reasons)
    if both:
        change = figure.difference
        yield GridCell(numbers.DASH if change is None else numbers.difference(change, metric.decimals))


def _measured(metric: Metric, figure: Figure, reasons: tuple[str, ...]) -> GridCell:
    cell = figure.cell
    if cell is None or cell.value is None:
        absent = None if cell is None else cell.absent
        return GridCell(numbers.DASH, mark=letter(reasons, absent) if absent else "")
    bounds = numbers.interval(cell.interval, metric.decimals)
    remarks = [bounds] if bounds else []
    if figure.own_n:
        remarks.append(f"n = {numbers.of_expected(cell.n, figure.expected)}")
    return GridCell(numbers.figure(cell.value, metric.decimals), ", ".join(remarks), strong=figure.best)


def state_grid(state: TableState) -> Grid:
    """A whole table of the paper: each figure with the mark of its state, measured ones beside the printed."""
    table = state.table
    header = tuple(f"{column.group} {column.levels[-1]}".strip() for column in table.columns)
    order = [table.method, *(place for place in range(len(header)) if place != table.method)]
    figures = any(column.metric for column in table.columns)
    left = sum(not column.metric for column in table.columns) if figures else len(header)
    whys = tuple(f"{one.what} ({one.kind}): {one.why} Source: {one.source}." for one in state.missing)
    rows: list[str | tuple[GridCell, ...]] = []
    section = ""
    for row in state.rows:
        if row.section and row.section != section:
            section = row.section
            rows.append(section)
        name = row.name + "".join(f" ({badge})" for badge in row.badges)
        cells = [GridCell(name)]
        cells += [_state_cell(row.cells[place], state, whys) for place in order[1:]]
        rows.append(tuple(cells))
    marks = ", ".join(f"{MARKS[kind]} {NAMES[kind]}" for kind in ("measured", "printed", "missing"))
    return Grid(
        title="Every cell and its state",
        caption=f"{marks}. A dash: neither.",
        groups=(),
        header=tuple(header[place] for place in order),
        left=left,
        rows=tuple(rows),
        footnotes=tuple((letter(whys, why), why) for why in whys),
    )


def _state_cell(cell: StateCell, state: TableState, whys: tuple[str, ...]) -> GridCell:
    if cell.state in ("text", "blank"):
        return GridCell(cell.text)
    if cell.state == "measured":
        beside = [f"paper {cell.text}"] if cell.text not in ("", numbers.DASH) else []
        if cell.figure is None or cell.metric is None or cell.figure.value is None or cell.figure.cell is None:
            return GridCell(f"{MARKS['measured']} {cell.tick}", ", ".join(beside))
        if cell.figure.difference is not None:
            beside.append(numbers.difference(cell.figure.difference, cell.metric.decimals))
        bounds = numbers.interval(cell.figure.cell.interval, cell.metric.decimals)
        remark = ", ".join([*([bounds] if bounds else []), *beside])
        value = numbers.figure(cell.figure.value, cell.metric.decimals)
        return GridCell(f"{MARKS['measured']} {value}", remark, strong=cell.figure.best)
    mark = letter(whys, whys[state.missing.index(cell.missing)]) if cell.missing is not None else ""
    return GridCell(f"{MARKS[cell.state]} {cell.text}", mark=mark, strong=cell.best)


def spread_grid(panel: ProtocolPanel, spread: Spread) -> Grid:
    """One metric: tokenizers down, protocols across, the spread last."""
    decimals = spread.metric.decimals

    def text(value: float | None) -> GridCell:
        return GridCell(numbers.DASH if value is None else numbers.figure(value, decimals))

    unit = f" ({spread.metric.unit})" if spread.metric.unit else ""
    return Grid(
        title=f"{panel.title}: {spread.metric.label}{unit}",
        caption=f"The same tokenizer under several protocols, n = {', '.join(numbers.count(n) for n in panel.n)}; "
        "spread: largest minus smallest.",
        groups=(),
        header=("Tokenizer", *spread.protocols, "spread"),
        left=1,
        rows=tuple((GridCell(r.name), *(text(value) for value in r.values), text(r.spread)) for r in spread.rows),
        footnotes=(),
    )


def _dash(text: str) -> str:
    return numbers.DASH if text == "-" else text
