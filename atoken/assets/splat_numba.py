"""Blend projected Gaussians on the processor, compiled by numba: the same picture as `splat_torch`, without gradients.

A picture is cut in bands of a tile's height; threads take bands. A band needs memory for (Gaussian, tile) pairs of
its own only, and every pixel is one thread's work from front to back, so the number of threads changes no bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import exp, log, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected
from atoken.assets.splat_torch import LARGEST_ALPHA, LEAST_LIGHT

__all__ = ["blend"]

_SLACK = np.float32(1e-3)
"""By how much the quick test lets exponents pass that the exact test then looks at."""


def blend(projected: Projected[np.ndarray], height: int, width: int) -> Tensor:
    """Blend front to back: float32 [height, width, 4], colour times alpha and alpha.

    Uses as many threads as torch does.
    """
    picture = np.zeros((height, width, 4), np.float32)
    columns = (projected.centres, projected.conics, projected.opacities[:, None], projected.colours)
    splats = np.concatenate(columns, axis=1)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        # list: an exception in a thread shall not be lost.
        list(threads.map(lambda row: _band(splats, projected.tiles, row, picture), range(-(-height // TILE))))
    return torch.from_numpy(picture)


@njit(nogil=True, cache=True, error_model="numpy")
def _band(splats: np.ndarray, tiles: np.ndarray, row: int, picture: np.ndarray) -> None:
    """Draw the tiles of one row of tiles."""
    across = (picture.shape[1] + TILE - 1) // TILE
    # Lists of the Gaussians of each tile, one list after another, each still nearest first.
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
    for column in range(across):
        _tile(splats, members[starts[column] : ends[column]], row, column, picture)


@njit(nogil=True, cache=True, error_model="numpy")
def _tile(splats: np.ndarray, members: np.ndarray, tile_row: int, tile_column: int, picture: np.ndarray) -> None:
    """Draw one tile, Gaussian by Gaussian, nearest first."""
    top, bottom = tile_row * TILE, min((tile_row + 1) * TILE, picture.shape[0])
    left, right = tile_column * TILE, min((tile_column + 1) * TILE, picture.shape[1])
    # Constants of another width would make all the arithmetic 64-bit.
    cut, largest, least = np.float32(ALPHA_CUT), np.float32(LARGEST_ALPHA), np.float32(LEAST_LIGHT)
    zero, half, one, two = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
    light = np.ones((TILE, TILE), np.float32)
    done = np.zeros((TILE, TILE), np.bool_)
    todo = (bottom - top) * (right - left)
    for i in members:
        x, y, a, b, c, opacity, red, green, blue = splats[i]
        # Exponents below this are under the cut.
        lowest = np.float32(log(cut / opacity)) - _SLACK
        for row in range(top, bottom):
            dy = y - np.float32(row)
            # Where a dx^2 + 2 b dx dy + c dy^2 <= -2 lowest: an interval around its middle.
            middle = -b * dy / a
            reach = middle * middle - (c * dy * dy + two * lowest) / a
            if reach < zero:
                continue
            reach = np.float32(sqrt(reach))
            # dx is x - column; a pixel more on both sides, for rounding. Clipped as float: far ends pass all integers.
            first = int(max(np.float32(left), x - middle - reach - one))
            last = int(min(np.float32(right - 1), x - middle + reach + one))
            for column in range(first, last + 1):
                if done[row - top, column - left]:
                    continue
                dx = x - np.float32(column)
                power = -half * (a * dx * dx + c * dy * dy) - b * dx * dy
                if power < lowest or power > zero:
                    continue
                alpha = min(largest, opacity * np.float32(exp(power)))
                if alpha < cut:
                    continue
                before = light[row - top, column - left]
                after = before * (one - alpha)
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
