"""Batches read ahead by worker processes, in the order in which they are wanted."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterable

import torch
from torch.utils.data import DataLoader, Dataset

from atoken.training.data.batches import Batches
from atoken.training.data.pack import Batch
from atoken.training.errors import TrainingError

__all__ = ["load_ahead"]

AHEAD = 4
"""Batches that each worker has ready or in the making. Some take a hundred times as long as others (clips made of
photographs), and they come in order: with one each, all wait for the slowest."""


def load_ahead(batches: Batches, plan: Iterable[tuple[str, int]], *, workers: int) -> Generator[Batch, None, None]:
    """The batches of a plan.

    Args:
        plan: (task, step) of each, in order.
        workers: processes; 0 reads here, when a batch is asked for.

    Raises:
        TrainingError: as `Batches.batch`, where its batch would have come.
    """
    if workers == 0:
        for task, step in plan:
            yield batches.batch(task, step)
        return
    loader: DataLoader[Batch | TrainingError] = DataLoader(
        _Reader(batches),
        batch_size=None,
        sampler=plan,  # any iterable of keys does
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin,
    )
    for batch in loader:
        if isinstance(batch, TrainingError):
            raise batch
        yield batch


class _Reader(Dataset[Batch | TrainingError]):
    """What workers run."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, key: tuple[str, int]) -> Batch | TrainingError:
        try:
            return self._batches.batch(*key)
        except TrainingError as error:
            return error  # raised there it would come back as a traceback


def _begin(_: int) -> None:
    """Ctrl-C is the parent's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
