"""The metric contract: one streamed pass over pairs of images, then one aggregation over the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

Features = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Reference and reconstruction of images of one size, on the run's device.

    Attributes:
        reference: float32 ``[N, 3, H, W]`` in [-1, 1], as the tokenizer saw it.
        reconstruction: float32 ``[N, 3, H, W]``, as the tokenizer gave it: not clamped.
        reference_u8, reconstruction_u8: uint8 ``[N, 3, H, W]`` by the protocol's 8-bit rule.
        tokens, bits, codes: as in `harness.tokenizers.base.Encoded`, one entry per image.
    """

    reference: Tensor
    reconstruction: Tensor
    reference_u8: Tensor
    reconstruction_u8: Tensor
    tokens: Sequence[int]
    bits: Sequence[float] | None = None
    codes: Sequence[Tensor] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One number of a record, or the reason why it is absent.

    Attributes:
        name: the protocol's name of the metric (``PSNR``, ``rFID``, ``SSIM (scikit-image)``).
        value: None where absent; then `absent` says why.
        interval: bootstrap interval at `level`, None where it makes no sense.
        n: samples that went in.
        applies: False where the notion has no meaning for this tokenizer (the codebook usage of a continuous
            latent): absent for ever, not for want of anything, so `--strict` lets it pass.
        unit: ``dB``, ``bit/pixel``, ...; empty for plain numbers.
        parameters: everything that defines the number (flavour, weights' SHA-256, ...).
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    level: float = 0.95
    n: int
    higher_is_better: bool
    unit: str = ""
    absent: str | None = None
    applies: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Aggregated(ABC):
    """What a run keeps of each sample, and the cells that come of all of them.

    Attributes:
        columns: names of the per-sample columns, prefixed with the metric's name.
        frame_columns: names of the per-frame values of videos (per view of assets) that go into the run's
            ``frames.parquet``, prefixed likewise.
        higher_is_better: direction of the (first) cell.
        weights: SHA-256 of each weights file that it measures with, by file name; part of what a
            shard depends on, so a metric that got other weights is measured again.
    """

    columns: tuple[str, ...] = ()
    frame_columns: tuple[str, ...] = ()
    higher_is_better: bool
    weights: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        """Aggregate over the run: `table` holds every column ``[n]``, `features` every array ``[n, ...]``,
        both in the dataset's order without the failed samples. `seed` fixes the bootstrap."""

    def late(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Per-sample columns float64 ``[n]`` that only all samples together give (the rank of a caption's image): they
        are in no shard, and in the table with the rest. `columns` does not name them."""
        return {}


class Metric(Aggregated):
    """Measures images: per-sample columns and/or features from pairs.

    `update` is pure: the runner stores what it returns in shard files, so that a resume, a merge and
    a bootstrap need no second pass.
    """

    @abstractmethod
    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        """Measure a group of pairs.

        Returns:
            ``columns``: float64 ``[N]`` for each name in `columns`;
            ``features``: arrays ``[N, ...]`` of a fixed trailing shape and dtype, one row per image
            (empty for plain metrics).
        """
