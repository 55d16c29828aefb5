"""Files on their way through the model: decoded one by one, packed by tokens, faults named and counted.

Videos may stream instead: then no more of them is held than the function that takes them holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from atoken.assets.asset import Asset
from atoken.assets.sources import AssetError
from atoken.errors import InputError
from atoken.media import MediaError, is_asset, is_video, list_media, read_image
from atoken.video import frame_rate, open_video, read_video

if TYPE_CHECKING:
    from atoken.assets.mesh_to_asset import Recipe

__all__ = ["Bars", "Clip", "Item", "Work", "packs", "passing", "progress"]

BLOCK = 16
"""Frames that are read at once."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A decoded file: its place in the list of files, name in a token file, pixels or voxels, frame rate."""

    place: int
    path: Path
    name: str
    content: np.ndarray | Asset
    rate: Fraction | None

    def tokens(self, patch: tuple[int, int, int]) -> int:
        """How many tokens it becomes."""
        if isinstance(self.content, Asset):
            return len(self.content)
        frames, height, width = (1, *self.content.shape)[-4:-1]
        t, h, w = patch
        return int(-(-frames // t) * -(-height // h) * -(-width // w))


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video that streams: its place in the list of files, name in a token file, blocks of frames, frame rate."""

    place: int
    name: str
    frames: Iterator[np.ndarray]
    rate: Fraction


class Work:
    """Files to be decoded and computed: broken ones are named and left out, the end is a count."""

    def __init__(
        self, title: str, inputs: Iterable[Path], recipe: Recipe | None = None, view_cache: Path | None = None
    ) -> None:
        """The files to come.

        Args:
            title: of the progress bar.
            inputs: files, and folders of them.
            recipe: how meshes become voxels.
            view_cache: where their views are kept, if at all.
        """
        self._title = title
        self._recipe = recipe
        self._view_cache = view_cache
        self._files = [(path, name) for given in inputs for path, name in _named(given)]
        self._failed = 0

    @property
    def has_assets(self) -> bool:
        """Whether any file is one of a 3D asset."""
        return any(is_asset(path) for path, _ in self._files)

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
        self,
        function: Callable[[Sequence[Item]], list[Result]],
        patch: tuple[int, int, int],
        token_budget: int,
        *,
        stream: Callable[[Clip], None] | None = None,
    ) -> Iterator[tuple[Item, Result]]:
        """Apply `function` to packs of items; a pack that it refuses is tried item by item.

        Args:
            stream: takes each video as frames, at its place in the order of files, and keeps its own
                results: all or none, since an error may come amid the frames. Without it videos are
                items, held whole.
        """
        with progress(self._title, len(self._files)) as bars:
            for is_stream, files in groupby(enumerate(self._files), lambda file: bool(stream) and is_video(file[1][0])):
                if stream is not None and is_stream:
                    for place, (path, name) in files:
                        self._stream(stream, place, path, name, bars)
                    continue
                for pack in packs(self._read(files, bars), lambda item: item.tokens(patch), token_budget):
                    yield from self._applied(function, pack, bars.console)
                    bars.advance(len(pack))

    def _stream(self, stream: Callable[[Clip], None], place: int, path: Path, name: str, bars: Bars) -> None:
        try:
            video = open_video(path)
            with bars.part(name, video.info.frames) as passed:
                frames = passing(video.blocks(BLOCK), passed)
                stream(Clip(place=place, name=name, frames=frames, rate=video.info.rate))
        except MediaError as error:
            self._leave_out(bars.console, str(error))
        except InputError as error:
            self._leave_out(bars.console, f"{path}: {error}")
        bars.advance()

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

    def _read(self, files: Iterable[tuple[int, tuple[Path, str]]], bars: Bars) -> Iterator[Item]:
        for place, (path, name) in files:
            try:
                rate = None
                content: np.ndarray | Asset
                if is_asset(path):
                    content = self._look_at(path, name, bars)
                elif is_video(path):
                    content, rate = read_video(path), frame_rate(path)
                else:
                    content = read_image(path)
                yield Item(place=place, path=path, name=name, content=content, rate=rate)
            except (MediaError, AssetError) as error:
                self._leave_out(bars.console, str(error))
                bars.advance()

    def _look_at(self, path: Path, name: str, bars: Bars) -> Asset:
        from atoken.assets.mesh import load_mesh
        from atoken.assets.mesh_to_asset import Recipe, voxelise

        mesh = load_mesh(path)
        for note in mesh.notes:
            bars.console.print(f"{path}: {note}", soft_wrap=True)
        recipe = self._recipe or Recipe()
        with bars.part(f"{name} (views)", recipe.views) as passed:
            return voxelise(mesh, recipe, cache=self._view_cache, passed=passed)

    def _leave_out(self, console: Console, line: str) -> None:
        self._failed += 1
        console.print(line, soft_wrap=True)


def _named(given: Path) -> Iterator[tuple[Path, str]]:
    """Files of an argument with their names: relative to a given folder, else the file's own."""
    for path in list_media([given], assets=True):
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


def passing(blocks: Iterable[np.ndarray], passed: Callable[[int], None]) -> Iterator[np.ndarray]:
    """The same blocks; `passed` hears of the frames of each once it was used."""
    for block in blocks:
        yield block
        passed(len(block))


class Bars:
    """What a person sees meanwhile, on stderr: bars on a terminal only, lines always."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self.console = bar.console

    def advance(self, files: int = 1) -> None:
        """That many files are done with."""
        self._bar.advance(self._task, files)

    @contextmanager
    def part(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A bar for one file, and a function that takes how many more of its frames or views are done."""
        task = self._bar.add_task(name, total=total)
        try:
            yield lambda count: self._bar.advance(task, count)
        finally:
            self._bar.remove_task(task)


@contextmanager
def progress(title: str, total: int) -> Iterator[Bars]:
    """Bars that count files, and the frames or views of one that takes long."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Bars(bar, bar.add_task(title, total=total))
