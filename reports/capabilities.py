"""Tables 1 and 2, whose cells are no figures: what a tokenizer can do, and what the paper's training was set to.

A capability is taken from the outcome of the adapter contract or from a run, never from what a card says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from reports import numbers, paper
from reports.build import Report
from reports.checks import Check
from reports.lines import SECTIONS
from reports.names import same_system
from reports.records import Record, kind_of
from reports.states import StateCell, StateRow, TableState, Way, Ways
from reports.states_data import StatesData, states_data

__all__ = ["capability_state", "curriculum_state", "tokenizer_key"]

TICK, CROSS = "✓", "✗"

CHECKED: Mapping[str, str] = {
    "Reconstruction / Image": "image reconstruction",
    "Reconstruction / Video": "video reconstruction",
    "Reconstruction / 3D": "asset reconstruction",
    "Discrete Token": "discrete tokens",
    "Cont. Token": "continuous tokens",
    "Temporal Comp.": "temporal compression",
    "Native Res.": "native resolution",
}
"""Column of Table 1 -> capability in a check."""

UNDERSTOOD: Mapping[str, str] = {
    "Understanding / Image": "image",
    "Understanding / Video": "video",
    "Understanding / 3D": "asset",
}
"""Column of Table 1 -> modality of the runs that show it: those whose samples are embedded."""

READ = "read in the publication of that system: a matter of architecture or training, which no run shows"


def capability_state(report: Report, data: StatesData | None = None) -> TableState:
    """Table 1, and a row for each tokenizer that was checked or run here."""
    data = data or states_data()
    table = paper.load("table01")
    ways = Ways()
    rows = [_printed_row(report, table, row, ways, data) for row in table.rows]
    kinds = list(SECTIONS)
    found = sorted(_tokenizers(report).values(), key=lambda one: kinds.index(kind_of((one[0] or one[1])[0].card)))
    for checks, records in found:
        first = checks[0] if checks else records[0]
        cells = []
        for place, column in enumerate(table.columns):
            if place == table.method:
                cells.append(StateCell(state="text", text=first.title))
            else:
                cells.append(_seen(column.header, checks, records) or _unchecked(column.header, first.spec, ways))
        rows.append(
            StateRow(
                name=first.title,
                section=f"Checked or run here: {SECTIONS[kind_of(first.card)].lower()}",
                badges=() if checks else ("not checked",),
                cells=tuple(cells),
                record=records[0] if records else None,
                check=checks[0] if checks else None,
            )
        )
    return TableState(table=table, rows=tuple(rows), ways=ways.all(), missing=())


def _printed_row(report: Report, table: paper.Table, row: paper.Row, ways: Ways, data: StatesData) -> StateRow:
    system = data.system(table, row)
    names = {name for one in data.systems if one.tokenizer == "atoken" for name in one.rows} if system else set()
    # The row stands for a family of models: what one of them shows, the family can do.
    checks = [check for check in report.checks if _is_row(check.card, names)]
    records = [record for record in report.records if _is_row(record.card, names)]
    cells = []
    for place, (column, text) in enumerate(zip(table.columns, row.values, strict=True)):
        shown = numbers.DASH if text == "-" else text
        if place == table.method:
            cells.append(StateCell(state="text", text=row.key))
            continue
        if seen := _seen(column.header, checks, records):
            cells.append(StateCell(state="measured", text=shown, seen=seen.seen, tick=seen.tick, source=seen.source))
        elif text == "-":
            cells.append(StateCell(state="blank", text=numbers.DASH))
        else:
            way = Way(how=READ)
            if column.header in CHECKED:
                what = f"{system.tokenizer} {system.arguments}" if system else "my_package.my_module:create"
                way = Way(
                    command=f"atoken-bench check {what}",
                    wants=system.wants if system else "an adapter of your own",
                )
            elif column.header in UNDERSTOOD:
                way = _embedding(report, UNDERSTOOD[column.header], system.arguments if system else None)
            cells.append(StateCell(state="printed", text=shown, way=ways.add(way, row.key, column.header)))
    return StateRow(name=row.key, section=row.group, badges=(), cells=tuple(cells))


def _embedding(report: Report, modality: str, arguments: str | None) -> Way:
    """An experiment of that modality that embeds, as `run` takes it."""
    name = {"image": "image-classify", "video": "video-retrieval", "asset": "asset-classify"}[modality]
    experiment = report.experiments.get(name)
    built = experiment is not None and experiment.status == "built"
    return Way(
        command=f"atoken-bench run {name} {arguments or '--tokenizer my_package.my_module:create'}" if built else "",
        experiment=name,
        needs=experiment.needs if experiment is not None else "",
        wants="" if arguments else "an adapter of your own",
    )


def _is_row(card: Mapping[str, Any], names: Iterable[str]) -> bool:
    row = card.get("paper_row")
    return row is not None and not same_system(str(row)).isdisjoint(names)


def _seen(header: str, checks: list[Check], records: list[Record]) -> StateCell | None:
    """What checks and runs show of a column; None where they show nothing of it."""
    if capability := CHECKED.get(header):
        found = [(check.capabilities[capability], check) for check in checks if capability in check.capabilities]
        if not found:
            return None
        outcome, check = next(((one, by) for one, by in found if one.holds), found[0])
        return StateCell(
            state="measured", text="", tick=TICK if outcome.holds else CROSS, seen=outcome.seen, source=check
        )
    if modality := UNDERSTOOD.get(header):
        shown = [_understood(record) for record in records if record.understanding and record.modality == modality]
        return next((one for one in shown if one.tick == TICK), shown[0] if shown else None)
    return None


def _understood(record: Record) -> StateCell:
    """Whether a run found more than chance: the interval of its first figure lies above it."""
    cell = next((cell for cell in record.cells if cell.value is not None and cell.unit == "%"), None)
    # A class of so many, or the one sample that a text belongs to.
    choices = record.raw.get("understanding", {}).get("classes") or record.used
    where = f"{record.experiment} on {record.dataset['title']}"
    if cell is None or cell.value is None:
        return StateCell(state="measured", text="", tick=CROSS, seen=f"{where}: no figure", source=record)
    chance = 100 / choices
    low = cell.value if cell.interval is None else cell.interval[0]
    said = f"{where}: {cell.name} {numbers.figure(cell.value, 1)} %"
    if bounds := numbers.interval(cell.interval, 1):
        said += f" {bounds}"
    said += f", chance {numbers.figure(chance, 1)} %"
    return StateCell(state="measured", text="", tick=TICK if low > chance else CROSS, seen=said, source=record)


def _unchecked(header: str, spec: str, ways: Ways) -> StateCell:
    if header in CHECKED:
        way = ways.add(Way(command=f"atoken-bench check {spec}"), spec, header)
        return StateCell(state="blank", text=numbers.DASH, way=way)
    return StateCell(state="blank", text=numbers.DASH)


def _tokenizers(report: Report) -> dict[tuple[str, str], tuple[list[Check], list[Record]]]:
    """The checks, latest first, and the runs of each tokenizer that is not a row of Table 1 itself.

    The same name and weights are the same tokenizer, in whatever it was measured.
    """
    found: dict[tuple[str, str], tuple[list[Check], list[Record]]] = {}
    for check in sorted(report.checks, key=lambda check: check.finished, reverse=True):
        found.setdefault(tokenizer_key(check.card), ([], []))[0].append(check)
    for record in report.records:
        # Codecs and transforms are no tokenizers: they have a row where somebody checked them.
        if (key := tokenizer_key(record.card)) in found or record.kind != "reference":
            found.setdefault(key, ([], []))[1].append(record)
    return found


def tokenizer_key(card: Mapping[str, Any]) -> tuple[str, str]:
    """Name and weights: what tells a tokenizer from others in whatever it was measured."""
    return (str(card.get("name")), json.dumps(card.get("weights_sha256") or card.get("weights") or {}, sort_keys=True))


def curriculum_state() -> TableState:
    """Table 2: settings of a training, which the recipe so400m holds and no run measures."""
    table = paper.load("table02")
    ways = Ways()
    rows = []
    for number, row in enumerate(table.rows, 1):
        command = f"atoken train --recipe so400m --stage {number} --plan"
        cells = []
        for place, (column, text) in enumerate(zip(table.columns, row.values, strict=True)):
            if place == table.method:
                cells.append(StateCell(state="text", text=row.key))
            elif text == "-":
                cells.append(StateCell(state="blank", text=numbers.DASH))
            else:
                way = Way(command=command, how="it trains nothing, and prints what the stage is made of")
                cells.append(StateCell(state="printed", text=text, way=ways.add(way, row.key, column.header)))
        rows.append(StateRow(name=row.key, section=row.group, badges=(), cells=tuple(cells)))
    return TableState(table=table, rows=tuple(rows), ways=ways.all(), missing=())
