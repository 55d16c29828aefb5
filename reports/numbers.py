"""Figures as text: one way to write a number, an interval and a difference, the same in every format."""

from __future__ import annotations

import math

INFINITY = "∞"
MINUS = "−"
DASH = "–"


def figure(value: float, decimals: int) -> str:
    """``27.10``; ``∞`` for infinity; a true minus sign."""
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    text = f"{value:.{decimals}f}"
    # -0.00 says nothing that 0.00 does not.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def interval(bounds: tuple[float, float] | None, decimals: int) -> str:
    """``[26.91, 27.30]``; empty without bounds, and where both are the same infinity, which tells nothing."""
    if bounds is None or (bounds[0] == bounds[1] and math.isinf(bounds[0])):
        return ""
    return f"[{figure(bounds[0], decimals)}, {figure(bounds[1], decimals)}]"


def difference(value: float, decimals: int) -> str:
    """``+0.12``, ``−0.30``; ``±0.00`` where it rounds to nothing."""
    text = figure(value, decimals)
    if not math.isinf(value) and float(f"{value:.{decimals}f}") == 0:
        return f"±{text}"
    return text if value < 0 else f"+{text}"


def count(n: int) -> str:
    """``50,000``."""
    return f"{n:,}"


def of_expected(n: int, expected: int | None) -> str:
    """``1,000 of 50,000``, or ``24`` where no number is fixed."""
    return count(n) if expected is None else f"{count(n)} of {count(expected)}"


def used_of(n: int, expected: int | None) -> str:
    """``1,000 / 50,000``, the same as `of_expected` for a narrow column."""
    return count(n) if expected is None else f"{count(n)} / {count(expected)}"


def decimals_for(values: list[float], unit: str) -> int:
    """Decimals of a column that the paper does not print: none for counts, two for dB and times, else enough
    to see three digits of its smallest figure, at least three and at most six."""
    if unit in ("tokens", "voxels", "gaussians"):
        return 0
    if unit in ("dB", "ms"):
        return 2
    sizes = [abs(value) for value in values if value and not math.isinf(value)]
    if not sizes:
        return 3
    smallest, largest = min(sizes), max(sizes)
    if smallest >= 100:
        return 1
    if largest >= 10:
        return 2
    return min(6, max(3, 2 - math.floor(math.log10(smallest))))
