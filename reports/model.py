"""The model of a table with printed and measured figures, which every output format renders."""

from __future__ import annotations

from dataclasses import dataclass

from harness.experiment import Experiment
from reports import paper
from reports.records import Record, RecordCell

ARROW = {True: "↑", False: "↓", None: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column of a table: a cell name of the records, and the paper's column if it prints one.

    ``higher_is_better`` is None for what is told and not ranked (times, memory).
    """

    name: str
    higher_is_better: bool | None
    unit: str
    decimals: int
    column: int | None = None

    @property
    def label(self) -> str:
        """``PSNR↑``."""
        return self.name + ARROW[self.higher_is_better]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Printed and measured figure of one tokenizer and metric.

    Attributes:
        cell: the record's; None where this tokenizer was not measured on this dataset.
        used, expected: samples of the whole run, and those that the figure should stand for (None: no number is fixed).
        best, printed_best: best of its block (see `Panel`).
    """

    printed: paper.Printed | None = None
    printed_best: bool = False
    cell: RecordCell | None = None
    used: int | None = None
    expected: int | None = None
    best: bool = False

    @property
    def value(self) -> float | None:
        """The measured value, None where absent or not measured."""
        return None if self.cell is None else self.cell.value

    @property
    def difference(self) -> float | None:
        """Measured - printed, None unless both are there."""
        return None if self.printed is None or self.value is None else self.value - self.printed.value

    @property
    def own_n(self) -> bool:
        """Whether other samples went in than the row's n says, so that the figure must say its own."""
        return self.cell is not None and self.cell.n != self.used


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row: one tokenizer under one protocol, or a row of the paper that nobody measured here.

    Attributes:
        n: ``n used / n expected``; empty where nothing was measured.
        badges: what makes this row's figures special (another protocol, too few samples, precision).
        figures, further: one for each of the panel's `metrics` and `further`.
        row: of the paper; None where it has none for this tokenizer.
    """

    name: str
    badges: tuple[str, ...]
    section: str
    compression: str
    latent: str
    token_type: str
    n: str
    figures: tuple[Figure, ...]
    further: tuple[Figure, ...]
    record: Record | None
    row: paper.Row | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """All rows of one dataset. Figures of two datasets never share a panel.

    Best figures: printed ones among the rows that the paper ranks together; measured ones among
    tokenizers of one kind (continuous, discrete) with the same protocol, samples and n. Reference
    rows are not ranked: `identity` is the ceiling by construction, codecs and transforms are no tokenizers.

    Attributes:
        slug: unique name for links and files.
        dataset: registry name.
        printed: the paper's header above these columns (``ImageNet``); None for a dataset of ours.
        metrics: columns that the paper prints, or the experiment's main ones.
        further: every other cell of the records, and times.
        notes: what was left out and where it is.
    """

    slug: str
    dataset: str
    title: str
    printed: str | None
    metrics: tuple[Metric, ...]
    further: tuple[Metric, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def described(self) -> bool:
        """Whether a row has anything to say of its tokens; encoders have not."""
        return any({line.compression, line.latent, line.token_type} != {"-"} for line in self.lines)

    @property
    def measured(self) -> tuple[Record, ...]:
        """The records that fill it."""
        return tuple(line.record for line in self.lines if line.record is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table of the paper beside the records of one experiment; ``table`` is None if it fills none.

    ``primary`` is true for the first table of an experiment, which also holds its other data; the others
    show some of the same figures again.
    """

    experiment: Experiment
    primary: bool
    table: paper.Table | None
    panels: tuple[Panel, ...]
