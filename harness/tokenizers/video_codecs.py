"""H.264 and AV1 as reference rows: at a constant rate factor (``h264:23``) or at a rate (``av1@0.09375`` bit/pixel).

A codec is measured like any tokenizer: 8-bit RGB goes in, the sizes of the packets are the rate, the decoded
stream is the reconstruction. At a rate, one factor serves the whole set: the one of the highest quality whose
mean rate over the clips does not exceed the target, as ``jpeg@BPP`` does for images.

Frames stream: the encoders look ahead by 42 frames (H.264) and 75 (AV1), which is what they hold. At 1920x1080 that
and the decoder are 0.4 GB and 0.8 GB, whatever the length of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.tokenizers.arguments import bits_per_pixel
from harness.tokenizers.base import LatentMode, TokenizerCard
from harness.tokenizers.clip_blocks import BROKEN, first_frames, nominal_tokens
from harness.tokenizers.codecs import largest_within
from harness.tokenizers.video import EncodedPart, Frames, VideoTokenizer
from harness.tokenizers.video_formats import AV1, H264, VideoFormat

# Pixels that a search encodes at each of the seven or eight factors that it tries: some 500 frames of 1080p, half
# a minute of one core. A set with more is searched on an even selection.
SEARCH_PIXELS = 2**30
# Fewer frames of a clip would say little: the first one takes the bits of many.
SEARCH_FRAMES = 48


class VideoCodec(VideoTokenizer):
    """A video format behind the adapter contract.

    Args:
        crf: the encoder's constant rate factor, or None to search it for `target`.
        target: mean bits per pixel over the clips, not to be exceeded.
    """

    def __init__(self, form: VideoFormat, *, crf: float | None = None, target: float | None = None) -> None:
        if (crf is None) == (target is None):
            raise ValueError("give either a rate factor or a target")
        self._format = form
        self._crf = crf
        self._target = target
        self.needs_prepare = crf is None
        rate = {"crf": crf} if target is None else {"target_bits_per_pixel": target}
        self.card = TokenizerCard(
            name=f"{form.name}-crf{crf:g}" if target is None else f"{form.name}-{target:g}bpp",
            title=f"{form.title}, CRF {crf:g}" if target is None else f"{form.title}, {target:g} bit/pixel",
            modalities=("video",),
            token_type="codec",
            source="video codec; the encoder is in the settings",
            settings={**form.settings(), **rate},
        )

    def prepare_clips(self, clips: Sequence[tuple[ClipShape, Frames]]) -> None:
        """Search the rate factor for the target rate and put it, and on what it was searched, in the card.

        Each probe opens the clips anew, so that no frames are kept. A clip that breaks is left out here; the run
        names it when its turn comes.

        Raises:
            BenchError: no frames, or even the lowest quality needs more than the target.
        """
        if self._target is None:
            return
        chosen, most = selection(clips)
        counts: list[int] = []

        @cache
        def rate(quality: int) -> float:
            measured = [_measure(self._format, self._format.crfs[quality], *clip, most) for clip in chosen]
            found = [(frames, bits) for frames, bits in measured if frames]
            if not found:
                raise BenchError(f"{self._format.name}@{self._target:g}: no clip to search the rate factor on")
            counts[:] = [frames for frames, _ in found]
            return float(np.mean([bits for _, bits in found]))

        factors = self._format.crfs
        if rate(0) > self._target:
            raise BenchError(
                f"{self._format.name}@{self._target:g}: even CRF {factors[0]:g} takes {rate(0):.4g} bit/pixel "
                "on these clips; ask for at least that"
            )
        quality, achieved = largest_within(rate, self._target, 0, len(factors) - 1)
        found = {
            "crf": factors[quality],
            "searched_bits_per_pixel": achieved,
            "searched_on": f"{len(counts)} of {len(clips)} clips, {sum(counts)} frames (at most {most} of each)",
        }
        self.restore({**self.card.settings, **found})

    def restore(self, settings: Mapping[str, Any]) -> None:
        self._crf = float(settings["crf"])
        self.card = replace(self.card, settings=dict(settings))

    def encode_clip(
        self,
        frames: Iterator[Tensor],
        shape: ClipShape,
        *,
        latent: LatentMode,  # noqa: ARG002 - a codec has nothing to sample
        seed: int,  # noqa: ARG002
    ) -> Iterator[EncodedPart]:
        if self._crf is None:
            raise BenchError(f"{self.card.name}: the rate factor is not known before prepare_clips() has seen the set")
        pixels = (frame for block in frames for frame in block.cpu().numpy())
        for packet in self._format.encode(pixels, shape, self._crf):
            yield EncodedPart(payload=packet, tokens=nominal_tokens(1, shape), bits=8.0 * len(packet))

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:
        for pixels in self._format.decode((part.payload for part in parts), shape):
            yield torch.from_numpy(np.ascontiguousarray(pixels))[None]


def selection(clips: Sequence[tuple[ClipShape, Frames]]) -> tuple[list[tuple[ClipShape, Frames]], int]:
    """Clips evenly taken from all of them, and how many frames of each: at most `SEARCH_PIXELS` in all.

    All clips where `SEARCH_FRAMES` of each fit, with as many frames as do; else as many clips as do.
    """
    for count in range(len(clips), 0, -1):
        chosen = [clips[index * len(clips) // count] for index in range(count)]
        most = SEARCH_PIXELS // sum(shape.height * shape.width for shape, _ in chosen)
        if most >= SEARCH_FRAMES or count == 1:
            return chosen, max(1, most)
    return [], 0


def _measure(form: VideoFormat, crf: float, shape: ClipShape, frames: Frames, most: int) -> tuple[int, float]:
    """How many frames were encoded, at most `most`, and the bits per pixel they took; none where the clip breaks."""
    counted = 0

    def counting() -> Iterator[np.ndarray]:
        nonlocal counted
        for pixels in first_frames(frames, most):
            counted += 1
            yield pixels

    try:
        bits = 8 * sum(map(len, form.encode(counting(), shape, crf)))
    except BROKEN:
        return 0, 0.0
    return counted, bits / max(1, counted * shape.height * shape.width)


def _create(form: VideoFormat, argument: str | None) -> VideoCodec:
    if argument is not None and argument.startswith("@"):
        return VideoCodec(form, target=bits_per_pixel(form.name, argument))
    try:
        crf = float(argument or "")
    except ValueError:
        crf = math.nan
    if crf not in form.crfs:
        given = f"{form.name}:{argument}" if argument else form.name
        worst, next_worst, *_, best = form.crfs
        raise BenchError(
            f"{given}: give the constant rate factor as {form.name}:CRF with CRF from {best:g} to {worst:g} in steps "
            f"of {worst - next_worst:g}, or a rate as {form.name}@BPP"
        )
    return VideoCodec(form, crf=crf)


def create_h264(argument: str | None, *, device: str, dtype: str) -> VideoCodec:  # noqa: ARG001
    """Factory of ``h264:CRF`` and ``h264@BPP``. Codecs work in 8 bit on the CPU whatever the run's device.

    Raises:
        BenchError: no factor or rate, one out of range, or a PyAV without libx264.
    """
    return _create(H264, argument)


def create_av1(argument: str | None, *, device: str, dtype: str) -> VideoCodec:  # noqa: ARG001
    """Factory of ``av1:CRF`` and ``av1@BPP``, as `create_h264`, with SVT-AV1."""
    return _create(AV1, argument)
