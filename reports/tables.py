"""Records beside the paper's figures: which rows and columns a table has, and which figures are best."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.experiment import Experiment, Fills
from reports import numbers, paper
from reports.floors import with_floors
from reports.lines import SECTIONS, TIMES, Frame, default_protocol, line
from reports.model import Comparison, Figure, Line, Metric, Panel
from reports.names import same_system
from reports.records import Record


def compare(experiment: Experiment, records: Iterable[Record]) -> list[Comparison]:
    """A comparison for each table that the experiment fills, the first with the panels of all other data too."""
    mine = [record for record in records if record.experiment == experiment.name]
    if not experiment.fills:
        return [Comparison(experiment=experiment, primary=True, table=None, panels=_own_panels(experiment, (), mine))]
    comparisons = []
    for place, name in enumerate(dict.fromkeys(fills.table for fills in experiment.fills)):
        table = paper.load(name)
        here = [fills for fills in experiment.fills if fills.table == name]
        datasets = dict.fromkeys(dataset for fills in here for dataset in fills.group)
        panels = [_paper_panel(experiment, table, here, dataset, mine) for dataset in datasets]
        if place == 0:
            other = [record for record in mine if record.dataset["name"] not in datasets]
            panels += _own_panels(experiment, here, other)
        # What was measured comes first; the order is otherwise the paper's.
        panels.sort(key=lambda panel: not panel.measured)
        comparisons.append(Comparison(experiment=experiment, primary=place == 0, table=table, panels=tuple(panels)))
    return comparisons


def standing(
    experiment: Experiment, records: Sequence[Record], *, by_side: bool = False
) -> tuple[list[Record], tuple[str, ...]]:
    """The records of one dataset that go into its panel, and notes on those that do not.

    Of several runs of one tokenizer under one protocol the one with most samples stands, then the
    latest. Runs under another protocol than the dataset's default stand only where the default
    is missing: the table of protocols shows them all.

    Args:
        by_side: whether the table has rows for each resolution, so that each has a run of its own.
    """
    latest = newest(records)

    def row(record: Record) -> tuple[object, ...]:
        return (record.tokenizer_key, record.side if by_side else None)

    def is_default(record: Record) -> bool:
        return bool(record.protocol["name"] == default_protocol(experiment, str(record.dataset["name"])))

    with_default = {row(record) for record in latest if is_default(record)}
    kept_records = [record for record in latest if is_default(record) or row(record) not in with_default]
    notes = []
    if repeated := len(records) - len(latest):
        notes.append(f"{_runs(repeated)} of the same tokenizer and protocol with fewer samples or earlier: see Runs.")
    if others := len(latest) - len(kept_records):
        notes.append(f"{_runs(others)} under other protocols: see Protocols and Runs.")
    return kept_records, tuple(notes)


def newest(records: Iterable[Record]) -> list[Record]:
    """Of the records of one dataset, for each tokenizer and protocol: the one with most samples, then the latest."""
    latest: dict[tuple[object, ...], Record] = {}
    for record in records:
        settings = json.dumps(record.card.get("settings", {}), sort_keys=True)
        key = (record.tokenizer_key, settings, record.protocol["sha256"])
        kept = latest.get(key)
        if kept is None or (record.used, record.finished) > (kept.used, kept.finished):
            latest[key] = record
    return list(latest.values())


def _runs(n: int) -> str:
    return f"{n} further run{'s' if n > 1 else ''}"


def _paper_panel(
    experiment: Experiment, table: paper.Table, fills: Sequence[Fills], dataset: str, records: Sequence[Record]
) -> Panel:
    # Several may fill one dataset's columns: those of one direction and of the other.
    columns = [
        (name, table.column(one.group[dataset], last))
        for one in fills
        if dataset in one.group
        for name, last in one.columns.items()
    ]
    group = table.columns[columns[0][1]].levels[0] if len(table.columns[columns[0][1]].levels) > 1 else ""
    here = [record for record in records if record.dataset["name"] == dataset]
    kept, notes = standing(experiment, here, by_side=any(column.header == "Res." for column in table.columns))
    metrics = []
    for name, index in columns:
        printed = [figure for row in table.rows if (figure := table.printed(row, index)) is not None]
        metrics.append(
            Metric(
                name=name,
                higher_is_better=table.columns[index].higher_is_better,
                unit=_unit(kept, name),
                decimals=max(figure.decimals for figure in printed),
                column=index,
            )
        )
    further = _further(kept, [metric.name for metric in metrics])
    rows: list[tuple[paper.Row | None, Record | None]] = []
    placed: set[int] = set()
    for row in table.rows:
        its = [record for record in kept if row_of(table, record) is row]
        placed |= {id(record) for record in its}
        rows += [(row, record) for record in its] or [(row, None)]
    others = ordered(record for record in kept if id(record) not in placed)
    rows += [(None, record) for record in others]
    notes += tuple(
        f"{record.title} names the paper's row {record.card['paper_row']!r}, which table {table.number} does not have."
        for record in others
        if record.card.get("paper_row")
    )
    frame = Frame(experiment=experiment, table=table, metrics=metrics, further=further, records=kept)
    lines = [line(frame, row, record) for row, record in rows]
    return Panel(
        slug=_slug(experiment, dataset),
        dataset=dataset,
        title=str(kept[0].dataset["title"]) if kept else (group or dataset),
        printed=group or table.title,
        metrics=tuple(metrics),
        further=further,
        lines=with_floors(_ranked(lines, metrics, further), metrics),
        notes=notes,
    )


def _own_panels(experiment: Experiment, fills: Sequence[Fills], records: Sequence[Record]) -> tuple[Panel, ...]:
    """A panel for each dataset that the paper does not print, and for each part of it that was measured alone."""
    sets: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        sets.setdefault((str(record.dataset["name"]), str(record.dataset["ids_sha256"])), []).append(record)
    panels: list[Panel] = []
    titles = [_title(here[0]) for here in sets.values()]
    # By name, the whole set before its parts.
    for (name, ids), here in sorted(sets.items(), key=lambda item: (item[0][0], -_selected(item[1][0]), item[0][1])):
        kept, notes = standing(experiment, here)
        known = {name: _printed_decimals(one, name) for one in fills for name in one.columns}
        main = list(known) or [cell.name for cell in kept[0].cells]
        metrics = tuple(metric_of(kept, cell, known.get(cell)) for cell in main if any(r.cell(cell) for r in kept))
        further = _further(kept, main)
        frame = Frame(experiment=experiment, table=None, metrics=metrics, further=further, records=kept)
        lines = [line(frame, None, record) for record in ordered(kept)]
        title = _title(here[0])
        first = name not in {panel.dataset for panel in panels}
        panels.append(
            Panel(
                slug=_slug(experiment, name if first else f"{name}-{ids[:8]}"),
                dataset=name,
                title=title if titles.count(title) == 1 else f"{title} {ids[:8]}",
                printed=None,
                metrics=metrics,
                further=further,
                lines=with_floors(_ranked(lines, metrics, further), metrics),
                notes=notes,
            )
        )
    return tuple(panels)


def _selected(record: Record) -> int:
    return int(record.samples.get("selected", record.used))


def _title(record: Record) -> str:
    """The dataset's title; a run of a part of it (``--limit``) says which."""
    count, selected = record.dataset.get("count"), _selected(record)
    part = "" if count is None or selected >= int(count) else f", {numbers.of_expected(selected, int(count))}"
    return f"{record.dataset['title']}{part}"


def _printed_decimals(fills: Fills, name: str) -> int:
    table = paper.load(fills.table)
    column = table.column(next(iter(fills.group.values())), fills.columns[name])
    return max(figure.decimals for row in table.rows if (figure := table.printed(row, column)) is not None)


def row_of(table: paper.Table, record: Record) -> paper.Row | None:
    """The paper's row of this tokenizer; rows of one name are told apart by their token type and resolution."""
    key = record.card.get("paper_row")
    if not key:
        return None
    # Tables without stages (3, 8) print the last one: their AToken-So/C is table 4's Stage 3.
    names = same_system(str(key))
    rows = [row for row in table.rows if row.key == key] or [row for row in table.rows if row.key in names]
    told = {"Token Type": record.card.get("token_type"), "Res.": record.side}
    headers = [column.header for column in table.columns]
    for header, value in told.items():
        if len(rows) > 1 and header in headers:
            rows = [row for row in rows if row.values[headers.index(header)] == str(value)]
    return rows[0] if len(rows) == 1 else None


def ordered(records: Iterable[Record]) -> list[Record]:
    """Tokenizers by name, then the rows that they are compared with, `identity` first."""
    kinds = list(SECTIONS)
    return sorted(records, key=lambda record: (kinds.index(record.kind), record.spec != "identity", record.title))


def _unit(records: Sequence[Record], name: str) -> str:
    return next((cell.unit for record in records if (cell := record.cell(name)) is not None), "")


def metric_of(records: Sequence[Record], name: str, decimals: int | None = None) -> Metric:
    """The column of a cell name; decimals by its values where the caller knows no better."""
    cells = [cell for record in records if (cell := record.cell(name)) is not None]
    if decimals is None:
        decimals = numbers.decimals_for([cell.value for cell in cells if cell.value is not None], cells[0].unit)
    # "voxels", in voxels, is said once.
    unit = "" if cells[0].unit.lower() in name.lower() else cells[0].unit
    return Metric(name=name, higher_is_better=cells[0].higher_is_better, unit=unit, decimals=decimals)


def _further(records: Sequence[Record], main: Sequence[str]) -> tuple[Metric, ...]:
    names = dict.fromkeys(cell.name for record in records for cell in record.cells if cell.name not in main)
    return (*(metric_of(records, name) for name in names), *(TIMES if records else ()))


def _ranked(lines: Sequence[Line], metrics: Sequence[Metric], further: Sequence[Metric]) -> tuple[Line, ...]:
    """Mark the best measured figure of each block of comparable rows (two at least)."""

    def mark(columns: Sequence[Metric], rows: Sequence[tuple[Figure, ...]]) -> list[tuple[Figure, ...]]:
        marked = [list(row) for row in rows]
        for place, metric in enumerate(columns):
            blocks: dict[tuple[object, ...], list[int]] = {}
            for index, row in enumerate(rows):
                if (block := _block(lines[index], row[place])) is not None and metric.higher_is_better is not None:
                    blocks.setdefault(block, []).append(index)
            for members in blocks.values():
                values = [value for index in members if (value := rows[index][place].value) is not None]
                best = max(values) if metric.higher_is_better else min(values)
                for index in members:
                    figure = rows[index][place]
                    marked[index][place] = replace(figure, best=len(members) > 1 and figure.value == best)
        return [tuple(row) for row in marked]

    figures = mark(metrics, [row.figures for row in lines])
    others = mark(further, [row.further for row in lines])
    return tuple(
        replace(row, figures=figure, further=other) for row, figure, other in zip(lines, figures, others, strict=True)
    )


def _block(row: Line, figure: Figure) -> tuple[object, ...] | None:
    """Figures with the same block are comparable; None for what is not ranked."""
    record = row.record
    if record is None or record.kind == "reference" or figure.cell is None or figure.value is None:
        return None
    return (record.kind, record.protocol["sha256"], record.dataset["content_sha256"], figure.cell.n)


def _slug(experiment: Experiment, text: str) -> str:
    whole = f"{experiment.name}-{text}".lower()  # two experiments may have datasets of one name
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in whole)
