"""The official sets: which layouts of them are known, what a complete copy holds, and what is not one.

An id is the official file name, whatever the layout: the same files give the same fingerprint, order and
latent seeds from class folders, from a flat folder and from the official archive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.data.base import Sample
from harness.data.catalog import DatasetEntry
from harness.data.images import ImageDataset, Member, image_names
from harness.data.stores import FolderStore, Store, TarStore, ZipStore
from harness.errors import BenchError

_VAL = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
_WNID = re.compile(r"n\d{8}")
_COCO = re.compile(r"\d{12}\.jpg")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_SYNSETS = ("imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv")
_CLASSES = 1000


class ImageNetVal(ImageDataset):
    """ILSVRC 2012 validation. A label is the place of the image's wnid among the 1,000 sorted ones."""

    def official_ids(self) -> Sequence[str]:
        return [_val_id(number) for number in range(1, 50_001)]


def _val_id(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def open_imagenet_val(entry: DatasetEntry, location: Path) -> ImageNetVal:
    """ImageNet's validation set from class folders, a flat folder or the official tar.

    Raises:
        BenchError: nothing there, or another set or layout, with what was found.
    """
    store: Store = FolderStore(location) if location.is_dir() else TarStore(location, [location])
    names = image_names(store)
    _check_imagenet(location, names)
    folders = sorted({PurePosixPath(name).parent.name for name in names} - {""})
    truth, notes = {}, []
    if len(folders) == _CLASSES:
        place = {folder: label for label, folder in enumerate(folders)}
        truth = {PurePosixPath(name).name: place[PurePosixPath(name).parent.name] for name in names}
    elif folders:
        notes.append(f"no labels: {len(folders)} class folders of {_CLASSES}, so their places are not known")
    else:
        truth, note = _synset_labels(location), ""
        if not truth:
            truth, note = _devkit_labels(location)
        notes.append(note)
    files = [(PurePosixPath(name).name, name) for name in names]
    members = [Member(Sample(file, truth.get(file)), name) for file, name in files]
    return ImageNetVal(entry, store, members, notes=[note for note in notes if note])


def _check_imagenet(location: Path, names: Sequence[str]) -> None:
    """Refuse what is not the validation set in a known layout, by its first strange file."""
    for name in names:
        path = PurePosixPath(name)
        if path.name.startswith("ILSVRC2012_test_"):
            raise BenchError(f"{location}: is ImageNet's test set ({name}); the validation set is wanted")
        if re.fullmatch(r"n\d{8}_\d+\.JPEG", path.name):
            raise BenchError(f"{location}: is ImageNet's training set ({name}); the validation set is wanted")
        if not _VAL.fullmatch(path.name):
            raise BenchError(
                f"{location}: {name} is not named ILSVRC2012_val_NNNNNNNN.JPEG; remove it, "
                "or measure on these files as --data folder=PATH"
            )
        if len(path.parts) == 2 and _WNID.fullmatch(path.parts[0]):
            continue
        if len(path.parts) > 1:
            inner = location / path.parts[0]
            raise BenchError(
                f"{location}: {name} lies neither flat nor in a class folder (n01440764, ...); "
                f"is {inner} the folder to give?"
            )
    flat = Counter("/" in name for name in names)
    if len(flat) > 1:
        raise BenchError(
            f"{location}: {flat[True]} images lie in class folders and {flat[False]} beside them; use one layout"
        )


def _beside(location: Path) -> list[Path]:
    """Folders in which files about a flat layout are looked for."""
    return [location, location.parent] if location.is_dir() else [location.parent]


def _synset_labels(location: Path) -> dict[str, int]:
    """Labels of a flat layout from a list of wnids beside it; empty where there is none.

    Either a line of one wnid for each image in the order of their numbers, or Kaggle's csv, whose second column
    begins with it.
    """
    file = next((place / name for place in _beside(location) for name in _SYNSETS if (place / name).is_file()), None)
    if file is None:
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if file.suffix == ".csv":
        found = [line.partition(",") for line in lines[1:] if line.strip()]
        wnids = {f"{name.strip()}.JPEG": boxes.partition(" ")[0] for name, _, boxes in found}
    else:
        wnids = {_val_id(number): line.strip() for number, line in enumerate(lines, start=1)}
    known = sorted(set(wnids.values()))
    if len(wnids) != 50_000 or len(known) != _CLASSES or not all(map(_WNID.fullmatch, known)):
        raise BenchError(
            f"{file}: lists {len(known):,} wnids of {len(wnids):,} images, not 1,000 of 50,000; fetch it again"
        )
    place = {wnid: label for label, wnid in enumerate(known)}
    return {name: place[wnid] for name, wnid in wnids.items()}


def _devkit_labels(location: Path) -> tuple[dict[str, int], str]:
    """Labels of a flat layout from the devkit's files beside it; a note where there are none.

    The ground truth numbers classes in the devkit's own order; its ``meta.mat`` says which wnid a number is.
    """
    places = _beside(location)
    places += [place / kit for place in list(places) for kit in ("ILSVRC2012_devkit_t12/data", "data")]
    truth = next((place / _GROUND_TRUTH for place in places if (place / _GROUND_TRUTH).is_file()), None)
    if truth is None:
        return {}, f"no labels: neither {_GROUND_TRUTH} nor {_SYNSETS[0]} lies beside the images"
    meta = truth.parent / "meta.mat"
    if not meta.is_file():
        return {}, f"no labels: {truth} numbers classes by the devkit's meta.mat, which does not lie beside it"
    label = _devkit_order(meta)
    try:
        numbers = [int(line) for line in truth.read_text().split()]
        if len(numbers) != 50_000:
            raise BenchError(f"{truth}: has {len(numbers)} lines, not 50,000; fetch the devkit again")
        return {_val_id(place): label[number] for place, number in enumerate(numbers, start=1)}, ""
    except (ValueError, KeyError) as error:
        raise BenchError(f"{truth}: not a list of class numbers 1 to 1000 ({error}); fetch the devkit again") from None


def _devkit_order(meta: Path) -> dict[int, int]:
    """Class number of the devkit -> place of its wnid among the sorted ones."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        wnids = {
            int(number): str(wnid)
            for number, wnid, children in zip(
                synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True
            )
            if int(children) == 0  # the others are inner nodes of WordNet
        }
    except Exception as error:  # scipy raises many kinds on a damaged file
        raise BenchError(f"{meta}: not the devkit's meta.mat ({error}); fetch the devkit again") from None
    place = {wnid: label for label, wnid in enumerate(sorted(wnids.values()))}
    return {number: place[wnid] for number, wnid in wnids.items()}


def open_coco_val2017(entry: DatasetEntry, location: Path) -> ImageDataset:
    """COCO val2017 from its folder or its zip.

    Raises:
        BenchError: nothing there, or another set or layout, with what was found.
    """
    store: Store = FolderStore(location) if location.is_dir() else ZipStore(location)
    names = image_names(store)
    folders = sorted({PurePosixPath(name).parent.as_posix() for name in names})
    if isinstance(store, FolderStore) and folders != ["."]:
        hint = location / "val2017"
        mend = f"give {hint}" if hint.is_dir() else "give the folder that holds the images themselves"
        raise BenchError(f"{location}: the images lie in subfolders ({folders[-1]}); {mend}")
    if len(folders) > 1:
        raise BenchError(f"{location}: holds several folders of images ({', '.join(folders[:3])}); val2017 is one")
    for name in names:
        if not _COCO.fullmatch(PurePosixPath(name).name):
            raise BenchError(
                f"{location}: {name} is not named like COCO's images (000000000139.jpg); remove it, "
                "or measure on these files as --data folder=PATH"
            )
    if entry.expected is not None and len(names) > entry.expected:
        raise BenchError(
            f"{location}: holds {len(names):,} images, and val2017 has {entry.expected:,}; is it another split?"
        )
    return ImageDataset(entry, store, [Member(Sample(PurePosixPath(name).name), name) for name in names])
