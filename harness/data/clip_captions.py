"""MSR-VTT and MSVD with captions, by the files that video-text retrieval is reported on (PROTOCOLS 5.1)."""

from __future__ import annotations

import csv
import io
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.data.base import Sample
from harness.data.captioned import CaptionedClips, check_captions, counted, published_file
from harness.data.catalog import DatasetEntry
from harness.data.stores import FolderStore
from harness.data.videos import ClipMember, find_clips
from harness.errors import BenchError

_MSRVTT = "MSRVTT_JSFUSION_test.csv"
_MSVD_LIST, _MSVD_CAPTIONS = "test_list.txt", "raw-captions.pkl"


def open_msrvtt(entry: DatasetEntry, location: Path) -> CaptionedClips:
    """The 1,000 videos of MSR-VTT 1K-A, one caption each.

    Raises:
        BenchError: no ``MSRVTT_JSFUSION_test.csv`` there, a damaged one, or none of its videos.
    """
    names = FolderStore(location).names()
    path = published_file(location, names, _MSRVTT)
    captions: dict[str, list[str]] = {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
        for row in rows:
            if (video := row["video_id"].strip()) in captions:
                raise BenchError(f"{path}: lists {video} twice; fetch the published file again")
            captions[video] = [row["sentence"]]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise BenchError(
            f"{path}: has no video_id and sentence in every line ({error}); fetch the published file again"
        ) from None
    return _found(entry, location, path, names, captions, published=1_000)


def open_msvd(entry: DatasetEntry, location: Path) -> CaptionedClips:
    """The 670 test videos of MSVD, each with all of its captions.

    Raises:
        BenchError: no ``test_list.txt`` and ``raw-captions.pkl`` there, damaged ones, a listed video without
            captions, or none of the videos.
    """
    names = FolderStore(location).names()
    list_path = published_file(location, names, _MSVD_LIST)
    path = published_file(location, names, _MSVD_CAPTIONS)
    try:
        videos = [line.strip() for line in list_path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{list_path}: cannot be read ({error}); fetch the published file again") from None
    every = _pickled_captions(path)
    captions: dict[str, list[str]] = {}
    for video in videos:
        if video in captions:
            raise BenchError(f"{list_path}: lists {video} twice; fetch the published file again")
        if video not in every:
            raise BenchError(f"{path}: has no captions of {video}, which {list_path.name} lists; fetch both again")
        captions[video] = every[video]
    return _found(entry, location, path, names, captions, published=None)


def _found(
    entry: DatasetEntry,
    root: Path,
    file: Path,
    names: Sequence[str],
    captions: Mapping[str, Sequence[str]],
    *,
    published: int | None,
) -> CaptionedClips:
    """The set of the videos that lie below a folder, found by their names without ending."""
    check_captions(file, captions)
    clips = [(PurePosixPath(name).stem, name) for name in find_clips(names).files]
    members = [ClipMember(Sample(stem), name) for stem, name in clips if stem in captions]
    if not members:
        example = next(iter(captions), None)
        listed = f"{len(captions):,} videos of {file.name}" + (f" ({example}.mp4, ...)" if example else "")
        raise BenchError(f"{root}: holds none of the {listed}; give the folder that holds both")
    there = [member.sample.id for member in members]
    notes = counted(entry, captions, there, noun="videos", published=published)
    return CaptionedClips(entry, root, members, captions, notes=notes, official=sorted(captions))


_CONTAINERS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "list"): list,
    ("__builtin__", "list"): list,
}


class _Plain(pickle.Unpickler):
    """Reads texts, numbers and containers. A pickle can call whatever it names, so it may name these alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CONTAINERS:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return _CONTAINERS[module, name]


def _pickled_captions(path: Path) -> dict[str, list[str]]:
    """``{video: [[word, ...], ...]}`` as texts."""
    try:
        with path.open("rb") as file:
            content = _Plain(file).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise BenchError(f"{path}: no pickle of captions alone ({error}); fetch the published file again") from None
    if not isinstance(content, dict):
        raise BenchError(f"{path}: holds a {type(content).__name__}, not captions by video; fetch it again")
    captions: dict[str, list[str]] = {}
    for video, texts in content.items():
        if not isinstance(video, str) or not _words(texts):
            raise BenchError(f"{path}: {video!r} has no lists of words as captions; fetch the published file again")
        captions[video] = [" ".join(words) for words in texts]
    return captions


def _words(texts: Any) -> bool:
    return isinstance(texts, list) and all(
        isinstance(words, list | tuple) and all(isinstance(word, str) for word in words) for words in texts
    )
