"""`atoken-bench sensitivity` as files and on the terminal: a page with plots, Markdown, CSV, JSON, SVG."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import jinja2

from harness.errors import BenchError
from harness.storage import write_atomically
from reports import markdown, numbers
from reports.data import to_csv, to_json
from reports.grid import Grid, GridCell
from reports.model import Metric
from reports.sensitivity import Gaps, MetricRow, MetricSpread, Sensitivity
from reports.sensitivity_plot import STYLE, plot

__all__ = ["FIELDS", "gap_sentence", "make", "show", "terminal", "write"]

FIELDS = (
    *("experiment", "tokenizer", "spec", "dataset_title", "metric", "unit", "higher_is_better", "protocol"),
    *("protocol_sha256", "default", "settings", "measured", "low", "high", "level", "n", "difference", "spread"),
    *("not_compared", "run"),
)


def show(made: Sensitivity, out: Path, echo: Callable[[str], None]) -> None:
    """Write the files below ``out`` and print the table.

    Raises:
        BenchError: the folder cannot be written.
    """
    write(made, out)
    tty = sys.stdout.isatty()
    echo(terminal(made, color=tty, width=None if tty else 110))
    echo(f"Page: {out / 'index.html'}")


def write(made: Sensitivity, out: Path) -> None:
    """Write ``index.html``, ``sensitivity.md``, ``.csv``, ``.json`` and ``plots/METRIC.svg``; each file whole or not.

    Raises:
        BenchError: the folder cannot be written.
    """
    grids = [_grid(made, spread) for spread in made.metrics if spread.measured]
    figures = list(rows(made))
    files = {
        "index.html": _page(made),
        "sensitivity.md": markdown.document(f"{made.title}: protocols of {made.experiment.name}", grids),
        "sensitivity.csv": to_csv(figures, FIELDS),
        "sensitivity.json": to_json(figures),
    }
    for spread in made.metrics:
        if (drawn := plot(made, spread, alone=True)) is not None:
            files[f"plots/{_slug(spread.metric)}.svg"] = str(drawn)
    make(out)
    for name, text in files.items():
        write_atomically(out / name, text.encode())


def make(out: Path) -> None:
    """Make the folder to write to, before anything is measured for it.

    Raises:
        BenchError: it cannot be made.
    """
    try:
        (out / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from None


def rows(made: Sensitivity) -> Iterator[dict[str, Any]]:
    """Every metric under every protocol, with the keys `FIELDS`; values keep every digit."""
    for spread in made.metrics:
        for row in spread.rows:
            cell, record = row.cell, row.record
            low, high = cell.interval if cell is not None and cell.interval is not None else (None, None)
            yield {
                "experiment": made.experiment.name,
                "tokenizer": made.title,
                "spec": made.spec,
                "dataset_title": made.dataset,
                "metric": spread.metric.name,
                "unit": spread.metric.unit,
                "higher_is_better": spread.metric.higher_is_better,
                "protocol": row.protocol,
                "protocol_sha256": None if record is None else record.protocol["sha256"],
                "default": row.protocol == made.default,
                "settings": row.settings,
                "measured": row.value,
                "low": low,
                "high": high,
                "level": None if low is None or cell is None else cell.level,
                "n": None if cell is None else cell.n,
                "difference": row.difference,
                "spread": spread.spread,
                "not_compared": row.apart,
                "run": None if record is None else record.folder.name,
            }


def gap_sentence(made: Sensitivity, spread: MetricSpread, gap: Gaps) -> str:
    """How many of the paper's gaps between neighbours are smaller than the spread, and of what the spread is."""
    assert spread.spread is not None
    decimals = spread.metric.decimals
    of = "" if made.expected in (None, made.used) else f", on {numbers.of_expected(made.used, made.expected)} samples"
    return (
        f"{gap.below(spread.spread)} of {len(gap.values)} gaps between neighbours in {gap.table} ({gap.column}; median "
        f"{numbers.figure(gap.median, decimals)}) are smaller than this spread{of}. The paper's figures are all of one "
        "protocol: their order may hold under each."
    )


def terminal(made: Sensitivity, *, color: bool, width: int | None = None) -> str:
    """The table as text for a terminal: the metrics one under another, a line for each protocol."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = StringIO()
    console = Console(file=stream, force_terminal=color, no_color=not color, width=width, highlight=False)
    console.print(Text(_heading(made), style="bold"))
    for spread in (one for one in made.metrics if one.measured):
        table = Table(title=Text(_label(spread.metric)), box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column("protocol", overflow="fold")
        for column in ("value", "interval", "n", f"to {made.default}"):
            table.add_column(column, justify="right")
        table.add_column("", overflow="fold")
        for row in spread.rows:
            name = f"{row.protocol} (default)" if row.protocol == made.default else row.protocol
            table.add_row(name, *_texts(spread.metric, row), row.apart or row.settings)
        console.print(table)
        console.print(_said(made, spread), markup=False)
    for reason, names in made.absent.items():
        console.print(f"absent {', '.join(names)}: {reason}", markup=False, soft_wrap=True)
    for protocol, reason in made.unmeasured.items():
        console.print(f"{protocol}: not measured: {reason}", markup=False, soft_wrap=True)
    return stream.getvalue().rstrip("\n")


def _heading(made: Sensitivity) -> str:
    count = numbers.of_expected(made.used, made.expected)
    return f"{made.title} on {made.dataset} ({count} samples) under the protocols of {made.experiment.name}"


def _label(metric: Metric) -> str:
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _texts(metric: Metric, row: MetricRow) -> tuple[str, str, str, str]:
    """Value, interval, n and difference."""
    value = numbers.DASH if row.value is None else numbers.figure(row.value, metric.decimals)
    bounds = "" if row.cell is None or row.value is None else numbers.interval(row.cell.interval, metric.decimals)
    count = "" if row.cell is None or row.value is None else numbers.count(row.cell.n)
    change = "" if row.difference is None else numbers.difference(row.difference, metric.decimals)
    return value, bounds, count, change


def _said(made: Sensitivity, spread: MetricSpread) -> str:
    """The line below a metric's table."""
    compared = sum(row.apart is None for row in spread.rows)
    if spread.spread is None:
        return "No spread: fewer than two protocols give a finite figure of this name on the same samples."
    unit = f" {spread.metric.unit}" if spread.metric.unit else ""
    text = f"Spread {numbers.figure(spread.spread, spread.metric.decimals)}{unit} over {compared} protocols."
    return " ".join([text, *(gap_sentence(made, spread, gap) for gap in spread.gaps)])


def _grid(made: Sensitivity, spread: MetricSpread) -> Grid:
    lines = []
    for row in spread.rows:
        name = f"{row.protocol} (default)" if row.protocol == made.default else row.protocol
        cells = (GridCell(text) for text in _texts(spread.metric, row))
        lines.append((GridCell(name), *cells, GridCell(row.apart or row.settings)))
    return Grid(
        title=_label(spread.metric),
        caption=_said(made, spread),
        groups=(),
        header=("Protocol", "value", "interval", "n", f"to {made.default}", "remark"),
        left=1,
        rows=tuple(lines),
        footnotes=(),
    )


def _slug(metric: Metric) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", metric.name).strip("-").lower() or "metric"


def _page(made: Sensitivity) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (resources.files("reports") / "static" / "report.css").read_text(encoding="utf-8")
    shown = [
        {
            "label": _label(spread.metric),
            "slug": _slug(spread.metric),
            "plot": plot(made, spread, alone=False),
            "said": _said(made, spread),
            "rows": [
                {"row": row, "texts": _texts(spread.metric, row), "definition": made.definitions.get(row.protocol, "")}
                for row in spread.rows
            ],
        }
        for spread in made.metrics
        if spread.measured
    ]
    return environment.get_template("sensitivity.html.j2").render(
        made=made, shown=shown, heading=_heading(made), style=style, plot_style=STYLE, version=version("atoken")
    )
