"""Where a model's files are read from: a folder or a zip, and nothing outside of it.

A model names its other files itself (buffers, textures, material libraries), so every such name is an
input from a stranger: absolute paths, ``..``, addresses and links that lead out are refused before
anything is opened, and sizes are looked at before anything is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol
from urllib.parse import urlsplit

from atoken.errors import InputError

__all__ = [
    "MAX_FILE_BYTES",
    "AssetError",
    "AssetFile",
    "FolderSource",
    "OutsideError",
    "Source",
    "ZipSource",
    "inside",
    "open_asset",
]

MAX_FILE_BYTES = 2 * 2**30
"""A larger file of a model is refused before it is read."""


class AssetError(InputError):
    """An asset that cannot be used as it is; the message names the file and the mend."""


class OutsideError(AssetError):
    """A reference that leads out of the model's folder: absolute, with ``..``, an address, or a link."""


class Source(Protocol):
    """The files beside a model."""

    def read(self, reference: str) -> bytes | None:
        """The bytes of the file that the model calls `reference` (or by that name but for case), None if there is none.

        Raises:
            OutsideError: the reference leads out of the model's folder; nothing was opened.
            AssetError: the file is too large or cannot be read.
        """
        ...


class AssetFile:
    """The file that a model begins with, and the files beside it.

    Attributes:
        name: for messages, as the caller wrote it.
        suffix: in small letters with its dot.
        data: its bytes.
        source: what its references are read from.
    """

    def __init__(self, name: str, data: bytes, source: Source) -> None:
        self.name, self.data, self.source = name, data, source
        self.suffix = PurePosixPath(name.lower()).suffix


class FolderSource:
    """Files below the folder of the model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, reference: str) -> bytes | None:
        path = self._folder.joinpath(*inside(reference).parts)
        _stays(path, self._folder)
        if not path.is_file() and path.parent.is_dir():
            # Windows, where many models come from, knows no case.
            path = next((other for other in path.parent.iterdir() if other.name.lower() == path.name.lower()), path)
            _stays(path, self._folder)
        return _read_file(path) if path.is_file() else None


def _stays(path: Path, folder: Path) -> None:
    """A link may lead out where the name does not."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OutsideError(f"{path}: is a link out of the model's folder; put the file itself there")


class ZipSource:
    """Members of a zip, relative to the folder that the model lies in."""

    def __init__(self, archive: Path, folder: PurePosixPath) -> None:
        self._archive, self._folder = archive, folder

    def read(self, reference: str) -> bytes | None:
        member = str(self._folder / inside(reference))
        with _opened(self._archive) as archive:
            names = archive.namelist()
            found = next((name for name in names if name == member), None)
            found = found or next((name for name in names if name.lower() == member.lower()), None)
            return None if found is None else _read_member(archive, self._archive, found)


def open_asset(path: Path, suffixes: Iterable[str]) -> AssetFile:
    """Read the first file of a model.

    Args:
        path: the model, or a zip that holds one; of a zip with several, ``archive.zip/folder/model.obj``.
        suffixes: of models, with dots.

    Raises:
        AssetError: missing, empty, too large, of another format, or a zip that cannot be used.
    """
    wanted = tuple(suffixes)
    archive = next((part for part in (path, *path.parents) if part.suffix.lower() == ".zip" and part.is_file()), None)
    if archive is not None:
        return _zip_asset(archive, path.relative_to(archive), wanted)
    if not path.is_file():
        raise AssetError(f"{path}: no such file")
    if path.suffix.lower() not in wanted:
        raise AssetError(f"{path}: no format of a mesh that is read; convert it to one of {' '.join(wanted)}")
    data = _read_file(path)
    if not data:
        raise AssetError(f"{path}: is empty; fetch or export it again")
    return AssetFile(str(path), data, FolderSource(path.parent))


def _zip_asset(path: Path, inner: Path, suffixes: tuple[str, ...]) -> AssetFile:
    with _opened(path) as archive:
        names = archive.namelist()
        for name in names:
            try:
                inside(name)
            except OutsideError:
                raise OutsideError(f"{path}: its member {name!r} leads out of the archive; zip it again") from None
        # macOS adds a shadow of each file.
        own = [name for name in names if not name.startswith("__MACOSX/")]
        models = [name for name in own if PurePosixPath(name.lower()).suffix in suffixes]
        chosen = inner.as_posix()
        if chosen == "." and len(models) == 1:
            chosen = models[0]
        if chosen not in models:
            some = ", ".join(models[:3]) + (", ..." if len(models) > 3 else "")
            lacks = f"has no model {chosen} and " if chosen != "." else ""
            found = f"{lacks}holds {len(models)} models ({some}); name one as {path}/NAME"
            raise AssetError(f"{path}: {found if models else 'holds no model'}")
        data = _read_member(archive, path, chosen)
    return AssetFile(f"{path}/{chosen}", data, ZipSource(path, PurePosixPath(chosen).parent))


def inside(reference: str) -> PurePosixPath:
    """The reference as a path that cannot leave its folder.

    Raises:
        OutsideError: it would.
    """
    windows, scheme = PureWindowsPath(reference), urlsplit(reference).scheme
    if len(scheme) > 1:
        raise OutsideError(f"refers to {reference!r}; nothing is fetched, put the file into its folder")
    # Windows' reading splits at both kinds of slash and knows drives; an exporter may use either.
    if windows.anchor or ".." in windows.parts or "\0" in reference:
        raise OutsideError(f"refers to {reference!r}, outside its folder; put the file there and name it by that")
    return PurePosixPath(*windows.parts)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AssetError(f"{path}: larger than {MAX_FILE_BYTES / 2**30:.0f} GiB; simplify the mesh")
        return path.read_bytes()
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror}); see to its permissions") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise AssetError(f"{path}: no zip that can be read ({error}); fetch it again") from None


def _read_member(archive: zipfile.ZipFile, path: Path, member: str) -> bytes:
    if archive.getinfo(member).file_size > MAX_FILE_BYTES:
        raise AssetError(f"{path}: {member} is larger than {MAX_FILE_BYTES / 2**30:.0f} GiB; simplify the mesh")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise AssetError(f"{path}: {member} cannot be read ({error}); zip it again") from None
