"""Samples with captions: what the sets for retrieval have in common, and their checks.

A set keeps all captions of a sample, in the order of its file: recalls are defined over all of them (PROTOCOLS 4.3,
5.1), and the published counts are theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.base import Dataset
from harness.data.catalog import DatasetEntry
from harness.data.images import ImageDataset, Member
from harness.data.stores import Store
from harness.data.videos import ClipMember, VideoDataset
from harness.errors import BenchError

_SHOWN = 3  # names that a message shows


class CaptionedImages(ImageDataset):
    """Images of a store, each with its captions.

    Args:
        captions: by id; those of samples that are not there are left out.
        official: the ids that a complete copy has; None where no list of them is known.
    """

    def __init__(
        self,
        entry: DatasetEntry,
        store: Store,
        members: Iterable[Member],
        captions: Mapping[str, Sequence[str]],
        *,
        notes: Sequence[str] = (),
        official: Sequence[str] | None = None,
    ) -> None:
        super().__init__(entry, store, members, notes=notes)
        self.captions = tuple(tuple(captions[sample.id]) for sample in self.samples)
        self._official = official

    def official_ids(self) -> Sequence[str] | None:
        return self._official


class CaptionedClips(VideoDataset):
    """Clips below a folder, each with its captions.

    Args:
        captions, official: as for `CaptionedImages`.
    """

    def __init__(
        self,
        entry: DatasetEntry,
        root: Path,
        members: Iterable[ClipMember],
        captions: Mapping[str, Sequence[str]],
        *,
        notes: Sequence[str] = (),
        official: Sequence[str] | None = None,
    ) -> None:
        super().__init__(entry, root, members, notes=notes, official=official)
        self.captions = tuple(tuple(captions[sample.id]) for sample in self.samples)


def captions_of(dataset: Dataset) -> Sequence[Sequence[str]]:
    """Each sample's captions, in the order of the samples.

    Raises:
        BenchError: a set without captions.
    """
    if dataset.captions is None:
        raise BenchError(
            f"{dataset.title} ({dataset.name}) has no captions, and retrieval needs them; take one of "
            + ("coco-karpathy, flickr30k, samples" if dataset.modality == "image" else "msrvtt-1ka, msvd, samples")
        )
    return dataset.captions


def captions_sha256(captions: Iterable[Sequence[str]]) -> str:
    """Hash of all captions, in the order of their samples."""
    digest = hashlib.sha256()
    for texts in captions:
        digest.update(json.dumps(list(texts)).encode("ascii") + b"\n")
    return digest.hexdigest()


def check_captions(file: Path, captions: Mapping[str, Sequence[Any]]) -> None:
    """Every sample has captions, and each is a text with something in it.

    Raises:
        BenchError: the first that is not so.
    """
    for sample_id, texts in captions.items():
        if not texts:
            raise BenchError(f"{file}: {sample_id} has no caption; fetch the published file again")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise BenchError(f"{file}: {sample_id} has an empty caption; fetch the published file again")


def counted(
    entry: DatasetEntry,
    listed: Mapping[str, Sequence[str]],
    there: Iterable[str],
    *,
    noun: str,
    published: int | None,
) -> list[str]:
    """Notes on how many samples and captions this copy has.

    Args:
        listed: the captions of every sample that the set's file lists.
        there: the ids of those whose image or clip was found.
        noun: what a sample is, in the plural.
        published: how many captions the whole set has; None where nobody says it.
    """
    total = sum(map(len, listed.values()))
    few, many = min(map(len, listed.values())), max(map(len, listed.values()))
    each = f"{few}" if few == many else f"{few} to {many}"
    notes = [f"captions: {total:,} of {len(listed):,} {noun}, {each} of each"]
    if published not in (None, total):
        notes.append(f"captions: the published file has {published:,}, this one {total:,}")
    if entry.expected not in (None, len(listed)):
        notes.append(f"its file lists {len(listed):,} {noun}, and the published one {entry.expected:,}")
    if absent := sorted(listed.keys() - set(there)):
        shown = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
        notes.append(f"not here: {len(absent):,} of the {len(listed):,} {noun} ({shown})")
    return notes


def published_file(root: Path, names: Iterable[str], file: str) -> Path:
    """The one file of this name below a folder.

    Args:
        names: POSIX paths of the files below `root`.

    Raises:
        BenchError: none, or several.
    """
    found = [name for name in names if name == file or name.endswith(f"/{file}")]
    if not found:
        raise BenchError(f"{root}: holds no {file}; put the published file beside or above the media")
    if len(found) > 1:
        raise BenchError(f"{root}: holds {found[0]} and {found[1]}; remove one")
    return root / found[0]
