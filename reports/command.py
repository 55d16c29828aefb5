"""What `atoken-bench report` does: read the records, write every format aside, swap the folder, print the table."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BenchError
from reports import data, grid, latex, markdown, numbers, table_pages
from reports.build import Report, build, caption, panel_reasons
from reports.checks import read_checks
from reports.model import Comparison, Figure, Metric, Panel
from reports.records import read_all, unfinished
from reports.training import read_studies

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("html", "md", "latex", "csv")
MARKER = ".atoken-bench-report"
# Format, name as shown, suffix. Data comes as CSV for tables and as JSON for programs.
_FILES = (("md", "Markdown", "md"), ("latex", "LaTeX", "tex"), ("csv", "CSV", "csv"), ("csv", "JSON", "json"))


def report(runs: Path, out: Path, formats: Sequence[str], echo: Callable[[str], None]) -> None:
    """Write the report of all runs below ``runs`` into the folder ``out`` and print its main table.

    The folder is written aside and then put in place, so an interrupted report leaves the old one.

    Args:
        formats: of `FORMATS`.
        echo: prints a text.

    Raises:
        BenchError: an unknown format, no records, a record that cannot be read, an ``out`` that holds
            something else than a report, or that cannot be written.
    """
    from harness.registry import experiments

    if unknown := [name for name in formats if name not in FORMATS]:
        raise BenchError(f"no report format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    if out.exists() and not (out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))):
        raise BenchError(f"{out}: exists and is no report; it would be replaced, so name another folder with --out")
    if runs.resolve().is_relative_to(out.resolve()):
        raise BenchError(f"{out}: holds the runs ({runs}) and would be replaced; name another folder with --out")
    records, studies, checks = read_all(runs), read_studies(runs), read_checks(runs)
    if not records and not studies.trainings and not checks:
        raise BenchError(f"{runs}: no records in it; `atoken-bench run image-recon --runs {runs}` makes one")
    made = build(records, experiments(), studies, checks)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent.resolve()))
        try:
            write(made, aside, formats)
            aside.chmod(0o755)  # mkdtemp makes it private; a report is for others to read
            _swap(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise BenchError(f"{out}: cannot write the report ({error}); an earlier one is as it was") from None
    tty = sys.stdout.isatty()
    # A pipe has no width; 110 columns hold the four metrics of the paper side by side.
    echo(terminal(made, color=tty, width=None if tty else 110))
    if left := unfinished(runs):
        echo(f"Left out, since not finished: {', '.join(map(str, left))}; the same `run` command goes on there")
    echo(f"Report: {out / 'index.html' if 'html' in formats else out}")


def write(made: Report, out: Path, formats: Sequence[str]) -> None:
    """Write the formats into an empty folder."""
    (out / MARKER).write_text("This folder was written by atoken-bench report, which replaces it as a whole.\n")
    tables = table_pages.states(made)
    beside = _by_stem(made)
    files: dict[str, list[tuple[str, str]]] = {}
    for stem in (*tables, *(stem for stem in beside if stem not in tables)):
        comparisons = beside.get(stem, [])
        grids = [grid.state_grid(tables[stem])] if stem in tables else []
        grids += [grid.panel_grid(panel, caption(panel)) for one in comparisons for panel in one.panels]
        rows = [row for one in comparisons for row in data.figures(made, one)]
        title = f"Table {tables[stem].table.number}: {tables[stem].table.title}" if stem in tables else stem
        texts = {"md": markdown.document(title, grids), "tex": latex.document(grids, stem)}
        if comparisons:
            texts |= {"csv": data.to_csv(rows, data.FIELDS), "json": data.to_json(rows)}
        files[stem] = _write(out, stem, texts, formats)
    cells = [row for state in tables.values() for row in data.cells(made, state)]
    files["cells"] = _write(
        out, "cells", {"csv": data.to_csv(cells, data.CELL_FIELDS), "json": data.to_json(cells)}, formats
    )
    if made.protocols:
        grids = [grid.spread_grid(panel, spread) for panel in made.protocols for spread in panel.spreads]
        rows = data.spread_rows(made.protocols)
        texts = {"md": markdown.document("Protocols", grids), "tex": latex.document(grids, "protocols")}
        texts |= {"csv": data.to_csv(rows, data.SPREAD_FIELDS), "json": data.to_json(rows)}
        _write(out, "protocols", texts, formats)
    if "html" in formats:
        from reports import html

        stems = {one.experiment.name: _stem(one) for one in made.comparisons if one.primary}
        downloads = {name: files.get(stem, []) for name, stem in stems.items()}
        html.write(made, out, tables, downloads, files)


def _stem(comparison: Comparison) -> str:
    return comparison.table.name if comparison.table is not None else comparison.experiment.name


def _by_stem(made: Report) -> dict[str, list[Comparison]]:
    """The comparisons that go into files of one name: those with figures of their own."""
    found: dict[str, list[Comparison]] = {}
    for comparison in made.comparisons:
        if comparison.primary or any(panel.measured for panel in comparison.panels):
            found.setdefault(_stem(comparison), []).append(comparison)
    return found


def _write(out: Path, stem: str, texts: Mapping[str, str], formats: Sequence[str]) -> list[tuple[str, str]]:
    """Write those of ``texts`` (by suffix) that are wanted as ``stem.*``; returns (format, file name) of each."""
    files = []
    for name, shown, suffix in _FILES:
        if name in formats and suffix in texts:
            (out / f"{stem}.{suffix}").write_text(texts[suffix], encoding="utf-8", newline="")
            files.append((shown, f"{stem}.{suffix}"))
    return files


def _swap(aside: Path, out: Path) -> None:
    """Put the new folder in the old one's place; the old one is removed last."""
    old = aside.with_name(aside.name + ".old")
    try:
        if out.exists():
            out.rename(old)
        aside.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def terminal(made: Report, *, color: bool, width: int | None = None) -> str:
    """The measured rows of each panel as text for a terminal."""
    from rich.console import Console

    stream = StringIO()
    console = Console(file=stream, force_terminal=color, no_color=not color, width=width, highlight=False)
    for comparison in made.comparisons:
        if not comparison.primary:
            continue
        for panel in comparison.panels:
            if panel.measured:
                console.print(_rich(comparison, panel))
                if panel_reasons(panel):
                    console.print("– is absent; the report says why.", markup=False)
                for note in panel.notes:
                    console.print(note, markup=False)
    return stream.getvalue().rstrip("\n")


def _rich(comparison: Comparison, panel: Panel) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    name = f"Table {comparison.table.number}" if comparison.table is not None else comparison.experiment.title
    table = Table(title=Text(f"{name}, measured on {panel.title}"), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("Tokenizer", overflow="fold")
    table.add_column("n", justify="right")
    for metric in panel.metrics:
        table.add_column(Text(f"{metric.label} {metric.unit}".rstrip()), justify="right")
    for line in panel.lines:
        if line.record is not None:
            badges = "".join(f"\n({badge})" for badge in line.badges)
            figures = [
                Text(_shown(metric, figure), style="bold" if figure.best else "")
                for metric, figure in zip(panel.metrics, line.figures, strict=True)
            ]
            table.add_row(Text(line.name + badges), numbers.count(line.record.used), *figures)
    return table


def _shown(metric: Metric, figure: Figure) -> str:
    if figure.cell is None or figure.value is None:
        return numbers.DASH
    text = numbers.figure(figure.value, metric.decimals)
    if bounds := numbers.interval(figure.cell.interval, metric.decimals):
        text += f"\n{bounds}"
    if figure.printed is not None and figure.difference is not None:
        text += f"\npaper {figure.printed.text} ({numbers.difference(figure.difference, metric.decimals)})"
    return text
