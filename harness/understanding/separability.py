"""How well classes lie apart among vectors, without any text: the numbers beside the pictures of Figure 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import BenchError
from harness.metrics.base import Aggregated, Cell
from harness.metrics.families import STRUCTURE_METRICS
from harness.protocol import MetricSpec, Protocol
from harness.understanding.inner import KINDS
from harness.understanding.measures import LABELS


def silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette by cosine distance, -1 to 1 (scikit-learn's `silhouette_score`).

    A sample's is ``(b - a) / max(a, b)``: a its mean distance to its own class, b to the nearest other one.

    Args:
        vectors: ``[n, D]``.
        labels: integers ``[n]``, of 2 to n - 1 values.
    """
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(vectors.astype(np.float64), labels, metric="cosine"))


def neighbours(vectors: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each sample is classed right by its k nearest others (leave one out), by cosine distance: bool ``[n]``.

    The class with most votes counts; a class with as many votes as the own counts against.

    Args:
        vectors: ``[n, D]``, n above k.
        labels: integers ``[n]``.
    """
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(vectors.astype(np.float64))
    _, dense = np.unique(labels, return_inverse=True)
    nearest = dense[fitted.kneighbors(return_distance=False)]
    votes = np.zeros((len(dense), dense.max() + 1), np.int64)
    for column in nearest.T:
        votes[np.arange(len(dense)), column] += 1
    own = votes[np.arange(len(dense)), dense]
    votes[np.arange(len(dense)), dense] = -1
    return np.asarray(own > votes.max(axis=1))


class Separability(Aggregated):
    """Silhouettes and nearest neighbours of the vectors that a run's shards keep.

    No interval: samples are compared with each other, so that resampling them would count twins as neighbours.
    """

    higher_is_better = True

    def __init__(self, specs: Sequence[MetricSpec]) -> None:
        self._specs = tuple(specs)

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        del table, seed
        labels = features[LABELS]
        return [self._cell(spec, features, labels) for spec in self._specs]

    def _cell(self, spec: MetricSpec, features: Mapping[str, np.ndarray], labels: np.ndarray) -> Cell:
        kind, k = str(spec.options["vectors"]), spec.options.get("k")
        value: float | None = None
        absent = _unfit(labels, k)
        applies = kind in features
        if not applies:
            absent = f"this model has no {KINDS[kind]}"
        elif absent is None and k is None:
            value = silhouette(features[kind], labels)
        elif absent is None:
            value = 100 * float(neighbours(features[kind], labels, int(str(k))).mean())
        return Cell(
            name=spec.name,
            value=value,
            n=len(labels) if value is not None else 0,
            higher_is_better=True,
            unit="" if k is None else "%",
            absent=absent,
            applies=applies,
            parameters={"vectors": kind, "distance": "cosine", "classes": len(np.unique(labels))}
            | ({} if k is None else {"k": k, "ties": "against"}),
        )


def _unfit(labels: np.ndarray, k: object) -> str | None:
    """Why so few samples have no such number."""
    classes = len(np.unique(labels))
    if classes < 2 or classes == len(labels):
        return f"{len(labels)} samples of {classes} classes; two classes and two samples of one are the least"
    if isinstance(k, int) and k >= len(labels):
        return f"{len(labels)} samples have no {k} neighbours each"
    return None


def build_structure_metrics(protocol: Protocol) -> tuple[list[Aggregated], list[Cell]]:
    """The numbers that a protocol asks for; none of them needs weights, so that no cell is absent beforehand.

    Raises:
        BenchError: the protocol names a family, an option or vectors that do not exist, or one name twice.
    """
    protocol.check_names()
    origin = f"protocol {protocol.name}"
    for spec in protocol.metrics:
        family = STRUCTURE_METRICS.get(spec.metric)
        if family is None:
            known = ", ".join(STRUCTURE_METRICS)
            raise BenchError(f"{origin}: no metric family {spec.metric!r} of classes; there are: {known}")
        if spec.options.keys() != family.options.keys():
            wanted = ", ".join(family.options)
            raise BenchError(f"{origin}: {spec.name} needs the options {wanted} and no others")
        if spec.options["vectors"] not in KINDS:
            raise BenchError(f"{origin}: {spec.name}: vectors is {spec.options['vectors']!r}, not {' or '.join(KINDS)}")
        k = spec.options.get("k", 1)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise BenchError(f"{origin}: {spec.name}: k is {k!r}, not a whole number from 1 on")
    return [Separability(protocol.metrics)], []
