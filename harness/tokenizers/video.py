"""The adapter contract for videos: frames stream in, the code streams past, frames stream out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from harness.data.base import ClipShape
from harness.tokenizers.base import Adapter, LatentMode

Frames = Callable[[], Iterator[np.ndarray]]
"""Opens a prepared clip anew: blocks of uint8 RGB ``[n, H, W, 3]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPart:
    """A stretch of a clip's code, with what metrics need to know of it.

    Attributes:
        payload: the adapter's own object.
        tokens: tokens in this part; their sum over the parts is the clip's.
        bits: information of this part in bits (packets of a codec, tokens x log2(codebook) of a discrete
            tokenizer); None where the rate of a continuous latent is not defined.
        codes: integer codes ``[tokens, codebooks]``; None for continuous tokens.
    """

    payload: Any
    tokens: int
    bits: float | None = None
    codes: Tensor | None = None


class VideoTokenizer(Adapter):
    """Anything that reconstructs videos, behind one adapter.

    Both directions are generators: a tokenizer that works in temporal tiles holds one tile, whatever the
    clip's length; one that needs the whole clip collects `frames` first. A clip's reconstruction depends on
    its frames (and its seed) alone, not on how the frames are cut into blocks nor on the clip before;
    `harness.tokenizers.contract` checks it. Every number of frames from 1 on comes back as that number.
    """

    def prepare_clips(self, clips: Sequence[tuple[ClipShape, Frames]]) -> None:
        """Look at the run's clips once, before the first, if a setting is fitted to the set (``h264@BPP``).

        Found settings go into `card.settings`. The runner calls it only where `needs_prepare` is true.
        """

    def borders(self, shape: ClipShape) -> tuple[Sequence[int], Sequence[int]]:
        """Rows and columns with which another spatial tile of a frame begins; of two that overlap, the middle of
        what they share. Multiples of `card.tile`, unless an adapter places its tiles by the frame's size.

        Args:
            shape: as `encode_clip` gets it.
        """
        _, rows, columns = self.card.tile
        ends = (rows, shape.height), (columns, shape.width)
        down, across = (range(0) if step is None else range(step, end, step) for step, end in ends)
        return down, across

    @abstractmethod
    def encode_clip(
        self, frames: Iterator[Tensor], shape: ClipShape, *, latent: LatentMode, seed: int
    ) -> Iterator[EncodedPart]:
        """Encode one clip.

        Args:
            frames: blocks of uint8 RGB ``[n, H, W, 3]`` on `device`, n from 1 on; how many follow is not known.
            shape: size and frame rate; H and W are multiples of `card.multiple`.
            latent: the mean of the posterior, or a sample of it.
            seed: of this clip; only a sampled latent uses it.

        Yields:
            Parts in order; each as soon as its frames are there.
        """

    @abstractmethod
    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:
        """Reconstruct.

        Yields:
            blocks ``[n, H, W, 3]`` of any n from 1 on, in order, as many frames in all as were encoded: uint8
            RGB, or float32 nominally in [-1, 1], not clamped, which the protocol's 8-bit rule rounds.
        """
