"""What the audit of the paper's tables is told: names, quantities, totals, marks, claims, and what was read."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from harness.errors import BenchError
from reports import paper

_FILES = ("audit.yaml", "known_contradictions.yaml", "bold.csv")
_MARK = ["table", "row", "method", "column", "value"]
_KNOWN = {"where", "says", "source", "basis"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A figure that the paper (arXiv v1) prints bold: table, index of its row, header of its column."""

    table: str
    row: int
    column: str


@dataclass(frozen=True, kw_only=True)
class AuditData:
    """See the comments of ``audit/audit.yaml``; ``marks`` are of ``bold.csv``, ``known`` of
    ``known_contradictions.yaml``."""

    distinguish: Mapping[str, str] = field(default_factory=dict)
    systems: Sequence[Sequence[str]] = ()
    quantities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    totals: Sequence[Mapping[str, Any]] = ()
    bold: Mapping[str, str] = field(default_factory=dict)
    discrete: Sequence[str] = ()
    claims: Sequence[Mapping[str, str]] = ()
    marks: Sequence[Mark] = ()
    known: Sequence[Mapping[str, str]] = ()


def read_data() -> AuditData:
    """Read the data files that ship.

    Raises:
        BenchError: a file is broken, or a mark is not at the figure that it names.
    """
    rules, known, marks = ((resources.files("reports") / "audit" / name).read_text(encoding="utf-8") for name in _FILES)
    try:
        content = yaml.safe_load(rules)
        entries = yaml.safe_load(known)
        made = AuditData(**content, marks=read_marks(marks), known=entries)
    except (yaml.YAMLError, TypeError) as error:
        raise BenchError(f"reports/audit: {' '.join(str(error).split())}; install this package again") from error
    for entry in entries:
        if set(entry) != _KNOWN:
            raise BenchError(f"known_contradictions.yaml: wants {', '.join(sorted(_KNOWN))} in each entry: {entry}")
    return made


def read_marks(text: str) -> list[Mark]:
    """Parse ``bold.csv``.

    Raises:
        BenchError: a line whose row or figure is not what the table holds.
    """
    header, *lines = csv.reader(text.splitlines(), strict=True)
    if header != _MARK:
        raise BenchError(f"bold.csv: wants the columns {', '.join(_MARK)}")
    marks = []
    for number, line in enumerate(lines, 2):
        name, row, method, column, value = line
        table = paper.load(name)
        headers = [one.header for one in table.columns]
        index = int(row) - 1
        there = index < len(table.rows) and column in headers and table.rows[index].key == method
        if not there or table.rows[index].values[headers.index(column)] != value:
            raise BenchError(f"bold.csv, line {number}: {name} has no such figure ({', '.join(line)})")
        marks.append(Mark(name, index, column))
    return marks
