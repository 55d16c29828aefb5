"""What a reconstruction costs: bits per pixel and tokens per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.metrics.base import Cell, Pairs
from harness.metrics.column import ColumnMetric


class BitsPerPixel(ColumnMetric):
    """Bits of an image's code over its pixels (height x width), mean over images.

    The bits are the tokenizer's own account: file size of a codec, tokens x log2(codebook) of a discrete
    tokenizer. A continuous latent has none: a float's width in memory is no rate.
    """

    higher_is_better = False
    unit = "bit/pixel"

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(
            name, resamples, parameters={}, undefined="no rate is defined: the latent is continuous or there is no code"
        )

    def values(self, pairs: Pairs) -> np.ndarray:
        height, width = pairs.reference_u8.shape[-2:]
        if pairs.bits is None:
            return np.full(len(pairs.reference_u8), np.nan)
        return np.asarray(pairs.bits, dtype=np.float64) / (height * width)

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        continuous = len(table[self.name]) > 0 and bool(np.isnan(table[self.name]).all())
        return [replace(cell, applies=not continuous) for cell in super().cells(table, features, seed=seed)]


class Tokens(ColumnMetric):
    """Tokens of an image, mean over images."""

    higher_is_better = False
    unit = "tokens"

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(name, resamples, parameters={}, undefined="not counted")

    def values(self, pairs: Pairs) -> np.ndarray:
        return np.asarray(pairs.tokens, dtype=np.float64)
