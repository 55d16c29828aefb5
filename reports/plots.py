"""Small inline SVG plots; colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from reports import numbers

WIDTH, HEIGHT, BASE, TOP = 320, 128, 104, 20


def histogram(values: Sequence[float], name: str, unit: str, decimals: int) -> Markup | None:
    """How a metric is spread over the samples: bars, the median as a line, the range as labels.

    Infinite values (two equal pictures have no finite PSNR) are counted in the caption, not drawn.

    Returns:
        The ``<svg>`` element, or None where no value is finite.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return None
    low, high, median = float(finite.min()), float(finite.max()), float(np.median(finite))
    reach = (low, high) if high > low else (low - 0.5, high + 0.5)
    # Sturges' rule is for large n; a dozen samples need a few wide bars, and 40 are all that can be told apart.
    bins = int(np.clip(np.ceil(2 * finite.size ** (1 / 3)), 4, 40))
    heights, _ = np.histogram(finite, bins=bins, range=reach)
    step = WIDTH / bins
    bars = []
    for index, count in enumerate(heights):
        if count:
            height = (BASE - TOP) * count / heights.max()
            shape = f'x="{index * step + 1:.2f}" y="{BASE - height:.2f}" width="{step - 2:.2f}" height="{height:.2f}"'
            bars.append(f"<rect {shape}/>")
    place = (median - reach[0]) / (reach[1] - reach[0]) * WIDTH
    suffix = f" {unit}" if unit else ""

    def text(value: float) -> str:
        return numbers.figure(value, decimals)

    said = f"{name} over {finite.size} samples: from {text(low)} to {text(high)}{suffix}, median {text(median)}{suffix}"
    if finite.size < array.size:
        said += f"; {array.size - finite.size} more without a finite value"
    anchor = "end" if place > WIDTH / 2 else "start"
    nudge = -5 if anchor == "end" else 5
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        f'<g class="bars">{"".join(bars)}</g>'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
        f'<line class="median" x1="{place:.2f}" x2="{place:.2f}" y1="0" y2="{BASE}"/>'
        f'<text x="{place + nudge:.2f}" y="12" text-anchor="{anchor}">median {text(median)}</text>'
        f'<text x="0" y="{HEIGHT - 6}">{text(low)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{text(high)}{escape(suffix)}</text></svg>'
    )
