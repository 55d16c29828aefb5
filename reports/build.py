"""Everything that a report says, put together once for all formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.ablation import Ablation
from harness.experiment import Experiment
from reports.checks import Check
from reports.model import Comparison, Figure, Panel
from reports.protocols import ProtocolPanel, spreads
from reports.records import Record
from reports.tables import compare
from reports.training import Studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the writers render.

    Attributes:
        records: every record, in a fixed order.
        comparisons: for each experiment that can be run, one for each table it fills.
        protocols: the panels of experiments that were run under several protocols.
        slugs: file stem of each record's page, by the run's folder.
        studies: trainings and ablations, which have pages of their own.
        checks: outcomes of the adapter contract.
    """

    records: tuple[Record, ...]
    experiments: Mapping[str, Experiment]
    comparisons: tuple[Comparison, ...]
    protocols: tuple[ProtocolPanel, ...]
    slugs: Mapping[str, str]
    studies: Studies = field(default_factory=Studies)
    checks: tuple[Check, ...] = ()

    def slug(self, record: Record) -> str:
        """File stem of the record's page."""
        return self.slugs[str(record.folder)]


def build(
    records: Sequence[Record],
    experiments: Mapping[str, Experiment],
    studies: Studies | None = None,
    checks: Sequence[Check] = (),
) -> Report:
    """Compare the records of every experiment with the paper.

    A record whose experiment is not installed here is compared with nothing, and still shown.
    """
    studies = studies or Studies()
    records = _named(records, studies)
    # An ablation has a page of its own; the records that measure its models are other experiments'.
    shown = {
        name: experiment
        for name, experiment in experiments.items()
        if experiment.status == "built" and not isinstance(experiment, Ablation)
    }
    for record in records:
        if record.experiment not in shown:
            unknown = Experiment(name=record.experiment, title=f"{record.experiment} (not installed here)")
            shown[record.experiment] = unknown
    comparisons = [comparison for experiment in shown.values() for comparison in compare(experiment, records)]
    protocols = [panel for experiment in shown.values() for panel in spreads(experiment, records)]
    return Report(
        records=tuple(records),
        experiments=experiments,
        comparisons=tuple(comparisons),
        protocols=tuple(protocols),
        slugs=_slugs(records),
        studies=studies,
        checks=tuple(checks),
    )


def _named(records: Sequence[Record], studies: Studies) -> list[Record]:
    """Models of ablations with the name of their variant: of checkpoints of one size the hash alone says nothing."""
    names: dict[Path, dict[str, None]] = {}
    for run in studies.ablations:
        for variant in run.variants:
            several = len({stage for stage, _ in variant.measured}) > 1
            for (stage, _), where in variant.measured.items():
                if isinstance(where, Path):
                    name = f"{variant.title}, stage {stage}" if several else variant.title
                    names.setdefault(where.parent.resolve(), {})[name] = None
    made = []
    for record in records:
        told = names.get(record.folder.resolve())
        card = {**record.card, "title": f"{record.title}: {' = '.join(told)}"} if told else record.card
        made.append(replace(record, card=card))
    return made


def _slugs(records: Sequence[Record]) -> dict[str, str]:
    slugs: dict[str, str] = {}
    for record in records:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", record.folder.name).strip(".-") or "run"
        slug, number = stem, 2
        while slug.lower() in slugs.values():
            slug, number = f"{stem}-{number}", number + 1
        slugs[str(record.folder)] = slug.lower()
    return slugs


def reasons(rows: Sequence[Sequence[Figure]]) -> tuple[str, ...]:
    """Why figures are absent: each reason once, in the order of the rows."""
    return tuple(
        dict.fromkeys(
            figure.cell.absent for row in rows for figure in row if figure.cell is not None and figure.cell.absent
        )
    )


def panel_reasons(panel: Panel) -> tuple[str, ...]:
    """Of the panel's main columns."""
    return reasons([line.figures for line in panel.lines])


def further_reasons(panel: Panel) -> tuple[str, ...]:
    """Of the panel's further columns."""
    return reasons([line.further for line in panel.lines])


def letter(known: Sequence[str], reason: str) -> str:
    """The footnote's letter: a, b, ... z, aa, ab."""
    place, text = known.index(reason), ""
    while place >= 0:
        text = chr(ord("a") + place % 26) + text
        place = place // 26 - 1
    return text


def caption(panel: Panel) -> str:
    """What a newcomer must know to read the panel."""
    records = panel.measured
    if not records:
        return "As the paper prints it. Bold: best of its block."
    names = dict.fromkeys(str(record.protocol["name"]) for record in records)
    prepared = dict.fromkeys(str(record.protocol["content"].get("prepare", "")) for record in records)
    said = []
    if panel.printed is not None:
        said.append(
            "Each metric: the paper's figure, the one measured here with its interval, and measured minus printed."
        )
    else:
        said.append("Each figure with its bootstrap interval; the paper prints none on this data.")
    if len(names) == 1:
        pipeline = f" ({next(iter(prepared))})" if len(prepared) == 1 and next(iter(prepared)) else ""
        said.append(f"Protocol {next(iter(names))}{pipeline}.")
    said.append("Bold: best among rows of one kind with equal protocol, samples and n; reference rows are not ranked.")
    return " ".join(said)
