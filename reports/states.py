"""Every cell of the paper's tables with its state: measured here, printed only, or not to be reproduced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from harness import protocol
from harness.experiment import Experiment
from reports import numbers, paper
from reports.build import Report
from reports.checks import Check
from reports.lines import default_protocol
from reports.model import Figure, Line, Metric, Panel
from reports.records import Record
from reports.states_data import Missing, StatesData, states_data

__all__ = ["MARKS", "NAMES", "State", "StateCell", "StateRow", "TableState", "Way", "table_state"]

State = Literal["measured", "printed", "missing", "blank", "text"]
"""``blank``: neither printed nor measured. ``text``: what describes a row and is no figure."""

MARKS: Mapping[State, str] = {"measured": "●", "printed": "○", "missing": "✕", "blank": "–", "text": ""}
NAMES: Mapping[State, str] = {
    "measured": "measured here",
    "printed": "printed in the paper only",
    "missing": "not reproducible: something is not published",
    "blank": "neither printed nor measured",
    "text": "",
}
ONE_BY_ONE = {"video": "frames:", "asset": "views:"}
"""How an encoder of images is run on other samples."""
OWN_ADAPTER = "--tokenizer my_package.my_module:create"


@dataclass(slots=True, kw_only=True)
class Way:
    """How cells that nobody measured would be measured.

    Attributes:
        command: empty where the experiment is not built yet, or where it is no matter of this suite.
        how: by which other means; empty where it is a matter of this suite.
        experiment, needs: what would be run, and what it wants.
        wants: a tokenizer or checkpoint that the user must bring.
        nearest: true where the paper's cells themselves cannot be reproduced.
        rows: names of the paper's rows.
        columns: headers.
    """

    command: str = ""
    how: str = ""
    experiment: str = ""
    needs: str = ""
    wants: str = ""
    nearest: bool = False
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCell:
    """One cell.

    Attributes:
        text: as printed; for ``blank`` a dash.
        figure, metric, record: of ``measured``; ``figure`` and ``record`` also where a run has the cell and not its
            figure, for the reason.
        missing: of ``missing``.
        way: of ``printed``, and of ``missing`` where something near can be measured.
        tick, seen, source: of a ``measured`` cell of table 1 a check mark or a cross, what showed it, in which check or
            run.
        best: printed bold here: best of its block.
    """

    state: State
    text: str
    figure: Figure | None = None
    metric: Metric | None = None
    record: Record | None = None
    missing: Missing | None = None
    way: Way | None = None
    tick: str = ""
    seen: str = ""
    source: Check | Record | None = None
    best: bool = False

    @property
    def sort(self) -> float | str | None:
        """What the column is sorted by."""
        if self.figure is not None and self.figure.value is not None:
            return self.figure.value
        if self.figure is not None and self.figure.printed is not None:
            return self.figure.printed.value
        return None if self.state == "blank" else self.tick or self.text

    @property
    def absent(self) -> str:
        """Why a run that is there has no figure; empty otherwise."""
        return (self.figure.cell.absent or "") if self.figure is not None and self.figure.cell is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """A row: one of the paper, or a tokenizer that was measured and is not in it.

    Attributes:
        section: the row's group.
        badges: what its name must say of its run.
        cells: one for each column of the table.
        record, check: what its name links to.
    """

    name: str
    section: str
    badges: tuple[str, ...]
    cells: tuple[StateCell, ...]
    record: Record | None = None
    check: Check | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """A table of the paper with the state of every cell.

    Attributes:
        rows: the paper's, then those measured here beside them.
        ways, missing: of its cells, in order of appearance.
    """

    table: paper.Table
    rows: tuple[StateRow, ...]
    ways: tuple[Way, ...]
    missing: tuple[Missing, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many cells of the paper's own rows are in each state, and of the further rows under ``further``."""
        own = len(self.table.rows)
        found: Counter[str] = Counter(
            cell.state for row in self.rows[:own] for cell in row.cells if cell.state != "text"
        )
        found["further"] = sum(cell.state == "measured" for row in self.rows[own:] for cell in row.cells)
        return found


class Ways:
    """Collects ways: cells with the same command share one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], Way] = {}

    def add(self, way: Way, row: str, column: str) -> Way:
        """The way that was known already, or this one, with the row and column added."""
        kept = self._found.setdefault((way.command, way.how, way.experiment, way.wants), way)
        for names, name in ((kept.rows, row), (kept.columns, column)):
            if name not in names:
                names.append(name)
        return kept

    def all(self) -> tuple[Way, ...]:
        """In order of appearance."""
        return tuple(self._found.values())


def table_state(report: Report, name: str, data: StatesData | None = None) -> TableState:
    """The state of every cell of one of the tables that hold figures (3 to 13).

    Args:
        data: what is known beforehand; None for what ships.
    """
    table = paper.load(name)
    measured, others = _measured(report, table)
    composer = _Composer(report, table, measured, data or states_data())
    rows = [composer.row(row) for row in table.rows] + _further_rows(table, others)
    missing = dict.fromkeys(cell.missing for row in rows for cell in row.cells if cell.missing is not None)
    return TableState(table=table, rows=tuple(rows), ways=composer.ways.all(), missing=tuple(missing))


Measured = dict[tuple[paper.Row, int], tuple[Line, Figure, Metric]]


def _measured(report: Report, table: paper.Table) -> tuple[Measured, list[tuple[Panel, Line]]]:
    """The runs of the paper's rows by row and column, and the lines of tokenizers that it does not print."""
    found: Measured = {}
    others = []
    for comparison in report.comparisons:
        if comparison.table is None or comparison.table.name != table.name:
            continue
        for panel in comparison.panels:
            if panel.printed is None:
                continue
            for line in panel.lines:
                if line.record is None:
                    continue
                if line.row is None:
                    others.append((panel, line))
                    continue
                for metric, figure in zip(panel.metrics, line.figures, strict=True):
                    if metric.column is not None and figure.cell is not None:
                        # The first line of a row is of the run that stands; the panels show every one.
                        found.setdefault((line.row, metric.column), (line, figure, metric))
    return found, others


class _Composer:
    """Puts the paper's rows of one table together."""

    def __init__(self, report: Report, table: paper.Table, measured: Measured, data: StatesData) -> None:
        self._table, self._measured, self._data = table, measured, data
        self.ways = Ways()
        self._fillers: dict[int, tuple[Experiment, str]] = {}
        for experiment in report.experiments.values():
            for fills in experiment.fills:
                for dataset, group in fills.group.items() if fills.table == table.name else ():
                    for last in fills.columns.values():
                        self._fillers[table.column(group, last)] = (experiment, dataset)

    def row(self, row: paper.Row) -> StateRow:
        """A row of the paper."""
        places = range(len(self._table.columns))
        lines = [self._measured[row, place][0] for place in places if (row, place) in self._measured]
        # Runs of one row on several datasets have counts of their own: each figure says its.
        badges = dict.fromkeys(badge for line in lines for badge in line.badges if not badge.startswith("n = "))
        return StateRow(
            name=row.key,
            section=row.group,
            badges=tuple(badges),
            cells=tuple(self._cell(row, place) for place in places),
            record=lines[0].record if lines else None,
        )

    def _cell(self, row: paper.Row, place: int) -> StateCell:
        table, column, text = self._table, self._table.columns[place], row.values[place]
        shown = numbers.DASH if text == "-" else text
        if not column.metric:
            return StateCell(state="text", text=row.key if place == table.method else shown)
        printed = table.printed(row, place)
        best = printed is not None and printed.value == table.best(place, table.block(row))
        line, figure, metric = self._measured.get((row, place), (None, Figure(printed=printed), None))
        record = None if line is None else line.record
        if figure.value is not None:
            return StateCell(state="measured", text=shown, figure=figure, metric=metric, record=record, best=best)
        if printed is None:
            return StateCell(state="blank", text=numbers.DASH)
        lacks = self._data.lacks(table.name, row, column)
        way = None
        if means := self._data.other_means(table.name, row, column):
            way = self.ways.add(Way(how=means), row.key, column.header)
        elif place in self._fillers and (lacks is None or lacks.runs):
            way = self.ways.add(self._way(row, place, nearest=lacks is not None), row.key, column.header)
        return StateCell(
            state="printed" if lacks is None else "missing",
            text=shown,
            figure=figure,
            metric=metric,
            record=record,
            missing=lacks,
            way=way,
            best=best,
        )

    def _way(self, row: paper.Row, place: int, *, nearest: bool) -> Way:
        experiment, dataset = self._fillers[place]
        system = self._data.system(self._table, row, experiment.name)
        arguments = OWN_ADAPTER
        if system is not None:
            arguments = f"{system.arguments} {system.further.get(experiment.name, '')}".rstrip()
            arguments = arguments.replace("{by}", ONE_BY_ONE.get(experiment.modality, ""))
        built = experiment.status == "built"
        arguments += _protocol(self._table, row, experiment, dataset) if built else ""
        return Way(
            command=f"atoken-bench run {experiment.name} --data {dataset}=PATH {arguments}" if built else "",
            experiment=experiment.name,
            needs=experiment.needs,
            wants="an adapter of your own" if system is None else system.wants,
            nearest=nearest,
        )


def _further_rows(table: paper.Table, others: Sequence[tuple[Panel, Line]]) -> list[StateRow]:
    """A row for each tokenizer and protocol that was measured on the paper's data and is not printed."""
    found: dict[tuple[object, ...], list[tuple[Panel, Line]]] = {}
    for panel, line in others:
        if line.record is not None:
            key = (line.record.tokenizer_key, line.record.protocol["name"], line.record.side)
            found.setdefault(key, []).append((panel, line))
    rows = []
    for entries in found.values():
        first = entries[0][1]
        known = {"Comp. Ratio": first.compression, "Token Type": first.token_type}
        known |= {"Latent Size": first.latent, "Latent Channels": first.latent}
        figures = {
            metric.column: StateCell(state="measured", text="", figure=figure, metric=metric, record=line.record)
            for panel, line in entries
            for metric, figure in zip(panel.metrics, line.figures, strict=True)
            if figure.value is not None
        }
        cells = []
        for place, column in enumerate(table.columns):
            if column.metric:
                cells.append(figures.get(place, StateCell(state="blank", text=numbers.DASH)))
            else:
                text = first.name if place == table.method else known.get(column.header, "-")
                cells.append(StateCell(state="text", text=numbers.DASH if text == "-" else text))
        told = dict.fromkeys(badge for _, line in entries for badge in line.badges if not badge.startswith("n = "))
        rows.append(
            StateRow(
                name=first.name, section=first.section, badges=tuple(told), cells=tuple(cells), record=first.record
            )
        )
    return rows


def _protocol(table: paper.Table, row: paper.Row, experiment: Experiment, dataset: str) -> str:
    """`` --protocol NAME`` where a row's resolution wants another than the default."""
    headers = [column.header for column in table.columns]
    if "Res." not in headers or not experiment.protocols:
        return ""
    wanted = row.values[headers.index("Res.")]
    default = default_protocol(experiment, dataset)
    for name in (default, *experiment.protocols):
        if str(_side(experiment.name, name)) == wanted:
            return "" if name == default else f" --protocol {name}"
    return ""


@cache
def _side(experiment: str, name: str) -> int | None:
    """Side of what a protocol embeds; read once, for every cell of a table asks."""
    rules = protocol.load(experiment, name).embed
    return None if rules is None else rules.side
