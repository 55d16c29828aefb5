"""Images: decoded by worker processes, packed by a token budget, measured pack by pack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness import gallery
from harness.console import Advance
from harness.data.base import ImageSource
from harness.data.prepare import Pipeline, eight_bit
from harness.errors import BenchError
from harness.loading import Prepared, eight_bit_pixels, prepared
from harness.measuring import Measurer
from harness.metrics.base import Metric
from harness.packing import measured_in_packs
from harness.plan import Plan
from harness.shards import Row
from harness.tokenizers.base import Tokenizer
from harness.workload import Failed, Measured, Workload


class ImageWork(Workload):
    """A plan on images.

    Raises:
        BenchError: the tokenizer is none of images.
    """

    unit = "images"

    def __init__(self, plan: Plan, workers: int) -> None:
        tokenizer, dataset = plan.tokenizer, plan.dataset
        if not isinstance(tokenizer, Tokenizer) or not isinstance(dataset, ImageSource):
            raise BenchError(
                f"{tokenizer.card.name}: a tokenizer of {', '.join(tokenizer.card.modalities)}, not of images"
            )
        self._plan = plan
        self._workers = workers
        self._tokenizer = tokenizer
        self._dataset = dataset
        self._metrics = [metric for metric in plan.metrics if isinstance(metric, Metric)]
        self._pipeline = Pipeline.parse(plan.protocol.prepare)

    def look(self) -> None:
        self._tokenizer.prepare(self._eight_bit_images())

    def _eight_bit_images(self) -> Iterator[np.ndarray]:
        rule = self._plan.protocol.eight_bit
        for item in prepared(self._dataset, self._pipeline, range(self._plan.selected), workers=self._workers):
            if isinstance(item, Prepared):
                yield eight_bit_pixels(item.pixels, lambda x: eight_bit(x, rule))

    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        measurer = self._measurer(self._metrics)
        indices = [index for shard in shards for index in shard]
        # One stream over all shards: the workers read ahead across their borders.
        stream = prepared(self._dataset, self._pipeline, indices, workers=self._workers)
        for shard in shards:
            yield measured_in_packs(
                islice(stream, len(shard)),
                measurer.tokens,
                self._plan.settings.token_budget,
                measurer.measure,
                advance,
            )

    def _measurer(self, metrics: Sequence[Metric]) -> Measurer:
        return Measurer(self._tokenizer, self._plan.protocol, metrics, self._plan.settings.device)

    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        ranked = gallery.ranked(self._metrics, columns)
        if ranked is None:
            return []
        places = {sample.id: place for place, sample in enumerate(self._dataset.samples)}
        wanted = [places[rows[entry.index].id] for entry in ranked.entries]
        stream = prepared(self._dataset, self._pipeline, wanted, workers=0)
        return gallery.write(folder, ranked, self._pictures(stream, self._measurer(())))

    @staticmethod
    def _pictures(stream: Iterator[Prepared | Failed], measurer: Measurer) -> Iterator[gallery.Picture]:
        for item in stream:
            if not isinstance(item, Prepared):
                raise BenchError(f"{item.id}: could be measured and cannot be read for the gallery: {item.reason}")
            (image,) = measurer.reconstruct([item])
            original, reconstruction = (
                x.permute(1, 2, 0).cpu().numpy() for x in (image.reference_u8, image.reconstruction_u8)
            )
            yield gallery.Picture(item.id, original, reconstruction)
