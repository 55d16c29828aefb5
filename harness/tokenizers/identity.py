"""The ceiling: gives back what it gets (PSNR infinite, SSIM 1, LPIPS 0, rFID 0 or the pipeline is wrong)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import BenchError
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard


class Identity(Tokenizer):
    """No compression at all, on any device and at any size."""

    card = TokenizerCard(
        name="identity",
        title="identity (ceiling)",
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


def create(argument: str | None, *, device: str, dtype: str) -> Identity:  # noqa: ARG001
    """Factory of ``identity``; `dtype` moves nothing, since nothing is computed.

    Raises:
        BenchError: an argument is given.
    """
    if argument:
        raise BenchError(f"identity takes no argument, got {argument!r}")
    return Identity(device)
