"""Which projected Gaussians reach which block of pixels: what `splat_torch` blends from.

Several pictures are one tall picture here, their rows of blocks below each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected

__all__ = ["SIDE", "Lists", "bands_of", "boxes_of"]

SIDE = 8
"""Side of a block in pixels; divides a tile. Small Gaussians reach few pixels, and all of a block are computed."""

_PAIRS = 2**24
"""(Gaussian, block) pairs that are listed at once; some columns of 8 bytes each."""


def boxes_of(view: Projected[Tensor], down: int, across: int, shift: int) -> Tensor:
    """Blocks that hold every pixel of its tiles where a Gaussian passes the cut of alpha.

    Args:
        view: M Gaussians on a picture.
        down, across: its size in blocks.
        shift: row of the tall picture at which it starts.

    Returns:
        [M, 4] int64 (left, top, right, bottom), right and bottom exclusive, in blocks; some hold none.
    """
    centres, (a, b, c) = view.centres.detach().double(), view.conics.detach().double().unbind(dim=1)
    # Where a dx^2 + 2 b dx dy + c dy^2 <= 2 ln(opacity / cut): an ellipse, and this is its bounding box.
    power = 2 * (view.opacities.detach().double() / ALPHA_CUT).log()
    area = a * c - b * b
    # The conics of long thin ones are too coarse to tell; their tiles bound them.
    sure = area > 1e-4 * a * c
    reach = torch.stack([torch.where(sure, side * power / area, torch.inf) for side in (c, a)], dim=1).sqrt()
    reach = 1.002 * reach + 0.01  # for rounding
    ends = centres.new_tensor([across, down])
    tiles = view.tiles.to(torch.int64) * (TILE // SIDE)
    first = ((centres - reach) / SIDE).floor().clamp_min(0).minimum(ends).to(torch.int64).maximum(tiles[:, :2])
    last = ((centres + reach) / SIDE).floor().add(1).clamp_min(0).minimum(ends).to(torch.int64).minimum(tiles[:, 2:])
    moved = first.new_tensor([0, shift])
    return torch.cat([first + moved, last + moved], dim=1)


def bands_of(boxes: Tensor, rows: int) -> Iterator[range]:
    """Cut the rows of the tall picture in bands of as many pairs as may be listed at once, or of one row."""
    left, top, right, bottom = boxes.unbind(dim=1)
    wide = torch.where(bottom > top, (right - left).clamp_min(0), 0)
    steps = wide.new_zeros(rows + 1).index_add_(0, top, wide).index_add_(0, bottom, -wide)
    first, pairs = 0, 0
    for row, load in enumerate(steps.cumsum(0)[:rows].tolist()):
        if row > first and pairs + load > _PAIRS:
            yield range(first, row)
            first, pairs = row, 0
        pairs += load
    yield range(first, rows)


class Lists(NamedTuple):
    """The Gaussians of each block of a band, nearest first; all int64.

    Attributes:
        gaussians: [G], those that reach a block of the band, in their order.
        counts: [G], how many blocks.
        members: [pairs], a Gaussian each; the lists of all blocks, one after another.
        slots: [pairs], where the pair stands if pairs go by Gaussian and not by block.
        starts, lengths: [blocks], of each block's list in `members`.
    """

    gaussians: Tensor
    counts: Tensor
    members: Tensor
    slots: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, boxes: Tensor, across: int, rows: range) -> Lists:
        """Lists of the blocks of `rows` of the tall picture, `across` blocks wide."""
        left, right = boxes[:, 0], boxes[:, 2]
        top, bottom = (boxes[:, i].clamp(rows.start, rows.stop) for i in (1, 3))
        gaussians = ((right > left) & (bottom > top)).nonzero().squeeze(1)
        left, top, wide = left[gaussians], top[gaussians] - rows.start, (right - left)[gaussians]
        counts = wide * (bottom - boxes[:, 1].clamp(rows.start, rows.stop))[gaussians]
        pair_of = torch.arange(len(gaussians), device=boxes.device).repeat_interleave(counts)
        within = torch.arange(len(pair_of), device=boxes.device) - (counts.cumsum(0) - counts)[pair_of]
        down = within // wide[pair_of]
        blocks = (top[pair_of] + down) * across + left[pair_of] + within - down * wide[pair_of]
        # Stable: Gaussians come nearest first, and so they shall stay in each block.
        blocks, slots = blocks.sort(stable=True)
        edges = torch.searchsorted(blocks, torch.arange(len(rows) * across + 1, device=boxes.device))
        return cls(gaussians, counts, gaussians[pair_of[slots]], slots, edges[:-1], edges[1:] - edges[:-1])

    def at(self, ids: Tensor, done: int, depth: int) -> tuple[Tensor, Tensor]:
        """Where members `done` to `done + depth` of the lists of blocks `ids` [P] stand, and which there are.

        Returns:
            int64 and bool [P, depth]; what is not there stands at 0.
        """
        steps = torch.arange(done, done + depth, device=ids.device)
        held = steps < self.lengths[ids].unsqueeze(1)
        return torch.where(held, self.starts[ids].unsqueeze(1) + steps, 0), held
