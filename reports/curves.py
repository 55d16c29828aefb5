"""A metric over the frames of a clip, as a plot whose text keeps its size on a phone: lines in SVG, labels in HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reports import numbers

WIDTH, HEIGHT = 1000, 100
"""Of the plot's own coordinates, which the page stretches to any size."""

MOST_STEPS = 2000
"""A longer clip is drawn as the lowest and the highest value of stretches of frames, so that no peak is lost."""

LABELS_X, LABELS_Y = 8, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One column of the per-frame table, drawn.

    Attributes:
        name, unit, about: what it is; `about` is empty where the page's legend says it.
        summary: range and worst frame in words.
        of: what one of its pictures is called, ``frame`` or ``view``.
        frames: how many the curve covers; `shown` of them, the first, are in the video.
        path: of the ``<path>``; the value of a frame is a level step as wide as the frame.
        x, y: labels with their place in percent of the width and of the height from below.
        borders: where a tile ends and the next begins, in percent of the width.
        values: as texts, of the shown frames, JSON for the script that follows the video; None of a curve that
            covers other pictures than the video.
    """

    name: str
    unit: str
    about: str
    of: str
    summary: str
    frames: int
    shown: int
    path: Markup
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]
    borders: tuple[float, ...]
    values: str | None


def curve(
    name: str,
    values: Sequence[float] | np.ndarray,
    *,
    unit: str,
    higher_is_better: bool | None,
    shown: int | None,
    tile: int | None = None,
    about: str = "",
    of: str = "frame",
) -> Curve | None:
    """Draw one value per frame.

    Frames without a finite value (an exact frame has no finite PSNR) leave a gap.

    Args:
        values: ``[frames]``.
        shown: how many of the frames are in the video; None where it shows others.
        tile: frames between borders; None without any.
        of: what one value stands for.

    Returns:
        None where no value is finite.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(array)
    if not finite.any():
        return None
    low, high = float(array[finite].min()), float(array[finite].max())
    decimals = numbers.decimals_for(array[finite].tolist(), unit)
    marks = ticks(low, high, LABELS_Y)
    bottom, top = min(low, marks[0]), max(high, marks[-1])
    n = array.size
    every = _every(n, tile)
    texts = None if shown is None else [_value(value, unit, decimals) for value in array[:shown].tolist()]
    return Curve(
        name=name,
        unit=unit,
        about=about,
        of=of,
        summary=_summary(array, unit, decimals, higher_is_better, of),
        frames=n,
        shown=n if shown is None else min(shown, n),
        path=_path(array, bottom, top),
        x=tuple((100 * (frame + 0.5) / n, str(frame)) for frame in range(0, n, every)),
        y=tuple((100 * (mark - bottom) / (top - bottom), _label(mark, marks)) for mark in marks),
        borders=tuple(100 * border / n for border in range(tile, n, tile)) if tile else (),
        values=None if texts is None else json.dumps(texts, ensure_ascii=False),
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers, evenly spaced, from at or below `low` to at or above `high`; two to `most` + 1 of them."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):  # nothing but rounding between them
        reach = abs(low) * 0.05 or 0.5
        low, high = low - reach, high + reach
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor * most >= (high - low) * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _every(n: int, tile: int | None) -> int:
    """Frames between labels: a round number, or of tiles."""
    wanted = max(1, math.ceil(n / LABELS_X))
    if tile and tile > 1:
        return tile * math.ceil(wanted / tile)
    power: int = 10 ** (len(str(wanted)) - 1)
    return next(every for every in (power, 2 * power, 5 * power, 10 * power) if every >= wanted)


def _label(mark: float, marks: Sequence[float]) -> str:
    step = marks[1] - marks[0]
    return numbers.figure(mark, max(0, -math.floor(math.log10(step) + 1e-9)))


def _value(value: float, unit: str, decimals: int) -> str:
    return numbers.DASH if math.isnan(value) else f"{numbers.figure(value, decimals)} {unit}".rstrip()


def _summary(array: np.ndarray, unit: str, decimals: int, higher_is_better: bool | None, of: str) -> str:
    finite = np.isfinite(array)
    places = np.flatnonzero(finite)
    known = array[finite]
    lowest, highest = int(places[known.argmin()]), int(places[known.argmax()])
    ends = [("lowest", lowest), ("highest", highest)]
    if higher_is_better is not None:
        ends = [("worst", lowest if higher_is_better else highest), ("best", highest if higher_is_better else lowest)]
    said = ", ".join(f"{word} {_value(float(array[place]), unit, decimals)} at {of} {place}" for word, place in ends)
    if endless := int(np.isinf(array).sum()):
        said += f"; {endless} of {array.size} {of}s without a finite value"
    return said


def _path(array: np.ndarray, bottom: float, top: float) -> Markup:
    n = array.size
    edges = np.arange(n + 1) * (WIDTH / n)
    if n > MOST_STEPS:
        parts = np.array_split(np.where(np.isfinite(array), array, np.nan), MOST_STEPS // 2)
        ends = [(np.nan, np.nan) if np.isnan(part).all() else (np.nanmin(part), np.nanmax(part)) for part in parts]
        array = np.asarray(ends).ravel()
        edges = np.arange(array.size + 1) * (WIDTH / array.size)
    drawn = []
    open_before = False
    for place, value in enumerate(array.tolist()):
        if math.isfinite(value):
            y = HEIGHT * (1 - (value - bottom) / (top - bottom))
            # A level step for the frame, joined to the one before by an upright line.
            drawn.append(f"V{y:.2f}" if open_before else f"M{edges[place]:.2f} {y:.2f}")
            drawn.append(f"H{edges[place + 1]:.2f}")
        open_before = math.isfinite(value)
    return Markup("".join(drawn))
