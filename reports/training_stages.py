"""Figures after each stage of a training, one variant beside another, as Figure 7 draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports import numbers
from reports.curves import WIDTH
from reports.training_charts import SLOTS, Axis, Drawn, path_of

__all__ = ["Mark", "StageChart", "StageInput", "stage_chart"]

APART = 1.6
"""Percent of the width between two variants at one stage, so that their intervals stand beside each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInput:
    """A figure of one variant after each stage: (place of the stage, value, interval)."""

    name: str
    slot: int
    values: Sequence[tuple[int, float, tuple[float, float] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value at its place in percent; `low` and `high` are the ends of its interval."""

    left: float
    bottom: float
    low: float | None
    high: float | None
    text: str
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChart:
    """Figures over stages, as Figure 7 draws them."""

    title: str
    unit: str
    summary: str
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]
    series: tuple[Drawn, ...]
    marks: tuple[Mark, ...]


def stage_chart(
    title: str, inputs: Sequence[StageInput], stages: Sequence[str], *, unit: str, decimals: int
) -> StageChart | None:
    """Draw figures over stages.

    Returns:
        None where no variant has two stages: there is no course to see.
    """
    known = [one for one in inputs if len(one.values) > 1]
    if not known:
        return None
    ends = [end for one in known for _, value, bounds in one.values for end in (value, *(bounds or ()))]
    axis = Axis.of([end for end in ends if math.isfinite(end)])
    middle = len(known) / 2 - 0.5

    def left(stage: int, place: int) -> float:
        return 100 * (stage + 0.5) / len(stages) + APART * (place - middle)

    marks, series = [], []
    for place, one in enumerate(known):
        slot = one.slot % SLOTS
        path = [(WIDTH / 100 * left(stage, place), axis.place(value)) for stage, value, _ in one.values]
        text = numbers.figure(one.values[-1][1], decimals)
        series.append(Drawn(name=one.name, slot=slot, dashed=False, path=path_of(path), last=text))
        for stage, value, bounds in one.values:
            low, high = (None, None) if bounds is None else (100 * axis.share(end) for end in bounds)
            said = f"{one.name}, {stages[stage]}: {numbers.figure(value, decimals)} {unit}".rstrip()
            said += f" {numbers.interval(bounds, decimals)}"
            marks.append(
                Mark(
                    left=left(stage, place),
                    bottom=100 * axis.share(value),
                    low=low,
                    high=high,
                    text=said.rstrip(),
                    slot=slot,
                )
            )
    return StageChart(
        title=title,
        unit=unit,
        summary="; ".join(mark.text for mark in marks),
        x=tuple((100 * (place + 0.5) / len(stages), name) for place, name in enumerate(stages)),
        y=axis.labels,
        series=tuple(series),
        marks=tuple(marks),
    )
