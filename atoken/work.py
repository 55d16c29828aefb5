"""Files on their way through the model: decoded one by one, packed by tokens, faults named and counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from atoken.errors import InputError
from atoken.media import MediaError, is_video, list_media, read_image
from atoken.video import frame_rate, read_video

__all__ = ["Item", "Work", "packs", "progress"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A decoded file: its place in the list of files, name in a token file, pixels, frame rate."""

    place: int
    path: Path
    name: str
    pixels: np.ndarray
    rate: Fraction | None

    def tokens(self, patch: tuple[int, int, int]) -> int:
        """How many tokens it becomes."""
        frames, height, width = (1, *self.pixels.shape)[-4:-1]
        t, h, w = patch
        return int(-(-frames // t) * -(-height // h) * -(-width // w))


class Work:
    """Files to be decoded and computed: broken ones are named and left out, the end is a count."""

    def __init__(self, title: str, inputs: Iterable[Path]) -> None:
        self._title = title
        self._files = [(path, name) for given in inputs for path, name in _named(given)]
        self._failed = 0

    def __enter__(self) -> Work:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None or not self._failed:
            return
        total = len(self._files)
        if self._failed == total:
            raise MediaError(f"none of {total} files could be used" if total > 1 else "the only file cannot be used")
        print(f"{self._failed} of {total} files left out, see above", file=sys.stderr)

    def compute(
        self, function: Callable[[Sequence[Item]], list[Result]], patch: tuple[int, int, int], token_budget: int
    ) -> Iterator[tuple[Item, Result]]:
        """Apply `function` to packs of items; a pack that it refuses is tried item by item."""
        with progress(self._title, len(self._files)) as (console, advance):
            for pack in packs(self._read(console, advance), lambda item: item.tokens(patch), token_budget):
                yield from self._applied(function, pack, console)
                for _ in pack:
                    advance()

    def _applied(
        self, function: Callable[[Sequence[Item]], list[Result]], pack: list[Item], console: Console
    ) -> Iterator[tuple[Item, Result]]:
        try:
            results = function(pack)
        except InputError as error:
            if len(pack) == 1:
                self._leave_out(console, f"{pack[0].path}: {str(error).removeprefix('item 0: ')}")
                return
            for item in pack:
                yield from self._applied(function, [item], console)
            return
        yield from zip(pack, results, strict=True)

    def _read(self, console: Console, advance: Callable[[], None]) -> Iterator[Item]:
        for place, (path, name) in enumerate(self._files):
            try:
                if is_video(path):
                    yield Item(place=place, path=path, name=name, pixels=read_video(path), rate=frame_rate(path))
                else:
                    yield Item(place=place, path=path, name=name, pixels=read_image(path), rate=None)
            except MediaError as error:
                self._leave_out(console, str(error))
                advance()

    def _leave_out(self, console: Console, line: str) -> None:
        self._failed += 1
        console.print(line, soft_wrap=True)


def _named(given: Path) -> Iterator[tuple[Path, str]]:
    """Files of an argument with their names: relative to a given folder, else the file's own."""
    for path in list_media([given]):
        yield path, path.relative_to(given).as_posix() if given.is_dir() else path.name


def packs(items: Iterable[Result], size: Callable[[Result], int], budget: int) -> Iterator[list[Result]]:
    """Consecutive items whose sizes sum to at most `budget`; a larger item alone."""
    pack: list[Result] = []
    used = 0
    for item in items:
        if pack and used + size(item) > budget:
            yield pack
            pack, used = [], 0
        pack.append(item)
        used += size(item)
    if pack:
        yield pack


@contextmanager
def progress(title: str, total: int) -> Iterator[tuple[Console, Callable[[], None]]]:
    """A console for lines on stderr, and a function to call after each file; a bar on a terminal only."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield console, lambda: bar.advance(task)
