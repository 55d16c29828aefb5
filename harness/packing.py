"""Forms packs from a token budget, in order: what goes through a model together, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from harness.console import Advance
from harness.workload import Failed, Measured

T = TypeVar("T")


def packs(items: Iterable[T], tokens: Callable[[T], int], budget: int) -> Iterator[list[T]]:
    """Cut `items` into consecutive packs of at most `budget` tokens.

    An item that alone exceeds the budget is a pack of its own. Where the cuts fall depends on the items
    and the budget alone. Lazy: holds one pack.
    """
    pack: list[T] = []
    filled = 0
    for item in items:
        count = tokens(item)
        if pack and filled + count > budget:
            yield pack
            pack, filled = [], 0
        pack.append(item)
        filled += count
    if pack:
        yield pack


def measured_in_packs(
    items: Iterable[T | Failed],
    tokens: Callable[[T], int],
    budget: int,
    measure: Callable[[Sequence[T]], Measured],
    advance: Advance,
) -> Measured:
    """Measure what could be read, pack by pack (see `packs`); what could not is among the failed.

    Args:
        measure: of one pack, in order.
        advance: told of each sample that is done.
    """
    failed: list[Failed] = []

    def readable() -> Iterator[T]:
        for item in items:
            if isinstance(item, Failed):
                failed.append(item)
                advance(1)
            else:
                yield item

    parts = []
    for pack in packs(readable(), tokens, budget):
        parts.append(measure(pack))
        advance(len(pack))
    return Measured.of([*parts, Measured(rows=[], failed=failed, columns={}, features={})])
