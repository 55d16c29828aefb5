"""Blend projected Gaussians on the processor, compiled by numba: the same picture as `splat_torch`, without gradients.

A picture is cut in bands of a tile's height; threads take bands. A band needs memory for (Gaussian, tile) pairs of
its own only, and every pixel is one thread's work from front to back, so the number of threads changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import exp, log, sqrt
from typing import ParamSpec

import numpy as np
import torch
from numba import njit
from torch import Tensor

from atoken.assets.splat_projection import ALPHA_CUT, TILE, Projected
from atoken.assets.splat_torch import LARGEST_ALPHA, LEAST_LIGHT

__all__ = ["blend", "compiled"]

P = ParamSpec("P")
Rules = tuple[int, np.float32, np.float32, np.float32]
"""Side of a tile, the cut of alpha, the largest alpha and the least light."""


def blend(projected: Projected[np.ndarray], height: int, width: int) -> Tensor:
    """Blend front to back: float32 [height, width, 4], colour times alpha and alpha.

    Uses as many threads as torch does.
    """
    picture = np.zeros((height, width, 4), np.float32)
    columns = (projected.centres, projected.conics, projected.opacities[:, None], projected.colours)
    splats = np.concatenate(columns, axis=1)
    # Arguments, not globals: compiled code is kept between runs, and only this file's changes make it void.
    rules = (TILE, np.float32(ALPHA_CUT), np.float32(LARGEST_ALPHA), np.float32(LEAST_LIGHT))
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        # list: an exception in a thread shall not be lost.
        list(threads.map(lambda row: _band(splats, projected.tiles, row, rules, picture), range(-(-height // TILE))))
    return torch.from_numpy(picture)


def compiled(function: Callable[P, None]) -> Callable[P, None]:
    """Compile at the first call, and keep the result for other processes where there is a place to write."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        # Neither beside this file nor in the user's folder: every process compiles for itself, some seconds.
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def _band(splats: np.ndarray, tiles: np.ndarray, row: int, rules: Rules, picture: np.ndarray) -> None:
    """Draw the tiles of one row of tiles."""
    side = rules[0]
    across = (picture.shape[1] + side - 1) // side
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
        _tile(splats, members[starts[column] : ends[column]], (row, column), rules, picture)


@compiled
def _tile(splats: np.ndarray, members: np.ndarray, place: tuple[int, int], rules: Rules, picture: np.ndarray) -> None:
    """Draw one tile, Gaussian by Gaussian, nearest first."""
    side, cut, largest, least = rules
    top, bottom = place[0] * side, min((place[0] + 1) * side, picture.shape[0])
    left, right = place[1] * side, min((place[1] + 1) * side, picture.shape[1])
    # Constants of another width would make all the arithmetic 64-bit.
    zero, half, one, two, slack = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(1e-3)
    light = np.ones((side, side), np.float32)
    done = np.zeros((side, side), np.bool_)
    todo = (bottom - top) * (right - left)
    for i in members:
        x, y, a, b, c, opacity, red, green, blue = splats[i]
        # Exponents below this are under the cut; a little less, for the exact test shall decide.
        lowest = np.float32(log(cut / opacity)) - slack
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
