"""Decodes and prepares samples, in worker processes, in order, a bounded number ahead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from harness.data.base import ImageSource, SampleError
from harness.workload import Failed

Prepare = Callable[[np.ndarray], np.ndarray]

# Samples that travel together. Few, so that the first arrive soon; more than one, so that a worker's
# messages do not cost more than small images do.
CHUNK = 4
# Chunks that a worker is ahead by: bounds the memory, whatever the size of the dataset.
AHEAD = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample as the tokenizer gets it.

    Attributes:
        pixels: uint8 ``[H, W, 3]``, or float32 in [-1, 1] where the protocol leaves 8 bit.
        sha256: of the stored bytes.
        size_in: ``(H, W)`` as it was decoded.
    """

    id: str
    label: int | None
    pixels: np.ndarray
    sha256: str
    size_in: tuple[int, int]


def prepared(
    dataset: ImageSource, prepare: Prepare, indices: Sequence[int], *, workers: int
) -> Iterator[Prepared | Failed]:
    """Read the samples at `indices`, in that order.

    Args:
        workers: processes that decode; 0 decodes here.
    """
    chunks = [list(indices[start : start + CHUNK]) for start in range(0, len(indices), CHUNK)]
    workers = min(workers, len(chunks) // 2)
    loader: DataLoader[Prepared | Failed] = DataLoader(
        _Readable(dataset, prepare),
        batch_sampler=chunks,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=partial(_end_with, os.getpid()) if workers else None,
    )
    for chunk in loader:  # as `_as_it_is` left it: a list
        yield from chunk


class _Readable(TorchDataset[Prepared | Failed]):
    def __init__(self, dataset: ImageSource, prepare: Prepare) -> None:
        self._dataset = dataset
        self._prepare = prepare

    def __getitem__(self, index: int) -> Prepared | Failed:
        sample = self._dataset.samples[index]
        try:
            decoded = self._dataset.read(index)
            pixels = self._prepare(decoded.pixels)
        except SampleError as error:
            return Failed(sample.id, error.reason)
        except Exception as error:
            # Other people's files meet other people's decoders here. One of 50,000 must not end the run,
            # and it is not silent: the record names the sample with this line.
            return Failed(sample.id, f"{type(error).__name__}: {error}")
        if not pixels.flags.writeable:
            pixels = pixels.copy()  # Pillow's memory; torch wants its own
        return Prepared(sample.id, sample.label, pixels, decoded.sha256, decoded.pixels.shape[:2])


def _end_with(parent: int, worker: int) -> None:  # noqa: ARG001 - the second is what torch calls it with
    # Torch's workers notice a killed parent, but then wait for ever to hand over what they have read. `parent` is
    # told and not asked for: it may have been killed before this worker could ask, and another adopted it.
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(items: list[Prepared | Failed]) -> list[Prepared | Failed]:
    return items


def eight_bit_pixels(pixels: np.ndarray, rule: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Prepared pixels as uint8 ``[H, W, 3]``; `rule` where they left 8 bit."""
    if pixels.dtype == np.uint8:
        return pixels
    return rule(torch.from_numpy(pixels)).numpy()
