"""The 13 tables of the AToken paper as data: what was printed, typed and strictly parsed."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from harness.errors import BenchError

_NUMBER = re.compile(r"-?\d+(?:\.(\d+))?(%?)")
_ARROWS = {"↑": True, "↓": False}
_LEADING = ("group", "family")


@dataclass(frozen=True, slots=True)
class _Meta:
    """What a table's CSV does not hold.

    ``marked`` is False where the paper prints no arrows; the figures of those tables are accuracies,
    recalls and scores, all of them higher-is-better (the caption of table 13 says so, section 4.2 and
    5.1 speak of accuracy).
    """

    title: str
    method: str
    marked: bool = True


_META = {
    "table01": _Meta("Existing visual tokenizers and AToken: what each can do", "Method"),
    "table02": _Meta("Training curriculum", "Training Stage"),
    "table03": _Meta("Visual tokenizers across modalities", "Method"),
    "table04": _Meta("Image reconstruction on ImageNet and COCO", "Method"),
    "table05": _Meta("Image understanding: zero-shot classification and retrieval", "Model", marked=False),
    "table06": _Meta("Video reconstruction on DAVIS and TokenBench", "Tokenizer"),
    "table07": _Meta("Zero-shot video-text retrieval on MSR-VTT and MSVD", "Methods", marked=False),
    "table08": _Meta("3D reconstruction on Toys4k", "Method"),
    "table09": _Meta("Image understanding of multimodal language models", "Multimodal LLM", marked=False),
    "table10": _Meta("Video understanding of multimodal language models", "Multimodal LLM", marked=False),
    "table11": _Meta("Class-conditional generation on ImageNet, continuous tokens", "Tokenizer"),
    "table12": _Meta("Class-conditional generation on ImageNet, discrete tokens", "Tokenizer"),
    "table13": _Meta("Text-to-image and text-to-video generation", "Tokenizer", marked=False),
}


@dataclass(frozen=True, slots=True)
class Printed:
    """A figure as the paper prints it: 62.14 with ``decimals`` 2 and ``unit`` ``%`` for ``62.14%``."""

    value: float
    decimals: int
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a paper table.

    Attributes:
        header: as in the CSV, e.g. ``ImageNet / PSNR↑``.
        levels: the header split at `` / ``, outermost first.
        label: the last level without its arrow, e.g. ``PSNR``.
        metric: whether the column holds figures that can be ranked.
        higher_is_better: the metric's direction; None for other columns.
    """

    header: str
    levels: tuple[str, ...]
    label: str
    metric: bool
    higher_is_better: bool | None

    @property
    def group(self) -> str:
        """The levels above the last one, ``""`` where there is none."""
        return " / ".join(self.levels[:-1])


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a paper table; ``values`` are the strings of the CSV, one for each column."""

    group: str
    family: str
    method: str
    values: tuple[str, ...]

    @property
    def key(self) -> str:
        """How a `TokenizerCard.paper_row` names this row: ``AToken-So/C / Stage 3``, ``SD-VAE``."""
        return f"{self.family} / {self.method}" if self.family else self.method


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the paper."""

    name: str
    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    method: int
    """Index of the column that names the row's system."""

    def column(self, group: str, last: str) -> int:
        """Index of the column below ``group`` (``""``: none) whose last header level is ``last``, arrow included.

        Raises:
            BenchError: the table has no such column.
        """
        for index, column in enumerate(self.columns):
            if column.group == group and column.levels[-1] == last:
                return index
        raise BenchError(f"{self.name}: no column {last!r} below {group!r}")

    def printed(self, row: Row, column: int) -> Printed | None:
        """The figure of a metric column; None where the paper prints a dash."""
        text = row.values[column]
        if text == "-":
            return None
        match = _NUMBER.fullmatch(text)
        if match is None or not self.columns[column].metric:
            where = f"{self.name}.csv, row {row.key!r}, column {self.columns[column].header!r}"
            raise BenchError(f"{where}: {text!r} is not a figure")
        return Printed(float(text.removesuffix("%")), len(match[1] or ""), match[2], text)

    def best(self, column: int, rows: tuple[Row, ...]) -> float | None:
        """The best printed value of a metric column among ``rows``; None where fewer than two are printed."""
        values = [printed.value for row in rows if (printed := self.printed(row, column)) is not None]
        if len(values) < 2:
            return None
        return max(values) if self.columns[column].higher_is_better else min(values)

    def block(self, row: Row) -> tuple[Row, ...]:
        """The rows that ``row`` is ranked with: those of its group (and, in table 5, of its resolution)."""
        same = [other for other in self.rows if other.group == row.group]
        if self.name == "table05":
            same = [other for other in same if other.values[0] == row.values[0]]
        return tuple(same)


def names() -> tuple[str, ...]:
    """``table01`` ... ``table13``."""
    return tuple(_META)


@cache
def load(name: str) -> Table:
    """Read one table and check every figure in it.

    Raises:
        BenchError: no such table, or a cell of a metric column that is neither a figure nor a dash.
    """
    if name not in _META:
        raise BenchError(f"the paper has no table {name!r}; there are {', '.join(_META)}")
    meta = _META[name]
    text = (resources.files("reports") / "paper" / f"{name}.csv").read_text(encoding="utf-8")
    header, *lines = list(csv.reader(text.splitlines(), strict=True))
    if tuple(header[:2]) != _LEADING or meta.method not in header or any(len(line) != len(header) for line in lines):
        raise BenchError(f"{name}.csv: wants the columns group, family, ..., {meta.method}, ... in every line")
    columns = tuple(_column(text, meta) for text in header[2:])
    method = header.index(meta.method) - 2
    rows = tuple(Row(line[0], line[1], line[method + 2], tuple(line[2:])) for line in lines)
    table = Table(name, int(name.removeprefix("table")), meta.title, columns, rows, method)
    for row in rows:
        for index, column in enumerate(columns):
            if column.metric:
                table.printed(row, index)
    return table


def _column(header: str, meta: _Meta) -> Column:
    levels = tuple(header.split(" / "))
    arrow = _ARROWS.get(levels[-1][-1])
    # Where the paper draws no arrows, its figures are those below a two-level header.
    if arrow is None and not meta.marked and len(levels) > 1:
        arrow = True
    # Tables 1 and 2 have two-level headers too (ticks, sampling ratios): nothing to rank there.
    return Column(header, levels, levels[-1].rstrip("↑↓"), arrow is not None, arrow)
