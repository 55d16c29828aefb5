"""Writes files whole or not at all, and keeps two runs from writing to one folder at once."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import BenchError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename: `path` never holds half a file, not even after a power cut.

    Raises:
        BenchError: the disk is full or the folder cannot be written; names the folder.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except OSError as error:
        _discard(aside)
        raise _explained(error, path.parent) from error


def make_folder(folder: Path) -> None:
    """Create `folder` and prove that it can be written, before hours of work depend on it.

    Raises:
        BenchError: it cannot; names the folder and why.
    """
    probe = folder / f".probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
    except OSError as error:
        raise _explained(error, folder) from error
    finally:
        _discard(probe)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # Only reached while another error of the same folder is on its way up: that one is told.
        return


def _explained(error: OSError, folder: Path) -> BenchError:
    if error.errno in _FULL:
        return BenchError(
            f"{folder}: no space left on the disk; finished shards are kept: make room and run the same command again"
        )
    return BenchError(f"{folder}: cannot be written: {error.strerror or error}; choose another folder with --runs")


class FolderLock:
    """Advisory locks on the parts of a run's folder; the system releases them when the process ends, however.

    One lock file, one byte for each part, so that processes which share a run (``--shard``, torchrun) hold
    their own shards and none can take another's. Open one per process and folder: POSIX drops all of a
    process's locks on a file when it closes any handle to it.
    """

    PREPARE = 0
    MERGE = 1
    _FIRST_SHARD = 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        try:
            self._file = (self.folder / "lock").open("a+b")
        except OSError as error:
            raise _explained(error, self.folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def claim_shards(self, indices: Iterable[int]) -> None:
        """Take the shards that this process will write.

        Raises:
            BenchError: another process has one of them.
        """
        for index in indices:
            if not self._lock(self._FIRST_SHARD + index, wait=False):
                raise BenchError(
                    f"{self.folder}: another run is writing here (it holds shard {index}); wait for it, "
                    "or share the work with --shard 0/2 and --shard 1/2"
                )

    def wait_for(self, part: int) -> None:
        """Take `PREPARE` or `MERGE`, after whoever has it now."""
        self._lock(part, wait=True)

    def release(self, part: int) -> None:
        """Give `PREPARE` or `MERGE` back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, part)

    def _lock(self, offset: int, *, wait: bool) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, offset)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise BenchError(
                f"{self.folder}: this file system has no locks ({error.strerror}); choose another with --runs"
            ) from error
        return True
