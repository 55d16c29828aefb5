"""Images in Parquet files, as datasets are published on hubs: encoded bytes in one column, words in another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atoken.text.prompts import sentences
from atoken.training.data.captions import chosen
from atoken.training.data.images import decode
from atoken.training.data.source import ImageSource, SampleError, fingerprint_of
from atoken.training.errors import TrainingError

__all__ = ["ParquetImages"]

CAPTIONS = ("caption", "text", "class_name")
"""Columns that are looked for, in this order; a class name becomes a sentence."""

HELD_BYTES = 2**29
"""Encoded images of fewer bytes are held in memory, and shared with forked processes; of more, the last row groups."""

_GROUPS = 4


class ParquetImages(ImageSource):
    """Rows of one .parquet file, or of all files of a folder."""

    def __init__(self, place: Path) -> None:
        """Read the files' footers, and what is small enough to be held.

        Raises:
            TrainingError: missing, damaged, or without a column of images.
        """
        self.name = str(place)
        self._files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        self._groups: list[tuple[int, int]] = []
        starts, stamps, size = [0], [], 0
        for number, path in enumerate(self._files):
            footer = _footer(path)
            if number == 0:
                self._image, self._words = _columns(path, footer.schema.to_arrow_schema())
            stamps.append((path.name, path.stat().st_size, footer.num_rows))
            for group in range(footer.num_row_groups):
                self._groups.append((number, group))
                rows = footer.row_group(group)
                starts.append(starts[-1] + rows.num_rows)
                size += rows.total_byte_size
        self._starts = np.array(starts)
        if len(self) == 0:
            raise TrainingError(f"{place}: holds no rows")
        self.captioned = self._words is not None
        self.fingerprint = fingerprint_of([*stamps, self._image, self._words])
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._limit = len(self._groups) if size <= HELD_BYTES else _GROUPS
        if self._limit == len(self._groups):
            try:
                for group in range(len(self._groups)):
                    self._group(group)
            except SampleError as error:
                raise TrainingError(str(error)) from None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sample_id(self, index: int) -> str:
        group, _ = self._place(index)
        number, own = self._groups[group]
        return f"{self._files[number]} row {index - int(self._starts[group - own])}"

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        if self._words is None:
            return None
        group, row = self._place(index)
        return chosen(self._sentences(self._group(group)[self._words][row].as_py()), rng)

    def texts(self) -> Iterator[str]:
        if self._words is None:
            return
        for group in range(len(self._groups)):
            for words in self._group(group)[self._words].unique().to_pylist():
                yield from self._sentences(words)

    def image(self, index: int) -> np.ndarray:
        group, row = self._place(index)
        cell = self._group(group)[self._image][row].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise SampleError("holds no bytes of an image")
        return decode(data)

    def _sentences(self, words: object) -> tuple[str, ...]:
        if not isinstance(words, str) or not words.strip():
            return ()
        return tuple(sentences(words)) if self._words == "class_name" else (" ".join(words.split()),)

    def _place(self, index: int) -> tuple[int, int]:
        """Row group and row in it."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        return group, index - int(self._starts[group])

    def _group(self, group: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if group not in self._held:
            number, own = self._groups[group]
            columns = [self._image] if self._words is None else [self._image, self._words]
            try:
                # One thread: pools of threads do not survive a fork.
                table = pq.ParquetFile(self._files[number]).read_row_group(own, columns=columns, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise SampleError(f"{self._files[number]}: cannot be read ({_first_line(error)})") from None
            self._held[group] = table.combine_chunks()
            if len(self._held) > self._limit:
                self._held.popitem(last=False)
        self._held.move_to_end(group)
        return self._held[group]


def _footer(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise TrainingError(f"{path}: no Parquet file that can be read ({_first_line(error)})") from None


def _columns(path: Path, schema: Any) -> tuple[str, str | None]:
    """Names of the columns of images and of words."""
    import pyarrow as pa

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    images = [field.name for field in schema if holds_images(field.type)]
    if not images:
        raise TrainingError(
            f"{path}: no column holds images (binary, or a struct with bytes); it has {', '.join(schema.names)}"
        )
    words = next((name for name in CAPTIONS if name in schema.names), None)
    return ("image" if "image" in images else images[0]), words


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
