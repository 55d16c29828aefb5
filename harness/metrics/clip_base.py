"""The metric contract for videos: each clip streams past once, in blocks of frames, and leaves a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from harness.data.base import ClipShape
from harness.metrics.base import Aggregated


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTotals:
    """What is known of a clip once it has passed.

    Attributes:
        shape: of the measured frames (as the protocol prepared them).
        frames: how many were measured.
        tokens, bits: of its whole code; `bits` None where the rate of a continuous latent is not defined.
        coded_frames: frames that the code stands for: what the tokenizer was given, a few more than were
            measured where the protocol trims all tokenizers to a common prefix.
        codes: integers ``[tokens, codebooks]`` of each part of the code, in order; None for continuous tokens.
        tile: ``(frames, rows, columns)`` that the tokenizer treats apart from the next, from its card; None
            along an axis that it does not cut, or for the whole where the notion does not apply.
        borders: rows and columns with which another tile begins, see `VideoTokenizer.borders`.
        compression: ``(frames, rows, columns)`` of a token, from its card; None where the notion does not apply.
    """

    shape: ClipShape
    frames: int
    tokens: int
    coded_frames: int
    bits: float | None = None
    codes: Sequence[Tensor] | None = None
    tile: tuple[int | None, int | None, int | None] | None = None
    borders: tuple[Sequence[int], Sequence[int]] = ((), ())
    compression: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipMeasured:
    """What a metric keeps of one clip.

    Attributes:
        columns: one number for each name of `ClipMetric.columns`; NaN where it has no value for this clip.
        frames: float64 ``[frames]`` for each name of `ClipMetric.frame_columns`.
        features: arrays of a fixed shape and dtype, the same names and shapes for every clip.
    """

    columns: Mapping[str, float] = field(default_factory=dict)
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


class ClipMeter(ABC):
    """Measures one clip. What it gives depends on the frames alone, not on how they are cut into blocks."""

    @abstractmethod
    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        """Look at the next frames.

        Args:
            reference, reconstruction: uint8 ``[n, 3, H, W]`` on the run's device, n from 1 on.
        """

    @abstractmethod
    def finish(self, totals: ClipTotals) -> ClipMeasured:
        """After the last frame; called once."""


class ClipMetric(Aggregated):
    """A metric of videos. `Aggregated.cells` gets its columns ``[n]`` and features ``[n, ...]`` of all clips."""

    @abstractmethod
    def start(self, shape: ClipShape) -> ClipMeter:
        """A fresh meter for a clip of frames of this size."""
