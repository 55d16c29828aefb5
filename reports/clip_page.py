"""What the page of one clip says: its curves over time, its figures beside those of other tokenizers, its facts."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports import numbers
from reports.clips import ClipShot, Shelf
from reports.curves import Curve, curve
from reports.film_page import families_of, number, rows_of, timing, values_of

_LEAST_STEP = 1 / 6
"""In squared grey levels: what rounding to 8 bits alone makes; the seam metric counts no step as less."""

_STEP = "How much the error changes from each frame to the next: a jump that is seen as flicker."
_SEAM = (
    " The seam is how far the steps at the borders of tiles (marked) rise above those around them: 0 dB is none, "
    "3 dB twice the step."
)


def context(shelf: Shelf, shot: ClipShot) -> dict[str, Any]:
    """Everything that the template needs besides the shot."""
    metrics, rows = rows_of(shelf, shot)
    return {
        "curves": _curves(shelf, shot),
        "metrics": metrics,
        "rows": rows,
        "facts": _facts(shelf, shot),
        **shelf.beside(shot),
    }


def _curves(shelf: Shelf, shot: ClipShot) -> list[Curve]:
    record, clip = shot.record, shot.clip
    if shot.exact or shot.measured == 1:
        return []
    families = families_of(record)
    drawn: list[Curve | None] = []
    for name, values in values_of(record, shot.id).items():
        tile, cell = clip.tile[0], record.cell(name)
        if families.get(name) != "seam":
            unit, higher = (cell.unit, cell.higher_is_better) if cell is not None else ("", None)
            drawn.append(curve(name, values, unit=unit, higher_is_better=higher, shown=clip.frames, tile=tile))
        else:
            levels = 10 * np.log10(np.maximum(values, _LEAST_STEP))
            about = _STEP + (_SEAM + _found(shelf.row(record, shot.id), name) if tile else "")
            title = "Step of the error"
            drawn.append(
                curve(title, levels, unit="dB", higher_is_better=False, shown=clip.frames, tile=tile, about=about)
            )
    return [made for made in drawn if made is not None]


def _found(row: dict[str, Any], name: str) -> str:
    """The clip's own seam, as a sentence; empty where it has none."""
    value, borders = number(row.get(name)), number(row.get(f"{name} borders"))
    if value is None or not borders:
        return ""
    return f" This clip: {numbers.difference(value, 2)} dB over {borders:.0f} border{'s' if borders != 1 else ''}."


def _facts(shelf: Shelf, shot: ClipShot) -> list[tuple[str, str]]:
    clip, row = shot.clip, shelf.row(shot.record, shot.id)
    seconds = numbers.figure(shot.measured / clip.rate, 2)
    plural = "s" if shot.measured != 1 else ""
    facts = [("Measured", f"{numbers.count(shot.measured)} frame{plural}, {seconds} s at {clip.rate:.5g} per second")]
    if row:
        size, decoded = (f"{row[f'width{part}']} × {row[f'height{part}']}" for part in ("", "_in"))
        facts.append(("Size", size if size == decoded else f"{size}, prepared from {decoded}"))
        pixels = row["width"] * row["height"] * shot.measured
        if tokens := round(row["tokens"]):
            share = pixels / tokens
            pixels_each = numbers.count(round(share)) if share >= 100 else f"{share:.3g}"
            facts.append(("Tokens", f"{numbers.count(tokens)}, one for {pixels_each} pixels"))
        if (rate := number(row.get("bits per pixel"))) is not None:
            facts.append(("Rate", f"{rate:.4g} bit per pixel"))
        facts.append(timing(row))
    names = ("frames", "rows", "columns")
    tile = ", ".join(f"{part} {name}" for part, name in zip(clip.tile, names, strict=True) if part)
    facts.append(("Tiles", f"of {tile}, each coded apart from the next" if tile else "none: nothing is cut"))
    scale = "" if clip.scale == 1 else f"{clip.scale:g} times " if clip.scale > 1 else f"1/{1 / clip.scale:g} of "
    facts.append(("Shown", f"{shot.part} at {scale}the measured size; the video is compressed, the still is not"))
    if "sha256" in row:
        facts.append(("SHA-256 of the source", str(row["sha256"])))
    return facts
