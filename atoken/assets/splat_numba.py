"""Blend projected Gaussians on the processor, compiled by numba: the same picture as `splat_torch`, in float32.

A picture is cut in bands of a tile's height; threads take bands. A band needs memory for (Gaussian, tile) pairs of
its own only, and every pixel is one thread's work from front to back, so the number of threads changes no bit; nor of
the gradients (`splat_numba_gradients`), which are added up in one order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import exp, log, sqrt
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected
from atoken.assets.splat_torch import LARGEST_ALPHA, LEAST_LIGHT

__all__ = ["blend", "blend_followed", "compiled"]

P = ParamSpec("P")
R = TypeVar("R")
Rules = tuple[int, np.float32, np.float32, np.float32]
"""Side of a tile, the cut of alpha, the largest alpha and the least light."""

Splat = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]
"""Centre (x, y), conic (xx, xy, yy), opacity."""

# Arguments, not globals, for they come from other files.
_RULES: Rules = (TILE, np.float32(ALPHA_CUT), np.float32(LARGEST_ALPHA), np.float32(LEAST_LIGHT))


def blend(projected: Projected[np.ndarray], height: int, width: int) -> Tensor:
    """Blend front to back: float32 [height, width, 4], colour times alpha and alpha.

    Uses as many threads as torch does.
    """
    columns = (projected.centres, projected.conics, projected.opacities[:, None], projected.colours)
    return torch.from_numpy(_drawn(np.concatenate(columns, axis=1), projected.tiles, height, width))


def blend_followed(projected: Projected[Tensor], height: int, width: int) -> Tensor:
    """`blend` that autograd follows, once; float32 on the processor."""
    columns = (projected.centres, projected.conics, projected.opacities[:, None], projected.colours)
    picture: Tensor = _Followed.apply(torch.cat(columns, dim=1), projected.tiles, height, width)
    return picture


class _Followed(torch.autograd.Function):
    """See `_drawn`."""

    @staticmethod
    def forward(ctx: Any, splats: Tensor, tiles: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(splats, tiles)
        return torch.from_numpy(_drawn(splats.detach().numpy(), tiles.numpy(), height, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        splats, tiles = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        of_picture = gradient.contiguous().numpy()
        parts = _in_bands(len(of_picture), lambda row: _band_back(splats, tiles, row, _RULES, of_picture))
        sums = np.zeros(splats.shape, np.float64)
        for members, of_pairs in parts:
            _add(sums, members, of_pairs)
        return torch.from_numpy(sums.astype(np.float32)), None, None, None


def _drawn(splats: np.ndarray, tiles: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture of float32 [M, 9]: the numbers of `Splat` and the colour; tiles as of `Projected`."""
    picture = np.zeros((height, width, 4), np.float32)
    _in_bands(height, lambda row: _band(splats, tiles, row, _RULES, picture))
    return picture


def _in_bands(height: int, work: Callable[[int], R]) -> list[R]:
    """Do a work for each row of tiles, in as many threads as torch has; results in the rows' order."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        # list: an exception in a thread shall not be lost.
        return list(threads.map(work, range(-(-height // TILE))))


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, and keep the result for other processes where there is a place to write."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        # Neither beside this file nor in the user's folder: every process compiles for itself, some seconds.
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def _lists(tiles: np.ndarray, row: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of each tile of a row of tiles, one list after another, each nearest first; and where lists start."""
    starts = np.zeros(across + 1, np.int64)
    for i in range(len(tiles)):
        if tiles[i, 1] <= row < tiles[i, 3]:
            for column in range(tiles[i, 0], tiles[i, 2]):
                starts[column + 1] += 1
    for column in range(across):
        starts[column + 1] += starts[column]
    members = np.empty(starts[across], np.int32)
    ends = starts[:-1].copy()
    for i in range(len(tiles)):
        if tiles[i, 1] <= row < tiles[i, 3]:
            for column in range(tiles[i, 0], tiles[i, 2]):
                members[ends[column]] = i
                ends[column] += 1
    return members, starts


@compiled
def _area(place: tuple[int, int], side: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Rows and columns of a tile's pixels: first, one past the last, first, one past the last."""
    top, left = place[0] * side, place[1] * side
    return top, min(top + side, shape[0]), left, min(left + side, shape[1])


@compiled
def _lowest(splat: Splat, cut: np.float32) -> np.float32:
    """Exponents below this are under the cut; a little less, for the exact test shall decide."""
    return np.float32(log(cut / splat[5])) - np.float32(1e-3)


@compiled
def _span(splat: Splat, row: int, ends: tuple[int, int], lowest: np.float32) -> tuple[int, int]:
    """First column that a Gaussian can reach in a row, and one past the last."""
    x, y, a, b, c, _ = splat
    dy = y - np.float32(row)
    # Where a dx^2 + 2 b dx dy + c dy^2 <= -2 lowest: an interval around its middle.
    middle = -b * dy / a
    reach = middle * middle - (c * dy * dy + np.float32(2) * lowest) / a
    if reach < np.float32(0):
        return 0, 0
    # dx is x - column; a pixel more on both sides, for rounding. Clipped as float: far ends pass all integers.
    reach = np.float32(sqrt(reach)) + np.float32(1)
    return (
        int(max(np.float32(ends[0]), x - middle - reach)),
        int(min(np.float32(ends[1] - 1), x - middle + reach)) + 1,
    )


@compiled
def _alpha(splat: Splat, row: int, column: int, lowest: np.float32) -> np.float32:
    """Opacity times bell at a pixel, 0 where that is under the cut for sure."""
    x, y, a, b, c, opacity = splat
    dx, dy = x - np.float32(column), y - np.float32(row)
    # Constants of another width would make all the arithmetic 64-bit.
    power = np.float32(-0.5) * (a * dx * dx + c * dy * dy) - b * dx * dy
    if power < lowest or power > np.float32(0):
        return np.float32(0)
    return opacity * np.float32(exp(power))


@compiled
def _band(splats: np.ndarray, tiles: np.ndarray, row: int, rules: Rules, picture: np.ndarray) -> None:
    """Draw the tiles of one row of tiles."""
    across = (picture.shape[1] + rules[0] - 1) // rules[0]
    members, starts = _lists(tiles, row, across)
    for column in range(across):
        _tile(splats, members[starts[column] : starts[column + 1]], (row, column), rules, picture)


@compiled
def _tile(splats: np.ndarray, members: np.ndarray, place: tuple[int, int], rules: Rules, picture: np.ndarray) -> None:
    """Draw one tile, Gaussian by Gaussian, nearest first."""
    side, cut, largest, least = rules
    top, bottom, left, right = _area(place, side, picture.shape)
    light = np.ones((side, side), np.float32)
    done = np.zeros((side, side), np.bool_)
    todo = (bottom - top) * (right - left)
    for i in members:
        x, y, a, b, c, opacity, red, green, blue = splats[i]
        splat = (x, y, a, b, c, opacity)
        lowest = _lowest(splat, cut)
        for row in range(top, bottom):
            first, stop = _span(splat, row, (left, right), lowest)
            for column in range(first, stop):
                if done[row - top, column - left]:
                    continue
                alpha = min(largest, _alpha(splat, row, column, lowest))
                if alpha < cut:
                    continue
                before = light[row - top, column - left]
                after = before * (np.float32(1) - alpha)
                if after < least:
                    done[row - top, column - left] = True
                    todo -= 1
                    continue
                weight = alpha * before
                picture[row, column, 0] += weight * red
                picture[row, column, 1] += weight * green
                picture[row, column, 2] += weight * blue
                picture[row, column, 3] += weight
                light[row - top, column - left] = after
        if todo == 0:
            return


@compiled
def _add(sums: np.ndarray, members: np.ndarray, of_pairs: np.ndarray) -> None:
    """Add each pair's numbers to its Gaussian's, in order."""
    for i in range(len(members)):
        for part in range(of_pairs.shape[1]):
            sums[members[i], part] += of_pairs[i, part]


@compiled
def _band_back(
    splats: np.ndarray, tiles: np.ndarray, row: int, rules: Rules, gradient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of the pairs of a row of tiles, and each pair's part of the gradient, float32 [pairs, 9]."""
    across = (gradient.shape[1] + rules[0] - 1) // rules[0]
    members, starts = _lists(tiles, row, across)
    of_pairs = np.zeros((len(members), 9), np.float32)
    for column in range(across):
        mine = slice(starts[column], starts[column + 1])
        area = _area((row, column), rules[0], gradient.shape)
        light, ends = _ends(splats, members[mine], area, rules)
        _tile_back((splats, members[mine], light, ends), area, rules, gradient, of_pairs[mine])
    return members, of_pairs


@compiled
def _ends(
    splats: np.ndarray, members: np.ndarray, area: tuple[int, int, int, int], rules: Rules
) -> tuple[np.ndarray, np.ndarray]:
    """As a tile was drawn: the light that is left at each pixel, and the place of the first that does not count."""
    side, cut, largest, least = rules
    top, bottom, left, right = area
    light, ends = np.ones((side, side), np.float32), np.full((side, side), len(members))
    todo = (bottom - top) * (right - left)
    for number in range(len(members)):
        x, y, a, b, c, opacity = splats[members[number], :6]
        splat = (x, y, a, b, c, opacity)
        lowest = _lowest(splat, cut)
        for row in range(top, bottom):
            first, stop = _span(splat, row, (left, right), lowest)
            for column in range(first, stop):
                if ends[row - top, column - left] < number:
                    continue
                alpha = min(largest, _alpha(splat, row, column, lowest))
                if alpha < cut:
                    continue
                after = light[row - top, column - left] * (np.float32(1) - alpha)
                if after < least:
                    ends[row - top, column - left] = number
                    todo -= 1
                else:
                    light[row - top, column - left] = after
        if todo == 0:
            break
    return light, ends


@compiled
def _tile_back(
    tile: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    area: tuple[int, int, int, int],
    rules: Rules,
    gradient: np.ndarray,
    of_pairs: np.ndarray,
) -> None:
    """Fill in the parts of one tile's pairs, from back to front; in float64, for light is divided at each step."""
    splats, members, light, ends = tile
    _, cut, largest, _ = rules
    top, bottom, left, right = area
    # Light behind the Gaussian at hand, and what the gradient makes of all that is drawn behind it.
    behind, rest = light.astype(np.float64), np.zeros(light.shape)
    for number in range(ends.max() - 1, -1, -1):
        x, y, a, b, c, opacity, red, green, blue = splats[members[number]]
        splat = (x, y, a, b, c, opacity)
        lowest = _lowest(splat, cut)
        # Sums over pixels of what moves the exponent, times 1, dx, dy, dx^2, dx dy, dy^2; then of the colours.
        sums = np.zeros(9)
        for row in range(top, bottom):
            first, stop = _span(splat, row, (left, right), lowest)
            for column in range(first, stop):
                if ends[row - top, column - left] <= number:
                    continue
                raw = _alpha(splat, row, column, lowest)
                alpha = np.float64(min(largest, raw))
                if alpha < cut:
                    continue
                before = behind[row - top, column - left] / (1.0 - alpha)
                behind[row - top, column - left] = before
                to_red, to_green, to_blue, to_alpha = gradient[row, column]
                gained = alpha * before * (red * to_red + green * to_green + blue * to_blue + to_alpha)
                sums[6] += alpha * before * to_red
                sums[7] += alpha * before * to_green
                sums[8] += alpha * before * to_blue
                # Where alpha is held at the largest nothing moves it.
                if raw <= largest:
                    moved = gained - alpha / (1.0 - alpha) * rest[row - top, column - left]
                    dx, dy = np.float64(x - column), np.float64(y - row)
                    sums[0] += moved
                    sums[1] += moved * dx
                    sums[2] += moved * dy
                    sums[3] += moved * dx * dx
                    sums[4] += moved * dx * dy
                    sums[5] += moved * dy * dy
                rest[row - top, column - left] += gained
        of_pairs[number, 0] = -(a * sums[1] + b * sums[2])
        of_pairs[number, 1] = -(b * sums[1] + c * sums[2])
        of_pairs[number, 2] = -0.5 * sums[3]
        of_pairs[number, 3] = -sums[4]
        of_pairs[number, 4] = -0.5 * sums[5]
        of_pairs[number, 5] = sums[0] / opacity
        of_pairs[number, 6:] = sums[6:]
