"""Any image tokenizer as a row among videos: each frame on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.data.prepare import to_unit_range
from harness.errors import BenchError
from harness.plan import sample_seed
from harness.tokenizers.base import LatentMode, Tokenizer
from harness.tokenizers.clip_blocks import BROKEN, first_frames, regrouped
from harness.tokenizers.video import EncodedPart, Frames, VideoTokenizer

# Tokens and frames that go through the image tokenizer together: one frame of 1080p or 16 of 256x256. Fixed, and
# counted from the clip's first frame, so that no way of cutting a clip into blocks moves a bit.
BATCH_TOKENS = 4096
BATCH_FRAMES = 16


class FrameByFrame(VideoTokenizer):
    """An image tokenizer on the frames of a clip, in batches of at most `BATCH_TOKENS`.

    Holds one batch, 24 bytes a pixel of it before and after beside what the tokenizer itself needs (a frame of
    1080p: 50 MB). A sampled latent draws each frame from a seed of its own, derived from the clip's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.needs_prepare = tokenizer.needs_prepare
        self._take_card()

    def _take_card(self) -> None:
        card = self._tokenizer.card
        _, rows, columns = card.tile
        self.card = replace(
            card,
            name=f"{card.name}-frames",
            title=f"{card.title}, frame by frame",
            modalities=("video",),
            compression=None if card.compression is None else (1, *card.compression[1:]),
            frames=(1, 0),
            tile=(1, rows, columns),
            # Two papers' rows may share a name: this is not how the paper ran any model on videos.
            paper_row=None,
        )

    @property
    def device(self) -> torch.device:
        return self._tokenizer.device

    def prepare_clips(self, clips: Sequence[tuple[ClipShape, Frames]]) -> None:
        """Let the image tokenizer look at all frames; a clip that breaks is left out from there on."""
        self._tokenizer.prepare(_all_frames(clips))
        self._take_card()

    def restore(self, settings: Mapping[str, Any]) -> None:
        self._tokenizer.restore(settings)
        self._take_card()

    def encode_clip(
        self, frames: Iterator[Tensor], shape: ClipShape, *, latent: LatentMode, seed: int
    ) -> Iterator[EncodedPart]:
        each = self._tokenizer.token_count(shape.height, shape.width)
        size = min(BATCH_FRAMES, max(1, BATCH_TOKENS // each))
        count = 0
        for block in regrouped(frames, size):
            images = list(to_unit_range(block.permute(0, 3, 1, 2)))
            seeds = [sample_seed(seed, f"frame {count + index}") for index in range(len(images))]
            encoded = self._tokenizer.encode(images, latent=latent, seeds=seeds)
            count += len(images)
            yield EncodedPart(
                payload=encoded,
                tokens=sum(encoded.tokens),
                bits=None if encoded.bits is None else sum(encoded.bits),
                codes=None if encoded.codes is None else torch.cat(list(encoded.codes)),
            )

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:  # noqa: ARG002
        for part in parts:
            yield torch.stack(self._tokenizer.decode(part.payload)).permute(0, 2, 3, 1)


def _all_frames(clips: Sequence[tuple[ClipShape, Frames]]) -> Iterator[np.ndarray]:
    for _, opened in clips:
        try:
            yield from first_frames(opened)
        except BROKEN:
            continue


def create(argument: str | None, *, device: str, dtype: str) -> FrameByFrame:
    """Factory of ``frames:SPEC``: a tokenizer that could take whole clips, on single frames all the same.

    Image tokenizers alone need no such word: they are run frame by frame wherever videos are measured.

    Raises:
        BenchError: no SPEC, or one of a tokenizer that takes no images.
    """
    from harness import registry  # the registry knows this module by its entry point, and is not needed by the class

    if argument is None:
        raise BenchError("frames needs a tokenizer: frames:SPEC, for example frames:atoken:atoken-nano")
    tokenizer = registry.create_tokenizer(argument, ckpt=None, preset=None, device=device, dtype=dtype)
    if not isinstance(tokenizer, Tokenizer):
        raise BenchError(f"frames:{argument}: {tokenizer.card.name} takes no images")
    return FrameByFrame(tokenizer)
