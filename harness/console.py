"""What a run says while it works: a progress bar for people, plain lines for logs, a table at the end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import rich.box
import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# Seconds between lines where there is no terminal.
INTERVAL = 30.0


class Advance:
    """Takes what was done and shows nothing; what `Console.progress` gives where nobody looks."""

    def __call__(self, count: int) -> None:
        """`count` more samples are done."""

    def detail(self, text: str) -> None:
        """What is at work within a sample, where one takes long."""


class Console:
    """Talks on stderr, so that stdout holds results alone.

    Args:
        speaks: False silences progress (one process of several speaks); lines of `say` come through.
    """

    def __init__(self, *, speaks: bool = True, stream: TextIO | None = None) -> None:
        self._console = rich.console.Console(file=stream or sys.stderr, highlight=False, markup=False)
        self._speaks = speaks

    def say(self, line: str) -> None:
        """One line, never wrapped: logs are searched by line."""
        self._console.print(line, soft_wrap=True)

    def note(self, line: str) -> None:
        """Like `say`, by the one process that speaks: what every process knows alike."""
        if self._speaks:
            self.say(line)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Advance]:
        """Show how far `total` samples are; the value is called with the number that was just finished."""
        if not self._speaks or not total:
            yield Advance()
        elif self._console.is_terminal:
            columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
            with Progress(*columns, TimeRemainingColumn(), console=self._console) as bar:
                yield _Bar(bar, title, total)
        else:
            yield _Lines(self, title, total)


class _Bar(Advance):
    def __init__(self, bar: Progress, title: str, total: int) -> None:
        self._bar, self._title = bar, title
        self._task = bar.add_task(title, total=total)

    def __call__(self, count: int) -> None:
        self._bar.update(self._task, advance=count, description=self._title)

    def detail(self, text: str) -> None:
        self._bar.update(self._task, description=f"{self._title}: {text}")


class _Lines(Advance):
    def __init__(self, console: Console, title: str, total: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._done = 0
        self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        self._report("")

    def detail(self, text: str) -> None:
        self._report(f", {text}")

    def _report(self, rest: str) -> None:
        if time.monotonic() - self._last >= INTERVAL:
            self._console.say(f"{self._title}: {self._done}/{self._total}{rest}")
            self._last = time.monotonic()


def missing(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Cells that are absent for want of something; those that have no meaning for the tokenizer are not missed."""
    return [cell for cell in record["cells"] if cell["absent"] is not None and cell["applies"]]


def print_record(record: Mapping[str, Any]) -> None:
    """Print a record's cells as a compact table: value, interval, n used of n expected; then what is absent."""
    console = rich.console.Console(highlight=False, markup=False)
    samples, dataset = record["samples"], record["dataset"]
    console.print(
        f"{record['tokenizer']['card']['title']} on {dataset['title']}, protocol {record['protocol']['name']}",
        soft_wrap=True,
        style="bold",
    )
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    for column in ("value", "interval", "n"):
        table.add_column(column, justify="right")
    of = samples["expected"] or samples["selected"]
    for cell in record["cells"]:
        if cell["absent"] is None:
            unit = f" {cell['unit']}" if cell["unit"] else ""
            table.add_row(
                f"{cell['name']} {'↑' if cell['higher_is_better'] else '↓'}",
                number(cell["value"]) + unit,
                interval(cell["interval"]),
                f"{cell['n']:,}/{of:,}",
            )
    console.print(table)
    if failed := samples["failed"]:
        console.print(
            f"{len(failed)} of {samples['selected']} samples left out, first {failed[0]['id']}: {failed[0]['reason']}",
            soft_wrap=True,
        )
    if absent := [cell["name"] for cell in missing(record)]:
        console.print(f"absent: {', '.join(absent)}", soft_wrap=True)


def reasons(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Why cells are missed: each reason once, with the names that share it."""
    result: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell["absent"] is not None and cell["applies"]:
            result.setdefault(cell["absent"], {})[cell["name"]] = None
    return {reason: list(names) for reason, names in result.items()}


def print_reasons(records: Sequence[Mapping[str, Any]], said: Collection[str]) -> None:
    """Print why cells of these records are missed, without the reasons that were `said` before."""
    console = rich.console.Console(highlight=False, markup=False)
    for reason, names in reasons(cell for record in records for cell in record["cells"]).items():
        if reason not in said:
            console.print(f"absent {', '.join(names)}: {reason}", soft_wrap=True)


def number(value: float) -> str:
    """Four significant digits, more before the point where there are more; small ones with an exponent."""
    if not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    digits = 3 - math.floor(math.log10(abs(value))) if value else 3
    return f"{value:.3e}" if digits > 6 else f"{value:.{max(digits, 0)}f}"


def interval(bounds: Sequence[float] | None) -> str:
    """``26.91 to 27.30``; empty without bounds, and where both are the same infinity, which tells nothing."""
    if bounds is None or (bounds[0] == bounds[1] and math.isinf(bounds[0])):
        return ""
    return f"{number(bounds[0])} to {number(bounds[1])}"
