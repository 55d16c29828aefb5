"""Frames of a clip on their way to the tokenizer: prepared, in blocks, a bounded number of blocks ahead."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Generic, TypeVar, cast

import numpy as np

from harness.data.base import Clip, ClipShape
from harness.data.geometry import ShapeError
from harness.data.prepare import Pipeline
from harness.errors import BenchError

T = TypeVar("T")

AHEAD = 1
"""Blocks that wait for the consumer. Beside them one is being made and one consumed: three are held at most."""

# Decoding has threads of its own; a frame's resize is one thread's work, and Pillow lets the others run meanwhile.
_THREADS = min(4, os.cpu_count() or 1)


def prepared_shape(shape: ClipShape, pipeline: Pipeline) -> tuple[int, int]:
    """``(height, width)`` that every frame of a clip has after the pipeline.

    Raises:
        BenchError: a pipeline that leaves 8 bit.
        harness.data.geometry.ShapeError: frames that a step cannot take.
    """
    # A black frame goes through: no second account of what each step does to the sides.
    pixels = pipeline(np.zeros((shape.height, shape.width, 3), np.uint8))
    if pixels.dtype != np.uint8:
        raise BenchError(f"prepare {pipeline.text!r}: gives float pixels; frames of videos must stay 8-bit")
    height, width = pixels.shape[:2]
    return height, width


def prepared_blocks(clip: Clip, pipeline: Pipeline, limit: int | None, size: int) -> Generator[np.ndarray, None, None]:
    """The beginning of a clip as the tokenizer gets it, decoded and prepared in the background.

    No frame behind the `limit`-th is asked of the clip. Closing the generator ends the work at the next frame.

    Args:
        limit: the first so many frames; None for all.
        size: frames in a block.

    Yields:
        uint8 ``[n, H', W', 3]`` with the sides of `prepared_shape`, n == `size` but for the last block.

    Raises:
        SampleError: the file breaks; after the blocks before that place.
        BenchError: a pipeline that leaves 8 bit.
        harness.data.geometry.ShapeError: frames that a step cannot take, or that differ in size.
    """
    stop = threading.Event()
    return read_ahead(_prepared(clip, pipeline, limit, size, stop), stop)


def _prepared(
    clip: Clip, pipeline: Pipeline, limit: int | None, size: int, stop: threading.Event
) -> Iterator[np.ndarray]:
    sides = prepared_shape(clip.shape, pipeline)
    # One by one: a block of the reader's would run past the limit.
    blocks = clip.ffmpeg_blocks if pipeline.colour == "ffmpeg" and clip.ffmpeg_blocks is not None else clip.blocks
    frames = cast("Generator[np.ndarray, None, None]", blocks(1))
    with closing(frames), ThreadPoolExecutor(_THREADS) as pool:
        taken = islice(frames, limit)
        waiting: deque[Future[None]] = deque()
        start, count = 0, size
        while count == size and not stop.is_set():
            block, count = np.empty((size, *sides, 3), np.uint8), 0
            for frame in islice(taken, size):
                # Few frames wait for their resize: of large ones a block would take more memory than it gives.
                if len(waiting) > _THREADS:
                    waiting.popleft().result()
                waiting.append(pool.submit(_prepare_into, block[count], pipeline, frame[0], start + count))
                count += 1
                if stop.is_set():
                    return
            while waiting:
                waiting.popleft().result()
            if count:
                yield block[:count]
            start += count


def _prepare_into(out: np.ndarray, pipeline: Pipeline, frame: np.ndarray, number: int) -> None:
    pixels = pipeline(frame)
    if pixels.shape != out.shape:
        (height, width, _), (first_height, first_width, _) = pixels.shape, out.shape
        raise ShapeError(
            f"frame {number} is {width} x {height} pixels after preparation, and the clip's are "
            f"{first_width} x {first_height}"
        )
    out[:] = pixels


def read_ahead(
    items: Iterator[T], stop: threading.Event | None = None, *, ahead: int = AHEAD
) -> Generator[T, None, None]:
    """The same items, made by one background thread while the consumer works on those before.

    The thread starts with the first item that is asked for and is gone when the generator ends, is closed or is
    collected. An exception of `items` is raised after the items before it.

    Args:
        stop: set when the consumer wants no more, for an iterator that can end between two items.
        ahead: items that wait for the consumer at most; beside them one is being made.
    """
    queue = _Queue[T](ahead)
    # A daemon: a consumer that an exception keeps alive must not keep the program from its end.
    thread = threading.Thread(target=queue.fill, args=(items,), name="read-ahead", daemon=True)
    thread.start()
    try:
        yield from queue.take()
    finally:
        if stop is not None:
            stop.set()
        queue.close()
        thread.join()


class _Queue(Generic[T]):
    """Between one thread that makes items and one that takes them."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._change = threading.Condition()
        self._ready: deque[T] = deque()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def fill(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                with self._change:
                    self._change.wait_for(lambda: self._closed or len(self._ready) < self._ahead)
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._change.notify_all()
            # In the thread that ran it: a decoder is released where it was used.
            if isinstance(items, Generator):
                items.close()
        except BaseException as error:
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def take(self) -> Iterator[T]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ended or self._ready)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._change.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
