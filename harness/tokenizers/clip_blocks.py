"""Blocks of frames as adapters need them, however the clip was cut before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from atoken.errors import InputError
from harness.data.base import ClipShape, SampleError
from harness.data.geometry import ShapeError
from harness.tokenizers.video import Frames

BROKEN = (SampleError, InputError, ShapeError)
"""What reading a clip may raise: a search over the set goes on without it, and the run names it."""


def regrouped(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same frames in blocks of `size`, the last with what is left; at most one block waits."""
    waiting: list[Tensor] = []
    missing = size
    for block in blocks:
        rest = block
        while len(rest) >= missing:
            waiting.append(rest[:missing])
            yield torch.cat(waiting)
            rest, waiting, missing = rest[missing:], [], size
        if len(rest):
            # A copy: the source may be done with its block, or write the next one into it.
            waiting.append(rest.clone())
            missing -= len(rest)
    if waiting:
        yield torch.cat(waiting)


def first_frames(opened: Frames, most: int | None = None) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 ``[H, W, 3]``, and no further than the first `most`; then the clip is closed."""
    blocks = opened()
    try:
        yield from islice((frame for block in blocks for frame in block), most)
    finally:
        # A generator stops its reading thread when it is closed; other iterators have nothing to close.
        if hasattr(blocks, "close"):
            blocks.close()


def nominal_tokens(frames: int, shape: ClipShape) -> int:
    """Tokens where the notion does not apply: one for 16x16 pixels of a frame, as `Tokenizer.token_count` has it."""
    return frames * max(1, shape.height * shape.width // 256)
