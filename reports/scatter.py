"""The points of Figure 8 as inline SVG: a colour and a shape for each class, legible by day, by night and without
colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from harness.errors import BenchError

SIZE, RADIUS = 400, 4.2
HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")
"""Of Okabe and Ito, whom colour-blind readers tell apart, without black and yellow, which vanish on dark and on light
paper; grey instead. They stand out from both papers of the style sheet."""
_R = RADIUS
SHAPES = (
    f"M{-_R} 0a{_R} {_R} 0 1 0 {2 * _R} 0a{_R} {_R} 0 1 0 {-2 * _R} 0z",
    f"M{-_R} {-_R}h{2 * _R}v{2 * _R}h{-2 * _R}z",
    f"M0 {-1.3 * _R}l{1.3 * _R} {2.3 * _R}h{-2.6 * _R}z",
    f"M0 {-1.4 * _R}l{1.4 * _R} {1.4 * _R}l{-1.4 * _R} {1.4 * _R}l{-1.4 * _R} {-1.4 * _R}z",
)
"""Disc, square, triangle, diamond: with the hues, 28 classes that no other looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One kind of vectors, drawn.

    Attributes:
        name, title: what the vectors are.
        width: how many numbers a vector has.
        perplexity: that t-SNE was run with; None where there were too few samples for it.
        picture: the ``<svg>``; None likewise.
    """

    name: str
    title: str
    width: int
    perplexity: float | None
    picture: Markup | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """All panels of a run, and one legend for them.

    Attributes:
        legend: ``(mark, class name)``, the mark an ``<svg>``.
    """

    panels: tuple[Panel, ...]
    legend: tuple[tuple[Markup, str], ...]


def scatter(path: Path) -> Scatter:
    """Draw the file that a run of `representation` left beside its record.

    Raises:
        BenchError: no such file, or not one of that kind.
    """
    try:
        data = json.loads(path.read_bytes())
        classes, labels, ids = list(data["classes"]), list(data["labels"]), list(data["ids"])
        panels = tuple(_panel(panel, classes, labels, ids) for panel in data["panels"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BenchError(f"{path}: no figure can be read there ({type(error).__name__}); run it again") from None
    marks = tuple((_mark(index), str(name)) for index, name in enumerate(classes))
    return Scatter(panels=panels, legend=marks)


def _panel(panel: dict[str, Any], classes: Sequence[str], labels: Sequence[int], ids: Sequence[str]) -> Panel:
    points = panel["points"]
    return Panel(
        name=str(panel["name"]),
        title=str(panel["title"]),
        width=int(panel["width"]),
        perplexity=panel["perplexity"],
        picture=None if points is None else _picture(panel["title"], points, classes, labels, ids),
    )


def _picture(
    title: str, points: Sequence[Sequence[float]], classes: Sequence[str], labels: Sequence[int], ids: Sequence[str]
) -> Markup:
    """Each class a group, so that a page can show one alone; each point says its sample."""
    margin = 3 * RADIUS
    reach = SIZE / 2 - margin
    groups: list[list[str]] = [[] for _ in classes]
    for (x, y), label, id_ in zip(points, labels, ids, strict=True):
        place = f"{SIZE / 2 + reach * float(x):.1f} {SIZE / 2 - reach * float(y):.1f}"
        groups[label].append(
            f'<path transform="translate({place})" d="{_shape(label)}"><title>{escape(id_)}</title></path>'
        )
    said = f"t-SNE of {title}: {len(points)} samples of {len(classes)} classes"
    drawn = "".join(
        f'<g fill="{_hue(label)}" data-class="{label}">{"".join(marks)}</g>' for label, marks in enumerate(groups)
    )
    return Markup(
        f'<svg class="scatter" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{escape(said)}" fill-opacity=".82">'
        f"{drawn}</svg>"
    )


def _mark(label: int) -> Markup:
    side = 4 * RADIUS
    return Markup(
        f'<svg class="mark" width="{side:g}" height="{side:g}" viewBox="{-side / 2:g} {-side / 2:g} {side:g} {side:g}" '
        f'aria-hidden="true"><path fill="{_hue(label)}" d="{_shape(label)}"/></svg>'
    )


def _hue(label: int) -> str:
    return HUES[label % len(HUES)]


def _shape(label: int) -> str:
    return SHAPES[label // len(HUES) % len(SHAPES)]
