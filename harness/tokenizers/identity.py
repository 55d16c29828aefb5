"""The ceiling: gives back what it gets (PSNR infinite, SSIM 1, LPIPS 0, rFID and rFVD 0, or the pipeline is wrong)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.clip_blocks import nominal_tokens
from harness.tokenizers.video import EncodedPart, VideoTokenizer


class Identity(Tokenizer, VideoTokenizer):
    """No compression at all, on any device and at any size; of a video it holds the block that passes."""

    card = TokenizerCard(
        name="identity",
        title="identity (ceiling)",
        modalities=("image", "video"),
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


def create(argument: str | None, *, device: str, dtype: str) -> Identity:  # noqa: ARG001
    """Factory of ``identity``; `dtype` moves nothing, since nothing is computed.

    Raises:
        BenchError: an argument is given.
    """
    if argument:
        raise BenchError(f"identity takes no argument, got {argument!r}")
    return Identity(device)
