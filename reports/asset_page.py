"""What the page of one asset says: its errors round the turn and over the measured views, its figures and facts."""

from __future__ import annotations

from typing import Any

from reports import numbers
from reports.clips import AssetShot, Shelf
from reports.curves import Curve, curve
from reports.film_page import rows_of, timing, values_of

_ROUND = (
    "Root of the mean squared difference of each view shown above, in grey levels of 255, on the ground of the video."
)


MAIN = 3
"""Curves that stand open: a protocol's first metrics are those that the paper prints."""


def context(shelf: Shelf, shot: AssetShot) -> dict[str, Any]:
    """Everything that the template needs besides the shot."""
    metrics, rows = rows_of(shelf, shot)
    curves = _curves(shot)
    return {
        "turn": _turn(shot),
        "curves": curves[:MAIN],
        "further": curves[MAIN:],
        "metrics": metrics,
        "rows": rows,
        "facts": _facts(shelf, shot),
        **shelf.beside(shot),
    }


def _turn(shot: AssetShot) -> Curve | None:
    """The error of the shown views; None where there is none, or one view alone."""
    asset = shot.asset
    if shot.exact or asset.frames == 1:
        return None
    return curve(
        "Error round the turn",
        asset.rms,
        unit="",
        higher_is_better=False,
        shown=asset.frames,
        about=_ROUND,
        of="view",
    )


def _curves(shot: AssetShot) -> list[Curve]:
    """Each metric over the measured views, which are others than the shown ones."""
    record = shot.record
    drawn: list[Curve | None] = []
    for name, values in values_of(record, shot.id).items():
        if len(values) > 1:
            cell = record.cell(name)
            unit, higher = (cell.unit, cell.higher_is_better) if cell is not None else ("", None)
            drawn.append(curve(name, values, unit=unit, higher_is_better=higher, shown=None, of="view"))
    return [made for made in drawn if made is not None]


def _facts(shelf: Shelf, shot: AssetShot) -> list[tuple[str, str]]:
    asset, row = shot.asset, shelf.row(shot.record, shot.id)
    facts = []
    if row:
        views = round(row["frames"])
        facts.append(
            ("Measured", f"{views} view{'s' if views != 1 else ''} of {row['width']} × {row['height']} pixels")
        )
    facts.append(("Tokens", numbers.count(asset.tokens)))
    facts.append(("Voxels", "none: the tokenizer has no grid" if asset.voxels is None else numbers.count(asset.voxels)))
    facts.append(("Gaussians", _gaussians(shot)))
    if row:
        facts.append(timing(row))
    ground = f"on a ground of RGB {', '.join(map(str, asset.ground))}"
    facts.append(("Shown", f"{shot.part} of a full turn, {ground}; the video is compressed, the still is not"))
    if "sha256" in row:
        facts.append(("SHA-256 of the source", str(row["sha256"])))
    return facts


def _gaussians(shot: AssetShot) -> str:
    asset = shot.asset
    if asset.gaussians is None:
        return "none: the reconstruction is made of something else"
    if not asset.voxels:
        return numbers.count(asset.gaussians)
    each = asset.gaussians / asset.voxels
    return numbers.count(asset.gaussians) + (f", {each:.3g} for each voxel" if each >= 1 else "")
