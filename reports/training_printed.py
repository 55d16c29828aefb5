"""What the paper prints of an ablation: figures of its text and captions, and rows of its tables."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from harness.errors import BenchError
from reports import paper

__all__ = ["Printed", "printed"]

FILE = "training_printed.csv"
HEADER = ["experiment", "what", "printed", "where"]

STAGES = (
    ("table04", "ImageNet", ("PSNR↑", "SSIM↑", "LPIPS↓", "rFID↓")),
    ("table06", "DAVIS", ("PSNR↑", "SSIM↑", "LPIPS↓", "rFVD↓")),
)
"""Where the stages of one training stand in the tables."""
FAMILY = "AToken-So/C"


@dataclass(frozen=True, slots=True)
class Printed:
    """One figure as printed.

    Attributes:
        what: it is of.
        text: the figure.
        where: it stands.
        table: name of the table, for a link; None where it stands in the text.
    """

    what: str
    text: str
    where: str
    table: str | None = None


def printed(ablation: str) -> tuple[Printed, ...]:
    """The paper's figures of an ablation, by its name; empty where it prints none."""
    found = [Printed(what, text, where) for name, what, text, where in _lines() if name == ablation]
    if ablation == "ablation-stages":
        found += _stages()
    return tuple(found)


def _stages() -> list[Printed]:
    found = []
    for name, group, metrics in STAGES:
        table = paper.load(name)
        for row in table.rows:
            for metric in metrics if row.family == FAMILY else ():
                column = table.column(group, metric)
                what = f"{group} {table.columns[column].label}, {FAMILY}, {row.method}"
                found.append(Printed(what, row.values[column], f"Table {table.number}", name))
    return found


@cache
def _lines() -> tuple[tuple[str, str, str, str], ...]:
    """The lines of `FILE`.

    Raises:
        BenchError: a line without all columns.
    """
    text = (resources.files("reports") / FILE).read_text(encoding="utf-8")
    header, *lines = list(csv.reader(text.splitlines(), strict=True))
    if header != HEADER or any(len(line) != len(HEADER) or not all(line) for line in lines):
        raise BenchError(f"{FILE}: wants the columns {', '.join(HEADER)} in every line")
    return tuple((name, what, shown, where) for name, what, shown, where in lines)
