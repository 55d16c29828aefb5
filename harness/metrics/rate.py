"""What a reconstruction costs: bits per pixel and tokens, of images and of videos."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.metrics.base import Pairs
from harness.metrics.clip_base import ClipTotals
from harness.metrics.clip_column import TotalsColumn
from harness.metrics.column import ColumnMetric

_NO_RATE = "no rate is defined: the latent is continuous or there is no code"


class BitsPerPixel(ColumnMetric):
    """Bits of an image's code over its pixels (height x width), mean over images.

    The bits are the tokenizer's own account: file size of a codec, tokens x log2(codebook) of a discrete
    tokenizer. A continuous latent has none: a float's width in memory is no rate.
    """

    higher_is_better = False
    unit = "bit/pixel"

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(name, resamples, parameters={}, undefined=_NO_RATE)

    def values(self, pairs: Pairs) -> np.ndarray:
        height, width = pairs.reference_u8.shape[-2:]
        if pairs.bits is None:
            return np.full(len(pairs.reference_u8), np.nan)
        return np.asarray(pairs.bits, dtype=np.float64) / (height * width)

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:
        return _has_rate(table[self.name])


class ClipBitsPerPixel(TotalsColumn):
    """Bits of a clip's code over the pixels that it stands for (coded frames x height x width), mean over clips."""

    higher_is_better = False
    unit = "bit/pixel"

    def __init__(self, *, name: str, resamples: int) -> None:
        parameters = {"pixels": "coded frames x height x width"}
        super().__init__(name, resamples, parameters=parameters, undefined=_NO_RATE)

    def value(self, totals: ClipTotals) -> float:
        if totals.bits is None:
            return np.nan
        return totals.bits / (totals.coded_frames * totals.shape.height * totals.shape.width)

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:
        return _has_rate(table[self.name])


def _has_rate(values: np.ndarray) -> bool:
    """Whether the tokenizer has a rate (or tokens): some sample has, or there is no sample that could tell."""
    return not len(values) or not bool(np.isnan(values).all())


class Tokens(ColumnMetric):
    """Tokens of an image, mean over images."""

    higher_is_better = False
    unit = "tokens"

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(name, resamples, parameters={}, undefined="not counted")

    def values(self, pairs: Pairs) -> np.ndarray:
        return np.asarray(pairs.tokens, dtype=np.float64)


class ClipTokens(TotalsColumn):
    """Tokens of a clip, mean over clips. A codec and the identity have none."""

    higher_is_better = False
    unit = "tokens"

    def __init__(self, *, name: str, resamples: int) -> None:
        super().__init__(name, resamples, parameters={}, undefined="the code is not made of tokens")

    def value(self, totals: ClipTotals) -> float:
        return np.nan if totals.compression is None else float(totals.tokens)

    def applies(self, table: Mapping[str, np.ndarray]) -> bool:
        return _has_rate(table[self.name])
