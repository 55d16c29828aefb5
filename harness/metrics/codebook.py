"""How a discrete tokenizer uses its codebooks over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from harness.data.base import ClipShape
from harness.errors import BenchError
from harness.metrics.base import Aggregated, Cell, Features, Metric, Pairs
from harness.metrics.clip_base import ClipMeasured, ClipMeter, ClipMetric, ClipTotals
from harness.protocol import MetricSpec

FEATURE = "codes"
COUNTS = "code_counts"


class _Usage(Aggregated):
    """Share of the entries in use, and entropy of their frequencies, over all samples of the run.

    Sets of samples have no mean: no interval.

    Args:
        specs: of the families ``codebook-usage`` and ``codebook-entropy``.
        codebook_size: entries of one codebook, as the tokenizer's card says.
    """

    higher_is_better = True

    def __init__(self, specs: Sequence[MetricSpec], *, codebook_size: int) -> None:
        self.specs = tuple(specs)
        self.size = codebook_size

    def checked(self, codes: Tensor) -> np.ndarray:
        """The codes as they came, int64 or narrower.

        Raises:
            BenchError: the card and the codes disagree.
        """
        values = codes.cpu().numpy()
        if values.size and not (values.min() >= 0 and values.max() < self.size):
            raise BenchError(
                f"code {values.max() if values.max() >= self.size else values.min()} is none of the "
                f"{self.size} entries that the tokenizer's card names"
            )
        return values

    def summary(self, counts: np.ndarray, n: int) -> list[Cell]:
        """The cells of int64 counts ``[codebooks, size]`` over n samples."""
        frequencies = counts / counts.sum(axis=1, keepdims=True)
        logs = np.log2(frequencies, out=np.zeros_like(frequencies), where=frequencies > 0)
        entropies = -(frequencies * logs).sum(axis=1)
        usage = (counts > 0).mean(axis=1)
        about = {"codebooks": len(counts), "codebook_size": self.size, "codes": int(counts.sum())}
        values: dict[str, tuple[float, dict[str, Any]]] = {
            "codebook-usage": (float(usage.mean()), {**about, "lowest": float(usage.min())}),
            "codebook-entropy": (float(entropies.mean()), {**about, "perplexity": float((2**entropies).mean())}),
        }
        return [self._cell(spec, n, *values[spec.metric]) for spec in self.specs]

    def nothing(self) -> list[Cell]:
        """The cells of a run that measured nothing."""
        return [self._cell(spec, 0, absent="no sample was measured") for spec in self.specs]

    def _cell(
        self,
        spec: MetricSpec,
        n: int,
        value: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        absent: str | None = None,
    ) -> Cell:
        return Cell(
            name=spec.name,
            value=value,
            n=n,
            higher_is_better=True,
            unit="bit" if spec.metric == "codebook-entropy" else "",
            absent=absent,
            parameters=parameters or {},
        )


class Codebook(_Usage, Metric):
    """Of images: keeps every image's codes in `max_tokens` rows (2 bytes a code up to 65,534 entries), the unused
    rows filled with the largest integer, so that the counts over the run are exact.

    Raises:
        BenchError: the specs ask for different `max_tokens`.
    """

    def __init__(self, specs: Sequence[MetricSpec], *, codebook_size: int) -> None:
        super().__init__(specs, codebook_size=codebook_size)
        limits = {int(spec.options.get("max_tokens", 1024)) for spec in specs}
        if len(limits) > 1:
            raise BenchError(f"{', '.join(spec.name for spec in specs)}: max_tokens must be the same for all")
        self.max_tokens = limits.pop()
        self.dtype = np.uint16 if codebook_size < np.iinfo(np.uint16).max else np.int32
        self.unused = np.iinfo(self.dtype).max

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        """Raises BenchError where an image's codes cannot be kept, or the card and the codes disagree."""
        if pairs.codes is None:
            raise BenchError("the tokenizer's card names a codebook, but it gives no codes")
        rows = []
        for codes in pairs.codes:
            values = self.checked(codes)
            if len(values) > self.max_tokens:
                raise BenchError(
                    f"an image has {len(values)} tokens, and the codebook metrics keep {self.max_tokens}: "
                    f"raise max_tokens in the protocol"
                )
            row = np.full((self.max_tokens, values.shape[1]), self.unused, dtype=self.dtype)
            row[: len(values)] = values
            rows.append(row)
        return {}, {FEATURE: np.stack(rows)}

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        codes = features.get(FEATURE)
        if codes is None or len(codes) == 0:
            return self.nothing()
        # int64 counts [codebooks, size], one image at a time: never a second copy of the codes.
        counts = np.zeros((codes.shape[2], self.size), dtype=np.int64)
        for image in codes:
            for book, column in enumerate(image.T):
                counts[book] += np.bincount(column[column != self.unused], minlength=self.size)
        return self.summary(counts, len(codes))


class ClipCodebook(_Usage, ClipMetric):
    """Of videos: keeps how often each clip used each entry, which is smaller than its codes and as large for a clip
    of any length (4 bytes an entry: 128 KB for eight codebooks of 4,096)."""

    def start(self, shape: ClipShape) -> ClipMeter:  # noqa: ARG002
        return _CodesMeter(self)

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:  # noqa: ARG002
        counts = features.get(COUNTS)
        if counts is None or len(counts) == 0:
            return self.nothing()
        return self.summary(counts.sum(axis=0, dtype=np.int64), len(counts))


class _CodesMeter(ClipMeter):
    def __init__(self, metric: ClipCodebook) -> None:
        self._metric = metric

    def update(self, reference: Tensor, reconstruction: Tensor) -> None:
        pass

    def finish(self, totals: ClipTotals) -> ClipMeasured:
        """Raises BenchError where the card and the codes disagree."""
        if not totals.codes:
            raise BenchError("the tokenizer's card names a codebook, but it gives no codes")
        size = self._metric.size
        counts = np.zeros((totals.codes[0].shape[1], size), dtype=np.int32)
        for part in totals.codes:
            for book, column in enumerate(self._metric.checked(part).T):
                counts[book] += np.bincount(column, minlength=size).astype(np.int32)
        return ClipMeasured(features={COUNTS: counts})
