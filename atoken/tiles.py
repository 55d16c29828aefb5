"""Temporal tiles: which tokens see each other, and where they stand (FACTS section 8).

Unlike the release, each item is cut from its own first time step, and the cache horizon is the
item's own: an item's result never depends on its batch mates (FACTS 13.9). `plan_tiles` and
`plan_windows` lay out packs of any items; `plan_raster` one stretch of one video, for streams.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from atoken.attention import Segments
from atoken.errors import InputError
from atoken.tokens import SparseTokens

__all__ = ["Merge", "Tiles", "Window", "plan_raster", "plan_tiles", "plan_windows"]


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """A packed sequence cut into segments.

    Attributes:
        coords: [L, 4] int64 on the device, t counted inside the tile.
        lengths: rows of each segment.
        grids: (rows, columns) of each segment's position grid: largest x + 1, largest y + 1.
        segments: what attention needs to know.
    """

    coords: Tensor
    lengths: list[int]
    grids: list[tuple[int, int]]
    segments: Segments


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """What a window does with carried keys and values; the pool is cat([carried, new]).

    Attributes:
        order: rows of the pool that this window attends to, packed by item and time.
        coords: [M, 4] int64, their local coordinates.
        keep: rows of the pool that are carried on to the next window.
    """

    order: Tensor
    coords: Tensor
    keep: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One step of a cached decode: rows of the pack that are its queries, and their layout."""

    rows: Tensor
    tiles: Tiles
    merge: Merge


@dataclass(frozen=True, slots=True, eq=False)
class _Windowed:
    """CPU view of a pack: coords, item of each row, t since its item's start, window of each row."""

    coords: Tensor
    item: Tensor
    step: Tensor
    window: Tensor


def _windowed(tokens: SparseTokens, steps: int) -> _Windowed:
    coords = tokens.coords.cpu().long()
    item = torch.repeat_interleave(torch.arange(len(tokens)), torch.tensor(tokens.lengths), output_size=coords.shape[0])
    if int(coords.min()) < 0:
        raise InputError("token coordinates must not be negative")
    falls = (coords[1:, 0] < coords[:-1, 0]) & (item[1:] == item[:-1])
    if bool(falls.any()):
        raise InputError("tokens of an item must be sorted by t; sort rows by coords[:, 0]")
    first_row = torch.tensor((0, *tokens.lengths[:-1])).cumsum(0)
    step = coords[:, 0] - coords[first_row, 0][item]
    return _Windowed(coords, item, step, step // steps)


def _tiles(coords: Tensor, segment: Tensor, tokens: SparseTokens, keys: list[int] | None = None) -> Tiles:
    """Layout of rows of `tokens` that are grouped by `segment`, whose ids are 0..n-1 in order."""
    lengths = torch.bincount(segment)
    extent = torch.zeros(lengths.numel(), 2, dtype=torch.long)
    extent = extent.scatter_reduce(0, segment[:, None].expand(-1, 2), coords[:, 1:3], "amax") + 1
    rows = lengths.tolist()
    grids = [(h, w) for h, w in extent.tolist()]
    device = tokens.coords.device
    segments = Segments.of(rows, keys, device=device, dtype=tokens.features.dtype)
    return Tiles(coords.to(device), rows, grids, segments)


def plan_tiles(tokens: SparseTokens, steps: int) -> Tiles:
    """Independent windows of `steps` latent time steps, all in one packed sequence.

    Raises:
        InputError: negative coordinates, or an item whose tokens are not sorted by t.
    """
    pack = _windowed(tokens, steps)
    span = int(pack.window.max()) + 1
    _, segment = torch.unique_consecutive(pack.item * span + pack.window, return_inverse=True)
    local = pack.coords.clone()
    local[:, 0] = pack.step % steps
    return _tiles(local, segment, tokens)


def plan_windows(tokens: SparseTokens, steps: int, cache_steps: int) -> Iterator[Window]:
    """Windows of `steps` latent time steps, one after another, each seeing `cache_steps` before it.

    From the second window on local t starts at `cache_steps` and carried keys lie below it. What
    is carried is what lies within `cache_steps` of the window in the item's own time: after a gap
    in t nothing stale is taken for adjacent.

    Raises:
        InputError: as `plan_tiles`.
    """
    device = tokens.coords.device
    pack = _windowed(tokens, steps)
    last = torch.zeros(len(tokens), dtype=torch.long)
    last = last.scatter_reduce(0, pack.item, pack.window, "amax")
    carried = torch.empty(0, dtype=torch.long)
    for index in torch.unique(pack.window).tolist():
        rows = torch.nonzero(pack.window == index).flatten()
        first_step = index * steps - (cache_steps if index else 0)
        present, segment = torch.unique_consecutive(pack.item[rows], return_inverse=True)
        pool = torch.cat([carried, rows])
        seen = torch.isin(pack.item[pool], present) & (pack.step[pool] >= first_step)
        # Rows of an item rise with t: sorted by row, its carried keys stand before its new ones.
        order = torch.nonzero(seen).flatten()
        order = order[pool[order].argsort()]
        keys = pool[order]
        near = pack.step[pool] >= (index + 1) * steps - cache_steps
        keep = torch.nonzero(near & (last[pack.item[pool]] > index)).flatten()
        key_counts = torch.bincount(pack.item[keys], minlength=len(tokens))[present]
        yield Window(
            rows.to(device),
            _tiles(_local(pack, rows, first_step), segment, tokens, key_counts.tolist()),
            Merge(order.to(device), _local(pack, keys, first_step).to(device), keep.to(device)),
        )
        carried = pool[keep]


def _raster(grid: tuple[int, int, int], first: int = 0) -> Tensor:
    """Coordinates [t * h * w, 4] int64 of a full grid (t, rows, columns), t counted from `first`."""
    t, h, w = (torch.arange(n) for n in grid)
    return torch.cartesian_prod(t + first, h, w, torch.zeros(1, dtype=torch.long))


def plan_raster(
    grid: tuple[int, int, int],
    *,
    held: int = 0,
    first: int = 0,
    keep: int = 0,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tiles, Merge]:
    """One window of one video in raster order: what `plan_windows` gives for it, from sizes alone.

    Args:
        grid: new latent steps, rows, columns.
        held: latent steps before it whose keys and values are carried in.
        first: local t of its first step; carried keys lie below it.
        keep: latent steps to carry on, at most.
        dtype: in which attention will run.
    """
    t, h, w = grid
    queries, keys = t * h * w, (held + t) * h * w
    segments = Segments.of([queries], [keys], device=device, dtype=dtype)
    tiles = Tiles(_raster(grid, first).to(device), [queries], [(h, w)], segments)
    order = torch.arange(keys, device=device)
    coords = _raster((held + t, h, w), first - held).to(device)
    return tiles, Merge(order, coords, order[max(keys - keep * h * w, 0) :])


def _local(pack: _Windowed, rows: Tensor, first_step: int) -> Tensor:
    coords = pack.coords[rows]
    coords[:, 0] = pack.step[rows] - first_step
    return coords
