"""Datasets of 3D assets: models in a folder or a zip, any of them, and what the official sets build on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from atoken.assets.cycles import BLEND, PYTHON
from atoken.assets.mesh import FOREIGN, FORMATS, load_mesh
from atoken.assets.sources import AssetError
from harness.data.base import AssetSource, Model, Sample, SampleError
from harness.data.catalog import DatasetEntry
from harness.data.images import printable
from harness.data.stores import FolderStore, Store, ZipStore
from harness.errors import BenchError

UNREAD = (BLEND, *FOREIGN)
"""Such a file is named as a sample that failed, not passed over. (.blend is read where a Python with bpy is named.)"""


@dataclass(frozen=True, slots=True)
class ModelMember:
    """A sample and the file that it begins with, a path in the store."""

    sample: Sample
    name: str


class AssetDataset(AssetSource):
    """Models of a store, in the order of their ids.

    Args:
        store: a folder or a zip (which is refused where a member would lie outside of it).

    Raises:
        BenchError: two models with one id.
    """

    def __init__(
        self,
        entry: DatasetEntry,
        store: Store,
        members: Iterable[ModelMember],
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
        self._members = tuple(sorted(members, key=lambda member: member.sample.id))
        for one, other in pairwise(self._members):
            if one.sample.id == other.sample.id:
                raise BenchError(f"{store.root}: {one.name} and {other.name} are both {one.sample.id}; remove one")
        self._samples = tuple(member.sample for member in self._members)
        self._beside = _alone(store.names())

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def open(self, index: int) -> Model:
        member = self._members[index]
        sample_id, path = member.sample.id, self._store.root / member.name
        suffix = path.suffix.lower()
        if suffix in UNREAD and not (suffix == BLEND and os.environ.get(PYTHON)):
            raise SampleError(sample_id, _foreign(suffix))
        try:
            mesh = load_mesh(path)
        except AssetError as error:
            raise SampleError(sample_id, str(error).removeprefix(f"{path}: ")) from None
        return Model(mesh=mesh, sha256=mesh.content_hash)

    def stamp(self, index: int) -> str:
        name = self._members[index].name
        # A texture that has changed beside an OBJ is another model; whose texture it is, only its own folder says.
        files = self._beside.get(PurePosixPath(name).parent.as_posix(), (name,))
        return " ".join(self._store.stamp(file) for file in files)


def _alone(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Folders with one model, each with its files."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    return {folder: tuple(files) for folder, files in folders.items() if sum(map(is_model, files)) == 1}


def is_model(name: str) -> bool:
    """Whether a file is named like a 3D model, readable or not."""
    return PurePosixPath(name.lower()).suffix in (*FORMATS, *UNREAD)


def _foreign(suffix: str) -> str:
    if suffix == BLEND:
        return (
            f"a .blend file, which Blender alone reads: name a Python with bpy by ${PYTHON}, "
            "take the set's OBJ files, or export it to .glb"
        )
    return f"no format of a mesh that is read ({suffix}); convert it to one of {' '.join(FORMATS)}"


def store_at(location: Path) -> Store:
    """The files of a folder or of a zip.

    Raises:
        BenchError: neither, or a zip with members that would lie outside of it.
    """
    return ZipStore(location) if location.suffix.lower() == ".zip" and location.is_file() else FolderStore(location)


def open_folder(entry: DatasetEntry, location: Path) -> AssetDataset:
    """Every model below a folder or in a zip; ids are the paths below it.

    Raises:
        BenchError: no such folder, or no model in it.
    """
    store = store_at(location)
    names = [name for name in store.names() if is_model(name)]
    if not names:
        raise BenchError(f"{location}: holds no models (files named {', '.join(FORMATS)})")
    unread = Counter(suffix for name in names if (suffix := PurePosixPath(name.lower()).suffix) in UNREAD)
    notes = [f"not read: {count:,} {suffix} files" for suffix, count in sorted(unread.items())]
    members = [ModelMember(Sample(printable(name)), name) for name in names]
    return AssetDataset(entry, store, members, title=location.resolve().stem or entry.title, notes=notes)
