"""Toys4k: which layouts of it are known, and which file of a model is taken."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path, PurePosixPath

from atoken.assets.cycles import BLEND, PYTHON
from atoken.assets.mesh import FORMATS
from harness.data.assets import AssetDataset, ModelMember, is_model, store_at
from harness.data.base import Sample
from harness.data.catalog import DatasetEntry
from harness.errors import BenchError

# Of a model that lies there in several formats the first is taken, .blend where there is nothing else.
_PREFERENCE = (*FORMATS, BLEND)


class Toys4k(AssetDataset):
    """Models with the ids ``category/name``; a label is the place of the category among the 105 of the set."""

    def id_of(self, entry: str) -> str:
        """``airplane/airplane_000`` of that itself, and of TRELLIS's path of a file."""
        path = PurePosixPath(entry)
        return _id(path) or entry if path.suffix.lower() in _PREFERENCE else entry

    def may_have(self, sample_id: str) -> bool:
        parts = PurePosixPath(sample_id).parts
        return len(parts) == 2 and not {"..", "/"} & set(parts)


def _id(path: PurePosixPath) -> str | None:
    """The two folders that a model's file lies in."""
    return "/".join(path.parts[-3:-1]) if len(path.parts) >= 3 else None


def open_toys4k(entry: DatasetEntry, location: Path) -> Toys4k:
    """The models of Toys4k below a folder or in one of its zips: ``.../category/name/<file>``.

    TRELLIS's csv is a list of it (``--list Toys4k.csv``); what it names and this copy has not is missing.

    Raises:
        BenchError: no model lies so.
    """
    store = store_at(location)
    chosen: dict[str, str] = {}
    for name in filter(is_model, store.names()):
        suffix, id_ = PurePosixPath(name.lower()).suffix, _id(PurePosixPath(name))
        if suffix not in _PREFERENCE:
            continue
        if id_ is None:
            # One category given by itself would get other ids than as a part of the whole.
            continue
        old = chosen.get(id_)
        if old is None or _rank(name) < _rank(old):
            chosen[id_] = name
    if not chosen:
        raise BenchError(
            f"{location}: holds no models at category/name/FILE (airplane/airplane_000/mesh.obj, ...); give the folder "
            "toys4k_obj_files or its zip"
        )
    blends = sum(PurePosixPath(name.lower()).suffix == BLEND for name in chosen.values())
    published = _categories()
    label = {category: place for place, category in enumerate(published)}
    found = {id_: id_.partition("/")[0] for id_ in chosen}
    notes = [
        f"{len(set(found.values()) & published.keys()):,} of {len(published):,} categories, "
        f"{sum(category in published for category in found.values()):,} of {sum(published.values()):,} models"
    ]
    if foreign := sorted(set(found.values()) - published.keys()):
        notes.append(f"no categories of Toys4k, so without labels: {', '.join(foreign)}")
    if blends:
        notes.append(
            f"{blends:,} models are there as .blend alone, which Blender alone reads (a Python with bpy, ${PYTHON})"
        )
    members = [ModelMember(Sample(id_, label.get(found[id_])), name) for id_, name in chosen.items()]
    dataset = Toys4k(entry, store, members, notes=notes)
    dataset.class_names = tuple(category.replace("_", " ") for category in published)
    return dataset


def _categories() -> dict[str, int]:
    """Toys4k's categories with how many models each has, sorted."""
    text = (resources.files("harness.data") / "lists" / "toys4k.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["category"]: int(row["models"]) for row in rows}


def _rank(name: str) -> tuple[int, str]:
    return _PREFERENCE.index(PurePosixPath(name.lower()).suffix), name
