"""The tokenizer: images, videos and 3D assets in, tokens, latents, codes, features, pixels and Gaussians out."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.assets.asset import VoxelFeatures
from atoken.assets.gaussians import Gaussians
from atoken.errors import InputError
from atoken.network import Network
from atoken.patches import Fit, Frames, Items, Output, Pixels, converter, pack_pixels, unpack_pixels
from atoken.search import check_search, search_codes
from atoken.space import SpaceTiles
from atoken.streaming import decode_stream, encode_stream
from atoken.tokens import Latents, SparseTokens

__all__ = ["AToken"]


class AToken(Network):
    """The whole tokenizer; loading, saving and the differentiable parts for training are `Network`'s.

    The methods here take lists of items, pack them into one sequence and compute without gradients;
    an item's result does not depend on the other items of the list.
    """

    @torch.no_grad()
    def encode(self, items: Items, *, fit: Fit = "pad", frames: Frames = "pad", search: int = 0) -> Latents:
        """Latents of images, videos and assets.

        Args:
            items: images [H, W, 3] or PIL, videos [T, H, W, 3]; uint8, or floats in [-1, 1]; and
                `Asset`s, mixed. `fit` and `frames` do nothing to assets.
            fit: "pad" reflects up to whole patches, "crop" centre-crops down to them.
            frames: "pad" keeps every frame, "drop" imitates the release.
            search: steps in which a quantized model looks for better codes than its encoder gives at once: the means
                that come back are on levels, and `quantize` gives their codes. See `atoken.search`.

        Returns:
            Means and log variances in float32, on the model's device.

        Raises:
            InputError: an item that is not such an array, or not finite and in range; a search by a continuous model.
        """
        check_search(self, search, None)
        tokens = self._pack(items, fit, frames)
        _, moments = self.forward_encoder(tokens)
        mean, logvar = moments.float().chunk(2, dim=-1)
        mean = search_codes(self, tokens, mean.contiguous(), search)
        return Latents(tokens.with_features(mean), logvar.contiguous())

    @torch.no_grad()
    def quantize(self, latents: Latents | SparseTokens) -> SparseTokens:
        """Integer codes [L, codebooks] int32 of latents (their mean, if a posterior is given).

        Raises:
            InputError: the model is continuous, or the tokens are codes already.
        """
        if self.quantizer is None:
            raise InputError(f"{self.config.name} is continuous: it has no codes; use so-d")
        tokens = latents.mean if isinstance(latents, Latents) else latents
        if tokens.is_codes:
            raise InputError("these tokens are codes already")
        return tokens.with_features(self.quantizer(tokens.features)[1])

    def decode(
        self,
        tokens: Latents | SparseTokens,
        *,
        output: Output = "uint8",
        stride_frames: int | None = None,
        cache_frames: int = 0,
    ) -> list[Any]:
        """What latents or codes were made of: pixels in the sizes that the items had, and assets.

        Args:
            tokens: `Latents` (their mean is decoded), a sample of them, or integer codes. A
                quantized model rounds any floating-point latents to codes first.
            output: "uint8" clamps and rounds to nearest; "float" gives float32, about [-1, 1],
                not clamped.
            stride_frames, cache_frames: as in `forward_decoder`.

        Returns:
            Arrays [H, W, 3] for images, [T, H, W, 3] for videos. For assets `Gaussians` in float32 where
            a Gaussian decoder is attached, else `VoxelFeatures` (in float32 whatever `output` says);
            both on the model's device. `decode_gaussians` and `decode_voxels` give one or the other.

        Raises:
            InputError: codes for a continuous model, tokens that are not whole items.
        """
        convert = converter(output)
        rebuilt = self._rebuilt(tokens, stride_frames, cache_frames)
        voxels = self._voxels(rebuilt)
        assets = iter(voxels if self.gaussian_decoder is None else self._gaussians(voxels))
        return [
            next(assets) if spec.kind == "asset" else convert(clip)[0] if spec.kind == "image" else convert(clip)
            for clip, spec in zip(unpack_pixels(rebuilt, self.config.patch), rebuilt.items, strict=True)
        ]

    def decode_pixels(
        self, tokens: Latents | SparseTokens, *, stride_frames: int | None = None, cache_frames: int = 0
    ) -> list[Tensor]:
        """`decode` on the device: per item [T, H, W, 3] float32, not clamped; T is 1 for images.

        For assets the features of `decode_voxels`.
        """
        return unpack_pixels(self._rebuilt(tokens, stride_frames, cache_frames), self.config.patch)

    def decode_voxels(self, tokens: Latents | SparseTokens) -> list[VoxelFeatures]:
        """What a Gaussian decoder takes, of the tokens of assets.

        Args:
            tokens: as in `decode`.

        Raises:
            InputError: as `decode`; an item that is no asset.
        """
        _demand_assets(tokens)
        return self._voxels(self._rebuilt(tokens))

    def decode_gaussians(self, tokens: Latents | SparseTokens) -> list[Gaussians]:
        """Gaussians of the tokens of assets; those of one voxel side by side, voxels in the tokens' order.

        The release rounds the decoded voxels to bfloat16 first, since its Gaussian decoder computes in that. Here
        they go on in the model's own dtype: the same in bfloat16, nothing lost in float32.

        Args:
            tokens: as in `decode`.

        Returns:
            Per asset L x 32 Gaussians in float32, in the cube [-0.5, 0.5]^3 with z up.

        Raises:
            InputError: as `decode`; an item that is no asset, or no Gaussian decoder is attached.
        """
        _demand_assets(tokens)
        if self.gaussian_decoder is None:
            raise InputError(
                f"{self.config.name} has no Gaussian decoder; load one with from_pretrained(..., gaussians=PATH)"
            )
        return self._gaussians(self._voxels(self._rebuilt(tokens)))

    @torch.no_grad()
    def embed(self, items: Items, *, fit: Fit = "pad", frames: Frames = "pad") -> Tensor:
        """One unit vector per item for comparison with text: [N, C] float32 (`image_feat`)."""
        tokens = self._pack(items, fit, frames)
        features, _ = self.forward_encoder(tokens)
        return F.normalize(self.pool(features, tokens.lengths).float(), dim=-1)

    @torch.no_grad()
    def features(self, items: Items, *, fit: Fit = "pad", frames: Frames = "pad") -> SparseTokens:
        """Dense encoder features [L, C] float32, before any projection (`x_no_proj`)."""
        tokens = self._pack(items, fit, frames)
        return tokens.with_features(self.forward_encoder(tokens)[0].float())

    # -- Videos of any length, as streams ----------------------------------------------------

    def encode_video(
        self,
        frames: Iterable[Pixels],
        *,
        fit: Fit = "pad",
        frames_rule: Frames = "pad",
        space: SpaceTiles | None = None,
        search: int = 0,
    ) -> Iterator[Latents]:
        """`encode` of one video of any length, holding no more than a temporal tile of it.

        Args:
            frames: any mix of frames [H, W, 3] and blocks of them [n, H, W, 3], of one size; uint8,
                or floats in [-1, 1]. Their number need not be known.
            fit, frames_rule: as `fit` and `frames` of `encode`.
            space: cut frames into these tiles too; changes the result, see `atoken.space`.
            search: as in `encode`; not together with `space`.

        Yields:
            Latents of each temporal tile once its frames are there: one item, whose t goes on from
            the part before. `join_video` makes one item of all.

        Raises:
            InputError: a search that `encode` would refuse, or with spatial tiles; on the way, a frame that `encode`
                would refuse or that has another size or type than the first, named by its number from 0; no frame at
                all.
        """
        return encode_stream(self, frames, fit=fit, frames_rule=frames_rule, space=space, search=search)

    def decode_video(
        self,
        parts: Iterable[Latents | SparseTokens],
        *,
        output: Output = "uint8",
        stride_frames: int | None = None,
        cache_frames: int = 0,
        space: SpaceTiles | None = None,
    ) -> Iterator[np.ndarray[Any, Any]]:
        """`decode` of one video of any length, holding a window of it and its cache.

        Args:
            parts: of `encode_video`, their codes or samples, in any cut along t; one item as [item].
            output, stride_frames, cache_frames: as in `decode`.
            space: decode in these spatial tiles and blend their pixels, see `atoken.space`.

        Yields:
            Blocks [n, H, W, 3] in order, each as soon as its window is complete.

        Raises:
            InputError: what `decode` refuses; on the way, parts that do not follow one another.
        """
        convert = converter(output)
        blocks = self.decode_video_pixels(parts, stride_frames=stride_frames, cache_frames=cache_frames, space=space)
        return map(convert, blocks)

    def decode_video_pixels(
        self,
        parts: Iterable[Latents | SparseTokens],
        *,
        stride_frames: int | None = None,
        cache_frames: int = 0,
        space: SpaceTiles | None = None,
    ) -> Iterator[Tensor]:
        """`decode_video` on the device: blocks [n, H, W, 3] float32, about [-1, 1], not clamped."""
        steps, cache = self.config.window_steps(stride_frames, cache_frames)
        return decode_stream(self, parts, stride_steps=steps, cache_steps=cache, space=space)

    def _pack(self, items: Items, fit: Fit, frames: Frames) -> SparseTokens:
        return pack_pixels(items, patch=self.config.patch, fit=fit, frames=frames, device=self.device)

    @torch.no_grad()
    def _rebuilt(
        self, tokens: Latents | SparseTokens, stride_frames: int | None = None, cache_frames: int = 0
    ) -> SparseTokens:
        tokens = self.decoder_input(tokens)
        rebuilt = self.forward_decoder(tokens, stride_frames=stride_frames, cache_frames=cache_frames)
        return tokens.with_features(rebuilt.float())

    def _voxels(self, rebuilt: SparseTokens) -> list[VoxelFeatures]:
        """The assets among decoded items."""
        items = zip(unpack_pixels(rebuilt, self.config.patch), rebuilt.split(), strict=True)
        return [VoxelFeatures(rows, item.coords[:, 1:]) for rows, item in items if item.items[0].kind == "asset"]

    @torch.no_grad()
    def _gaussians(self, assets: list[VoxelFeatures]) -> list[Gaussians]:
        decoder = self.gaussian_decoder
        if decoder is None or not assets:
            return []
        lengths = [len(asset) for asset in assets]
        voxels = torch.cat([asset.coords for asset in assets])
        raw = decoder(torch.cat([asset.features for asset in assets]), voxels, lengths).split_with_sizes(lengths)
        return [decoder.gaussians(rows, asset.coords) for rows, asset in zip(raw, assets, strict=True)]


def _demand_assets(tokens: Latents | SparseTokens) -> None:
    packed = tokens.mean if isinstance(tokens, Latents) else tokens
    # What is nothing of the kind is refused with everything else that cannot be decoded.
    for index, spec in enumerate(packed.items if isinstance(packed, SparseTokens) else ()):
        if spec.kind != "asset":
            raise InputError(f"item {index} is {spec.kind}, not asset; decode takes all kinds, take the assets apart")
