"""A metric under several protocols as an SVG: a line each, its interval as a bar, its value as a dot."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from reports import numbers
from reports.curves import ticks
from reports.model import Metric
from reports.sensitivity import MetricRow, MetricSpread, Sensitivity

__all__ = ["STYLE", "WIDTH", "plot"]

WIDTH, LINE, TOP, FOOT = 360, 34, 6, 22
"""In the units of the picture; so narrow that its text is readable on a phone."""

STYLE = (
    ".protocols{font:12px system-ui,sans-serif;fill:var(--ink,#1b2026)}"
    ".protocols line{stroke:var(--rule,#b9bdc2);stroke-width:1}"
    ".protocols .reach{stroke:var(--bar,#3d9299);stroke-width:5;stroke-linecap:round;opacity:.45}"
    ".protocols circle{fill:var(--accent,#00646b)}"
    ".protocols .own circle{fill:var(--warn,#8a4b00)}.protocols .own .reach{stroke:var(--warn,#8a4b00)}"
    ".protocols .usual{stroke:var(--accent,#00646b);stroke-dasharray:3 3}"
    ".protocols .soft{fill:var(--soft,#59626d);font-size:11px}"
)
_DARK = (
    "@media (prefers-color-scheme:dark){.protocols{--ink:#e7eaec;--rule:#4a535c;--bar:#3f979b;--accent:#6fd3cf;"
    "--soft:#9ba5af;--warn:#f0b566}}"
)


def plot(made: Sensitivity, spread: MetricSpread, *, alone: bool) -> Markup | None:
    """Draw every protocol with a finite value; the default's value is a dashed line through all.

    Args:
        alone: whether it is a file of its own, which needs its style and its namespace.

    Returns:
        The ``<svg>`` element; None where no protocol has a finite value.
    """
    drawn = [row for row in spread.rows if row.value is not None and math.isfinite(row.value)]
    if not drawn:
        return None
    metric = spread.metric
    ends = [end for row in drawn for end in _ends(row)]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    height = TOP + LINE * len(drawn) + FOOT

    def place(value: float) -> float:
        return 4 + (value - low) / (high - low) * (WIDTH - 8)

    parts = []
    bottom = TOP + LINE * len(drawn)
    for mark in ticks(low, high, 4):
        if low <= mark <= high:
            x = place(mark)
            anchor = "start" if x < 30 else "end" if x > WIDTH - 30 else "middle"
            parts.append(f'<line x1="{x:.2f}" x2="{x:.2f}" y1="{TOP}" y2="{bottom}"/>')
            parts.append(f'<text class="soft" x="{x:.2f}" y="{height - 6}" text-anchor="{anchor}">{_tick(mark)}</text>')
    usual = next((row for row in drawn if row.protocol == made.default), None)
    if usual is not None and usual.value is not None:
        x = place(usual.value)
        parts.append(f'<line class="usual" x1="{x:.2f}" x2="{x:.2f}" y1="{TOP}" y2="{bottom}"/>')
    for index, row in enumerate(drawn):
        parts.append(_line(made, metric, row, TOP + LINE * index, place))
    said = ", ".join(f"{row.protocol} {_text(metric, row)}" for row in drawn)
    head = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    style = f"<style>{STYLE}{_DARK}</style>" if alone else ""
    return Markup(
        f'<svg{head} class="protocols" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(metric.name)} by protocol: {escape(said)}">{style}{"".join(parts)}</svg>'
    )


def _ends(row: MetricRow) -> list[float]:
    bounds = row.cell.interval if row.cell is not None and row.cell.interval is not None else ()
    return [end for end in (row.value, *bounds) if end is not None and math.isfinite(end)]


def _line(made: Sensitivity, metric: Metric, row: MetricRow, top: float, place: object) -> str:
    assert callable(place)
    assert row.value is not None
    name = f"{row.protocol} (default)" if row.protocol == made.default else row.protocol
    y = top + 24
    ends = _ends(row)
    reach = ""
    if len(ends) == 3:
        reach = f'<line class="reach" x1="{place(ends[1]):.2f}" x2="{place(ends[2]):.2f}" y1="{y}" y2="{y}"/>'
    own = "" if row.apart is None else ' class="own"'
    told = _text(metric, row) + ("" if row.apart is None else f" ({row.apart})")
    return (
        f'<text x="2" y="{top + 13}">{escape(name)}</text>'
        f'<text class="soft" x="{WIDTH - 2}" y="{top + 13}" text-anchor="end">{escape(told)}</text>'
        f'<g{own}>{reach}<circle cx="{place(row.value):.2f}" cy="{y}" r="4"/></g>'
    )


def _text(metric: Metric, row: MetricRow) -> str:
    assert row.value is not None
    unit = f" {metric.unit}" if metric.unit else ""
    return numbers.figure(row.value, metric.decimals) + unit


def _tick(mark: float) -> str:
    return f"{mark:.6g}".replace("-", numbers.MINUS)
