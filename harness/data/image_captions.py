"""COCO and Flickr30k with captions, by the splits of Karpathy and Fei-Fei (2015) in their JSON files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from atoken.media import is_image
from harness.data.base import Sample
from harness.data.captioned import CaptionedImages, check_captions, counted, published_file
from harness.data.catalog import DatasetEntry
from harness.data.images import Member
from harness.data.stores import FolderStore
from harness.errors import BenchError

SPLIT = "test"


def open_coco_karpathy(entry: DatasetEntry, location: Path) -> CaptionedImages:
    """The 5,000 test images of COCO with their 25,010 captions.

    An image is found by its name of 2014 or of 2017 (the files are the same); its id is the former.

    Raises:
        BenchError: no ``dataset_coco.json`` there, a damaged one, or none of its images.
    """
    return _open(entry, location, "dataset_coco.json", published=25_010)


def open_flickr30k(entry: DatasetEntry, location: Path) -> CaptionedImages:
    """The 1,000 test images of Flickr30k with their 5,000 captions.

    Raises:
        BenchError: no ``dataset_flickr30k.json`` there, a damaged one, or none of its images.
    """
    return _open(entry, location, "dataset_flickr30k.json", published=5_000)


def _open(entry: DatasetEntry, location: Path, file: str, *, published: int) -> CaptionedImages:
    store = FolderStore(location)
    path = published_file(location, store.names(), file)
    listed: dict[str, list[str]] = {}
    places = _by_name(store.names())
    members = []
    for image in _images(path):
        try:
            name, texts = str(image["filename"]), [sentence["raw"] for sentence in image["sentences"]]
        except (KeyError, TypeError):
            raise BenchError(f"{path}: an image without filename or sentences; fetch Karpathy's file again") from None
        if name in listed:
            raise BenchError(f"{path}: lists {name} twice; fetch Karpathy's file again")
        listed[name] = texts
        if place := _place(location, places, image, name):
            members.append(Member(Sample(name), place))
    check_captions(path, listed)
    if not members:
        raise BenchError(f"{location}: holds none of the {len(listed):,} images of {file} ({next(iter(listed))}, ...)")
    there = [member.sample.id for member in members]
    notes = counted(entry, listed, there, noun="images", published=published)
    return CaptionedImages(entry, store, members, listed, notes=notes, official=sorted(listed))


def _images(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of the test split."""

    def without_tokens(entry: dict[str, Any]) -> dict[str, Any]:
        # Two thirds of COCO's file, and nothing reads them.
        entry.pop("tokens", None)
        return entry

    try:
        content = json.loads(path.read_bytes(), object_hook=without_tokens)
        images = [image for image in content["images"] if image["split"] == SPLIT]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: no list of images by split ({error}); fetch Karpathy's file again") from None
    if not images:
        raise BenchError(f"{path}: has no images of the split {SPLIT!r}; fetch Karpathy's file again")
    yield from images


def _by_name(names: Sequence[str]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for name in filter(is_image, names):
        places[PurePosixPath(name).name].append(name)
    return places


def _place(root: Path, places: dict[str, list[str]], image: dict[str, Any], name: str) -> str | None:
    """Where an image lies below the root; None where it does not."""
    found = places.get(name) or []
    if not found and isinstance(image.get("cocoid"), int):
        found = places.get(f"{image['cocoid']:012d}.jpg") or []
    folder = str(image.get("filepath") or "")
    if len(found) > 1 and folder:
        found = [place for place in found if PurePosixPath(place).parent.name == folder] or found
    if len(found) > 1:
        raise BenchError(f"{root}: {found[0]} and {found[1]} are both {name}; remove one")
    return found[0] if found else None
