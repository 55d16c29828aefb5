"""How a discrete tokenizer uses its codebooks over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import BenchError
from harness.metrics.base import Cell, Features, Metric, Pairs
from harness.protocol import MetricSpec

FEATURE = "codes"


class Codebook(Metric):
    """Share of the entries in use, and entropy of their frequencies, over all images of the run.

    Keeps every image's codes in `max_tokens` rows (2 bytes a code up to 65,534 entries), the unused rows filled with
    the largest integer, so that the counts over the run are exact. Sets of images have no mean: no interval.

    Args:
        specs: of the families ``codebook-usage`` and ``codebook-entropy``.
        codebook_size: entries of one codebook, as the tokenizer's card says.

    Raises:
        BenchError: the specs ask for different `max_tokens`.
    """

    higher_is_better = True

    def __init__(self, specs: Sequence[MetricSpec], *, codebook_size: int) -> None:
        limits = {int(spec.options.get("max_tokens", 1024)) for spec in specs}
        if len(limits) > 1:
            raise BenchError(f"{', '.join(spec.name for spec in specs)}: max_tokens must be the same for all")
        self.specs = tuple(specs)
        self.size = codebook_size
        self.max_tokens = limits.pop()
        self.dtype = np.uint16 if codebook_size < np.iinfo(np.uint16).max else np.int32
        self.unused = np.iinfo(self.dtype).max

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], Features]:
        """Raises BenchError where an image's codes cannot be kept, or the card and the codes disagree."""
        if pairs.codes is None:
            raise BenchError("the tokenizer's card names a codebook, but it gives no codes")
        rows = []
        for codes in pairs.codes:
            values = codes.cpu().numpy()
            if values.size and not (values.min() >= 0 and values.max() < self.size):
                raise BenchError(
                    f"code {values.max() if values.max() >= self.size else values.min()} is none of the "
                    f"{self.size} entries that the tokenizer's card names"
                )
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
            return [self._cell(spec, 0, absent="no sample was measured") for spec in self.specs]
        # int64 counts [codebooks, size], one image at a time: never a second copy of the codes.
        counts = np.zeros((codes.shape[2], self.size), dtype=np.int64)
        for image in codes:
            for book, column in enumerate(image.T):
                counts[book] += np.bincount(column[column != self.unused], minlength=self.size)
        frequencies = counts / counts.sum(axis=1, keepdims=True)
        logs = np.log2(frequencies, out=np.zeros_like(frequencies), where=frequencies > 0)
        entropies = -(frequencies * logs).sum(axis=1)
        usage = (counts > 0).mean(axis=1)
        about = {"codebooks": len(counts), "codebook_size": self.size, "codes": int(counts.sum())}
        values: dict[str, tuple[float, dict[str, Any]]] = {
            "codebook-usage": (float(usage.mean()), {**about, "lowest": float(usage.min())}),
            "codebook-entropy": (float(entropies.mean()), {**about, "perplexity": float((2**entropies).mean())}),
        }
        return [self._cell(spec, len(codes), *values[spec.metric]) for spec in self.specs]

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
