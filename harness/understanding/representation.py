"""Runs of Figure 8: every model's inner vectors of labelled images, laid out by t-SNE, with the numbers beside it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from atoken.errors import InputError
from harness import shards
from harness.console import Advance
from harness.data.base import ImageSource
from harness.embedders.base import Embedder
from harness.errors import BenchError
from harness.packing import measured_in_packs
from harness.plan import Plan
from harness.protocol import StructureRules
from harness.shards import Row
from harness.storage import write_atomically
from harness.understanding import templates
from harness.understanding.feeds import ImageFeed, Item
from harness.understanding.inner import KINDS, inner_vectors, kinds_of
from harness.understanding.measures import LABELS
from harness.understanding.work import row_of_item
from harness.workload import Failed, Measured, Workload

FIGURE = "figure.json"
SCHEMA = 1


class RepresentationWork(Workload):
    """A plan that lays out its samples.

    Raises:
        BenchError: the row is no embedder of images, the dataset has none, or its samples have no labels.
    """

    unit = "images"

    def __init__(self, plan: Plan, workers: int) -> None:
        embedder, dataset, rules = plan.tokenizer, plan.dataset, plan.protocol.structure
        if not isinstance(embedder, Embedder) or "image" not in embedder.card.modalities:
            raise BenchError(f"{embedder.card.name}: gives no vectors of images; take an embedder, see `list`")
        if not isinstance(dataset, ImageSource) or rules is None:
            raise BenchError(f"{plan.experiment}: lays out images, by a protocol with the key structure")
        missing = next((sample.id for sample in dataset.samples if sample.label is None), None)
        if missing is not None:
            raise BenchError(f"{dataset.title} ({dataset.name}): {missing} has no label; take --data classes=FOLDER")
        self._plan, self._workers, self._rules = plan, workers, rules
        self._embedder = embedder
        self._feed = ImageFeed(plan, embedder, dataset)
        self._figure: dict[str, Any] = {}

    def look(self) -> None:
        raise BenchError(
            f"{self._embedder.card.name}: has needs_prepare, and nothing of an embedder is fitted to a set"
        )

    def facts(self) -> dict[str, Any]:
        return {"figure": self._figure}

    def measure(self, shards: Sequence[Sequence[int]], advance: Advance) -> Iterator[Measured]:
        # One stream over all shards: workers read ahead across their borders.
        stream = self._feed.items([index for shard in shards for index in shard], self._workers)
        for shard in shards:
            yield self._measured(islice(stream, len(shard)), advance)

    def _measured(self, items: Iterator[Item | Failed], advance: Advance) -> Measured:
        budget = self._plan.settings.token_budget
        return measured_in_packs(items, lambda item: item.tokens, budget, self._pack, advance)

    def _pack(self, pack: Sequence[Item]) -> Measured:
        start = time.perf_counter()  # vectors come back on the CPU, so that the device has finished
        try:
            vectors = inner_vectors(self._embedder, [item.payload for item in pack])
        except InputError as error:
            if len(pack) == 1:
                return Measured(rows=[], failed=[Failed(pack[0].sample.id, str(error))], columns={}, features={})
            return Measured.of([self._pack([item]) for item in pack])
        if broken := [name for name, rows in vectors.items() if not np.isfinite(rows).all()]:
            raise BenchError(f"{self._embedder.card.name}: {', '.join(broken)}: NaN or infinite; check the weights")
        each = 1000 * (time.perf_counter() - start) / sum(item.tokens for item in pack)
        labels = np.array([item.sample.label for item in pack], np.int64)
        return Measured(
            rows=[row_of_item(item, each * item.tokens) for item in pack],
            failed=[],
            columns={},
            features={**vectors, LABELS: labels},
        )

    def show(self, folder: Path, rows: Sequence[Row], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Writes `FIGURE` beside the record, which names it with its hash; it has no gallery."""
        del columns
        paths = [folder / "shards" / self._plan.shard_name(shard, None) for shard in range(self._plan.shards)]
        features = shards.StreamedFeatures(paths, [len(shards.read(path).rows) for path in paths])
        labels = features[LABELS]
        names = _class_names(self._plan.dataset)
        panels = [
            {"name": kind, "title": KINDS[kind], "width": features[kind].shape[1]}
            | _laid_out(features[kind], self._rules, self._plan.protocol.seed)
            for kind in kinds_of(self._embedder)
        ]
        present = np.unique(labels).tolist()
        place = {label: index for index, label in enumerate(present)}
        figure = {
            "schema": SCHEMA,
            "classes": [names[label] if names is not None else f"class {label}" for label in present],
            "labels": [place[label] for label in labels.tolist()],
            "ids": [row.id for row in rows],
            "panels": panels,
        }
        data = json.dumps(figure, ensure_ascii=False).encode()
        write_atomically(folder / FIGURE, data)
        self._figure = {"file": FIGURE, "sha256": hashlib.sha256(data).hexdigest()}
        return []


def _class_names(dataset: ImageSource | Any) -> Sequence[str] | None:
    if dataset.class_names is None and dataset.name.startswith("imagenet-"):
        return templates.imagenet_names()
    names: Sequence[str] | None = dataset.class_names
    return names


def _laid_out(vectors: np.ndarray, rules: StructureRules, seed: int) -> dict[str, Any]:
    """Points of t-SNE on unit vectors (there the squared Euclidean distance is twice the cosine distance), from their
    two main components.

    Returns:
        ``points``, ``[n, 2]`` in [-1, 1], and the ``perplexity``, which few samples lower: it counts neighbours, and
        has to be well below their number.
    """
    from sklearn.manifold import TSNE

    wide = vectors.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    count = len(wide)
    if count < 4:  # too few for a neighbourhood
        return {"points": None, "perplexity": None}
    perplexity = min(rules.perplexity, (count - 1) / 3)
    laid = TSNE(
        n_components=2, perplexity=perplexity, max_iter=rules.steps, init="pca", random_state=seed, n_jobs=1
    ).fit_transform(wide)
    centred = laid.astype(np.float64) - laid.astype(np.float64).mean(axis=0)
    reach = float(np.abs(centred).max()) or 1.0
    return {"points": np.round(centred / reach, 4).tolist(), "perplexity": perplexity}
