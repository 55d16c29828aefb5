"""The cells of zero-shot classification: how often the own class is among the nearest, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BenchError
from harness.metrics.base import Aggregated, Cell
from harness.metrics.bootstrap import mean_interval, percentiles, resamples
from harness.metrics.families import EMBEDDING_METRICS
from harness.metrics.retrieval import Retrieval
from harness.protocol import MetricSpec, Protocol

MARGIN, SCORE, PREDICTED = "margin", "score", "predicted"
LABELS = "label"
"""The feature that holds the samples' labels, int64 ``[n]``."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Samples against classes.

    Attributes:
        nearer: int64 ``[n]``, how many other classes score as high as the own or higher: 0 where it is right.
        margin: float64 ``[n]``, the own class's cosine less the best other's: how surely right (above 0) or wrong.
        predicted: int64 ``[n]``, the class of the highest cosine; of equal ones the first that is not the own.
        score: float64 ``[n]``, that cosine.
    """

    nearer: np.ndarray
    margin: np.ndarray
    predicted: np.ndarray
    score: np.ndarray


def scored(vectors: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> Scored:
    """Compare vectors with classes.

    Sample by sample in float64, rounded to float32: a sample's result hangs on nothing else in the call, and two
    classes of one vector have one score to the last bit.

    Args:
        vectors: ``[n, D]`` of unit length.
        classes: ``[K, D]`` of unit length, K of 2 or more.
        labels: integers ``[n]``, 0 to K - 1.
    """
    wide = np.asarray(classes, np.float64)
    count = len(vectors)
    nearer, predicted = np.empty(count, np.int64), np.empty(count, np.int64)
    margin, score = np.empty(count), np.empty(count)
    for row, (vector, label) in enumerate(zip(vectors, labels, strict=True)):
        scores = (wide @ vector.astype(np.float64)).astype(np.float32)
        own = scores[label]
        nearer[row] = int((scores >= own).sum()) - 1
        scores[label] = -np.inf
        best = int(scores.argmax())
        margin[row] = float(own) - float(scores[best])
        predicted[row] = label if own > scores[best] else best
        score[row] = max(float(own), float(scores[best]))
    return Scored(nearer, margin, predicted, score)


class ZeroShot(Aggregated):
    """Top-k accuracies and the mean of classes.

    Args:
        specs: of the families ``top-k`` and ``class-mean``.
        bootstrap: resamples per interval.

    Raises:
        BenchError: a k that is no whole number from 1 on.
    """

    higher_is_better = True

    def __init__(self, specs: Sequence[MetricSpec], bootstrap: int) -> None:
        self._specs = tuple(specs)
        self._bootstrap = bootstrap
        self._tops = {spec.name: _k(spec) for spec in specs if spec.metric == "top-k"}
        # The right answers come first: what a gallery ranks by is the margin, which it asks for by name.
        self.columns = (*self._tops, MARGIN, SCORE, PREDICTED)

    def measured(self, scores: Scored) -> dict[str, np.ndarray]:
        """The columns ``[n]`` of samples; right is 100 and wrong is 0, so that a column's mean is its cell."""
        right = {name: 100.0 * (scores.nearer < k) for name, k in self._tops.items()}
        return {**right, MARGIN: scores.margin, SCORE: scores.score, PREDICTED: scores.predicted.astype(np.float64)}

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        return [self._cell(spec, table, features, seed) for spec in self._specs]

    def _cell(
        self, spec: MetricSpec, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], seed: int
    ) -> Cell:
        parameters: dict[str, object] = {"ties": "against"}
        if spec.name in self._tops:
            values = table[spec.name]
            value, interval = float(values.mean()), mean_interval(values, count=self._bootstrap, seed=seed)
            parameters["k"] = self._tops[spec.name]
        else:
            # A prediction is the own class only where no other scores as high.
            labels = features[LABELS]
            right = 100.0 * (table[PREDICTED] == labels)
            value = _class_mean(right, labels)
            interval = _class_interval(right, labels, self._bootstrap, seed)
            parameters["classes"] = len(np.unique(labels))
        return Cell(
            name=spec.name,
            value=value,
            interval=interval,
            n=len(table[MARGIN]),
            higher_is_better=True,
            unit="%",
            parameters=parameters,
        )


def _k(spec: MetricSpec) -> int:
    k = spec.options.get("k", 1)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BenchError(f"{spec.name}: k is {k!r}, not a whole number from 1 on")
    return k


def _class_mean(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that are there of the mean over each one's samples."""
    counts = np.bincount(labels)
    sums = np.bincount(labels, weights=right)
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def _class_interval(
    right: np.ndarray, labels: np.ndarray, count: int, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    if len(right) < 2 or count < 1:
        return None
    drawn = [_class_mean(right[row], labels[row]) for rows in resamples(len(right), count, seed) for row in rows]
    return percentiles(np.array(drawn), level)


def build_embedding_metrics(protocol: Protocol) -> tuple[list[Aggregated], list[Cell]]:
    """The metrics of vectors that a protocol asks for; none of them needs weights, so that no cell is absent.

    Raises:
        BenchError: the protocol names a family or an option that does not exist, or one name twice.
    """
    protocol.check_names()
    origin = f"protocol {protocol.name}"
    for spec in protocol.metrics:
        family = EMBEDDING_METRICS.get(spec.metric)
        if family is None:
            known = ", ".join(EMBEDDING_METRICS)
            raise BenchError(f"{origin}: no metric family {spec.metric!r} of embeddings; there are: {known}")
        if unknown := sorted(spec.options.keys() - family.options.keys()):
            options = ", ".join(family.options) or "none"
            raise BenchError(f"{origin}: {spec.metric} has no option {', '.join(unknown)}; it has: {options}")
    recalls = [spec for spec in protocol.metrics if spec.metric == "recall"]
    captioned = protocol.embed is not None and protocol.embed.templates is None
    if strange := next((spec for spec in protocol.metrics if (spec in recalls) != captioned), None):
        against = "captions, where templates is null" if captioned else "classes, by their templates"
        raise BenchError(f"{origin}: {strange.name} does not fit what vectors are compared with ({against})")
    if captioned:
        return [Retrieval(recalls, protocol.bootstrap)], []
    return [ZeroShot(protocol.metrics, protocol.bootstrap)], []
