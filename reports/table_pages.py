"""The page of each of the paper's tables: what it says, and the data behind it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports import paper, views
from reports.build import Report
from reports.capabilities import capability_state, curriculum_state
from reports.checks import NAME, Check
from reports.composed import composed
from reports.model import Panel
from reports.records import Record
from reports.states import StateRow, TableState, Way, table_state

__all__ = ["Shelf", "states"]

LEADS = {
    "table01": "What each tokenizer can do. The paper's ticks are the authors' own statements; a tick of a tokenizer "
    "that was checked here comes from the outcome of the adapter contract and from runs, never from its card.",
    "table02": "How the paper trains AToken. These are settings, not results: the recipe so400m of this project holds "
    "them, and the command prints what each stage is made of.",
    "table03": "The paper's summary: what its other tables say in full. Its cells are filled by the same runs.",
}
LEAD = "Every cell is in one of three states, told by a mark and in words."
CAPTIONS = {
    "table01": "✓ can, ✗ cannot, as printed or as seen here; a dash: does not apply, or nobody looked.",
    "table02": "As printed. A dash: the modality is not part of that stage.",
}
CAPTION = (
    "Measured cells link to their run. Bold: best printed figure of its block by the direction of the metric, which "
    "may differ from the paper's own marks. A dash: the paper prints nothing."
)


def states(report: Report) -> dict[str, TableState]:
    """All 13 tables by name."""
    special = {"table01": lambda: capability_state(report), "table02": curriculum_state}
    return {name: special[name]() if name in special else table_state(report, name) for name in paper.names()}


class Shelf:
    """The checks of a report, each with its name on pages."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._slugs: dict[Path, str] = {}
        for check in report.checks:
            slug, number = check.folder.name.lower(), 2
            while slug in self._slugs.values():
                slug, number = f"{check.folder.name.lower()}-{number}", number + 1
            self._slugs[check.folder] = slug

    def slug(self, check: Check) -> str:
        """File stem of the check's data, and its anchor."""
        return self._slugs[check.folder]

    def evidence(self, source: Check | Record) -> str:
        """Where a tick's evidence is, relative to the report's root."""
        if isinstance(source, Check):
            return f"tables/table01.html#seen-{self.slug(source)}"
        return f"runs/{self._report.slug(source)}.html"

    def write(self, out: Path) -> None:
        """Copy the checks themselves."""
        if self._report.checks:
            (out / "checks").mkdir()
        for check in self._report.checks:
            shutil.copyfile(check.folder / NAME, out / "checks" / f"{self.slug(check)}.json")


def context(report: Report, shelf: Shelf, state: TableState) -> dict[str, Any]:
    """What the template of a table's page wants."""
    table, names = state.table, paper.names()
    place = names.index(table.name)
    return {
        "table": table,
        "state": state,
        "header": views.header_rows(table),
        "ranked": any(column.metric for column in table.columns),
        "lead": LEADS.get(table.name, LEAD),
        "table_caption": CAPTIONS.get(table.name, CAPTION),
        "composed": composed(report) if table.name == "table03" else None,
        "checks": report.checks if table.name == "table01" else (),
        "slug_of": shelf.slug,
        "panels": _beside(report, table.name),
        "before": names[place - 1] if place else None,
        "after": names[place + 1] if place + 1 < len(names) else None,
    }


def _beside(report: Report, name: str) -> list[Panel]:
    """The panels of a table that hold both printed and measured figures."""
    found = [comparison for comparison in report.comparisons if comparison.table and comparison.table.name == name]
    return [panel for c in found for panel in c.panels if panel.printed is not None and panel.measured]


def index(report: Report, tables: Mapping[str, TableState]) -> list[dict[str, Any]]:
    """The 13 tables with the counts of their cells and the experiments that fill them."""
    by = {"table01": "atoken-bench check", "table02": "atoken train --plan"}
    entries = []
    for name, state in tables.items():
        experiments = [
            experiment.name + ("" if experiment.status == "built" else " (planned)")
            for experiment in report.experiments.values()
            if any(fills.table == name for fills in experiment.fills)
        ]
        said = by.get(name) or ", ".join(experiments) or "no installed experiment"
        entries.append({"table": state.table, "counts": state.counts, "by": said})
    return entries


def numbers_of(state: TableState | Any, row: StateRow) -> list[int]:
    """Numbers of the ways of a row's cells, from 1 on."""
    known: Sequence[Way] = getattr(state, "ways", ())
    mine = [cell.way for cell in row.cells if cell.way is not None]
    return [number for number, way in enumerate(known, 1) if any(way is one for one in mine)]


def columns_of(way: Way) -> str:
    """``PSNR↑ and SSIM↑ of ImageNet``: the columns of a way, by their group."""
    groups: dict[str, list[str]] = {}
    for header in way.columns:
        group, _, last = header.rpartition(" / ")
        groups.setdefault(group, []).append(last)
    return "; ".join(f"{group}: {', '.join(lasts)}" if group else ", ".join(lasts) for group, lasts in groups.items())
