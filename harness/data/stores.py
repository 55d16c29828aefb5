"""Where the bytes of images lie: a folder, a zip or tar shards. Indexed once, nothing is ever extracted.

A store is picklable and safe to use from forked workers and from threads: it opens its file in each
process for itself, and no two readers share a file position.
"""

from __future__ import annotations

import os
import stat
import tarfile
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import BenchError


class UnreadableError(Exception):
    """One member cannot be read; the message is the reason."""


class Store(ABC):
    """Named byte strings.

    Attributes:
        root: the folder or file that the user gave.
    """

    root: Path

    @abstractmethod
    def names(self) -> Sequence[str]:
        """POSIX paths of all files below the root, hidden ones left out, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            UnreadableError: they cannot be read.
        """

    @abstractmethod
    def stamp(self, name: str) -> str:
        """The stored size (and a zip's CRC), without reading the bytes; the same for every copy of the file."""


def _hidden(name: str) -> bool:
    # __MACOSX: the resource forks that macOS puts into archives, named like the images.
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


class FolderStore(Store):
    """All files below a folder. A folder that symbolic links reach more than once is read once.

    Raises:
        BenchError: there is no such folder, or it may not be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise BenchError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
        self._names = sorted(_walk(root))

    def names(self) -> Sequence[str]:
        return self._names

    def read(self, name: str) -> bytes:
        path = self.root / name
        try:
            # Opening a pipe or a device would wait for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                raise UnreadableError("not a regular file")
            return path.read_bytes()
        except FileNotFoundError:
            link = path.is_symlink()
            raise UnreadableError("a link that leads nowhere" if link else "the file is gone") from None
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from None

    def stamp(self, name: str) -> str:
        # No modification time: the copies on two machines of one run have different ones.
        try:
            return str((self.root / name).stat().st_size)
        except OSError:
            return "unreadable"


def _walk(root: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise BenchError(f"{error.filename}: {error.strerror}; make the folder readable or remove it") from None

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted: which of two links to one folder counts must not depend on the file system.
        folders[:] = sorted(name for name in folders if not _hidden(name))
        below = Path(folder).relative_to(root)
        for file in files:
            name = (below / file).as_posix()
            if not _hidden(name):
                yield name


class ZipStore(Store):
    """The members of a zip archive.

    Raises:
        BenchError: not a zip archive, or one whose members would lie outside it.
    """

    def __init__(self, path: Path) -> None:
        self.root = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (OSError, zipfile.BadZipFile) as error:
            raise BenchError(f"{path}: {_archive_reason(path, error, 'zip')}") from None
        for name in infos:
            _refuse_escape(path, name)
        self._names = sorted(name for name in infos if not _hidden(name))
        self._stamps = {name: f"{infos[name].file_size}-{infos[name].CRC:08x}" for name in self._names}
        self._local = threading.local()

    def names(self) -> Sequence[str]:
        return self._names

    def read(self, name: str) -> bytes:
        try:
            return self._archive().read(name)
        except (KeyError, OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile) as error:
            raise UnreadableError(f"in {self.root.name}: {error}") from None
        except zipfile.zlib.error as error:  # type: ignore[attr-defined]
            raise UnreadableError(f"in {self.root.name}: {error}") from None

    def stamp(self, name: str) -> str:
        return self._stamps[name]

    def _archive(self) -> zipfile.ZipFile:
        # One per thread and process: a forked worker would share the file position of its parent.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.archive = zipfile.ZipFile(self.root)
        archive: zipfile.ZipFile = self._local.archive
        return archive

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_names": self._names, "_stamps": self._stamps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())


class TarStore(Store):
    """The members of plain tar shards, read by offset.

    A single shard's names are its members'; of several, ``SHARD.tar/MEMBER``.

    Raises:
        BenchError: a file that is no plain tar, is cut off, or whose members would lie outside it.
    """

    def __init__(self, root: Path, shards: Sequence[Path]) -> None:
        self.root = root
        self._shards = list(shards)
        self._places: dict[str, tuple[int, int, int]] = {}
        for number, shard in enumerate(self._shards):
            prefix = f"{shard.name}/" if len(self._shards) > 1 else ""
            for name, offset, size in _index(shard):
                _refuse_escape(shard, name)
                if not _hidden(name):
                    self._places[prefix + PurePosixPath(name).as_posix()] = (number, offset, size)
        self._files: dict[int, int] = {}

    def names(self) -> Sequence[str]:
        return sorted(self._places)

    def size(self, name: str) -> int:
        """Bytes of one member."""
        return self._places[name][2]

    def read(self, name: str) -> bytes:
        number, offset, size = self._places[name]
        try:
            # pread has no file position, so threads and forked workers may share the descriptor.
            data = os.pread(self._descriptor(number), size, offset)
        except OSError as error:
            raise UnreadableError(f"{self._shards[number]}: {error.strerror or error}") from None
        if len(data) != size:
            raise UnreadableError(f"{self._shards[number]} ends before the member does")
        return data

    def stamp(self, name: str) -> str:
        return str(self.size(name))

    def _descriptor(self, number: int) -> int:
        if number not in self._files:
            mine = os.open(self._shards[number], os.O_RDONLY)
            if self._files.setdefault(number, mine) != mine:  # another thread was faster
                os.close(mine)
        return self._files[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)


def _index(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each regular member; of two with one name the later counts, as for tar."""
    count = 0
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                # The list that tarfile keeps would be larger than the index.
                archive.members = []  # type: ignore[attr-defined]
                count += 1
                if member.isreg() and not member.issparse():
                    yield member.name, member.offset_data, member.size
            end = archive.offset
        # tarfile takes a damaged or half header for the end of the archive; the real end is a block of zeros.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark")
    except tarfile.ReadError as error:
        if count:
            raise BenchError(f"{path}: cut off or damaged after {count} members ({error}); fetch it again") from None
        raise BenchError(f"{path}: {_archive_reason(path, error, 'tar')}") from None
    except OSError as error:
        raise BenchError(f"{path}: {_archive_reason(path, error, 'tar')}") from None


def _refuse_escape(archive: Path, name: str) -> None:
    if name.startswith("/") or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise BenchError(f"{archive}: the member {name!r} would lie outside the archive; not read")


_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


def _archive_reason(path: Path, error: Exception, kind: str) -> str:
    """Why an archive cannot be opened, with the mend."""
    if not path.is_file():
        return "is a folder" if path.is_dir() else "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with path.open("rb") as file:
        tool = _COMPRESSED.get(file.read(2))
    if kind == "tar" and tool:
        return f"is compressed, and images are read by their place in a plain tar; unpack it with {tool}"
    return f"not a {kind} archive, or damaged ({error}); fetch it again"
