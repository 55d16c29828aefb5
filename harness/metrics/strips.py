"""Large frames in pieces that stay in a processor's cache, on as many threads as torch has.

A frame of 1080p has six million values: an operation on all of it reads and writes main memory, and the next one
does again. A GPU has the bandwidth and wants few, large operations: there a piece is all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

A = TypeVar("A")
B = TypeVar("B")

PIECE = 1 << 17
"""Values of a piece: 0.5 MB of int32. Half or double of it is 5 to 20 % slower where a core has 1 MB of cache."""


def chunks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The values of two tensors of one shape, piece by piece, without regard to that shape."""
    size = PIECE if x.device.type == "cpu" else max(1, x.numel())
    return zip(torch.split(x.flatten(), size), torch.split(y.flatten(), size), strict=True)


def strips(height: int, width: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """First row and end of each strip of a plane ``[height, width]``."""
    rows = max(1, PIECE // width) if device.type == "cpu" else height
    return ((first, min(first + rows, height)) for first in range(0, height, rows))


def on_threads(work: Callable[[A], B], items: Iterable[A], device: torch.device) -> list[B]:
    """What `work` gives for each item, in order.

    On the CPU one item goes to each of torch's threads, which works on it alone: torch's own way, to split each
    operation, makes the threads wait for one another some forty times per strip, and is slower than one thread where
    another process wants a core. On a GPU the items come one after another.
    """
    items = list(items)
    threads = min(torch.get_num_threads(), len(items))
    if device.type != "cpu" or threads < 2:
        return [work(item) for item in items]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        # A thread that sets its own number also sets that of threads to come.
        torch.set_num_threads(before)
