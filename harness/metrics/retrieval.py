"""The cells of a retrieval run: recalls from text to sample and from sample to text, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BenchError
from harness.metrics.base import Aggregated, Cell
from harness.metrics.recall import RULES, ItemRule, caption_ranks, hits, item_ranks, recall, recall_interval
from harness.protocol import MetricSpec

VECTORS, CAPTIONS, CAPTION_COUNTS = "embedding", "captions", "caption_count"
"""Features of samples with captions: float32 ``[n, D]``, of samples; float32 ``[n, C, D]``, of their captions, C the
most that a sample of the set has, rows behind a sample's own zero; int64 ``[n]``, how many it has."""

QUERIES = ("text", "sample")


class Retrieval(Aggregated):
    """Recalls among the samples that were measured, and their captions.

    A sample that could not be measured is missing with its captions: neither asks, and neither is in the gallery. Where
    a gallery has no more than k answers nothing can be missed, and no figure is given.

    Args:
        specs: of the family ``recall``: ``query``: ``text`` or ``sample``; ``k``; ``ranked``, where samples ask: see
            `harness.metrics.recall.item_ranks`.
        bootstrap: resamples of samples per interval.

    Raises:
        BenchError: options that do not fit.
    """

    higher_is_better = True

    def __init__(self, specs: Sequence[MetricSpec], bootstrap: int) -> None:
        self._specs = tuple(specs)
        self._bootstrap = bootstrap
        for spec in specs:
            _read(spec)

    def cells(self, table: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], *, seed: int) -> list[Cell]:
        del table
        return [self._cell(spec, asked, seed) for spec, asked in self._asked(features)]

    def late(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each cell the share of a sample's queries that are found, in per cent. Where samples have unequal
        numbers of captions, the mean of that is not the cell, which counts captions."""
        columns = {}
        for spec, asked in self._asked(features):
            if asked.gallery <= asked.k:
                continue
            found, queries = hits(asked.ranks, asked.owners, asked.k, asked.samples)
            columns[spec.name] = 100 * found / queries
        return columns

    def _asked(self, features: Mapping[str, np.ndarray]) -> Iterator[tuple[MetricSpec, _Asked]]:
        vectors, captions, owners = gathered(features)
        ranks: dict[ItemRule | None, np.ndarray] = {}
        for spec in self._specs:
            rule, k = _read(spec)
            if rule not in ranks:
                ranks[rule] = (
                    caption_ranks(vectors, captions, owners)
                    if rule is None
                    else item_ranks(vectors, captions, owners, rule)
                )
            asking = owners if rule is None else np.arange(len(vectors))
            gallery = len(captions) if rule == "captions" else len(vectors)
            yield spec, _Asked(ranks=ranks[rule], owners=asking, samples=len(vectors), gallery=gallery, rule=rule, k=k)

    def _cell(self, spec: MetricSpec, asked: _Asked, seed: int) -> Cell:
        interval, trivial = None, asked.gallery <= asked.k
        if not trivial:
            found = hits(asked.ranks, asked.owners, asked.k, asked.samples)
            interval = recall_interval(*found, count=self._bootstrap, seed=seed)
        return Cell(
            name=spec.name,
            value=None if trivial else 100 * recall(asked.ranks, asked.k),
            absent=f"of {asked.gallery} answers {asked.k} are all" if trivial else None,
            applies=not trivial,
            interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
            n=asked.samples,
            higher_is_better=True,
            unit="%",
            parameters={
                "k": asked.k,
                "queries": len(asked.ranks),
                "gallery": asked.gallery,
                **({} if asked.rule is None else {"ranked": asked.rule}),
                "ties": "against",
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Asked:
    """All queries of one cell.

    Attributes:
        ranks: ``[Q]``.
        owners: ``[Q]``, the sample that a query is of.
        samples: how many there are.
        gallery: how many answers a query chooses among.
        rule: None where texts ask.
    """

    ranks: np.ndarray
    owners: np.ndarray
    samples: int
    gallery: int
    rule: ItemRule | None
    k: int


def gathered(features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors ``[n, D]`` of samples, ``[M, D]`` of all their captions, and integers ``[M]``, whose each caption is."""
    counts = features[CAPTION_COUNTS]
    padded = features[CAPTIONS]
    own = np.arange(padded.shape[1]) < counts[:, None]
    return features[VECTORS], padded[own], np.repeat(np.arange(len(counts)), counts)


def _read(spec: MetricSpec) -> tuple[ItemRule | None, int]:
    """The rule by which samples ask, None where texts do; and k."""
    query, k, rule = spec.options.get("query"), spec.options.get("k", 1), spec.options.get("ranked")
    if query not in QUERIES:
        raise BenchError(f"{spec.name}: query is {query!r}, not one of {', '.join(QUERIES)}")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BenchError(f"{spec.name}: k is {k!r}, not a whole number from 1 on")
    if query == "text":
        if rule is not None:
            raise BenchError(f"{spec.name}: ranked is for queries of samples; leave it out")
        return None, k
    for known in RULES:
        if rule == known:
            return known, k
    raise BenchError(f"{spec.name}: ranked is {rule!r}, not one of {', '.join(RULES)}")
