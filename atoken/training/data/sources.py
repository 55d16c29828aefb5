"""From what a user names to sources: which kind a path is of, and what of it is held in memory.

A path's kind is told by what lies there; `kind:PATH` says it where that is not enough. Images: `images:` a folder of
files, `tar:` webdataset shards, `parquet:`. Videos: `videos:` files and folders of frames, `moving:` clips made of any
source of images. Assets: `prepared:` the folder that `atoken prepare` wrote, `meshes:` a folder or zip.

Sources are drawn from in proportion to their size (paper 3.5); `15x:` before a place makes its samples count 15 times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from atoken.config import Gathering
from atoken.training.data.assets import MeshFolder, PreparedFolder
from atoken.training.data.images import ImageFolder, decoded
from atoken.training.data.moving_images import MovingImages
from atoken.training.data.parquet import ParquetImages
from atoken.training.data.source import AssetSource, ClipSource, ImageSource, Source
from atoken.training.data.tars import TarImages
from atoken.training.data.videos import VideoFolder
from atoken.training.errors import TrainingError

__all__ = ["PRELOAD_BYTES", "Sources", "open_sources"]

PRELOAD_BYTES = 3 * 2**30
"""Decoded pixels that are held in memory in all, shared by the forked processes of a rank."""

_Kind = TypeVar("_Kind")
_WEIGHT = re.compile(r"([1-9]\d*)x:(.+)")

KINDS = {
    "images": ("images", "tar", "parquet"),
    "videos": ("videos", "moving"),
    "assets": ("prepared", "meshes"),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """All sources of a run, by modality."""

    images: tuple[ImageSource, ...] = ()
    videos: tuple[ClipSource, ...] = ()
    assets: tuple[AssetSource, ...] = ()

    def captions(self) -> list[str]:
        """Every caption that can be drawn, each once, sorted."""
        everything: Iterable[Source] = (*self.images, *self.videos, *self.assets)
        each = {id(source): source for source in everything}  # one that counts several times is asked once
        return sorted({text for source in each.values() for text in source.texts() if text})


def open_sources(
    specs: Mapping[str, Sequence[str]], *, cache: Path | None, gathering: Gathering = "nearest"
) -> Sources:
    """Look at all that is given, and read what is small.

    Args:
        specs: paths by "images", "videos" and "assets".
        cache: a folder for what is made of the data once (indices of tars, prepared meshes); None keeps nothing.
        gathering: which views colour the voxels of assets.

    Raises:
        TrainingError: a path that is not there, of an unknown kind, empty, or that cannot be read; one line.
    """
    opening = _Opening(cache, gathering)
    for modality in specs:
        if modality not in KINDS:
            raise TrainingError(f"{modality}: no kind of data; give {', '.join(KINDS)}")
    return Sources(
        images=tuple(_weighed(specs.get("images", ()), opening.images)),
        videos=tuple(_weighed(specs.get("videos", ()), opening.videos)),
        assets=tuple(_weighed(specs.get("assets", ()), opening.assets)),
    )


def _weighed(specs: Sequence[str], opened: Callable[[str], _Kind]) -> Iterator[_Kind]:
    """A source that counts several times stands there as often: it is drawn in proportion."""
    for spec in specs:
        weight = _WEIGHT.fullmatch(spec)
        yield from repeat(opened(weight[2]) if weight else opened(spec), int(weight[1]) if weight else 1)


class _Opening:
    """Opens sources; images that are used twice, as such and in motion, are read once."""

    def __init__(self, cache: Path | None, gathering: Gathering) -> None:
        self._cache, self._gathering = cache, gathering
        self._room = PRELOAD_BYTES
        self._images: dict[str, ImageSource] = {}

    def images(self, spec: str) -> ImageSource:
        if spec not in self._images:
            source, used = decoded(self._image_source(spec), self._room)
            self._room -= used
            self._images[spec] = source
        return self._images[spec]

    def videos(self, spec: str) -> ClipSource:
        kind, rest = _split(spec, "videos")
        if kind == "moving":
            return MovingImages(self.images(rest))
        source = VideoFolder(_existing(rest))
        self._room -= source.hold(self._room)
        return source

    def assets(self, spec: str) -> AssetSource:
        kind, rest = _split(spec, "assets")
        path = _existing(rest)
        if kind is None:
            kind = "prepared" if path.is_dir() and any(path.glob("*.npz")) else "meshes"
        if kind == "prepared":
            return PreparedFolder(path, self._gathering)
        return MeshFolder(path, self._cache, self._gathering)

    def _image_source(self, spec: str) -> ImageSource:
        kind, rest = _split(spec, "images")
        path = _existing(rest)
        if kind is None:
            kind = _kind_of_images(path)
        if kind == "tar":
            return TarImages(path, self._cache)
        return ParquetImages(path) if kind == "parquet" else ImageFolder(path)


def _split(spec: str, modality: str) -> tuple[str | None, str]:
    """The kind that a prefix names, and the rest."""
    kind, colon, rest = spec.partition(":")
    if not colon or Path(spec).exists() or len(kind) == 1:  # a drive of Windows
        return None, spec
    if kind not in KINDS[modality]:
        raise TrainingError(f"{spec}: no such path, and {kind} is no kind of {modality}; kinds: {_listed(modality)}")
    return kind, rest


def _listed(modality: str) -> str:
    return ", ".join(f"{kind}:PATH" for kind in KINDS[modality])


def _existing(place: str) -> Path:
    path = Path(place)
    if not path.exists() and not any(part.suffix.lower() == ".zip" and part.is_file() for part in path.parents):
        raise TrainingError(f"{place}: no such file or folder")
    return path


def _kind_of_images(path: Path) -> str:
    if path.is_dir():
        suffixes = {entry.suffix.lower() for entry in path.iterdir()}
        return next((kind for kind in ("tar", "parquet") if f".{kind}" in suffixes), "images")
    suffix = path.suffix.lower()
    if suffix not in (".tar", ".parquet"):
        raise TrainingError(f"{path}: no folder, .tar or .parquet file of images; give one of {_listed('images')}")
    return suffix[1:]
