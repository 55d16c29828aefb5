"""How many tokens a task's samples have on average, by the rules that the data follows (`atoken.training.data`).

What the recipe leaves to the data is assumed, and said in `Assumptions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atoken.config import ATokenConfig
from atoken.training.flops import Load, VoxelLoad
from atoken.training.tasks import AssetTask, ImageTask, VideoTask

__all__ = ["ASSUMED", "Assumptions", "Drawn", "expected"]

POINTS = 20_000
"""Of the integral over resolutions; the grid of tokens has far fewer steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What a recipe does not say of its data.

    Images and clips are taken to be large enough for every resolution and long enough for every stride: an upper bound.

    Attributes:
        image_aspect, video_aspect: longer side by shorter side.
        clip_seconds: length of a clip where frames are taken by the second; 18 is the mean of WebVid (Bain et al.,
            2021), which the paper trains video understanding on.
        voxels: of an asset; 20,000 is the mean that Trellis gives for its 64^3 grids (Xiang et al., 2024).
        mates: voxels that an asset's voxel sees in its window of the Gaussian decoder, itself among them; 110 is the
            mean on a sphere's surface of 20,000 voxels.
    """

    image_aspect: float = 4 / 3
    video_aspect: float = 16 / 9
    clip_seconds: float = 18.0
    voxels: int = 20_000
    mates: float = 110.0


ASSUMED = Assumptions()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The average sample of a task, and its largest.

    Attributes:
        mean, largest: of the encoder and decoder.
        voxels: of the Gaussian decoder, for assets.
    """

    mean: Load
    largest: Load
    voxels: VoxelLoad | None = None


def expected(task: ImageTask | VideoTask | AssetTask, config: ATokenConfig, assumed: Assumptions = ASSUMED) -> Drawn:
    """Means over what the recipe draws: resolution, and frames of a clip."""
    if isinstance(task, AssetTask):
        # A surface's voxels fall with the square of its size.
        voxels = -(-assumed.voxels // task.shrink**2)
        load, pairs = Load.of([voxels], 1), voxels * assumed.mates
        return Drawn(load, load, VoxelLoad(voxels, (pairs, pairs)))
    video = isinstance(task, VideoTask)
    grids, highest = _grids(task, config.patch[1], assumed.video_aspect if video else assumed.image_aspect)
    counts = _frame_counts(task, assumed) if isinstance(task, VideoTask) else [1]
    steps = [-(-count // config.patch[0]) for count in counts]
    tiles = [_tiles(count, config.tile_steps) for count in steps]
    # Resolution and frames are drawn apart, so means of their products are products of their means.
    mean = Load(
        1,
        float(grids.mean()) * sum(steps) / len(steps),
        float((grids**2).mean()) * sum(sum(length**2 for length in tile) for tile in tiles) / len(tiles),
    )
    most = max(tiles, key=sum)
    largest = Load.of([highest * length for length in most], 1)
    return Drawn(mean, largest)


def _grids(task: ImageTask, patch: int, aspect: float) -> tuple[np.ndarray, int]:
    """Tokens of a frame: at equally likely draws of the resolution, and at the highest."""
    low, high = task.resolution
    if task.view != "whole":  # a square, its side a multiple of the patch
        return (np.arange(low // patch, high // patch + 1) ** 2).astype(np.float64), (high // patch) ** 2
    means = low + (high - low) * (np.arange(POINTS) + 0.5) / POINTS
    return _grid(means, patch, aspect), int(_grid(np.array([float(high)]), patch, aspect)[0])


def _grid(mean: np.ndarray, patch: int, aspect: float) -> np.ndarray:
    """Tokens of pictures by the geometric mean of their sides, which are cut down to whole patches."""
    sides = [np.floor(mean * ratio / patch + 1e-6) for ratio in (math.sqrt(aspect), 1 / math.sqrt(aspect))]
    tokens: np.ndarray = sides[0] * sides[1]
    return tokens


def _frame_counts(task: VideoTask, assumed: Assumptions) -> list[int]:
    """Frames of a clip, equally likely."""
    low, high = task.frames
    if task.fps is None:
        return list(range(low, high + 1, 4))
    # One frame at the start, then one every 1 / fps seconds; whole patches of 4, one at least.
    return [max(4, min(high, (int(assumed.clip_seconds * task.fps) + 1) // 4 * 4))]


def _tiles(steps: int, tile: int) -> list[int]:
    whole, rest = divmod(steps, tile)
    return [tile] * whole + ([rest] if rest else [])
