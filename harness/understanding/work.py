"""Embeddings: read by a feed, packed by a token budget, embedded once, compared with texts shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atoken.errors import InputError
from atoken.text import class_vectors
from harness import gallery
from harness.console import Advance
from harness.embedders.base import Embedder
from harness.errors import BenchError
from harness.metrics.retrieval import CAPTION_COUNTS, CAPTIONS
from harness.packing import measured_in_packs
from harness.plan import Plan
from harness.shards import Row
from harness.storage import make_folder, write_atomically
from harness.understanding.feeds import Item, feed_of
from harness.understanding.measures import LABELS, MARGIN, PREDICTED, SCORE, ZeroShot, scored
from harness.understanding.texts import Captions, Classes, TextVectors, checked, texts_of
from harness.understanding.vectors import VECTORS, VectorStore
from harness.workload import Failed, Measured, Workload


class EmbedWork(Workload):
    """A plan that embeds its samples and compares them with texts.

    Args:
        cache: folder of vectors of samples and texts that outlive a run; None: all are made anew.

    Raises:
        BenchError: the row is no embedder, or cannot take samples of this kind.
    """

    def __init__(self, plan: Plan, workers: int, cache: Path | None) -> None:
        embedder, modality = plan.tokenizer, plan.dataset.modality
        if not isinstance(embedder, Embedder):
            raise BenchError(f"{embedder.card.name}: reconstructs and gives no vectors; take an embedder, see `list`")
        if modality not in embedder.card.modalities:
            kinds = ", ".join(embedder.card.modalities)
            raise BenchError(f"{embedder.card.name}: an embedder of {kinds}, not of the kind {modality}")
        self._plan = plan
        self._workers = workers
        self._embedder = embedder
        self._feed = feed_of(plan, embedder)
        self._texts = texts_of(plan.dataset, plan.protocol)
        self._vectors = VectorStore(plan, cache)
        self._read = TextVectors(embedder, None if cache is None else cache / "texts")
        self.unit = self._feed.unit

    def look(self) -> None:
        raise BenchError(
            f"{self._embedder.card.name}: has needs_prepare, and nothing of an embedder is fitted to a set"
        )

    def facts(self) -> dict[str, Any]:
        reader = self._embedder.card.text
        return {
            "understanding": {
                **self._texts.facts(),
                "text_tower": None if reader is None else {"name": reader.name, "fingerprint": reader.fingerprint},
                "embeddings": self._vectors.key(range(self._plan.selected)),
            }
        }

    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        if isinstance(self._texts, Classes) and shards:
            advance.detail("reads the texts of its classes")
            _ = self._classes  # before the first sample: a run that cannot read them should say so at once
        kept = [self._vectors.has(shard) for shard in shards]
        missing = [index for shard, there in zip(shards, kept, strict=True) if not there for index in shard]
        # One stream over all shards: workers read ahead across their borders.
        stream = self._feed.items(missing, self._workers)
        for shard, there in zip(shards, kept, strict=True):
            made = self._vectors.find(shard) if there else None
            if made is None:
                # Damaged ones are not in the stream.
                items = self._feed.items(shard, 0) if there else islice(stream, len(shard))
                made = self._embedded(items, advance)
                self._vectors.keep(shard, made)
            else:
                advance(len(shard))
            yield self._compared(made)

    def _embedded(self, items: Iterator[Item | Failed], advance: Advance) -> Measured:
        budget = self._plan.settings.token_budget
        return measured_in_packs(items, lambda item: item.tokens, budget, self._pack, advance)

    def _pack(self, pack: Sequence[Item]) -> Measured:
        start = self._now()
        try:
            vectors = checked(self._embedder, self._feed.embed(pack), len(pack))
        except InputError as error:
            if len(pack) == 1:
                return Measured(rows=[], failed=[Failed(pack[0].sample.id, str(error))], columns={}, features={})
            return Measured.of([self._pack([item]) for item in pack])
        except torch.OutOfMemoryError as error:
            name = self._embedder.card.name
            raise BenchError(f"{name}: out of device memory with {len(pack)} samples; lower --token-budget") from error
        seconds = self._now() - start
        total = sum(item.tokens for item in pack)
        rows = [row_of_item(item, 1000 * seconds * item.tokens / total) for item in pack]
        return Measured(rows=rows, failed=[], columns={}, features={VECTORS: vectors})

    def _now(self) -> float:
        if self._embedder.device.type == "cuda":
            torch.cuda.synchronize(self._embedder.device)
        return time.perf_counter()

    @cached_property
    def _classes(self) -> np.ndarray:
        """Vectors of the classes ``[K, D]``."""
        assert isinstance(self._texts, Classes)
        return class_vectors(self._read, self._texts.names, self._texts.templates).numpy()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {sample.id: place for place, sample in enumerate(self._plan.dataset.samples)}

    def _compared(self, kept: Measured) -> Measured:
        if not kept.rows:
            return kept
        vectors = kept.features[VECTORS]
        if isinstance(self._texts, Captions):
            return self._with_captions(kept, self._texts)
        labels = np.array([row.label for row in kept.rows], np.int64)
        scores = scored(vectors, self._classes, labels)
        columns: dict[str, np.ndarray] = {}
        for metric in self._plan.metrics:
            if isinstance(metric, ZeroShot):
                columns |= metric.measured(scores)
        features = {VECTORS: vectors, LABELS: labels}
        return Measured(rows=kept.rows, failed=kept.failed, columns=columns, features=features)

    def _with_captions(self, kept: Measured, texts: Captions) -> Measured:
        own = [texts.captions[self._places[row.id]] for row in kept.rows]
        read = self._read.embed([text for captions in own for text in captions]).numpy()
        most = max(map(len, texts.captions))
        vectors = np.zeros((len(own), most, read.shape[1]), np.float32)
        counts = np.array([len(captions) for captions in own], np.int64)
        ends = np.cumsum(counts)
        for place, (end, count) in enumerate(zip(ends, counts, strict=True)):
            vectors[place, :count] = read[end - count : end]
        features = {VECTORS: kept.features[VECTORS], CAPTIONS: vectors, CAPTION_COUNTS: counts}
        return Measured(rows=kept.rows, failed=kept.failed, columns={}, features=features)

    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        if not isinstance(self._texts, Classes) or MARGIN not in columns:
            return []
        names = self._texts.names
        values = columns[MARGIN]
        chosen = [gallery.Entry(*entry) for entry in gallery.chosen(values, higher_is_better=True)]
        ranked = gallery.Ranked(MARGIN, values, chosen)
        items = self._feed.items([self._places[rows[entry.index].id] for entry in chosen], 0)
        make_folder(folder / gallery.FOLDER)
        result: list[dict[str, Any]] = []
        for entry, item in zip(chosen, items, strict=True):
            if isinstance(item, Failed):
                raise BenchError(f"{item.id}: could be embedded and cannot be read for the gallery: {item.reason}")
            label = rows[entry.index].label
            assert label is not None
            file = f"{gallery.FOLDER}/{entry.index:06d}-original.png"
            write_atomically(folder / file, gallery.png(self._feed.picture(item)))
            result.append(
                {
                    **ranked.entry(entry, item.sample.id),
                    "original": file,
                    "label": names[label],
                    "predicted": names[int(columns[PREDICTED][entry.index])],
                    "score": float(columns[SCORE][entry.index]),
                }
            )
        gallery.remove_stale(folder, result)
        return result


def row_of_item(item: Item, milliseconds: float) -> Row:
    """What is known of a sample that was embedded in so many milliseconds."""
    return Row(
        id=item.sample.id,
        label=item.sample.label,
        sha256=item.sha256,
        height=item.size[0],
        width=item.size[1],
        height_in=item.size_in[0],
        width_in=item.size_in[1],
        encode_ms=milliseconds,
        decode_ms=0.0,
        tokens=item.tokens,
        frames=item.frames,
    )
