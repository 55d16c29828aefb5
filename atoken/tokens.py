"""Sparse 4D tokens: the paper's {(z_i, p_i)} (section 3.1), several items packed one after another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from numbers import Integral
from operator import index
from typing import Literal

import torch
from torch import Tensor

from atoken.errors import InputError

__all__ = ["VOXEL_GRID", "ItemSpec", "Kind", "Latents", "PosteriorSampler", "SparseTokens"]

NOISE_BLOCK = 16
"""torch's CPU generator makes normal numbers sixteen at a time; whole blocks can be drawn piece by piece."""

VOXEL_GRID = 64
"""Voxels of an asset along each axis of its unit cube."""

_ASSET_SIZES = (1, VOXEL_GRID, VOXEL_GRID, 1, VOXEL_GRID, VOXEL_GRID, 0, 0)

Kind = Literal["image", "video", "asset"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemSpec:
    """What an item was before it became tokens, and the part of it that decoding gives back.

    `frames`, `height`, `width` are the size as it came in. Decoding gives `out_frames` frames of
    `out_height` x `out_width`; where the item was cropped, that region starts at row `top` and
    column `left` of the input. `out_frames` exceeds `frames` only if the caller imitates the
    release, which returns short videos longer than they came.

    An asset has `voxels`, a token each, anywhere in its grid: `height` and `width` are that grid's
    sides and `frames` is 1 (`of_voxels`). Images and videos have no voxels.
    """

    kind: Kind
    frames: int
    height: int
    width: int
    out_frames: int
    out_height: int
    out_width: int
    top: int = 0
    left: int = 0
    voxels: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("image", "video", "asset"):
            raise InputError(f"item kind must be 'image', 'video' or 'asset', got {self.kind!r}")
        sizes = (self.frames, self.height, self.width, self.out_frames, self.out_height)
        if min(*sizes, self.out_width) < 1 or min(self.top, self.left) < 0:
            raise InputError(f"item sizes must be positive and offsets not negative, got {self}")
        if self.kind == "image" and (self.frames, self.out_frames) != (1, 1):
            raise InputError(f"an image has one frame, got {self.frames} (out {self.out_frames})")
        if self.kind != "asset":
            if self.voxels:
                raise InputError(f"only assets have voxels, not a {self.kind} ({self.voxels})")
        elif not 1 <= self.voxels <= VOXEL_GRID**3 or (*sizes, self.out_width, self.top, self.left) != _ASSET_SIZES:
            raise InputError(f"an asset has 1 to {VOXEL_GRID}^3 voxels in a grid of {VOXEL_GRID}^3, got {self}")

    @classmethod
    def of_voxels(cls, voxels: int) -> "ItemSpec":
        """An asset of that many voxels."""
        side = VOXEL_GRID
        return cls(
            kind="asset",
            frames=1,
            height=side,
            width=side,
            out_frames=1,
            out_height=side,
            out_width=side,
            voxels=voxels,
        )

    def tokens(self, patch: tuple[int, int, int]) -> int:
        """How many tokens the item has."""
        return self.voxels if self.kind == "asset" else prod(self.grid(patch))

    def grid(self, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens along (t, row, column) of an image or video.

        Raises:
            InputError: an asset, whose tokens lie anywhere in its cube.
        """
        if self.kind == "asset":
            raise InputError("an asset has voxels, no raster of frames, rows and columns; use encode and decode")
        out = (self.out_frames, self.out_height, self.out_width)
        t, h, w = (-(-size // step) for size, step in zip(out, patch, strict=True))
        return t, h, w


@dataclass(frozen=True, eq=False)
class SparseTokens:
    """Features at 4D positions.

    Attributes:
        features: [L, C], floating point (pixels, latents, features) or integer (codes).
        coords: [L, 4] int32, (t, x, y, z) with x = row and y = column of the token grid, none
            negative; of assets (x, y, z) is the voxel. Inside an item t never falls from one token
            to the next.
        lengths: tokens of each item; item i owns the rows after those of items 0..i-1.
        items: one spec per item.

    Raises:
        InputError: the parts do not fit together.
    """

    features: Tensor
    coords: Tensor
    lengths: tuple[int, ...]
    items: tuple[ItemSpec, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(self.lengths))
        object.__setattr__(self, "items", tuple(self.items))
        rows = sum(self.lengths)
        if self.features.ndim != 2 or self.features.shape[0] != rows:
            raise InputError(f"features must be [{rows}, C] (the sum of lengths), got {list(self.features.shape)}")
        if tuple(self.coords.shape) != (rows, 4) or self.coords.dtype != torch.int32:
            raise InputError(f"coords must be [{rows}, 4] int32, got {list(self.coords.shape)} {self.coords.dtype}")
        if self.coords.device != self.features.device:
            raise InputError(
                f"features lie on {self.features.device}, coords on {self.coords.device}; move both with .to(device)"
            )
        if len(self.lengths) != len(self.items):
            raise InputError(f"{len(self.lengths)} lengths for {len(self.items)} items")
        if not self.lengths or min(self.lengths) < 1:
            raise InputError("there must be at least one item and every item needs a token")

    def __len__(self) -> int:
        """Number of items."""
        return len(self.lengths)

    @property
    def is_codes(self) -> bool:
        """Whether the features are integer codes."""
        return not self.features.dtype.is_floating_point

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SparseTokens":
        """Move features and coords; `dtype` applies to floating-point features only."""
        features = self.features.to(device=device, dtype=None if self.is_codes else dtype)
        return replace(self, features=features, coords=self.coords.to(device=device))

    def with_features(self, features: Tensor) -> "SparseTokens":
        """The same positions with other features [L, any]."""
        return replace(self, features=features)

    def split(self) -> list["SparseTokens"]:
        """One `SparseTokens` per item, views of this one."""
        features = self.features.split_with_sizes(self.lengths)
        coords = self.coords.split_with_sizes(self.lengths)
        return [
            SparseTokens(f, c, (n,), (spec,))
            for f, c, n, spec in zip(features, coords, self.lengths, self.items, strict=True)
        ]

    @staticmethod
    def cat(parts: Sequence["SparseTokens"]) -> "SparseTokens":
        """Pack the items of all parts, in order. Inverse of `split`."""
        if not parts:
            raise InputError("nothing to pack: the list of tokens is empty")
        widths = sorted({p.features.shape[1] for p in parts})
        if len(widths) > 1 or len({p.is_codes for p in parts}) > 1:
            raise InputError(f"cannot pack tokens of unlike kinds (channels {widths})")
        return SparseTokens(
            torch.cat([p.features for p in parts]),
            torch.cat([p.coords for p in parts]),
            tuple(n for p in parts for n in p.lengths),
            tuple(spec for p in parts for spec in p.items),
        )


@dataclass(frozen=True, eq=False)
class Latents:
    """The posterior of the encoder: a diagonal Gaussian per token (paper 3.2, FACTS section 7).

    Attributes:
        mean: tokens with float32 features [L, latent_channels].
        logvar: [L, latent_channels] float32, not clamped.
    """

    mean: SparseTokens
    logvar: Tensor

    def __post_init__(self) -> None:
        if self.logvar.shape != self.mean.features.shape:
            raise InputError(
                f"logvar {list(self.logvar.shape)} must have the shape of the mean {list(self.mean.features.shape)}"
            )

    def __len__(self) -> int:
        """Number of items."""
        return len(self.mean)

    @property
    def std(self) -> Tensor:
        """Standard deviation [L, latent_channels]."""
        return torch.exp(0.5 * self.logvar)

    @property
    def kl_per_token(self) -> Tensor:
        """KL divergence to the unit Gaussian, summed over channels: [L], in nats."""
        mean = self.mean.features
        return 0.5 * (mean.square() + self.logvar.exp() - 1.0 - self.logvar).sum(dim=-1)

    def sample(self, seed: int | Sequence[int]) -> SparseTokens:
        """mean + std * noise, reproducible per item.

        Each item draws from a CPU generator of its own, so that neither batch mates, nor its place
        in the batch, nor the device change its noise.

        Args:
            seed: one seed used for every item, or one per item.

        Raises:
            InputError: a seed that is no whole number, or as many seeds as items were not given.
        """
        try:
            # Integral and index: numpy's integers are seeds too.
            seeds = [int(index(s)) for s in ([seed] * len(self) if isinstance(seed, int | Integral) else seed)]
        except TypeError:
            raise InputError(f"a seed must be a whole number, or one for each item, got {seed!r}") from None
        if len(seeds) != len(self):
            raise InputError(f"{len(seeds)} seeds for {len(self)} items; give one, or one each")
        channels = self.logvar.shape[1]
        samplers = map(PosteriorSampler, seeds)
        return self._shaken(torch.cat([s.noise(n, channels) for s, n in zip(samplers, self.mean.lengths, strict=True)]))

    def _shaken(self, noise: Tensor) -> SparseTokens:
        noise = noise.to(device=self.logvar.device, dtype=self.logvar.dtype)
        return self.mean.with_features(torch.addcmul(self.mean.features, self.std, noise))

    def to(self, device: torch.device | str | None = None) -> "Latents":
        """Move mean and logvar."""
        return Latents(self.mean.to(device), self.logvar.to(device=device))

    def split(self) -> list["Latents"]:
        """One `Latents` per item, views of this one."""
        logvars = self.logvar.split_with_sizes(self.mean.lengths)
        return [Latents(m, v) for m, v in zip(self.mean.split(), logvars, strict=True)]

    @staticmethod
    def cat(parts: Sequence["Latents"]) -> "Latents":
        """Pack the items of all parts, in order. Inverse of `split`."""
        return Latents(SparseTokens.cat([p.mean for p in parts]), torch.cat([p.logvar for p in parts]))


class PosteriorSampler:
    """`Latents.sample` for an item that arrives in parts: the same seed gives the same numbers.

    The item's noise is one row of numbers, of which each call takes the next; so a video's sample
    does not depend on how its latents are cut.
    """

    def __init__(self, seed: int) -> None:
        """One sampler serves one item; `seed` as in `Latents.sample`."""
        self._generator = torch.Generator().manual_seed(int(index(seed)))
        self._rest = torch.empty(0)

    def sample(self, part: Latents) -> SparseTokens:
        """mean + std * noise of the item's next tokens.

        Raises:
            InputError: several items; each needs a sampler of its own.
        """
        if len(part) != 1:
            raise InputError(f"a sampler serves one item, these are {len(part)}; use Latents.sample(seeds)")
        return part._shaken(self.noise(*part.logvar.shape))

    def noise(self, rows: int, channels: int) -> Tensor:
        """The next standard normal numbers [rows, channels], float32 on the CPU."""
        missing = rows * channels - self._rest.numel()
        fresh = torch.randn(-(-max(missing, 0) // NOISE_BLOCK) * NOISE_BLOCK, generator=self._generator)
        # No copy where a part uses up its blocks, as it does with 32 and 48 channels.
        drawn = torch.cat([self._rest, fresh]) if self._rest.numel() else fresh
        self._rest = drawn[rows * channels :].clone()
        return drawn[: rows * channels].view(rows, channels)
