"""Spatial tiles: a frame too large for one attention is cut into overlapping tiles and blended.

This is ours, not the release's, which lets all tokens of a 16-frame tile see each other whatever the
frame's size. Tiles change the result: tokens see their own tile only, and both kinds of positions
start anew in each (the learned grid is resized to the tile's extent). So it is off unless asked for,
and whoever uses it should say so beside the figures.

Encoding blends means and log variances between tiles, decoding blends pixels; the token grid stays
what it is without tiles, so each side may be tiled, or not, on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atoken.errors import InputError

__all__ = ["SpaceTiles", "Spot", "spots"]


@dataclass(frozen=True, slots=True)
class SpaceTiles:
    """Size of the spatial tiles and how far neighbours overlap, in pixels.

    All tiles of a frame have this size (less where the frame is smaller) and are spread evenly, so
    that neighbours overlap by `overlap` or a little more. There their weights are linear ramps.

    Attributes:
        height, width: of a tile, multiples of the patch (16).
        overlap: at least this much along both axes; a multiple of the patch, below both sides.
    """

    height: int
    width: int
    overlap: int = 0

    def in_patches(self, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Height, width and overlap in tokens.

        Raises:
            InputError: not multiples of the patch, or an overlap that leaves no step.
        """
        _, ph, pw = patch
        sides = (self.height, ph), (self.width, pw), (self.overlap, ph), (self.overlap, pw)
        whole = all(isinstance(size, int) and size % step == 0 for size, step in sides)
        if not whole or not 0 <= self.overlap < min(self.height, self.width):
            raise InputError(
                f"spatial tiles of {self.height}x{self.width} with overlap {self.overlap}: all must be multiples of "
                f"the {ph}x{pw} patch, and the overlap 0 or more and smaller than the tile"
            )
        if self.overlap // ph != self.overlap // pw:
            raise InputError(f"spatial tiles need square patches, this model has {ph}x{pw}")
        return self.height // ph, self.width // pw, self.overlap // ph


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """One tile's place in a grid of cells.

    Attributes:
        rows, columns: of the grid, which it covers.
        weights: [rows, columns] float32; over all spots of a grid they sum to 1 in every cell.
    """

    rows: slice
    columns: slice
    weights: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that it covers."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def spots(grid: tuple[int, int], tile: tuple[int, int], overlap: int, scale: tuple[int, int] = (1, 1)) -> list[Spot]:
    """Tiles over a grid, row by row.

    Args:
        grid, tile: rows and columns in tokens. overlap: in tokens.
        scale: cells per token; the spots, and their ramps, are those of the finer grid of cells.
    """
    axes = [_axis(*sizes) for sizes in zip(grid, tile, (overlap, overlap), scale, strict=True)]
    return [
        Spot(rows, columns, torch.outer(down, across).float()) for rows, down in axes[0] for columns, across in axes[1]
    ]


def _axis(size: int, tile: int, overlap: int, scale: int) -> list[tuple[slice, Tensor]]:
    """Tiles along one axis: where each lies, and its weights in float64."""
    tile = min(tile, size)
    count = 1 if tile == size else -(-(size - overlap) // (tile - overlap))
    starts = [(2 * i * (size - tile) + count - 1) // max(2 * (count - 1), 1) * scale for i in range(count)]
    length, total = tile * scale, torch.zeros(size * scale, dtype=torch.float64)
    centres = torch.arange(length, dtype=torch.float64) + 0.5
    placed = []
    for i, start in enumerate(starts):
        ramp = torch.ones(length, dtype=torch.float64)
        if i > 0 and (shared := starts[i - 1] + length - start):
            ramp = torch.minimum(ramp, centres / shared)
        if i + 1 < count and (shared := start + length - starts[i + 1]):
            ramp = torch.minimum(ramp, (length - centres) / shared)
        where = slice(start, start + length)
        total[where] += ramp
        placed.append((where, ramp))
    # Where three tiles meet, as they may beside the middle of a short axis, two ramps sum to 1 no longer.
    return [(where, ramp / total[where]) for where, ramp in placed]
