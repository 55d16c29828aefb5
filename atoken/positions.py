"""Where a token stands: rotary angles on four axes and a learned, resized grid (FACTS 3 and 4)."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from atoken.tiles import Tiles

__all__ = ["LearnedPositions", "rotary_frequencies", "rotary_table", "rotate"]

AXES = 4
TABLE_SIDE = 16
"""The learned table is read as TABLE_SIDE x TABLE_SIDE, first index = row."""
CACHED_GRIDS = 32


def rotary_frequencies(head_dim: int) -> Tensor:
    """The head_dim / 8 frequencies of each axis: 10000^(-i / head_dim).

    The divisor is head_dim and not the number of frequencies, so all of them are high (FACTS 12.7).
    """
    exponents = torch.arange(head_dim // (2 * AXES), dtype=torch.float32) / head_dim
    return 1.0 / 10000.0**exponents


@lru_cache(maxsize=64)
def _axis_table(head_dim: int, positions: int, device: torch.device) -> Tensor:
    """exp(i * angle) [positions, head_dim / 8] of whole-number positions; the same on every axis."""
    # An inference tensor in this cache could not serve a later training step.
    with torch.inference_mode(False):
        steps = torch.arange(positions, dtype=torch.float32)
        angles = torch.outer(steps, rotary_frequencies(head_dim))
        return torch.complex(angles.cos(), angles.sin()).to(device)


def rotary_table(coords: Tensor, head_dim: int) -> Tensor:
    """Rotations of tokens at raw whole-number coordinates, once per forward pass.

    Args:
        coords: [L, 4] int64 (t, x, y, z), none negative.
        head_dim: channels of a head, a multiple of 8.

    Returns:
        [L, head_dim / 2] complex64, cos + i sin; pairs by axis t, x, y, z, then by frequency.
    """
    # Table lengths are powers of two, so that few of them exist.
    positions = 1 << max(int(coords.max()), 63).bit_length()
    return _axis_table(head_dim, positions, coords.device)[coords].flatten(1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn channel pairs (2p, 2p+1) of every head by the angle of pair p.

    Args:
        x: [L, heads, head_dim]; computed in float32.
        table: [L, head_dim / 2] complex64, of `rotary_table`.

    Returns:
        [L, heads, head_dim] float32.
    """
    pairs = torch.unflatten(x.float(), -1, (-1, 2))
    if not torch.compiler.is_compiling():
        # One pass over memory; spelt out in real numbers it takes ten times as long on a CPU.
        return torch.view_as_real(torch.view_as_complex(pairs) * table.unsqueeze(1)).flatten(-2)
    # The compiler has no complex kernels, but fuses these.
    real, imaginary = pairs.unbind(-1)
    cos, sin = torch.view_as_real(table).unsqueeze(1).unbind(-1)
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(turned, dim=-1).flatten(-2)


class LearnedPositions(nn.Module):
    """A learned 16x16 table, resized to each segment's own (rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Drawing normal numbers on the meta device would import torch's compiler (a second, 150 MB).
        table = torch.zeros(TABLE_SIDE * TABLE_SIDE, width)
        self.position_embedding = nn.Embedding(TABLE_SIDE * TABLE_SIDE, width, _weight=table)
        self._snapshot: Tensor | None = None
        self._grids: dict[tuple[int, int], Tensor] = {}

    def forward(self, tiles: Tiles) -> Tensor:
        """The addend [L, width] of each token: its cell in its segment's grid. t and z have none."""
        table = self.position_embedding.weight
        sizes = dict.fromkeys(tiles.grids)
        grids = self._cached(table, list(sizes)) if _frozen(table) else _resize(table, list(sizes))
        # All grids in one table, so that a single lookup serves the whole pack.
        starts, start = {}, 0
        for size in sizes:
            starts[size] = start
            start += size[0] * size[1]
        x, y = tiles.coords[:, 1], tiles.coords[:, 2]
        if len(sizes) == 1:
            return grids[0][x * tiles.grids[0][1] + y]
        per_segment = torch.tensor([(starts[size], size[1]) for size in tiles.grids])
        rows = per_segment.repeat_interleave(torch.tensor(tiles.lengths), dim=0).to(x.device)
        return torch.cat(grids)[rows[:, 0] + x * rows[:, 1] + y]

    def _cached(self, table: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        # Compared by value: weights may change under us by an optimiser, an EMA swap or a load.
        snapshot = self._snapshot
        if (
            snapshot is None
            or snapshot.dtype != table.dtype
            or snapshot.device != table.device
            or not torch.equal(snapshot, table)
        ):
            with torch.inference_mode(False):
                self._snapshot = table.detach().clone()
            self._grids.clear()
        missing = [size for size in sizes if size not in self._grids]
        with torch.inference_mode(False):
            self._grids.update(zip(missing, _resize(table.detach(), missing), strict=True))
        grids = [self._grids[size] for size in sizes]
        while len(self._grids) > CACHED_GRIDS:
            self._grids.pop(next(iter(self._grids)))
        return grids


def _frozen(table: Tensor) -> bool:
    return not (torch.is_grad_enabled() and table.requires_grad)


def _resize(table: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """`table` [256, C] at each size (rows, columns), as [rows * columns, C]; in float32."""
    image = torch.unflatten(table.float().t(), 1, (TABLE_SIDE, TABLE_SIDE)).unsqueeze(0)
    return [
        interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        .flatten(2)[0]
        .t()
        .to(dtype=table.dtype, memory_format=torch.contiguous_format)
        for size in sizes
    ]
