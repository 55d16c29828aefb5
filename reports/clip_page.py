"""What the page of one clip says: its curves over time, its figures beside those of other tokenizers, its facts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.errors import BenchError
from reports import numbers
from reports.clips import ClipShot, Shelf
from reports.curves import Curve, curve
from reports.model import Metric
from reports.records import FRAMES, Record
from reports.tables import metric_of

_LEAST_STEP = 1 / 6
"""In squared grey levels: what rounding to 8 bits alone makes; the seam metric counts no step as less."""

_STEP = "How much the error changes from each frame to the next: a jump that is seen as flicker."
_SEAM = (
    " The seam is how far the steps at the borders of tiles (marked) rise above those around them: 0 dB is none, "
    "3 dB twice the step."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The clip under one tokenizer.

    Attributes:
        page: of the clip under it, relative to the report's root; None where that run does not show it.
        here: whether it is the page's own.
        figures: one text for each column, a dash where it has no value.
    """

    record: Record
    page: str | None
    here: bool
    figures: tuple[str, ...]
    values: tuple[float | None, ...]


def context(shelf: Shelf, shot: ClipShot) -> dict[str, Any]:
    """Everything that the template needs besides the shot."""
    shots = shelf.shots(shot.record)
    place = shots.index(shot)
    metrics, rows = _rows(shelf, shot)
    return {
        "curves": _curves(shelf, shot),
        "metrics": metrics,
        "rows": rows,
        "facts": _facts(shelf, shot),
        "before": shots[place - 1] if place else None,
        "after": shots[place + 1] if place + 1 < len(shots) else None,
    }


def _rows(shelf: Shelf, shot: ClipShot) -> tuple[list[Metric], list[Row]]:
    records = shelf.same(shot)
    found = [(record, shelf.row(record, shot.id)) for record in records]
    names = dict.fromkeys(cell.name for record in records for cell in record.cells)
    metrics = []
    for name in names:
        values = [value for _, row in found if (value := _number(row.get(name))) is not None]
        if values:
            unit = metric_of(records, name).unit
            metrics.append(metric_of(records, name, numbers.decimals_for(values, unit)))
    rows = []
    for record, row in found:
        cells = tuple(_number(row.get(metric.name)) for metric in metrics)
        texts = tuple(
            numbers.DASH if value is None else numbers.figure(value, metric.decimals)
            for value, metric in zip(cells, metrics, strict=True)
        )
        here = record is shot.record
        page = shot.page if here else shelf.pages(record).get(shot.id)
        rows.append(Row(record=record, page=page, here=here, figures=texts, values=cells))
    return metrics, rows


def _number(value: object) -> float | None:
    """A figure of the per-sample table; None for a gap, and for NaN: the metric has no value for that clip."""
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def _curves(shelf: Shelf, shot: ClipShot) -> list[Curve]:
    record, clip = shot.record, shot.clip
    if shot.exact or shot.measured == 1:
        return []
    families = {metric.get("name"): metric.get("metric") for metric in record.protocol["content"].get("metrics", ())}
    frames = _frames(record, shot.id)
    ordered = [name for name in families if name in frames]
    drawn: list[Curve | None] = []
    seen: list[np.ndarray] = []
    for name in dict.fromkeys([*ordered, *sorted(frames)]):
        values = frames[name]
        # Two metrics that differ in how they average a clip's frames share one curve.
        if any(np.allclose(values, other, rtol=1e-6, atol=0, equal_nan=True) for other in seen):
            continue
        seen.append(values)
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
    value, borders = _number(row.get(name)), _number(row.get(f"{name} borders"))
    if value is None or not borders:
        return ""
    return f" This clip: {numbers.difference(value, 2)} dB over {borders:.0f} border{'s' if borders != 1 else ''}."


def _frames(record: Record, clip: str) -> dict[str, np.ndarray]:
    """The clip's per-frame values by name, float64 ``[frames]``; empty where the run has no such table.

    Raises:
        BenchError: the file is damaged.
    """
    path = record.folder / FRAMES
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path, filters=[("id", "=", clip)]).sort_by("frame")
        names = [name for name in table.column_names if name not in ("id", "frame")]
        return {name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in names}
    except (OSError, ValueError, KeyError) as error:  # what pyarrow raises of a damaged file is a ValueError
        raise BenchError(f"{path}: not a readable table ({error}); run it again or remove the folder") from None


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
        if (rate := _number(row.get("bits per pixel"))) is not None:
            facts.append(("Rate", f"{rate:.4g} bit per pixel"))
        facts.append(
            ("Time", f"encoded in {row['encode_ms'] / 1000:.3g} s, decoded in {row['decode_ms'] / 1000:.3g} s")
        )
    names = ("frames", "rows", "columns")
    tile = ", ".join(f"{part} {name}" for part, name in zip(clip.tile, names, strict=True) if part)
    facts.append(("Tiles", f"of {tile}, each coded apart from the next" if tile else "none: nothing is cut"))
    scale = "" if clip.scale == 1 else f"{clip.scale:g} times " if clip.scale > 1 else f"1/{1 / clip.scale:g} of "
    facts.append(("Shown", f"{shot.part} at {scale}the measured size; the video is compressed, the still is not"))
    if "sha256" in row:
        facts.append(("SHA-256 of the source", str(row["sha256"])))
    return facts
