"""Images with classes: any folder of class folders, any Parquet file with labels, and ImageNet-V2.

A label is the place of a class in `Dataset.class_names`. ImageNet-V2 leaves the names to the protocol: those that
published figures stand on are CLIP's, and no file of the set says them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from harness.data.base import Sample
from harness.data.catalog import DatasetEntry
from harness.data.images import ImageDataset, Member, image_names, printable
from harness.data.parquet_store import ParquetStore
from harness.data.stores import FolderStore, Store, TarStore
from harness.errors import BenchError

_WNID = re.compile(r"n\d{8}")
_WORDS = "words.txt"
_CLASSES = 1000
_A_CLASS = 10
_SHOWN = 3


class LabelledImages(ImageDataset):
    """Images with labels and the names of their classes.

    Args:
        class_names: by label.
    """

    def __init__(
        self,
        entry: DatasetEntry,
        store: Store,
        members: Iterable[Member],
        class_names: Sequence[str],
        *,
        title: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(entry, store, members, title=title, notes=[*notes, *doubled(class_names)])
        self.class_names = tuple(class_names)


def words(name: str) -> str:
    """A class's name as words: the first of several synonyms, "_" as space."""
    return " ".join(name.partition(",")[0].replace("_", " ").split())


def doubled(names: Sequence[str]) -> list[str]:
    """A note where two classes have one name: text cannot tell them apart, and their samples count as wrong."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    return [f"classes that have one name: {', '.join(twice)}"] if twice else []


def open_classes(entry: DatasetEntry, location: Path) -> LabelledImages:
    """Every image below a folder, whose sub-folders are the classes; ids are the paths below it.

    A class is called like its folder, or as ``words.txt`` in the folder says (lines of folder, tab, name), which
    folders of WordNet's numbers need.

    Raises:
        BenchError: no such folder, fewer than two classes, a class without images, or one without a name.
    """
    store = FolderStore(location)
    names = image_names(store)
    classed = [name for name in names if "/" in name]
    folders = sorted({name.partition("/")[0] for name in classed})
    empty = sorted(
        path.name
        for path in location.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in folders
    )
    if empty:
        raise BenchError(f"{location}: the class folder {empty[0]} holds no images; fill it or remove it")
    if len(folders) < 2:
        raise BenchError(f"{location}: holds {len(folders)} class folders; give a folder with one for each class")
    title = location.resolve().name or entry.title
    label = {folder: place for place, folder in enumerate(folders)}
    members = [Member(Sample(printable(name), label[name.partition("/")[0]]), name) for name in classed]
    notes = [f"classes: {len(folders):,}"]
    if beside := len(names) - len(classed):
        notes.append(f"passed over: {beside:,} images that lie in no class folder")
    return LabelledImages(entry, store, members, _called(location, folders), title=title, notes=notes)


def _called(location: Path, folders: Sequence[str]) -> list[str]:
    """The classes' names, in the order of the folders."""
    file = location / _WORDS
    named = _words(file) if file.is_file() else {}
    for folder in folders:
        if named and folder not in named:
            raise BenchError(f"{file}: does not name the class {folder}; add a line of {folder}, a tab and its name")
        if not named and _WNID.fullmatch(folder):
            raise BenchError(
                f"{location}: the class folder {folder} is called by its number in WordNet, which says nothing; "
                f"put {_WORDS} beside it (lines of folder, tab, name)"
            )
    names = [named.get(folder) or words(printable(folder)) for folder in folders]
    if nameless := [folder for folder, name in zip(folders, names, strict=True) if not name]:
        raise BenchError(f"{location}: the class {nameless[0]!r} has no name; rename its folder")
    return names


def _words(file: Path) -> dict[str, str]:
    try:
        lines = [line.split("\t", 1) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return {folder.strip(): words(name) for folder, name in lines}
    except (OSError, ValueError) as error:
        raise BenchError(f"{file}: not lines of folder, tab and name ({error}); mend or remove it") from None


def open_parquet(entry: DatasetEntry, location: Path) -> LabelledImages:
    """The rows of a Parquet file, or of all in a folder: ``image`` (bytes), ``label`` (a number), ``class_name``.

    Numbers with gaps are closed up, since classes without images cannot be named.

    Raises:
        BenchError: no such file, a column missing, rows without a label or a name, or a label with two names.
    """
    store = ParquetStore(location, ("label", "class_name"))
    labels, called = store.column("label"), store.column("class_name")
    names: dict[int, str] = {}
    for row, label, name in zip(store.rows(), labels, called, strict=True):
        if isinstance(label, bool) or not isinstance(label, int) or not isinstance(name, str) or not words(name):
            raise BenchError(
                f"{location}: {row} has the label {label!r} and the class name {name!r}; mend or remove it"
            )
        if names.setdefault(label, words(name)) != words(name):
            raise BenchError(f"{location}: label {label} is called {names[label]} and {words(name)}; give it one name")
    if len(names) < 2:
        raise BenchError(f"{location}: has {len(names)} classes; a classification needs two")
    place = {label: new for new, label in enumerate(sorted(names))}
    members = [
        Member(Sample(printable(row), place[label]), row) for row, label in zip(store.rows(), labels, strict=True)
    ]
    notes = [f"classes: {len(names):,}"]
    if list(place) != list(place.values()):
        notes.append(f"labels: {min(place)} to {max(place)} in the file, closed up to 0 to {len(place) - 1}")
    title = location.resolve().stem or entry.title
    return LabelledImages(entry, store, members, [names[label] for label in place], title=title, notes=notes)


class ImageNetV2(ImageDataset):
    """ImageNet-V2: ids are ``class/file``; a label is the place of the class among ImageNet's sorted wnids."""


def open_imagenet_v2(entry: DatasetEntry, location: Path) -> ImageNetV2:
    """The matched-frequency images of ImageNet-V2: folders 0 to 999 with ten images each, or a plain tar of them.

    Raises:
        BenchError: nothing there, another of the three choices of images, or folders that are no class numbers.
    """
    store: Store = FolderStore(location) if location.is_dir() else TarStore(location, [location])
    members = []
    for name in image_names(store):
        path = PurePosixPath(name)
        folder = path.parent.name
        if other := next((part for part in ("threshold", "top-images") if part in f"{location.name}/{name}"), None):
            raise BenchError(f"{location}: is ImageNet-V2's choice {other!r}; give imagenetv2-matched-frequency")
        if not (re.fullmatch(r"\d{1,3}", folder) and str(int(folder)) == folder):
            raise BenchError(
                f"{location}: {name} lies in no folder of a class number (0 to {_CLASSES - 1}); give the folder "
                "imagenetv2-matched-frequency-format-val"
            )
        members.append(Member(Sample(f"{folder}/{path.name}", int(folder)), name))
    counts = Counter(member.sample.label for member in members)
    odd = sorted(label for label in range(_CLASSES) if counts[label] != _A_CLASS)
    notes = []
    if odd:
        shown = ", ".join(f"{label}: {counts[label]}" for label in odd[:_SHOWN]) + (
            ", ..." if len(odd) > _SHOWN else ""
        )
        notes.append(f"classes without their {_A_CLASS} images: {len(odd):,} ({shown})")
    return ImageNetV2(entry, store, members, notes=notes)
