"""What the page of an ablation says: its variants, what each of their models was measured at, and their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.experiment import Experiment
from reports.model import Figure, Metric
from reports.records import Record, RecordCell
from reports.tables import metric_of
from reports.training import AblationRun, Training, VariantRun
from reports.training_page import curves_of
from reports.training_printed import printed
from reports.training_stages import StageChart, StageInput, stage_chart

__all__ = ["Measured", "Row", "context", "measured", "steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model: one variant after one stage.

    Attributes:
        slot: of the variant's colour.
        place: of the stage, 0 for the first.
        stage: its name with its number; empty of a variant that was not trained.
        absent: why there is no record.
        figures: one for each column.
    """

    variant: str
    slot: int
    place: int
    stage: str
    record: Record | None
    absent: str | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The models of an ablation under one experiment.

    Attributes:
        slug: for links within the page.
        several: whether any variant has more than one stage here.
        charts: each metric over stages.
    """

    slug: str
    title: str
    data: str
    protocol: str
    n: int
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    several: bool
    charts: tuple[StageChart, ...]


def context(run: AblationRun, records: Mapping[Path, Record], experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """Everything that the template needs besides the ablation.

    Args:
        records: by their resolved path.
        experiments: by name.
    """
    trained = [
        (variant.title, slot, variant.training)
        for slot, variant in enumerate(run.variants)
        if variant.training is not None
    ]
    return {
        "run": run,
        "measured": measured(run, records, experiments),
        "printed": printed(run.name),
        "curves": curves_of(trained) if trained else {},
        "variants": [_told(slot, variant) for slot, variant in enumerate(run.variants)],
        "steps": steps(run),
    }


def steps(run: AblationRun) -> str:
    """Of every stage, as ``100 + 100``; of all variants, where they are not the same."""
    told = dict.fromkeys(" + ".join(str(s["steps"]) for s in v.raw["recipe"]["stages"].values()) for v in run.variants)
    return " or ".join(told)


def _told(slot: int, variant: VariantRun) -> dict[str, Any]:
    training = variant.training
    return {
        "title": variant.title,
        "slot": slot,
        "absent": variant.absent,
        "training": training,
        "changes": variant.raw["changes"],
        "recipe": variant.raw["recipe"]["name"],
        "sha256": variant.raw["recipe_sha256"],
        "gram": None if training is None else _gram_share(training),
    }


def _gram_share(training: Training) -> tuple[float, float] | None:
    """The weighted Gram term over the weighted LPIPS term, at the first and at the last logged step; the choice among
    the forms asks for 0.3 to 3."""
    weights = training.recipe["losses"]
    gram, lpips = (dict(training.points(f"image_recon/{name}")) for name in ("gram", "lpips"))
    steps = [step for step in gram if lpips.get(step)]
    if not steps or not weights["lpips"]:
        return None
    first, last = (weights["gram"] * gram[step] / (weights["lpips"] * lpips[step]) for step in (steps[0], steps[-1]))
    return (first, last) if math.isfinite(first) and math.isfinite(last) else None


def measured(
    run: AblationRun, records: Mapping[Path, Record], experiments: Mapping[str, Experiment]
) -> tuple[Measured, ...]:
    """A table for each experiment that measured a model."""
    names = dict.fromkeys(name for variant in run.variants for _, name in variant.measured)
    return tuple(_under(run, name, records, experiments.get(name)) for name in names)


def _under(run: AblationRun, name: str, records: Mapping[Path, Record], experiment: Experiment | None) -> Measured:
    found: list[tuple[int, int, Record | None, str | None]] = []
    for slot, variant in enumerate(run.variants):
        for (stage, measuring), where in variant.measured.items():
            if measuring == name:
                record = records.get(where.resolve()) if isinstance(where, Path) else None
                gone = f"the run's folder {where.parent.name} is gone" if isinstance(where, Path) else where
                found.append((slot, stage, record, None if record is not None else gone))
        if not variant.measured:
            found.append((slot, 0, None, variant.absent or "not measured"))
    known = [record for _, _, record, _ in found if record is not None]
    metrics = _metrics(known, experiment)
    rows = [
        Row(
            variant=run.variants[slot].title,
            slot=slot,
            place=max(0, stage - 1),
            stage=_stage(run.variants[slot], stage),
            record=record,
            absent=reason,
            figures=tuple(_figure(metric, record, reason) for metric in metrics),
        )
        for slot, stage, record, reason in found
    ]
    first = known[0] if known else None
    ranked = _ranked(rows, metrics)
    return Measured(
        slug=f"measured-{name}",
        title=experiment.title if experiment is not None else name,
        data=str(first.dataset["title"]) if first else "",
        protocol=str(first.protocol["name"]) if first else "",
        n=first.used if first else 0,
        metrics=metrics,
        rows=ranked,
        several=len({row.stage for row in rows if row.stage}) > 1,
        charts=_charts(run, ranked, metrics),
    )


def _stage(variant: VariantRun, number: int) -> str:
    names = list(variant.raw["recipe"]["stages"])
    return f"{number} {names[number - 1]}" if number else ""


def _metrics(records: Sequence[Record], experiment: Experiment | None) -> tuple[Metric, ...]:
    """The experiment's columns of the paper, then the parts that these split into (``rFID (mean term)``)."""
    if not records:
        return ()
    cells = [cell.name for cell in records[0].cells]
    main = list(experiment.fills[0].columns) if experiment is not None and experiment.fills else cells[:4]
    parts = [
        name
        for name in cells
        if any(name.startswith(f"{one} (") and name.endswith(" term)") for one in main)
        and any((cell := record.cell(name)) is not None and cell.value is not None for record in records)
    ]
    return tuple(metric_of(records, name) for name in (*main, *parts) if any(r.cell(name) for r in records))


def _figure(metric: Metric, record: Record | None, reason: str | None) -> Figure:
    if record is not None:
        return Figure(cell=record.cell(metric.name), used=record.used, expected=record.expected)
    absent = RecordCell(
        name=metric.name,
        value=None,
        interval=None,
        level=0.95,
        n=0,
        higher_is_better=bool(metric.higher_is_better),
        unit=metric.unit,
        absent=reason,
        parameters={},
    )
    return Figure(cell=absent)


def _ranked(rows: Sequence[Row], metrics: Sequence[Metric]) -> tuple[Row, ...]:
    """Mark the best figure of each column, where two or more were measured on the same samples."""
    figures = [list(row.figures) for row in rows]
    for column, metric in enumerate(metrics):
        values: dict[tuple[object, ...], list[tuple[float, int]]] = {}
        for place, row in enumerate(rows):
            figure = row.figures[column]
            if row.record is not None and figure.cell is not None and figure.value is not None:
                same = row.record.protocol["sha256"], row.record.dataset["content_sha256"], figure.cell.n
                values.setdefault(same, []).append((figure.value, place))
        for members in values.values():
            ends = [value for value, _ in members]
            best = max(ends) if metric.higher_is_better else min(ends)
            for value, place in members:
                if len(members) > 1 and value == best:
                    figures[place][column] = replace(figures[place][column], best=True)
    return tuple(replace(row, figures=tuple(own)) for row, own in zip(rows, figures, strict=True))


def _charts(run: AblationRun, rows: Sequence[Row], metrics: Sequence[Metric]) -> tuple[StageChart, ...]:
    stages = list(dict.fromkeys(row.stage for row in sorted(rows, key=lambda row: row.place) if row.stage))
    drawn = []
    for column, metric in enumerate(metrics):
        inputs = [
            StageInput(name=variant.title, slot=slot, values=_course(rows, slot, column, stages))
            for slot, variant in enumerate(run.variants)
        ]
        made = stage_chart(metric.label, inputs, stages, unit=metric.unit, decimals=metric.decimals)
        if made is not None:
            drawn.append(made)
    return tuple(drawn)


def _course(
    rows: Sequence[Row], slot: int, column: int, stages: Sequence[str]
) -> list[tuple[int, float, tuple[float, float] | None]]:
    found = []
    for row in rows:
        cell = row.figures[column].cell
        if row.slot == slot and cell is not None and cell.value is not None and math.isfinite(cell.value):
            found.append((stages.index(row.stage), cell.value, cell.interval))
    return found
