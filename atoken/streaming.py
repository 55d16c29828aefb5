"""Videos as streams: frames in, latents out, tile by tile; latents in, pixels out, window by window.

What is held at any moment is one temporal tile (`config.tile_frames` frames) with its activations,
and for cached decoding the keys and values of `cache_frames` frames; never the clip, whose length
need not be known. Results equal those of `AToken.encode` and `AToken.decode` on the whole clip, but
for the last float bits, which depend on how many tokens are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from atoken.parts import Succession, cut_video, join_video, steps_of
from atoken.patches import Fit, Frames, Pixels, as_clip, check_rules, pack_pixels, to_pixels
from atoken.search import check_search, search_codes
from atoken.space import SpaceTiles, Spot, spots
from atoken.tiles import Tiles, plan_raster
from atoken.tokens import Latents, SparseTokens
from atoken.transformer import Carry, Context

if TYPE_CHECKING:
    from atoken.tokenizer import AToken

__all__ = ["decode_stream", "encode_stream"]

Grid = tuple[int, int, int]
Plan = Callable[..., tuple[Tiles, Context]]


def encode_stream(
    model: AToken, frames: Iterable[Pixels], *, fit: Fit, frames_rule: Frames, space: SpaceTiles | None, search: int
) -> Iterator[Latents]:
    """The work of `AToken.encode_video`, which tells what goes in and comes out."""
    check_rules(fit, frames_rule)
    check_search(model, search, space)
    encoder = _TileEncoder(model, space, search)
    patch_frames = model.config.patch[0]
    # Where frames may be dropped a tile waits until it is known whether it is the last one: the last
    # tells in its spec how many frames there were.
    ahead = patch_frames if frames_rule == "drop" else 0

    def parts() -> Iterator[Latents]:
        step = 0
        for clip in _tiles(frames, model.config.tile_frames, ahead):
            yield encoder.encode(clip, step, fit, frames_rule)
            step += model.config.tile_steps

    return parts()


def decode_stream(
    model: AToken,
    parts: Iterable[Latents | SparseTokens],
    *,
    stride_steps: int,
    cache_steps: int,
    space: SpaceTiles | None,
) -> Iterator[Tensor]:
    """The work of `AToken.decode_video_pixels`; window and cache in latent steps."""
    decoder = _WindowDecoder(model, cache_steps, space)
    if isinstance(parts, Latents | SparseTokens):
        raise InputError("give an iterable of parts; for one item write [item]")

    def blocks() -> Iterator[Tensor]:
        for window in _windows(model, parts, stride_steps):
            yield decoder.decode(window)

    return blocks()


# -- Frames to tiles -------------------------------------------------------------------------


def _tiles(frames: Iterable[Pixels], size: int, ahead: int) -> Iterator[Tensor]:
    """Stretches [size, H, W, 3] of a stream of frames and blocks; the last has 1..size+ahead-1 frames.

    What is yielded is overwritten by the next frames: sources may reuse their memory, so each frame
    is copied once, here.
    """
    buffer: Tensor | None = None
    filled = count = 0
    for block in frames:
        for piece in _pieces(block, size):
            clip = _checked(piece, count, buffer)
            if buffer is None:
                dtype = torch.uint8 if clip.dtype == torch.uint8 else torch.float32
                buffer = torch.empty(size + ahead, *clip.shape[1:], dtype=dtype, device=clip.device)
            count += len(clip)
            while len(clip):
                taken = clip[: len(buffer) - filled]
                buffer[filled : filled + len(taken)] = taken
                filled += len(taken)
                clip = clip[len(taken) :]
                if filled == len(buffer):
                    yield buffer[:size]
                    filled = ahead
                    buffer[:ahead] = buffer[size:].clone()
    if buffer is None:
        raise InputError("there are no frames in the stream")
    if filled:
        yield buffer[:filled]


def _pieces(block: Pixels, size: int) -> Iterator[Pixels]:
    """A block in stretches, so that no more of it than that is ever converted or read from a mapped file."""
    if isinstance(block, np.ndarray | Tensor) and block.ndim == 4:
        for start in range(0, len(block), size):
            yield block[start : start + size]
    else:
        yield block


def _checked(piece: Pixels, count: int, before: Tensor | None) -> Tensor:
    """Frames `count`, count + 1, ... of a stream as a clip of the size and type of those before."""
    try:
        clip, _ = as_clip(piece)
    except InputError as error:
        raise InputError(_culprit(piece, count, error)) from None
    if before is not None:
        old, new = ("x".join(map(str, x.shape[1:3])) for x in (before, clip))
        if old != new:
            raise InputError(f"frame {count}: {new} after frames of {old}; a stream has one size")
        if before.is_floating_point() != clip.is_floating_point():
            raise InputError(f"frame {count}: {clip.dtype} after frames of {before.dtype}; a stream has one type")
    return clip


def _culprit(piece: Any, count: int, error: InputError) -> str:
    """The error of the first frame of a piece that has one."""
    for place, frame in enumerate(piece if getattr(piece, "ndim", 0) == 4 else ()):
        try:
            as_clip(frame)
        except InputError as of_frame:
            return f"frame {count + place}: {of_frame}"
    return f"frame {count}: {error}"


# -- Tiles through the encoder ---------------------------------------------------------------


class _TileEncoder:
    """Pixels of one temporal tile to latents; plans are made once for all tiles of a size."""

    def __init__(self, model: AToken, space: SpaceTiles | None, search: int) -> None:
        self._model = model
        self._search = search
        self._plan = _planner(model, model.encoder.head_dim)
        self._spots = _placer(model, space)

    @torch.no_grad()
    def encode(self, clip: Tensor, step: int, fit: Fit, frames_rule: Frames) -> Latents:
        """Latents of frames [n, H, W, 3] that start at latent step `step` of their video."""
        model, count = self._model, len(clip)
        rest = -count % model.config.patch[0]
        if step and rest and frames_rule == "pad":
            # As in a whole clip: only one shorter than a patch is followed by grey.
            clip = torch.cat([clip, clip[-1:].expand(rest, -1, -1, -1)])
        try:
            tokens = pack_pixels([clip], patch=model.config.patch, fit=fit, frames=frames_rule, device=model.device)
        except InputError as error:
            raise InputError(str(error).removeprefix("item 0: ")) from None
        spec = tokens.items[0]
        if len(clip) > count:
            spec = replace(spec, frames=count, out_frames=count)
        mean, logvar = self._moments(tokens.features, spec.grid(model.config.patch)).chunk(2, dim=-1)
        tokens = SparseTokens(tokens.features, tokens.coords, tokens.lengths, (spec,))
        mean = search_codes(model, tokens, mean.contiguous(), self._search)
        coords = tokens.coords
        coords[:, 0] += step
        return Latents(SparseTokens(mean, coords, tokens.lengths, (spec,)), logvar.contiguous())

    def _moments(self, features: Tensor, grid: Grid) -> Tensor:
        placed = self._spots(grid[1:])
        if len(placed) == 1:
            return self._run(features, grid)
        cells = features.view(*grid, -1)
        blended = features.new_zeros(*grid, self._model.proj.out_features)
        for spot in placed:
            moments = self._run(cells[:, spot.rows, spot.columns].flatten(0, 2), (grid[0], *spot.size))
            moments = moments.view(grid[0], *spot.size, -1)
            blended[:, spot.rows, spot.columns].addcmul_(moments, spot.weights[..., None])
        return blended.flatten(0, 2)

    def _run(self, features: Tensor, grid: Grid) -> Tensor:
        model = self._model
        encoded = model.encoder.run(features.to(model.dtype), *self._plan(grid))
        moments: Tensor = model.proj(encoded)
        return moments.float()


# -- Latents to windows, through the decoder -------------------------------------------------


def _windows(model: AToken, parts: Iterable[Latents | SparseTokens], steps: int) -> Iterator[SparseTokens]:
    """Decoder inputs of `steps` latent steps each, the last with what is left: one item each."""
    patch = model.config.patch
    follow = Succession(patch)
    held: list[SparseTokens] = []
    missing = steps
    for part in parts:
        follow.add(part)
        start, stop = 0, steps_of(part, patch)
        while start < stop:
            taken = min(missing, stop - start)
            held.append(model.decoder_input(cut_video(part, start, start + taken, patch)))
            start, missing = start + taken, missing - taken
            if not missing:
                yield join_video(held, patch=patch)
                held, missing = [], steps
    if held:
        yield join_video(held, patch=patch)


class _WindowDecoder:
    """Latents of one window after another to pixels; each spatial tile has a cache of its own."""

    def __init__(self, model: AToken, cache_steps: int, space: SpaceTiles | None) -> None:
        self._model = model
        self._cache_steps = cache_steps
        self._plan = _planner(model, model.decoder.head_dim)
        self._spots = _placer(model, space)
        self._carries: list[list[Carry]] = []
        self._seen = 0

    @torch.no_grad()
    def decode(self, window: SparseTokens) -> Tensor:
        """Frames [n, H, W, 3] float32 of the next window, not clamped."""
        spec, patch = window.items[0], self._model.config.patch
        t, h, w = spec.grid(patch)
        placed = self._spots((h, w))
        if not self._carries:
            self._carries = [[Carry() for _ in self._model.decoder.blocks] for _ in placed]
        if len(placed) == 1:
            rebuilt = self._run(window.features, (t, h, w), self._carries[0])
            clip = to_pixels(rebuilt, (t, h, w), patch, spec.out_frames)
        else:
            clip = self._blended(window.features.view(t, h, w, -1), placed, spec.out_frames)
        self._seen += t
        return clip[:, : spec.out_height, : spec.out_width]

    def _blended(self, cells: Tensor, placed: list[Spot], frames: int) -> Tensor:
        (t, h, w), patch = cells.shape[:3], self._model.config.patch
        clip = torch.zeros(frames, h * patch[1], w * patch[2], 3, dtype=torch.float32, device=cells.device)
        fine = self._spots((h, w), patch[1:])
        for spot, place, carries in zip(placed, fine, self._carries, strict=True):
            grid = (t, *spot.size)
            rebuilt = self._run(cells[:, spot.rows, spot.columns].flatten(0, 2), grid, carries)
            pixels = to_pixels(rebuilt, grid, patch, frames)
            clip[:, place.rows, place.columns].addcmul_(pixels, place.weights[..., None])
        return clip

    def _run(self, features: Tensor, grid: Grid, carries: list[Carry]) -> Tensor:
        model, cache = self._model, self._cache_steps
        plan = self._plan(grid, held=min(self._seen, cache), first=cache if self._seen else 0, keep=cache)
        rebuilt: Tensor = model.decoder.run(features.to(model.dtype), *plan, carries if cache else None)
        return rebuilt.float()


# -- What both halves plan once --------------------------------------------------------------


def _planner(model: AToken, head_dim: int) -> Plan:
    """Layout and angles of a tile by its grid; those of the last few grids are kept."""
    device, dtype = model.device, model.dtype

    @lru_cache(maxsize=3)
    def plan(grid: Grid, *, held: int = 0, first: int = 0, keep: int = 0) -> tuple[Tiles, Context]:
        tiles, merge = plan_raster(grid, held=held, first=first, keep=keep, device=device, dtype=dtype)
        return tiles, Context.of(tiles, head_dim, merge if keep else None)

    return plan


def _placer(model: AToken, space: SpaceTiles | None) -> Callable[..., list[Spot]]:
    """Spatial tiles by the grid (rows, columns) of a frame; one that covers all where there are none."""
    device = model.device
    sizes = None if space is None else space.in_patches(model.config.patch)

    @lru_cache(maxsize=3)
    def place(grid: tuple[int, int], scale: tuple[int, int] = (1, 1)) -> list[Spot]:
        height, width, overlap = (*grid, 0) if sizes is None else sizes
        placed = spots(grid, (height, width), overlap, scale)
        return [replace(spot, weights=spot.weights.to(device)) for spot in placed]

    return place
