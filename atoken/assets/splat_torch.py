"""Blend projected Gaussians in torch: differentiable, on any device, many blocks of pixels at once.

Pictures are cut in blocks, each with the list of the Gaussians that reach it, nearest first (`splat_lists`). A chunk
takes the next Gaussians of many blocks of about the same load and blends them in some forty operations on [blocks,
Gaussians, pixels]; a budget bounds what it holds. The backward pass goes through the chunks from back to front and
computes them again, so that of the forward pass only the light before each chunk is kept: a number for a pixel and
chunk.

No matrix products: TF32 and autocast, which trainers turn on, would round what goes into them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atoken.assets.splat_lists import SIDE, Lists, bands_of, boxes_of
from atoken.assets.splat_projection import ALPHA_CUT, Projected

__all__ = ["LARGEST_ALPHA", "LEAST_LIGHT", "blend"]

LARGEST_ALPHA = 0.99
"""No Gaussian hides more than this of what lies behind it."""

LEAST_LIGHT = 1e-4
"""A pixel is done before the Gaussian that would leave less of the background's light than this."""

_PIXELS = SIDE * SIDE

_CHUNKS = {"cpu": (2**20, 256), "cuda": (2**23, 1024)}
"""(Gaussian, pixel) pairs of a chunk at most, and Gaussians of one block. About ten numbers of a pair are held at
once: on CUDA 0.4 GB. A processor is no faster with more, and a CUDA device wants few launches."""


def blend(views: Sequence[Projected[Tensor]], height: int, width: int) -> Tensor:
    """Blend front to back: [views, height, width, 4], colour times alpha and alpha.

    The same device gives the same bits each time, of the gradients too. There is no second derivative.

    Args:
        views: at least one, all of one dtype and device.
    """
    down, across = -(-height // SIDE), -(-width // SIDE)
    splats = torch.cat([torch.cat([v.centres, v.conics, v.opacities[:, None], v.colours], dim=1) for v in views])
    # One tall picture: the views' rows of blocks below each other.
    boxes = torch.cat([boxes_of(view, down, across, number * down) for number, view in enumerate(views)])
    bands = [_Band.apply(splats, boxes, (down, across), rows) for rows in bands_of(boxes, len(views) * down)]
    picture = torch.cat(bands).reshape(len(views), down, across, SIDE, SIDE, 4)
    return picture.transpose(2, 3).reshape(len(views), down * SIDE, across * SIDE, 4)[:, :height, :width]


class _Band(torch.autograd.Function):
    """Some rows of blocks of the tall picture, [blocks, pixels, 4]."""

    @staticmethod
    def forward(ctx: Any, splats: Tensor, boxes: Tensor, grid: tuple[int, int], rows: range) -> Tensor:
        """Blend.

        Args:
            splats: [M, 9], centre (x, y), conic (xx, xy, yy), opacity and colour.
            boxes: [M, 4], of `boxes_of`.
            grid: rows and columns of blocks of one view.
            rows: of the tall picture.
        """
        band = _Blocks(splats, Lists.of(boxes, grid[1], rows), grid[0], grid[1], rows.start)
        picture = splats.new_zeros(len(band.lists.lengths), _PIXELS, 4)
        chunks: list[tuple[Tensor, Tensor]] = []
        ctx.places = []
        for piece, longest in band.pieces():
            ids, light, done = piece, splats.new_ones(len(piece), _PIXELS), 0
            while len(ids):
                depth = min(_chunk_sizes(splats)[1], longest - done)
                shade = _Shade.of(band, ids, done, depth, light)
                weights = shade.weights
                picture[ids] += torch.stack(
                    [(weights * by).sum(dim=1) for by in shade.colours] + [weights.sum(dim=1)], 2
                )
                chunks.append((ids, light))
                ctx.places.append((done, depth))
                done += depth
                # Blocks with more Gaussians, and with a pixel that is not done.
                more = ((band.lists.lengths[ids] > done) & (shade.left > 0).any(dim=1)).nonzero().squeeze(1)
                ids, light = ids[more], shade.left[more]
        ctx.grid, ctx.rows = grid, rows
        ctx.save_for_backward(splats, boxes, *(tensor for chunk in chunks for tensor in chunk))
        return picture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of `splats`, from that of the picture."""
        splats, boxes, *chunks = ctx.saved_tensors
        band = _Blocks(splats, Lists.of(boxes, ctx.grid[1], ctx.rows), ctx.grid[0], ctx.grid[1], ctx.rows.start)
        pairs = len(band.lists.members)
        # By pair, and one more place for what fills up short lists; summed by Gaussian in a fixed order at the end.
        of_pairs = splats.new_zeros(pairs + 1, 9)
        # For each pixel, what of the gradient comes by way of the chunks behind.
        behind = splats.new_zeros(len(band.lists.lengths), _PIXELS)
        for (done, depth), ids, light in reversed(list(zip(ctx.places, chunks[::2], chunks[1::2], strict=True))):
            shade = _Shade.of(band, ids, done, depth, light)
            given, passed = shade.gradients(gradient[ids], behind[ids])
            behind[ids] += passed
            at, held = band.lists.at(ids, done, depth)
            of_pairs[torch.where(held, band.lists.slots[at], pairs)] = given
        gradients = torch.zeros_like(splats)
        if pairs:  # a band that no Gaussian reaches has no segments, which segment_reduce refuses
            sums = torch.segment_reduce(of_pairs[:pairs], "sum", lengths=band.lists.counts, axis=0)
            gradients[band.lists.gaussians] = sums
        return gradients, None, None, None


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """What is drawn, and where: see `_Band.forward`; `first` is the band's first row."""

    splats: Tensor
    lists: Lists
    down: int
    across: int
    first: int

    def pieces(self) -> Iterator[tuple[Tensor, int]]:
        """Numbers of blocks whose next Gaussians fit in a chunk, [P], and the length of the longest list of them."""
        budget, deepest = _chunk_sizes(self.splats)
        lengths, order = self.lists.lengths.sort(descending=True, stable=True)
        known = [length for length in lengths.tolist() if length]
        start = 0
        while start < len(known):
            stop = min(start + max(1, budget // (_PIXELS * min(known[start], deepest))), len(known))
            yield order[start:stop], known[start]
            start = stop

    def corner(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row in its view of the first pixel of each block, [P], in the splats' dtype."""
        row = torch.div(ids, self.across, rounding_mode="floor")
        columns, rows = ids - row * self.across, (row + self.first) % self.down
        return (SIDE * columns).to(self.splats.dtype), (SIDE * rows).to(self.splats.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Shade:
    """K Gaussians on each of P blocks.

    Attributes:
        dx, dy: [P, K, SIDE], from each column and row of pixels to the centre.
        conics: a, b and c, each [P, K, 1].
        opacities: [P, K, 1], 0 where a list has ended.
        colours: red, green and blue, each [P, K, 1].
        raw: [P, K, pixels], opacity times bell.
        alpha: the same within the rules: 0 below the cut, and at most the largest.
        weights: [P, K, pixels], what each adds of its colour.
        left: [P, pixels], light that is left behind them; 0 where the pixel is done.
    """

    dx: Tensor
    dy: Tensor
    conics: tuple[Tensor, ...]
    opacities: Tensor
    colours: tuple[Tensor, ...]
    raw: Tensor
    alpha: Tensor
    weights: Tensor
    left: Tensor

    @classmethod
    def of(cls, band: _Blocks, ids: Tensor, done: int, depth: int, light: Tensor) -> _Shade:
        """Gaussians `done` to `done + depth` of the lists of the blocks `ids` [P], where `light` [P, pixels] falls."""
        at, held = band.lists.at(ids, done, depth)
        x, y, a, b, c, opacity, *colours = band.splats[band.lists.members[at]].unsqueeze(2).unbind(dim=3)
        opacity = opacity * held.unsqueeze(2)
        side = torch.arange(SIDE, dtype=x.dtype, device=x.device)
        column, row = (start[:, None, None] + side for start in band.corner(ids))
        dx, dy = x - column, y - row
        # In the order of the compiled code's operations, so that both round alike.
        half = (a * dx * dx).unsqueeze(2) + (c * dy * dy).unsqueeze(3)
        half = half.mul_(0.5).add_((b * dx).unsqueeze(2) * dy.unsqueeze(3)).flatten(2)
        # A negative one is rounding noise of a needle: it does not draw there. exp(-1000) is 0.
        raw = torch.threshold_(half, -torch.finfo(half.dtype).tiny, 1000.0).neg_().exp_().mul_(opacity)
        alpha = torch.threshold_(raw.clamp_max(LARGEST_ALPHA), _below(ALPHA_CUT, raw), 0.0)
        through = 1 - alpha
        through[:, 0] *= light
        after = through.cumprod(dim=1)
        # The light only falls, so the first Gaussian that would leave too little ends the pixel with all behind it.
        drawn = torch.threshold(after, _below(LEAST_LIGHT, after), 0.0).sign_()
        weights = torch.cat([light.unsqueeze(1), after[:, :-1]], dim=1).mul_(alpha).mul_(drawn)
        left = after[:, -1] * drawn[:, -1]
        return cls(dx, dy, (a, b, c), opacity, tuple(colours), raw, alpha, weights, left)

    def gradients(self, of_picture: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients [P, K, 9] of the splats, and what to add to `behind` for the chunks before this one.

        Args:
            of_picture: [P, pixels, 4].
            behind: [P, pixels], the sum over all Gaussians behind of weight times `worth` below.
        """
        red, green, blue, opaque = of_picture.unsqueeze(1).unbind(dim=3)
        # What a weight of 1 would be worth.
        worth = self.colours[0] * red + self.colours[1] * green + self.colours[2] * blue + opaque
        gained = worth.mul_(self.weights)
        sums = gained.flip(1).cumsum(dim=1).flip(1)
        # A Gaussian takes light from all behind it: times -1 / (1 - alpha) by its alpha.
        lost = torch.cat([sums[:, 1:], torch.zeros_like(sums[:, :1])], dim=1).add_(behind.unsqueeze(1))
        lost.mul_(self.alpha).div_(1 - self.alpha)
        # By the exponent; where alpha is held at the largest nothing moves it.
        free = (_above(LARGEST_ALPHA, self.raw) - self.raw).sign_().clamp_min_(0)
        moved = (gained - lost).mul_(free).reshape(*gained.shape[:2], SIDE, SIDE)
        by_column, by_row = moved.sum(dim=2), moved.sum(dim=3)
        a, b, c = (part.squeeze(2) for part in self.conics)
        x, y = (by_column * self.dx).sum(dim=2), (by_row * self.dy).sum(dim=2)
        xx, yy = (by_column * self.dx * self.dx).sum(dim=2), (by_row * self.dy * self.dy).sum(dim=2)
        xy = ((moved * self.dy.unsqueeze(3)).sum(dim=2) * self.dx).sum(dim=2)
        opacity = by_row.sum(dim=2) / self.opacities.squeeze(2).clamp_min(ALPHA_CUT)
        shape = (-(a * x + b * y), -(b * x + c * y), -0.5 * xx, -xy, -0.5 * yy, opacity)
        colours = ((self.weights * part).sum(dim=2) for part in (red, green, blue))
        return torch.stack([*shape, *colours], dim=2), sums[:, 0]


def _chunk_sizes(splats: Tensor) -> tuple[int, int]:
    return _CHUNKS["cuda" if splats.is_cuda else "cpu"]


def _below(value: float, like: Tensor) -> float:
    """The next number below one in the dtype of a tensor: more than this is at least the other."""
    one = torch.tensor(value, dtype=like.dtype)
    return float(one.nextafter(torch.zeros_like(one)))


def _above(value: float, like: Tensor) -> float:
    """The next number above one in the dtype of a tensor."""
    one = torch.tensor(value, dtype=like.dtype)
    return float(one.nextafter(torch.ones_like(one)))
