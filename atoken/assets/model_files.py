"""All files that a model asks for, for a program that reads them itself, such as Blender.

The readers of this package read what an unlit picture shows; these are the files that any reader may want: every
material library and every picture that a line of it names, every buffer and picture of a glTF.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from atoken.assets.gltf_buffers import parsed
from atoken.assets.obj import lines_of, texture_line
from atoken.assets.sources import AssetError, AssetFile, OutsideError, inside, open_asset

__all__ = ["files_sha256", "model_files", "write_files"]

_PICTURES = ("map_", "bump", "disp", "decal", "refl", "norm")
"""What the lines of an MTL that name a picture begin with."""


def model_files(path: Path, suffixes: tuple[str, ...]) -> dict[PurePosixPath, bytes]:
    """A model's files by the paths, below one folder, at which it looks for them; its own comes first.

    What is missing, or would lie outside of the model's folder, is left out: who reads the model misses it.

    Args:
        path: the model, which may lie in a zip.
        suffixes: of models.

    Raises:
        AssetError: as of `open_asset`.
    """
    first = open_asset(path, suffixes)
    files = {PurePosixPath(PurePosixPath(first.name).name): first.data}
    for reference in _mentioned(first):
        try:
            place, data = inside(reference), first.source.read(reference)
        except OutsideError:
            continue
        if data is not None:
            files.setdefault(place, data)
    return files


def files_sha256(files: dict[PurePosixPath, bytes]) -> str:
    """Of names and contents."""
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()


def write_files(files: dict[PurePosixPath, bytes], folder: Path) -> Path:
    """Put them into a folder; returns where the first one is."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


def _mentioned(file: AssetFile) -> Iterator[str]:
    """Every name by which the model calls a file beside it; there may be none of that name."""
    if file.suffix in (".glb", ".gltf"):
        yield from _of_gltf(file.data)
    elif file.suffix == ".obj":
        for line in lines_of(file.data):
            word, _, rest = line.partition(" ")
            if word == "mtllib":
                # One name with spaces in it, or several.
                for name in dict.fromkeys([rest, *rest.split()]):
                    yield name
                    yield from _of_library(file, name)


def _of_gltf(data: bytes) -> Iterator[str]:
    document, _ = parsed(data)
    for kind in ("buffers", "images"):
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            uri = entry.get("uri") if isinstance(entry, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def _of_library(file: AssetFile, name: str) -> Iterator[str]:
    try:
        data = file.source.read(name)
    except AssetError:
        return
    for line in lines_of(data or b""):
        word, _, rest = line.partition(" ")
        if word.lower().startswith(_PICTURES):
            try:
                picture, _ = texture_line(rest)
            except ValueError:
                continue
            yield picture
            # Blender looks from the library's folder on, other readers from the model's.
            yield str(PurePosixPath(name.replace("\\", "/")).parent / picture)
