"""Recall of retrieval between items (images, clips) and their captions, one or several each (PROTOCOLS 4.3, 5.1).

A rank counts what stands before the right answer: recall at k is the share of queries whose rank is below k. What
scores the same as the right answer and is wrong stands before it, so that a model that gives everything one score
finds nothing; sorting would let the order of the files decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from harness.errors import BenchError
from harness.metrics.bootstrap import percentiles, resamples

__all__ = ["RULES", "ItemRule", "caption_ranks", "hits", "item_ranks", "recall", "recall_interval"]

ItemRule = Literal["captions", "items"]
RULES: tuple[ItemRule, ...] = ("captions", "items")

BLOCK = 1 << 22
"""Scores that are held at once, in float64 and in float32: 48 MB."""


def caption_ranks(items: np.ndarray, captions: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Text to item: for each caption, how many other items score as high as its own or higher.

    Args:
        items: ``[N, D]``, embeddings of unit length.
        captions: ``[M, D]``, of unit length.
        owners: integers ``[M]``, the item that a caption is of, 0 to N - 1.

    Returns:
        int64 ``[M]``, 0 where the own item is the first.

    Raises:
        BenchError: arrays that do not fit, are empty or are not finite, or an item without captions.
    """
    _check(items, captions, owners)
    ranks = np.empty(len(captions), np.int64)
    for part, scores in _blocks(captions, items):
        own = scores[np.arange(len(scores)), owners[part]]
        ranks[part] = (scores >= own[:, None]).sum(axis=1) - 1
    return ranks


def item_ranks(items: np.ndarray, captions: np.ndarray, owners: np.ndarray, rule: ItemRule) -> np.ndarray:
    """Item to text: for each item, what stands before the best of its own captions.

    The two rules give one R@1 and differ beyond it, where items have several captions.

    Args:
        items, captions, owners: as for `caption_ranks`.
        rule: ``captions``: all captions are ranked, and those of other items count one by one (CLIP_benchmark,
            big_vision, PE: an item is found within k where any of its captions is among the k best).
            ``items``: an item's score is that of its best caption, and items are ranked (CLIP4Clip, InternVideo).

    Returns:
        int64 ``[N]``, 0 where an own caption is the first.

    Raises:
        BenchError: as for `caption_ranks`.
    """
    _check(items, captions, owners)
    # By owner, so that an item's captions lie side by side.
    order = np.argsort(owners, kind="stable")
    captions, sorted_owners = captions[order], owners[order]
    starts = np.searchsorted(sorted_owners, np.arange(len(items)))
    ranks = np.empty(len(items), np.int64)
    for part, scores in _blocks(items, captions):
        best = np.maximum.reduceat(scores, starts, axis=1)
        own = best[np.arange(len(scores)), np.arange(part.start, part.stop)][:, None]
        if rule == "items":
            ranks[part] = (best >= own).sum(axis=1) - 1
            continue
        mine = sorted_owners == np.arange(part.start, part.stop)[:, None]
        ranks[part] = ((scores >= own) & ~mine).sum(axis=1)
    return ranks


def recall(ranks: np.ndarray, k: int) -> float:
    """Share of queries that are found among the k first, 0 to 1."""
    return float(np.mean(ranks < k))


def hits(ranks: np.ndarray, owners: np.ndarray, k: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """How many queries of each item are found among the k first, and how many it has.

    Args:
        ranks: ``[Q]``.
        owners: integers ``[Q]``, the item that a query is of.
        items: N.

    Returns:
        Both float64 ``[N]``.
    """
    found = np.bincount(owners, weights=ranks < k, minlength=items)
    return found, np.bincount(owners, minlength=items).astype(np.float64)


def recall_interval(
    found: np.ndarray, queries: np.ndarray, *, count: int, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Bootstrap interval of a recall: items are drawn anew, each with all of its queries, among an unchanged gallery.

    The captions of an item are found or missed together more often than not; drawn one by one they would promise
    an interval that is too narrow.

    Args:
        found, queries: as `hits` gives them.
        count: of resamples.

    Returns:
        None below two items or without resamples.
    """
    if len(found) < 2 or count < 1:
        return None
    drawn = [found[i].sum(axis=1) / queries[i].sum(axis=1) for i in resamples(len(found), count, seed)]
    return percentiles(np.concatenate(drawn), level)


def _blocks(queries: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Scores ``[q, G]`` of a few queries at a time.

    Summed in float64 and rounded to float32 once: which queries lie in one block, and where in it, would otherwise
    decide the last bit, and with it whether two items that are alike have one score.
    """
    wide = gallery.astype(np.float64).T
    rows = max(1, BLOCK // len(gallery))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        yield part, (queries[part].astype(np.float64) @ wide).astype(np.float32)


def _check(items: np.ndarray, captions: np.ndarray, owners: np.ndarray) -> None:
    if items.ndim != 2 or captions.shape[1:] != items.shape[1:] or owners.shape != captions.shape[:1]:
        raise BenchError(
            f"retrieval needs items [N, D], captions [M, D] and owners [M], "
            f"not {list(items.shape)}, {list(captions.shape)} and {list(owners.shape)}"
        )
    if not len(items) or not len(captions):
        raise BenchError(f"retrieval needs items and captions, not {len(items)} and {len(captions)}")
    if owners.min() < 0 or owners.max() >= len(items):
        raise BenchError(f"captions belong to items 0 to {len(items) - 1}, not {owners.min()} to {owners.max()}")
    if without := len(items) - len(np.unique(owners)):
        raise BenchError(f"{without} of {len(items)} items have no caption; leave them out")
    if not (np.isfinite(items).all() and np.isfinite(captions).all()):
        raise BenchError("embeddings hold NaN or infinity; check the weights")
