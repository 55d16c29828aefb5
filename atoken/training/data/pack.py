"""Samples packed without padding, as bytes: a quarter of what floats would need on the way to the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from atoken.assets.cameras import Camera
from atoken.errors import InputError
from atoken.patches import Patch, raster
from atoken.tokens import ItemSpec, SparseTokens

__all__ = ["Batch", "Pack", "Renders", "Sample", "asset_sample", "pack_samples", "pixel_sample"]

SIDE = 16
FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Renders:
    """Pictures of the assets of a pack.

    Attributes:
        pictures: uint8 [N, V, S, S, 4], sRGB with premultiplied alpha.
        cameras: V of each asset.
    """

    pictures: Tensor
    cameras: tuple[tuple[Camera, ...], ...]

    def pin_memory(self) -> Renders:
        """The same in page-locked memory."""
        return replace(self, pictures=self.pictures.pin_memory())


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Items of one modality, one after another.

    Attributes:
        values: uint8 [L, V], pixels of each token flattened as (frame, row, column, colour); V is 768 of images and
            assets, which have one frame, and 3,072 of videos.
        coords: int32 [L, 4], (t, row, column, 0), or (0, i, j, k) of an asset's voxels.
        lengths: tokens of each item.
        items: their sizes.
        ids: their names.
        texts: what they show, of text tasks.
        renders: what reconstructions of assets are compared with.
    """

    values: Tensor
    coords: Tensor
    lengths: tuple[int, ...]
    items: tuple[ItemSpec, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    renders: Renders | None = None

    @property
    def patch(self) -> Patch:
        """Of the values as they are: of one frame for images and assets."""
        return (self.values.shape[1] // (3 * SIDE * SIDE), SIDE, SIDE)

    def patches(self) -> np.ndarray:
        """The values in [-1, 1], float64 [L, 768 a frame]."""
        scaled: np.ndarray = self.values.numpy() / 127.5 - 1.0
        return scaled

    def tokens(self, patch: Patch, device: torch.device | str = "cpu") -> SparseTokens:
        """The tokens as the model takes them: what `atoken.patches.pack_pixels` makes of the same items.

        Args:
            patch: of the model: frames, rows, columns. Frames beyond those of `values` are 0, mid grey (FACTS 5).

        Returns:
            float32 features [L, token channels] in [-1, 1] on `device`.

        Raises:
            InputError: the patch has another side, or fewer frames than the values.
        """
        channels, own = 3 * patch[0] * patch[1] * patch[2], self.values.shape[1]
        if patch[1:] != (SIDE, SIDE) or channels < own:
            raise InputError(f"values of {own // (3 * SIDE * SIDE)} frames of {SIDE}x{SIDE} make no patches of {patch}")
        scaled = self.values.to(device, non_blocking=True).float().div_(127.5).sub_(1.0)
        if own < channels:
            features = scaled.new_zeros(len(scaled), channels)
            features[:, :own] = scaled
        else:
            features = scaled
        return SparseTokens(features, self.coords.to(device, non_blocking=True), self.lengths, self.items)

    def pin_memory(self) -> Pack:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        return replace(
            self,
            values=self.values.pin_memory(),
            coords=self.coords.pin_memory(),
            renders=None if self.renders is None else self.renders.pin_memory(),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of one task's global batch of one step.

    Attributes:
        task: its name.
        packs: the rank's samples, in order.
        skipped: "id: reason" of samples that could not be used; others were drawn in their place.
    """

    task: str
    packs: tuple[Pack, ...]
    skipped: tuple[str, ...] = ()

    def pin_memory(self) -> Batch:
        """As `Pack.pin_memory`; torch's loader calls it."""
        return replace(self, packs=tuple(pack.pin_memory() for pack in self.packs))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One item on its way into a pack.

    Attributes:
        pixels: of images and videos uint8 [T, H, W, 3], whole patches; of assets [L, 768].
        coords: of assets uint8 [L, 3].
        item, id, text: as in `Pack`.
        pictures: uint8 [V, S, S, 4], premultiplied, with cameras; or None.
    """

    pixels: np.ndarray
    item: ItemSpec
    id: str
    text: str | None = None
    coords: np.ndarray | None = None
    pictures: np.ndarray | None = None
    cameras: tuple[Camera, ...] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        if self.coords is not None:
            return len(self.coords)
        frames, height, width = self.pixels.shape[:3]
        return int(-(-frames // FRAMES) * (height // SIDE) * (width // SIDE))


def pixel_sample(frames: np.ndarray, name: str, text: str | None, *, is_image: bool) -> Sample:
    """An image [1, H, W, 3] or a clip [4 n, H, W, 3], sides multiples of 16."""
    count, height, width = frames.shape[:3]
    item = ItemSpec(
        kind="image" if is_image else "video",
        frames=count,
        height=height,
        width=width,
        out_frames=count,
        out_height=height,
        out_width=width,
    )
    return Sample(frames, item, name, text)


def asset_sample(
    features: np.ndarray,
    coords: np.ndarray,
    name: str,
    text: str | None,
    *,
    pictures: np.ndarray | None = None,
    cameras: tuple[Camera, ...] = (),
) -> Sample:
    """Voxels uint8 [L, 768] at uint8 [L, 3]."""
    return Sample(features, ItemSpec.of_voxels(len(coords)), name, text, coords, pictures, cameras)


def pack_samples(samples: Sequence[Sample], limit: int) -> tuple[Pack, ...]:
    """Consecutive samples in packs of at most `limit` tokens; a larger sample goes alone."""
    packs: list[Pack] = []
    group: list[Sample] = []
    used = 0
    for sample in samples:
        if group and used + sample.length > limit:
            packs.append(_pack(group))
            group, used = [], 0
        group.append(sample)
        used += sample.length
    if group:
        packs.append(_pack(group))
    return tuple(packs)


def _pack(samples: Sequence[Sample]) -> Pack:
    lengths = tuple(sample.length for sample in samples)
    frames = FRAMES if samples[0].item.kind == "video" else 1
    values = np.empty((sum(lengths), frames * SIDE * SIDE * 3), np.uint8)
    coords = np.zeros((len(values), 4), np.int32)
    start = 0
    for sample, length in zip(samples, lengths, strict=True):
        end = start + length
        if sample.coords is not None:
            values[start:end] = sample.pixels
            coords[start:end, 1:] = sample.coords
        else:
            t, h, w = len(sample.pixels) // frames, sample.item.height // SIDE, sample.item.width // SIDE
            cells = sample.pixels.reshape(t, frames, h, SIDE, w, SIDE, 3).transpose(0, 2, 4, 1, 3, 5, 6)
            values[start:end].reshape(cells.shape)[...] = cells
            coords[start:end] = _raster(t, h, w)
        start = end
    texts = tuple(sample.text for sample in samples if sample.text is not None)
    renders = None
    pictures = [sample.pictures for sample in samples if sample.pictures is not None]
    if pictures:
        renders = Renders(torch.from_numpy(np.stack(pictures)), tuple(sample.cameras for sample in samples))
    return Pack(
        torch.from_numpy(values),
        torch.from_numpy(coords),
        lengths,
        tuple(sample.item for sample in samples),
        tuple(sample.id for sample in samples),
        texts or None,
        renders,
    )


@lru_cache(maxsize=256)
def _raster(t: int, h: int, w: int) -> np.ndarray:
    return raster((t, h, w)).numpy()
