"""Curves of trainings over their steps, one over another: lines in SVG, text in HTML.

Colours and dashes come from the style sheet by a series' slot, so that they follow light and dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reports import numbers
from reports.curves import HEIGHT, LABELS_Y, WIDTH, ticks
from reports.training import Points, Span

__all__ = ["SLOTS", "Axis", "Chart", "Drawn", "Input", "chart", "path_of"]

SLOTS = 6
"""Colours; a seventh series takes the first again."""

MOST_POINTS = 240
"""Of a series; a longer log is drawn as means over equal stretches of it."""

LOG_RATIO = 30.0
"""Of largest to smallest value, from which a positive quantity is drawn on a logarithmic axis."""

LABELS_X = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A series to draw.

    Attributes:
        slot: of its colour.
        dashed: for the second of a pair that shares a colour.
    """

    name: str
    points: Points
    slot: int = 0
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A series as it is drawn: its path, and the value that the legend tells."""

    name: str
    slot: int
    dashed: bool
    path: Markup
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series over the steps of a training.

    Attributes:
        x, y: labels with their place in percent of the width and of the height from below.
        borders: where a stage begins, in percent of the width, with its name; the first begins at 0.
        data: for the script that reads values off: JSON with `x` (percent), `steps` and, for each series, values.
    """

    title: str
    unit: str
    summary: str
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]
    borders: tuple[tuple[float, str], ...]
    series: tuple[Drawn, ...]
    data: str


def chart(title: str, inputs: Sequence[Input], spans: Sequence[Span], *, unit: str = "") -> Chart | None:
    """Draw series over the steps of all stages.

    Args:
        spans: the stages; those of the longest training, where several are drawn.

    Returns:
        None where no value is finite.
    """
    thinned = [(one, _thinned(one.points)) for one in inputs if any(math.isfinite(value) for _, value in one.points)]
    if not thinned:
        return None
    values = [value for _, points in thinned for _, value in points]
    axis = Axis.of(values)
    end = max(spans[-1].start + spans[-1].steps, *(points[-1][0] for _, points in thinned))
    decimals = _decimals(values)
    drawn = tuple(
        Drawn(
            name=one.name,
            slot=one.slot % SLOTS,
            dashed=one.dashed,
            path=path_of([(WIDTH * step / end, axis.place(value)) for step, value in points]),
            last=_text(points[-1][1], decimals),
        )
        for one, points in thinned
    )
    every = _every(end)
    return Chart(
        title=title,
        unit=unit,
        summary=_summary(thinned, inputs, decimals),
        x=tuple((100 * step / end, numbers.count(step)) for step in range(0, end + 1, every)),
        y=axis.labels,
        borders=tuple((100 * span.start / end, span.name) for span in spans),
        series=drawn,
        data=_data(thinned, end),
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """The vertical axis: from value to height, and its labels."""

    low: float
    high: float
    logarithmic: bool
    labels: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Axis:
        low, high = min(values), max(values)
        if low > 0 and high / low >= LOG_RATIO:
            first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
            # At most `LABELS_Y` + 1 of the decades are told.
            step = max(1, math.ceil((last - first) / LABELS_Y))
            marks = tuple(
                (100 * (power - first) / (last - first), _power(power)) for power in range(first, last + 1, step)
            )
            return cls(10.0**first, 10.0**last, True, marks)
        marks_at = ticks(low, high, LABELS_Y)
        bottom, top = min(low, marks_at[0]), max(high, marks_at[-1])
        unit = math.floor(math.log10(marks_at[1] - marks_at[0]) + 1e-9)
        labels = tuple((100 * (mark - bottom) / (top - bottom), _mark(mark, unit)) for mark in marks_at)
        return cls(bottom, top, False, labels)

    def share(self, value: float) -> float:
        """Of the height, from below."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float) -> float:
        """Of the plot's coordinates, from above."""
        return HEIGHT * min(1.0, max(0.0, 1 - self.share(value)))


def _power(power: int) -> str:
    if -4 <= power <= 5:
        return numbers.figure(10.0**power, -power) if power < 0 else numbers.count(10**power)
    return f"1e{power}"


def _mark(value: float, unit: int) -> str:
    """A label of an axis whose labels are whole multiples of ten to the power `unit`."""
    if abs(value) < 0.5 * 10.0**unit:
        return "0"
    size = math.floor(math.log10(abs(value)) + 1e-9)
    if unit < -5 or size > 8:
        return f"{value:.{max(0, size - unit)}e}".replace("-", numbers.MINUS, value < 0)
    return numbers.count(round(value)) if unit >= 0 and size >= 3 else numbers.figure(value, max(0, -unit))


def _thinned(points: Points) -> Points:
    """Means over equal numbers of finite points, where there are too many to tell apart."""
    known = [(step, value) for step, value in points if math.isfinite(value)]
    each = math.ceil(len(known) / MOST_POINTS)
    if each <= 1:
        return known
    parts = [known[start : start + each] for start in range(0, len(known), each)]
    return [(round(sum(s for s, _ in part) / len(part)), sum(v for _, v in part) / len(part)) for part in parts]


def path_of(places: Sequence[tuple[float, float]]) -> Markup:
    if len(places) == 1:  # a line of no length that its round ends make a dot
        return Markup(f"M{places[0][0]:.2f} {places[0][1]:.2f}h0")
    return Markup("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in places))


def _every(end: int) -> int:
    """Steps between labels, a round number."""
    wanted = max(1, math.ceil(end / LABELS_X))
    power: int = 10 ** (len(str(wanted)) - 1)
    return next(every for every in (power, 2 * power, 5 * power, 10 * power) if every >= wanted)


def _decimals(values: Sequence[float]) -> int:
    largest = max(abs(value) for value in values)
    return min(7, max(0, 3 - math.floor(math.log10(largest)))) if largest else 2


def _text(value: float, decimals: int) -> str:
    if 0 < abs(value) < 1e-4 or abs(value) >= 1e9:
        return f"{value:.2e}"
    return numbers.count(round(value)) if abs(value) >= 10_000 else numbers.figure(value, decimals)


def _summary(thinned: Sequence[tuple[Input, Points]], inputs: Sequence[Input], decimals: int) -> str:
    """For those who do not see it: the last value of each series, and what could not be drawn."""
    said = ", ".join(f"{one.name} {_text(points[-1][1], decimals)} at step {points[-1][0]}" for one, points in thinned)
    if endless := sum(not math.isfinite(value) for one in inputs for _, value in one.points):
        said += f"; {endless} value{'s' if endless > 1 else ''} not finite"
    return said


def _data(thinned: Sequence[tuple[Input, Points]], end: int) -> str:
    steps = sorted({step for _, points in thinned for step, _ in points})
    rows = []
    for _, points in thinned:
        known = dict(points)
        rows.append([_short(known[step]) if step in known else None for step in steps])
    return json.dumps({"x": [round(100 * step / end, 2) for step in steps], "steps": steps, "values": rows})


def _short(value: float) -> float:
    return float(f"{value:.4g}")
