"""The ceiling: gives back what it gets, or the pipeline is wrong.

PSNR infinite (186.6 dB by TokenBench's formula), SSIM 1, LPIPS 0, rFID and rFVD 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.tokenizers.asset import AssetTokenizer, EncodedAsset, InputViews, Rendered
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.clip_blocks import nominal_tokens
from harness.tokenizers.video import EncodedPart, VideoTokenizer

if TYPE_CHECKING:
    from atoken.assets.cameras import Camera
    from atoken.assets.mesh import Mesh
    from harness.asset_views import Draw


class Identity(Tokenizer, VideoTokenizer, AssetTokenizer):
    """No compression at all, on any device and at any size; of a video it holds the block that passes."""

    card = TokenizerCard(
        name="identity",
        title="identity (ceiling)",
        modalities=("image", "video", "asset"),
        token_type="none",
        source="no model: the input itself",
    )

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def encode(
        self,
        images: Sequence[Tensor],
        *,
        latent: LatentMode,  # noqa: ARG002 - there is nothing to sample
        seeds: Sequence[int],  # noqa: ARG002
    ) -> Encoded:
        return Encoded(payload=list(images), tokens=[self.token_count(*x.shape[1:]) for x in images])

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return list(encoded.payload)

    def encode_clip(
        self,
        frames: Iterator[Tensor],
        shape: ClipShape,
        *,
        latent: LatentMode,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> Iterator[EncodedPart]:
        for block in frames:
            yield EncodedPart(payload=block, tokens=nominal_tokens(len(block), shape))

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:  # noqa: ARG002
        for part in parts:
            yield part.payload

    def encode_asset(
        self,
        mesh: Mesh,
        inputs: InputViews,
        *,
        latent: LatentMode,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> EncodedAsset:
        from atoken.assets.voxels import occupied_by_mesh

        # Nominal, one to a voxel of the 64^3 grid, as one to 16 x 16 pixels is of an image.
        return EncodedAsset(payload=(mesh, inputs.draw), tokens=len(occupied_by_mesh(mesh)))

    def decode_asset(self, encoded: EncodedAsset) -> Rendered:
        return _MeshPictures(*encoded.payload)


class _MeshPictures(Rendered):
    """The mesh itself, drawn as the originals are."""

    def __init__(self, mesh: Mesh, draw: Draw) -> None:
        self._mesh, self._draw = mesh, draw

    def render(self, camera: Camera, size: int) -> Tensor:
        return next(self.pictures([camera], size))

    def pictures(self, cameras: Sequence[Camera], size: int) -> Iterator[Tensor]:
        from harness.metrics.asset_base import premultiplied

        # All at once: Cycles starts a program for each call.
        for colours in self._draw(self._mesh, cameras, size).colours:
            yield premultiplied(colours, torch.device("cpu"))


def create(argument: str | None, *, device: str, dtype: str) -> Identity:  # noqa: ARG001
    """Factory of ``identity``; `dtype` moves nothing, since nothing is computed.

    Raises:
        BenchError: an argument is given.
    """
    if argument:
        raise BenchError(f"identity takes no argument, got {argument!r}")
    return Identity(device)
