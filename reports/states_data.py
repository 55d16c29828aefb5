"""What is known of the paper's cells beforehand: which rows the suite can run, what nobody can have, which figures
are drawings. Read strictly from ``states.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

import yaml

from harness.errors import BenchError
from reports import paper

__all__ = ["Area", "Missing", "PaperFigure", "StatesData", "System", "parse", "states_data"]

FILE = "states.yaml"
KINDS = ("weights", "list", "recipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A row of the paper that the suite can run.

    Attributes:
        rows: its names in any table, see `paper.Row.key`.
        where: values of other columns that tell rows of one name apart.
        experiments: that this holds for; empty for all.
        tokenizer: what `check` takes for it.
        arguments: of `run`, after the data; `further` are those of one experiment more.
        wants: what a user must bring.
    """

    rows: tuple[str, ...]
    where: Mapping[str, str]
    experiments: tuple[str, ...]
    tokenizer: str
    arguments: str
    wants: str
    further: Mapping[str, str] = field(default_factory=dict)

    def fits(self, table: paper.Table, row: paper.Row, experiment: str | None) -> bool:
        """Whether it is that row, in that experiment (None: whichever)."""
        if row.key not in self.rows or (self.experiments and experiment not in self.experiments):
            return False
        values = {column.header: value for column, value in zip(table.columns, row.values, strict=True)}
        # A table without that column has one row of the name.
        return all(values.get(header, value) == value for header, value in self.where.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Cells of a table, by shell patterns over the rows' names and the columns' headers."""

    table: str
    rows: tuple[str, ...] = ("*",)
    columns: tuple[str, ...] = ("*",)

    def holds(self, table: str, row: paper.Row, column: paper.Column) -> bool:
        """Whether the cell is one of them."""
        return (
            table == self.table
            and any(fnmatchcase(row.key, pattern) for pattern in self.rows)
            and any(fnmatchcase(column.header, pattern) for pattern in self.columns)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What stands between cells of the paper and anybody who would measure them.

    Attributes:
        kind: one of `KINDS`.
        what: is missing.
        why, source: what is known of it, and from where.
        nearest: what can be measured in its place; empty where nothing can.
        runs: whether the cell's own experiment measures that.
    """

    name: str
    kind: str
    what: str
    why: str
    source: str
    cells: tuple[Area, ...]
    nearest: str = ""
    runs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Cells that are measured by other means than this suite; ``how`` says by which."""

    how: str
    cells: tuple[Area, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        drawing: it explains and shows no result.
        experiments: that redo it, and ``part`` which of it.
    """

    number: int
    shows: str
    drawing: bool = False
    experiments: tuple[str, ...] = ()
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesData:
    """See the comments of ``states.yaml``."""

    systems: tuple[System, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    missing: tuple[Missing, ...] = ()
    figures: tuple[PaperFigure, ...] = ()

    def system(self, table: paper.Table, row: paper.Row, experiment: str | None = None) -> System | None:
        """How the suite runs a row; None where it wants an adapter of one's own."""
        return next((one for one in self.systems if one.fits(table, row, experiment)), None)

    def lacks(self, table: str, row: paper.Row, column: paper.Column) -> Missing | None:
        """What a cell hangs on that nobody can have; None where there is no such thing."""
        return next((one for one in self.missing for area in one.cells if area.holds(table, row, column)), None)

    def other_means(self, table: str, row: paper.Row, column: paper.Column) -> str:
        """How a cell is measured that this suite does not measure; empty where it does."""
        return next(
            (one.how for one in self.elsewhere for area in one.cells if area.holds(table, row, column)),
            "",
        )


@cache
def states_data() -> StatesData:
    """The data file that ships.

    Raises:
        BenchError: see `parse`.
    """
    return parse((resources.files("reports") / FILE).read_text(encoding="utf-8"))


def parse(text: str) -> StatesData:
    """Read such a file and check that every entry is about something that the tables hold.

    Raises:
        BenchError: no YAML, an unknown or missing key, or an entry that no row or cell answers to; says which.
    """
    try:
        content = yaml.safe_load(text)
        made = StatesData(
            systems=tuple(_system(entry) for entry in content["systems"]),
            elsewhere=tuple(Elsewhere(how=entry["how"], cells=_areas(entry)) for entry in content["elsewhere"]),
            missing=tuple(_missing(entry) for entry in content["missing"]),
            figures=tuple(_figure(entry) for entry in content["figures"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{FILE}: {' '.join(str(error).split())}; install this package again") from None
    for fault in _faults(made):
        raise BenchError(f"{FILE}: {fault}")
    return made


def _system(entry: dict[str, Any]) -> System:
    known = {**entry, "rows": tuple(entry["rows"]), "experiments": tuple(entry.get("for", ()))}
    known.pop("for", None)
    return System(**{"where": {}, **known})


def _areas(entry: dict[str, Any]) -> tuple[Area, ...]:
    return tuple(_area(**area) for area in entry["cells"])


def _area(table: str, rows: Sequence[str] = ("*",), columns: Sequence[str] = ("*",)) -> Area:
    return Area(table=table, rows=tuple(rows), columns=tuple(columns))


def _missing(entry: dict[str, Any]) -> Missing:
    return Missing(**{**entry, "cells": _areas(entry), "why": entry["why"].strip()})


def _figure(entry: dict[str, Any]) -> PaperFigure:
    return PaperFigure(**{**entry, "experiments": tuple(entry.get("experiments", ()))})


def _faults(made: StatesData) -> Iterator[str]:
    tables = {name: paper.load(name) for name in paper.names()}
    for system in made.systems:
        rows = [(table, row) for table in tables.values() for row in table.rows if row.key in system.rows]
        for name in system.rows:
            if not any(row.key == name for _, row in rows):
                yield f"no table has a row {name!r}"
        if not any(system.fits(table, row, next(iter(system.experiments), None)) for table, row in rows):
            yield f"no row is {', '.join(system.rows)} with {dict(system.where)}"
    for one in made.missing:
        if one.kind not in KINDS:
            yield f"{one.name}: kind {one.kind!r} is none of {', '.join(KINDS)}"
        yield from (f"{one.name}: {fault}" for area in one.cells for fault in _area_faults(area, tables))
    for other in made.elsewhere:
        yield from (f"elsewhere: {fault}" for area in other.cells for fault in _area_faults(area, tables))
    numbers = [figure.number for figure in made.figures]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"figures are not numbered from 1 on, each once: {numbers}"
    for figure in made.figures:
        if figure.drawing == bool(figure.experiments):
            yield f"figure {figure.number}: either a drawing, or with the experiments that redo it"


def _area_faults(area: Area, tables: Mapping[str, paper.Table]) -> Iterator[str]:
    if area.table not in tables:
        yield f"no table {area.table!r}"
        return
    table = tables[area.table]
    for pattern in area.rows:
        if not any(fnmatchcase(row.key, pattern) for row in table.rows):
            yield f"{area.table} has no row {pattern!r}"
    for pattern in area.columns:
        if not any(fnmatchcase(column.header, pattern) for column in table.columns):
            yield f"{area.table} has no column {pattern!r}"
