"""Datasets of images: any folder, any tar, and what the official sets build on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from atoken.media import MediaError, is_image, read_image
from harness.data.base import Decoded, ImageSource, Sample, SampleError
from harness.data.catalog import DatasetEntry
from harness.data.stores import FolderStore, Store, TarStore, UnreadableError
from harness.errors import BenchError

_LARGEST_LABEL = 32  # bytes of a .cls member; a longer one holds no class number


@dataclass(frozen=True, slots=True)
class Member:
    """A sample and where its bytes lie in the store."""

    sample: Sample
    name: str


class ImageDataset(ImageSource):
    """Images of a store, in the order of their ids."""

    def __init__(
        self,
        entry: DatasetEntry,
        store: Store,
        members: Iterable[Member],
        *,
        title: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = entry.name
        self.title = title or entry.title
        self.expected = entry.expected
        self.credits = entry.credits
        self.notes = tuple(notes)
        self._store = store
        ordered = sorted(members, key=lambda member: member.sample.id)
        for one, other in pairwise(ordered):
            if one.sample.id == other.sample.id:
                raise BenchError(f"{store.root}: {one.name} and {other.name} are both {one.sample.id}; remove one")
        self._samples = tuple(member.sample for member in ordered)
        self._names = tuple(member.name for member in ordered)

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def read(self, index: int) -> Decoded:
        sample = self._samples[index]
        try:
            data = self._store.read(self._names[index])
            pixels = read_image(data, name=sample.id)
        except UnreadableError as error:
            raise SampleError(sample.id, str(error)) from None
        except MediaError as error:
            raise SampleError(sample.id, str(error).removeprefix(f"{sample.id}: ")) from None
        return Decoded(pixels=pixels, sha256=hashlib.sha256(data).hexdigest())

    def stamp(self, index: int) -> str:
        return self._store.stamp(self._names[index])


def image_names(store: Store) -> list[str]:
    """The store's files that are named like images.

    Raises:
        BenchError: there is none.
    """
    names = [name for name in store.names() if is_image(name)]
    if not names:
        raise BenchError(f"{store.root}: holds no images (files named .jpg, .png, .webp, ...)")
    return names


def printable(name: str) -> str:
    """A file name as an id: bytes that are no UTF-8 become ``\\xNN``, since records and tables are text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_folder(entry: DatasetEntry, location: Path) -> ImageDataset:
    """Every image below a folder; ids are the paths below it.

    Raises:
        BenchError: no such folder, or no image in it.
    """
    store = FolderStore(location)
    members = [Member(Sample(printable(name)), name) for name in image_names(store)]
    return ImageDataset(entry, store, members, title=location.resolve().name or entry.title)


def open_tar(entry: DatasetEntry, location: Path) -> ImageDataset:
    """Every image of a tar, or of all tars that lie in a folder, with the labels of ``KEY.cls`` members.

    Raises:
        BenchError: no tar there, or no image in it.
    """
    shards = sorted(location.glob("*.tar")) if location.is_dir() else [location]
    if not shards:
        raise BenchError(f"{location}: holds no .tar; give a tar of images or a folder of such shards")
    store = TarStore(location, shards)
    classes = {_key(name): name for name in store.names() if name.endswith(".cls")}
    members, unlabelled = [], 0
    for name in image_names(store):
        cls = classes.get(_key(name))
        label = None if cls is None else _label(store, cls)
        unlabelled += cls is not None and label is None
        members.append(Member(Sample(printable(name), label), name))
    notes = [f"{unlabelled} .cls members hold no class number"] if unlabelled else []
    return ImageDataset(entry, store, members, title=location.resolve().name, notes=notes)


def _key(name: str) -> str:
    """What webdataset groups by: the path up to the first dot of the file's name."""
    path = PurePosixPath(name)
    return (path.parent / path.name.split(".", 1)[0]).as_posix()


def _label(store: TarStore, name: str) -> int | None:
    if store.size(name) > _LARGEST_LABEL:
        return None
    try:
        return int(store.read(name))
    except (ValueError, UnreadableError):
        return None
