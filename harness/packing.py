"""Forms packs from a token budget, in order: what goes through the tokenizer together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

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
