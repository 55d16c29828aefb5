"""One clip through a tokenizer, as a stream of frames before and after."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from harness.clip_feed import ClipFeed
from harness.data.base import Clip, ClipShape, Sample, SampleError
from harness.data.clips import prepared_blocks
from harness.data.prepare import Pipeline, eight_bit
from harness.errors import BenchError
from harness.metrics.clip_base import ClipTotals
from harness.plan import sample_seed
from harness.protocol import Protocol
from harness.shards import Row
from harness.tokenizers.video import EncodedPart, VideoTokenizer

T = TypeVar("T")

BLOCK = 16
"""Frames that are decoded together: a temporal tile of AToken."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Consecutive frames before and after, uint8 ``[n, H, W, 3]`` on the run's device."""

    reference: Tensor
    reconstruction: Tensor


class _Watch:
    """Seconds spent inside an iterator, with what the device was given to do there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    def over(self, items: Iterator[T]) -> Iterator[T]:
        while True:
            start = self._now()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += self._now() - start
            yield item

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class ClipReconstruction:
    """A clip, opened and on its way through a tokenizer.

    `pairs` may be called once. What is known of the whole clip (`row`, `totals`) is right once it has ended.

    Attributes:
        shape: of the frames as the protocol prepared them.
        frames: measured so far.

    Raises:
        SampleError: no frame of it can be read.
    """

    def __init__(
        self, clip: Clip, sample: Sample, tokenizer: VideoTokenizer, protocol: Protocol, device: torch.device
    ) -> None:
        assert protocol.clip is not None  # `ClipWork` has looked
        self._clip, self.sample = clip, sample
        self._tokenizer, self._protocol, self._device = tokenizer, protocol, device
        self._tokens, self._bits, self._rated = 0, 0.0, True
        self._codes: list[Tensor] = []
        self.frames = 0
        self._reading, self._encoding, self._decoding = (_Watch(tokenizer.device) for _ in range(3))
        self._blocks = named_blocks(clip, sample, protocol)
        first = next(self._blocks, None)
        if first is None:
            raise SampleError(sample.id, "holds no frame")
        self.shape = self._padded = ClipShape(height=first.shape[1], width=first.shape[2], rate=clip.shape.rate)
        self._feed = ClipFeed(chain((first,), self._blocks), protocol.clip.frames, tokenizer.card.frames)

    def pairs(self) -> Generator[Pair, None, None]:
        """Frames before and after, in order, as the tokenizer gives them; only those that are measured.

        Raises:
            SampleError: the file breaks, the tokenizer cannot take the clip, or it is too short for the protocol.
            BenchError: the tokenizer breaks its contract (NaN, wrong size or number of frames).
        """
        with closing(self._blocks):
            try:
                yield from self._pairs()
            except InputError as error:
                raise SampleError(self.sample.id, str(error)) from error
        if not self.frames:
            raise SampleError(
                self.sample.id, f"has fewer than the 4 frames that protocol {self._protocol.name} cuts clips to"
            )

    def _pairs(self) -> Iterator[Pair]:
        card = self._tokenizer.card
        height, width = self.shape.height, self.shape.width
        rows, columns = (_reflected(n, m) for n, m in zip((height, width), card.multiple, strict=True))
        padded = self._padded = replace(self.shape, height=len(rows), width=len(columns))
        fed = self._reading.over(self._feed)
        first = next(fed, None)
        if first is None:
            return  # too short for the protocol's frame rule
        inputs = (self._input(block, rows, columns) for block in chain((first,), fed))
        # A tokenizer without a posterior has no sample to give: its only latent is what `mean` asks for.
        latent = self._protocol.latent if self._protocol.latent in card.latent_modes else "mean"
        seed = sample_seed(self._protocol.seed, self.sample.id)
        parts = self._tokenizer.encode_clip(inputs, padded, latent=latent, seed=seed)
        outputs = self._tokenizer.decode_clip(self._counted(self._encoding.over(parts)), padded)
        came = 0
        for output in self._decoding.over(outputs):
            self._check(output, padded)
            if not len(output):
                continue
            came += len(output)
            try:
                reference = self._feed.take(len(output))
            except ValueError as error:
                raise BenchError(f"{card.name}: {self.sample.id}: {error}; the adapter is wrong") from None
            if len(reference):
                self.frames += len(reference)
                cut = output[: len(reference), :height, :width].to(self._device)
                levels = cut if cut.dtype == torch.uint8 else eight_bit(cut, self._protocol.eight_bit)
                yield Pair(_tensor(reference).to(self._device), levels)
        if came != self._feed.given:
            raise BenchError(
                f"{card.name}: {self.sample.id} went in with {self._feed.given} frames and came back with {came}; "
                "the adapter is wrong"
            )

    def _input(self, block: np.ndarray, rows: list[int], columns: list[int]) -> Tensor:
        """`block` on the tokenizer's device, its sides a multiple of what the card asks for, by reflection."""
        if len(rows) > block.shape[1]:
            block = block[:, rows]
        if len(columns) > block.shape[2]:
            block = block[:, :, columns]
        # A copy: a tokenizer that works in place must not write into what it is measured against.
        return _tensor(block).to(self._tokenizer.device, copy=True)

    def _counted(self, parts: Iterator[EncodedPart]) -> Iterator[EncodedPart]:
        for part in parts:
            if self._tokenizer.card.compression is not None:
                self._tokens += part.tokens  # what a codec counts here are no tokens
            if part.bits is None:
                self._rated = False
            else:
                self._bits += part.bits
            if part.codes is not None:
                self._codes.append(part.codes)
            yield part

    def _check(self, output: Tensor, padded: ClipShape) -> None:
        name = self._tokenizer.card.name
        wanted = (padded.height, padded.width, 3)
        if output.ndim != 4 or output.shape[1:] != wanted:
            raise BenchError(
                f"{name}: {self.sample.id} went in as frames of {wanted} and came back as {tuple(output.shape)[1:]}; "
                "state `multiple` in the card or pad and crop in the adapter"
            )
        if not output.is_floating_point():
            return
        # A sum is finite only if every value is; one that is not may have overflowed, so then each is looked at.
        total = output.sum(dtype=torch.float32)
        if not bool(torch.isfinite(total)) and not bool(torch.isfinite(output).all()):
            raise BenchError(
                f"{name}: the reconstruction of {self.sample.id} holds NaN or infinite values; "
                "check the weights (and --dtype: float16 may overflow)"
            )

    @property
    def totals(self) -> ClipTotals:
        """What metrics want to know of the whole clip."""
        return ClipTotals(
            shape=self.shape,
            frames=self.frames,
            tokens=self._tokens,
            coded_frames=self._feed.given,
            bits=self._bits if self._rated else None,
            codes=self._codes or None,
            tile=self._tokenizer.card.tile,
            borders=self._tokenizer.borders(self._padded),
            compression=self._tokenizer.card.compression,
        )

    @property
    def row(self) -> Row:
        """The clip's row; its times leave out reading and measuring."""
        encode = self._encoding.seconds - self._reading.seconds
        return Row(
            id=self.sample.id,
            label=self.sample.label,
            sha256=self._clip.sha256,
            height=self.shape.height,
            width=self.shape.width,
            height_in=self._clip.shape.height,
            width_in=self._clip.shape.width,
            frames=self.frames,
            encode_ms=1000 * encode,
            decode_ms=1000 * (self._decoding.seconds - self._encoding.seconds),
            tokens=self._tokens,
        )


def named_blocks(
    clip: Clip, sample: Sample, protocol: Protocol, size: int = BLOCK
) -> Generator[np.ndarray, None, None]:
    """The clip's `prepared_blocks` by a protocol; whatever a decoder raises becomes the sample's own error."""
    assert protocol.clip is not None  # `ClipWork` has looked
    limit = protocol.clip.limit(clip.shape.rate)
    try:
        yield from prepared_blocks(clip, Pipeline.parse(protocol.prepare), limit, size)
    except (SampleError, BenchError):
        raise  # a protocol that no clip can be prepared by is no fault of this one
    except Exception as error:
        # Other people's files meet other people's decoders here. One of 500 must not end the run, and it is
        # not silent: the record names the sample with this line.
        raise SampleError(sample.id, f"{type(error).__name__}: {error}") from error


def _reflected(size: int, multiple: int) -> list[int]:
    """Indices that continue a side to the next multiple by reflection, as often as it takes."""
    indices: list[int] = np.pad(np.arange(size), (0, -size % multiple), mode="reflect").tolist()
    return indices


def _tensor(block: np.ndarray) -> Tensor:
    return torch.from_numpy(block if block.flags.writeable else block.copy())
