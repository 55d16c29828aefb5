"""Matrix FLOPs of training, from the model's shapes: what a product of [m, k] and [k, n] costs is 2 m k n.

Counted are linear layers and attention; norms, activations, rotary positions, losses and the rasteriser are not, nor
are frozen networks (teacher, text tower, perceptual trunks). Attention is full inside a segment (an item's temporal
tile), so it grows with the square of a segment's length.

A backward pass costs twice its forward pass: a gradient for each side of every product. Pixels need none, so the
first layer costs once. Fused attention kernels compute the scores again on the way back, 5 products instead of 4; as
is the custom (MFU), that is not counted. Recomputation of blocks is, apart.

Shape legend: L tokens, C width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from atoken.config import ATokenConfig, TransformerConfig

if TYPE_CHECKING:  # a plan is made of shapes alone, without torch
    from torch import Tensor

    from atoken.tokenizer import AToken
    from atoken.tokens import ItemSpec
    from atoken.training.data import Pack

__all__ = [
    "PEAKS",
    "Flops",
    "Load",
    "VoxelLoad",
    "align_flops",
    "gaussian_flops",
    "reconstruct_flops",
    "segments_of",
    "step_flops",
]


PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""FLOP/s in dense bfloat16 of devices by a part of their name, from NVIDIA's data sheets (SXM)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the cost of a pack depends on; whole numbers of a pack, means of an expected one.

    Attributes:
        items: of the pack.
        tokens: L.
        pairs: of a query and a key that see each other: segments' lengths squared, summed.
    """

    items: float
    tokens: float
    pairs: float

    @classmethod
    def of(cls, segments: Sequence[int], items: int) -> Load:
        """From the length of each segment."""
        return cls(items, sum(segments), sum(length**2 for length in segments))

    def __mul__(self, times: float) -> Load:
        """So many such packs."""
        return Load(self.items * times, self.tokens * times, self.pairs * times)


@dataclass(frozen=True, slots=True)
class VoxelLoad:
    """What the Gaussian decoder's cost depends on.

    Attributes:
        voxels: L.
        pairs: of voxels that see each other, in even and in odd blocks, whose windows are cut differently.
    """

    voxels: float
    pairs: tuple[float, float]

    @classmethod
    def of(cls, voxels: Tensor, items: Tensor, window: int) -> VoxelLoad:
        """From voxels [L, 3] int64 and the item of each [L] int64, cut as the decoder cuts them (`Windows`)."""
        import torch

        pairs = []
        for shift in (0, window // 2):
            cubes = (voxels + shift) // window
            # One number for each cube: many times as fast as looking for rows that are equal.
            side = int(cubes.max()) + 1
            number = ((items * side + cubes[:, 0]) * side + cubes[:, 1]) * side + cubes[:, 2]
            _, counts = torch.unique(number, return_counts=True)
            pairs.append(int(counts.square().sum()))
        return cls(len(voxels), (pairs[0], pairs[1]))

    def __mul__(self, times: float) -> VoxelLoad:
        """So many such packs."""
        return VoxelLoad(self.voxels * times, (self.pairs[0] * times, self.pairs[1] * times))


@dataclass(frozen=True, slots=True)
class Flops:
    """Of a step or a part of one.

    Attributes:
        forward, backward: without recomputation.
        again: forward passes of blocks that a backward pass computes once more.
    """

    forward: float
    backward: float
    again: float = 0

    def __add__(self, other: Flops) -> Flops:
        """The sum of two parts."""
        return Flops(self.forward + other.forward, self.backward + other.backward, self.again + other.again)

    @property
    def model(self) -> float:
        """What MFU counts."""
        return self.forward + self.backward

    @property
    def total(self) -> float:
        """What the device computes."""
        return self.model + self.again


class GaussianShape(Protocol):
    """What a Gaussian decoder's cost depends on: its config, or the recipe's part."""

    @property
    def width(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def mlp(self) -> int: ...
    @property
    def gaussians(self) -> int: ...


def step_flops(model: AToken, pack: Pack, *, recompute: bool) -> float:
    """What one forward and backward pass over a pack costs, recomputation included.

    A pack with texts is aligned, one with renders goes on through the Gaussian decoder. A tokenizer that is not trained
    costs its forward pass.
    """
    load = Load.of(segments_of(pack.items, model.config), len(pack.items))
    if pack.texts is not None:
        return align_flops(model.config, load, recompute=recompute).total
    flops = reconstruct_flops(model.config, load, recompute=recompute)
    if not model.decoder.out_layer.weight.requires_grad:
        flops = Flops(flops.forward, 0)
    if pack.renders is not None and model.gaussian_decoder is not None:
        import torch

        config = model.gaussian_decoder.config
        items = torch.repeat_interleave(torch.arange(len(pack.items)), torch.tensor(list(pack.lengths)))
        voxels = VoxelLoad.of(pack.coords[:, 1:].cpu().long(), items, config.window)
        flops += gaussian_flops(config, config.channels, voxels, recompute=recompute)
    return flops.total


def segments_of(items: Iterable[ItemSpec], config: ATokenConfig) -> list[int]:
    """Tokens of each temporal tile of each item, in the order of a pack."""
    segments = []
    for item in items:
        if item.kind == "asset":
            segments.append(item.voxels)
            continue
        steps, rows, columns = item.grid(config.patch)
        whole, rest = divmod(steps, config.tile_steps)
        segments += [config.tile_steps * rows * columns] * whole + ([rest * rows * columns] if rest else [])
    return segments


def align_flops(config: ATokenConfig, load: Load, *, recompute: bool) -> Flops:
    """Encoder, projection (computed, but without a gradient) and pooling head."""
    half = config.encoder
    width, hidden = half.width, half.mlp
    pooled = (
        _linear(1, width, width)  # the probe, once for all items
        + _linear(load.tokens, width, 2 * width)
        + 4 * load.tokens * width  # its attention: one query an item
        + _linear(load.items, width, width)
        + 2 * _linear(load.items, width, hidden)
    )
    projection = _linear(load.tokens, width, 2 * config.latent_channels)
    encoder = _encoder(config, load, recompute=recompute)
    return encoder + Flops(projection, 0) + Flops(pooled, 2 * pooled)


def reconstruct_flops(config: ATokenConfig, load: Load, *, recompute: bool) -> Flops:
    """Encoder, projection and decoder; `gaussian_flops` come on top where assets are drawn."""
    projection = _linear(load.tokens, config.encoder.width, 2 * config.latent_channels)
    half = config.decoder
    ends = _linear(load.tokens, config.latent_channels, half.width)
    ends += _linear(load.tokens, half.width, config.token_channels)
    blocks = _blocks(half, load.tokens, load.pairs)
    decoder = _trained(projection + ends, blocks, recompute=recompute)
    return _encoder(config, load, recompute=recompute) + decoder


def gaussian_flops(config: GaussianShape, channels: int, load: VoxelLoad, *, recompute: bool) -> Flops:
    """The Gaussian decoder, which takes so many channels of a voxel."""
    ends = _linear(load.voxels, channels, config.width)
    ends += _linear(load.voxels, config.width, 14 * config.gaussians)
    linear = load.voxels * config.blocks * _block_linear(config.width, config.mlp)
    even, odd = load.pairs
    pairs = -(-config.blocks // 2) * even + config.blocks // 2 * odd
    return _trained(ends, linear + 4 * pairs * config.width, recompute=recompute)


def _encoder(config: ATokenConfig, load: Load, *, recompute: bool) -> Flops:
    first = _linear(load.tokens, config.token_channels, config.encoder.width)
    blocks = _blocks(config.encoder, load.tokens, load.pairs)
    return Flops(first, first) + _trained(0, blocks, recompute=recompute)


def _trained(ends: float, blocks: float, *, recompute: bool) -> Flops:
    return Flops(ends + blocks, 2 * (ends + blocks), blocks if recompute else 0)


def _blocks(half: TransformerConfig, tokens: float, pairs: float) -> float:
    """Forward pass of all blocks: scores, and their sums of values, are a product each."""
    return half.blocks * (tokens * _block_linear(half.width, half.mlp) + 4 * pairs * half.width)


def _block_linear(width: int, hidden: int) -> int:
    """Of one token: queries, keys and values, output, and the two layers of the MLP."""
    return 2 * width * (4 * width + 2 * hidden)


def _linear(rows: float, inputs: int, outputs: int) -> float:
    return 2 * rows * inputs * outputs
