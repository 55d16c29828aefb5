"""Images inside Parquet files, as a store: a row is a member, read by its row group."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.stores import Store, UnreadableError
from harness.errors import BenchError

IMAGE = "image"
"""The column of images: bytes, or the structure ``{"bytes", "path"}`` that the package `datasets` writes."""

NAMES = ("file", "file_name", "id")
"""Columns that are looked for, in this order, for the members' names."""

_GROUPS = 4  # row groups that are held: readers go through them in order, a few ahead of each other


class ParquetStore(Store):
    """Rows of one .parquet file, or of all files of a folder, in their order.

    A member's name is what its row has under `NAMES`, else ``row 000012``; of several files, ``FILE/NAME``.

    Args:
        columns: others that the caller wants, see `column`.

    Raises:
        BenchError: no such file, a damaged one, without images or a wanted column, or with two rows of one name.
    """

    def __init__(self, root: Path, columns: Sequence[str] = ()) -> None:
        self.root = root
        self._files = sorted(root.glob("*.parquet")) if root.is_dir() else [root]
        if not self._files:
            raise BenchError(f"{root}: holds no .parquet; give a Parquet file or a folder of such files")
        self._sizes: list[int] = []
        self._groups: list[tuple[int, int]] = []
        self._starts = [0]
        self._columns: dict[str, list[Any]] = {name: [] for name in columns}
        self._rows: list[str] = []
        for number, path in enumerate(self._files):
            self._index(number, path)
        self._places = {name: row for row, name in enumerate(self._rows)}
        if twice := len(self._rows) - len(self._places):
            raise BenchError(f"{root}: {twice:,} rows have the name of another; give each its own")
        self._start_locally()

    def _index(self, number: int, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        wanted = tuple(self._columns)
        try:
            with parquet.ParquetFile(path) as file:
                known = file.schema_arrow.names
                if lacking := [name for name in (IMAGE, *wanted) if name not in known]:
                    raise BenchError(f"{path}: has no column {lacking[0]}; it needs {', '.join((IMAGE, *wanted))}")
                key = next((name for name in NAMES if name in known), None)
                table = file.read(columns=[*wanted, *([key] if key else [])], use_threads=False)
                counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            self._sizes.append(path.stat().st_size)
        except (OSError, pa.ArrowException) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else _first_line(error)
            raise BenchError(f"{path}: cannot be read as Parquet ({reason}); give another file") from None
        for group, count in enumerate(counts):
            self._groups.append((number, group))
            self._starts.append(self._starts[-1] + count)
        prefix = f"{path.name}/" if len(self._files) > 1 else ""
        names = table[key].to_pylist() if key else [f"row {row:06d}" for row in range(sum(counts))]
        self._rows += [f"{prefix}{name}" for name in names]
        for name, values in self._columns.items():
            values.extend(table[name].to_pylist())

    def _start_locally(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Any] = OrderedDict()

    def names(self) -> Sequence[str]:
        return sorted(self._rows)

    def rows(self) -> Sequence[str]:
        """The names, in the order of the rows."""
        return self._rows

    def column(self, name: str) -> Sequence[Any]:
        """The values of a wanted column, in the order of the rows."""
        return self._columns[name]

    def read(self, name: str) -> bytes:
        row = self._places[name]
        group = bisect_right(self._starts, row) - 1
        cell = self._group(group)[row - self._starts[group]].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes) or not data:
            raise UnreadableError("the row holds no bytes of an image")
        return data

    def stamp(self, name: str) -> str:
        # No row has a size of its own that could be had without reading all of them.
        row = self._places[name]
        number, _ = self._groups[bisect_right(self._starts, row) - 1]
        return f"{self._sizes[number]}-{row}"

    def _group(self, group: int) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        with self._lock:
            if group not in self._held:
                number, own = self._groups[group]
                try:
                    # One thread: pools of threads do not survive a fork.
                    with parquet.ParquetFile(self._files[number]) as file:
                        table = file.read_row_group(own, columns=[IMAGE], use_threads=False)
                except (OSError, pa.ArrowException) as error:
                    raise UnreadableError(f"in {self._files[number].name}: {_first_line(error)}") from None
                self._held[group] = table[IMAGE].combine_chunks()
                if len(self._held) > _GROUPS:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_held")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_locally()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
