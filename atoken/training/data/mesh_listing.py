"""Which meshes a folder or a zip holds, with their captions; nothing of them is read yet."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from atoken.assets.mesh import FORMATS
from atoken.training.data.captions import listed_captions
from atoken.training.errors import TrainingError

__all__ = ["ListedMesh", "list_meshes"]

CATALOGUE = "PluginFurnitureCatalog.properties"
"""Of a furniture library for Sweet Home 3D: name#1, category#1, model#1, ..."""

_OTHER = "miscellaneous"
"""A category of it that says nothing."""

MAX_CATALOGUE_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class ListedMesh:
    """A mesh that `atoken.assets.mesh.load_mesh` can be given.

    Attributes:
        name: of the mesh below its folder, unique there, with no slash: a file's name can be made of it.
        path: of the file; of a zip's member ARCHIVE.zip/MEMBER.
        captions: none, one or several.
    """

    name: str
    path: Path
    captions: tuple[str, ...] = ()


def list_meshes(place: Path) -> list[ListedMesh]:
    """Meshes of a folder, of a zip or a folder in it, or the one file itself.

    Of a zip with a furniture catalogue those of the catalogue in its order, with captions made of name and category;
    else all files of the known formats, sorted, with those of ``captions.csv`` or ``captions.jsonl`` at the top.

    Raises:
        TrainingError: there is no such place, nothing in it, or its catalogue or captions cannot be used.
    """
    archive = next((p for p in (place, *place.parents) if p.suffix.lower() == ".zip" and p.is_file()), None)
    if archive is not None:
        found = [mesh for mesh in _of_zip(archive) if mesh.path.is_relative_to(place)]
    elif place.is_dir():
        names = [p.relative_to(place).as_posix() for p in place.rglob("*") if p.suffix.lower() in FORMATS]
        found = _named(place, sorted(n for n in names if not _hidden(n)), dict(listed_captions(place)))
    elif place.is_file() and place.suffix.lower() in FORMATS:
        found = [ListedMesh(place.stem, place)]
    else:
        what = "no mesh and no zip of meshes" if place.exists() else "no such file or folder"
        raise TrainingError(f"{place}: {what}; give a folder, a zip, or one of {' '.join(FORMATS)}")
    if not found:
        raise TrainingError(f"{place}: holds no mesh ({' '.join(FORMATS)})")
    return found


def _of_zip(place: Path) -> list[ListedMesh]:
    try:
        with zipfile.ZipFile(place) as archive:
            members = sorted(name for name in archive.namelist() if not _hidden(name))
            catalogue = next((name for name in members if PurePosixPath(name).name == CATALOGUE), None)
            if catalogue is not None:
                return _of_catalogue(place, catalogue, _text(archive, place, catalogue), set(members))
            captions = listed_captions(place, lambda name: archive.read(name) if name in members else None)
    except (zipfile.BadZipFile, OSError) as error:
        raise TrainingError(f"{place}: no zip that can be read ({error}); fetch it again") from None
    return _named(place, [name for name in members if PurePosixPath(name.lower()).suffix in FORMATS], dict(captions))


def _text(archive: zipfile.ZipFile, place: Path, member: str) -> str:
    if archive.getinfo(member).file_size > MAX_CATALOGUE_BYTES:
        raise TrainingError(f"{place}/{member}: larger than 64 MiB; that is no catalogue")
    return archive.read(member).decode("latin-1")


def _of_catalogue(place: Path, catalogue: str, text: str, members: set[str]) -> list[ListedMesh]:
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(
        r"^[ \t]*(name|category|model)#(\d+)[ \t]*[=:][ \t]*(.*?)[ \t\r]*$", text, re.M
    ):
        entries.setdefault(int(number), {})[key] = _unescaped(value)
    listed: list[str] = []
    captions: dict[str, tuple[str, ...]] = {}
    for number in sorted(entries):
        entry = entries[number]
        member = entry.get("model", "").lstrip("/")
        if member not in members:
            raise TrainingError(f"{place}/{catalogue}: model#{number} is {member!r}, which the zip does not hold")
        listed.append(member)
        if "name" in entry:
            captions[member] = (_caption(entry["name"], entry.get("category", "")),)
    return _named(place, listed, captions)


def _caption(name: str, category: str) -> str:
    """For example "a 3D model of a bedside table, bedroom"."""
    if not name[1:2].isupper():  # but TV stays
        name = name[:1].lower() + name[1:]
    plural = name.endswith("s") and not name.endswith("ss")
    article = "" if plural else ("an " if name[:1].lower() in "aeiou" else "a ")
    category = category.lower()
    return f"a 3D model of {article}{name}" + (f", {category}" if category not in ("", _OTHER) else "")


def _unescaped(value: str) -> str:
    r"""Java's properties write other letters than Latin-1 as \uXXXX."""
    return re.sub(r"\\u([0-9a-fA-F]{4})|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else m[2], value)


def _named(place: Path, members: list[str], captions: dict[str, tuple[str, ...]]) -> list[ListedMesh]:
    """Short names: without the folders that all share, and without a folder named as its model."""
    paths = [PurePosixPath(member) for member in members]
    folders = zip(*(path.parts[:-1] for path in paths), strict=False)
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, folders)))
    short = []
    for path in paths:
        parts = (*path.parts[shared:-1], path.stem)
        short.append("_".join(parts[:-1] if len(parts) > 1 and parts[-1] == parts[-2] else parts))
    if len(set(short)) < len(short):
        short = ["_".join(path.parts).replace(".", "_") for path in paths]
    return [
        ListedMesh(name, place.joinpath(*path.parts), captions.get(str(path), ()))
        for name, path in zip(short, paths, strict=True)
    ]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
