"""3D assets: prepared ones of a folder, and meshes that are prepared when they are first drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atoken.config import Gathering
from atoken.training.data.captions import Captions, chosen, listed_captions
from atoken.training.data.mesh_listing import list_meshes
from atoken.training.data.pictures import pictures_problem
from atoken.training.data.prepared import Heading, Prepared, check_gathering, load_heading, load_prepared
from atoken.training.data.source import AssetSource, SampleError, fingerprint_of
from atoken.training.errors import TrainingError

if TYPE_CHECKING:
    from atoken.training.data.prepare import Preparation

__all__ = ["MeshFolder", "PreparedFolder"]

HELD_BYTES = 2**28
"""Prepared assets of fewer bytes on disk are held in memory, and shared with forked processes."""


class PreparedFolder(AssetSource):
    """Every .npz file of a folder, as `atoken prepare` writes them. Captions are theirs, or those of a caption file."""

    def __init__(self, folder: Path, gathering: Gathering) -> None:
        """List the folder and read the captions.

        Args:
            gathering: that the recipe wants.

        Raises:
            TrainingError: no such file in it, none that can be read, or one that was prepared in another way.
        """
        self.name = str(folder)
        self._files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
        if not self._files:
            raise TrainingError(f"{folder}: no prepared asset (.npz) in it; make them with atoken prepare")
        listed = listed_captions(folder)
        headings = [_heading(path) for path in self._files]
        if all(isinstance(heading, TrainingError) for heading in headings):
            raise next(heading for heading in headings if isinstance(heading, TrainingError))
        self._captions, self._pictures = [], []
        for path, heading in zip(self._files, headings, strict=True):
            own: tuple[str, ...] = ()
            if not isinstance(heading, TrainingError):
                own = heading.captions
                check_gathering(path, heading.gathering, gathering)
                self._pictures.append((path, heading.pictures, heading.side))
            self._captions.append(listed.get(path.name) or own)
        self.captioned = any(self._captions)
        sizes = [path.stat().st_size for path in self._files]
        self.fingerprint = fingerprint_of(zip((path.name for path in self._files), sizes, self._captions, strict=True))
        self._held: list[Prepared | str] = []
        if sum(sizes) <= HELD_BYTES:
            self._held = [self._read(index) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self._files)

    def sample_id(self, index: int) -> str:
        return str(self._files[index])

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return chosen(self._captions[index], rng)

    def texts(self) -> Iterator[str]:
        for captions in self._captions:
            yield from captions

    def check_pictures(self, count: int, size: int) -> None:
        for path, own, side in self._pictures:
            problem = pictures_problem(own, side, count, size)
            if problem is not None:
                raise TrainingError(f"{path}: {problem}")

    def asset(self, index: int) -> Prepared:
        found = self._held[index] if self._held else self._read(index)
        if isinstance(found, str):
            raise SampleError(found)
        return found

    def _read(self, index: int) -> Prepared | str:
        path = self._files[index]
        try:
            return load_prepared(path)
        except TrainingError as error:
            return str(error).removeprefix(f"{path}: ")


def _heading(path: Path) -> Heading | TrainingError:
    try:
        return load_heading(path)
    except TrainingError as error:
        return error  # told when the asset is drawn


class MeshFolder(AssetSource):
    """Meshes of a folder or a zip, prepared in a cache when they are first drawn, which takes seconds each."""

    def __init__(self, place: Path, cache: Path | None, gathering: Gathering) -> None:
        """List the meshes.

        Args:
            gathering: which views colour a voxel.

        Raises:
            TrainingError: none there, or no cache to keep them in.
        """
        if cache is None:
            raise TrainingError(f"{place}: meshes need a cache; or run atoken prepare {place} -o DIR and give DIR")
        self.name, self._cache, self._gathering = str(place), cache, gathering
        self._meshes = list_meshes(place)
        self._captions: Captions = {mesh.name: mesh.captions for mesh in self._meshes}
        self.captioned = any(self._captions.values())
        self.fingerprint = fingerprint_of([*self._captions.items(), place.stat().st_size if place.is_file() else 0])

    def __len__(self) -> int:
        return len(self._meshes)

    def sample_id(self, index: int) -> str:
        return str(self._meshes[index].path)

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return chosen(self._captions[self._meshes[index].name], rng)

    def texts(self) -> Iterator[str]:
        for captions in self._captions.values():
            yield from captions

    def check_pictures(self, count: int, size: int) -> None:
        made = self._preparation()
        problem = pictures_problem(made.pictures, made.picture_size, count, size)
        if problem is not None:
            raise TrainingError(f"{self.name}: {problem}")

    def asset(self, index: int) -> Prepared:
        from atoken.errors import InputError
        from atoken.training.data.prepare import prepare

        mesh = self._meshes[index]
        file = next(part for part in (mesh.path, *mesh.path.parents) if part.is_file())
        state = file.stat()
        stamp = fingerprint_of([str(mesh.path.absolute()), state.st_size, state.st_mtime_ns])
        how = self._preparation()
        # What an earlier version made with smaller pictures has another name.
        path = self._cache / "assets" / f"{mesh.name}-{stamp[:16]}-{self._gathering}-{how.picture_size}.npz"
        try:
            if not path.is_file():
                prepare(mesh, path, how)
            return load_prepared(path)
        except (InputError, TrainingError) as error:
            raise SampleError(str(error).removeprefix(f"{mesh.path}: ")) from None

    def _preparation(self) -> Preparation:
        from atoken.assets.mesh_to_asset import Recipe
        from atoken.training.data.prepare import Preparation

        return Preparation(recipe=Recipe(gathering=self._gathering))
