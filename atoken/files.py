"""Writing files so that a reader sees all of one or none of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from atoken.errors import ATokenError

__all__ = ["WriteError", "aside_of", "refusals", "replacing"]


class WriteError(ATokenError):
    """A file that could not be written: full disk, read-only folder; the line says which."""


def aside_of(path: Path) -> Path:
    """Where what will become `path` is written: beside it, hidden, this process's own."""
    # The suffix stays last: some writers choose the format by it.
    return path.with_name(f".part-{os.getpid()}-{path.name}")


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into one line.

    Raises:
        WriteError: the system refused, in whatever way.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror or error}; nothing was written") from None
    except SafetensorError as error:
        raise WriteError(f"{path}: {error}; nothing was written") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; on success it takes the place of `path`.

    The parent folder is made if need be. Data reach the disk before the rename, so that even a
    power cut leaves the old file or the whole new one. On any error the written part is removed.

    Raises:
        WriteError: the system refused to write; an older file at `path` stays as it was.
    """
    aside = aside_of(path)
    try:
        with refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    finally:
        # Where `path` lies under a file, not a folder, even this is refused: the first error is the one to tell.
        with suppress(OSError):
            aside.unlink(missing_ok=True)
