"""The official sets of videos: which layouts of them are known, what a complete copy holds, and what is missing.

Their lists lie beside this file, in ``lists/``, each with its source and commit in its first lines. An id is
made from the official name, whatever the layout: the same videos give the same ids, order and latent seeds.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from itertools import combinations
from pathlib import Path, PurePosixPath

from harness.data.base import Sample
from harness.data.catalog import DatasetEntry
from harness.data.stores import FolderStore
from harness.data.videos import ClipMember, VideoDataset, find_clips
from harness.errors import BenchError

_SHOWN = 3  # names that a note shows


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("harness.data") / "lists" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


# Perazzi et al. 2016, section 3: all sequences are taken at 24 frames per second.
_DAVIS_RATE = Fraction(24)
_DAVIS_SIZES = ("1080p", "480p")


def open_davis(entry: DatasetEntry, location: Path) -> VideoDataset:
    """The 50 sequences of DAVIS 2016, from its own folder or that of DAVIS 2017, which holds them among others.

    1080p is taken where both sizes are there. A sequence that has not its official number of frames is broken.

    Raises:
        BenchError: none of the sequences is there.
    """
    official = {row["name"]: int(row["frames"]) for row in _rows("davis2016.csv")}
    root = _davis_frames(location, official.keys())
    there = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    members = [
        ClipMember(Sample(name), name, rate=_DAVIS_RATE, frames=frames)
        for name, frames in official.items()
        if name in there
    ]
    size = root.resolve().name
    notes = [f"frames of {size}, from {root}"]
    if others := there - official.keys():
        notes.append(f"passed over: {len(others)} sequences that are not of DAVIS 2016 ({_some(sorted(others))})")
    if absent := official.keys() - there:
        notes.append(f"not here: {len(absent)} of the {len(official)} sequences ({_some(sorted(absent))})")
    return VideoDataset(entry, root, members, title=f"{entry.title} {size}", notes=notes, official=sorted(official))


def _davis_frames(location: Path, names: Collection[str]) -> Path:
    """The folder with the folders of frames."""
    frames = location / "JPEGImages"
    for root in (*(frames / size for size in _DAVIS_SIZES), *(location / size for size in _DAVIS_SIZES), location):
        if root.is_dir() and any((root / name).is_dir() for name in names):
            return root
    if not location.is_dir():
        raise BenchError(f"{location}: {'is not a folder' if location.exists() else 'no such folder'}")
    mend = "give the folder DAVIS, or JPEGImages/1080p or JPEGImages/480p in it"
    if (location / "DAVIS").is_dir():
        mend = f"give {location / 'DAVIS'}"
    elif (frames / "Full-Resolution").is_dir():
        mend = "Full-Resolution has frames of several sizes and is no part of DAVIS 2016; get 1080p or 480p"
    raise BenchError(f"{location}: holds none of the 50 sequences of DAVIS 2016 (bear, blackswan, ...); {mend}")


@dataclass(frozen=True, slots=True)
class _Group:
    """A part of TokenBench.

    Attributes:
        folder: where NVIDIA's script looks for it, and what its output's names begin with.
        inner: folders of the source's path that do not tell two of its videos apart.
    """

    folder: str
    inner: tuple[str, ...] = ()


_GROUPS = {
    "BDD100K": _Group("bdd_100"),
    "EgoExo4D": _Group("egoexo4D", ("frame_aligned_videos",)),
    "BridgeData V2": _Group("bridgev2", ("bridge_data_v2", "raw", "images0")),
    "Panda-70M": _Group("panda"),
}
# BridgeData V2 stores trajectories as folders of images, taken at 5 Hz by its robot's control loop. The script
# reads files and leaves open how they were made; of either rate 300 frames are kept, more than these clips have.
_BRIDGE_RATE = Fraction(5)


def open_tokenbench(entry: DatasetEntry, location: Path) -> VideoDataset:
    """Those of NVIDIA's 500 videos that lie below a folder.

    The script writes ``<folder>_<name>.mp4`` from ``<folder>/<name>.<ext>``, but nothing says which name a path
    of EgoExo4D or BridgeData V2 or a cut of a Panda-70M video had. Taken are: the path of the list, with or
    without the folders that are alike in all of its group; its parts joined by any sign that is no letter or
    digit; all that with or without the group's folder or prefix. A Panda-70M name must hold both times, since a
    file that is named by the video alone may well be the whole of it.

    Raises:
        BenchError: nothing of the list there, or two files for one video.
    """
    by_alias, groups = {}, {}
    for row in _rows("tokenbench.csv"):
        id_ = _tokenbench_id(row["group"], row["source"])
        groups[id_] = row["group"]
        for alias in _aliases(row["group"], row["source"]):
            by_alias[alias] = id_
    found = find_clips(FolderStore(location).names())
    clips: list[tuple[str, str, Fraction | None]]
    clips = [(name, PurePosixPath(name).with_suffix("").as_posix(), None) for name in found.files]
    clips += [(name, name, _BRIDGE_RATE) for name in found.sequences]
    members, foreign = [], []
    for name, path, rate in clips:
        if known := _match(path, by_alias):
            members.append(ClipMember(Sample(known), name, rate=rate))
        else:
            foreign.append(name)
    if not members:
        example = f"; the first of {len(foreign):,} other clips is {foreign[0]}" if foreign else ""
        raise BenchError(
            f"{location}: holds none of TokenBench's videos (bdd_100_0114bdd0-f317da84.mp4, ...){example}; "
            "to measure on any clips, give --data folder=PATH"
        )
    present = Counter(groups[member.sample.id] for member in members)
    total = Counter(groups.values())
    notes = [", ".join(f"{group}: {present[group]} of {total[group]}" for group in _GROUPS)]
    if foreign:
        notes.append(f"passed over: {len(foreign):,} clips that are not of the list ({_some(foreign)})")
    return VideoDataset(entry, location, members, notes=notes, official=sorted(groups))


def _tokenbench_id(group: str, source: str) -> str:
    parts = [part for part in source.split("/") if part not in _GROUPS[group].inner]
    return "_".join([_GROUPS[group].folder, *parts]).replace(":", "-")


def _aliases(group: str, source: str) -> Iterator[str]:
    inner = _GROUPS[group].inner
    for dropped in (some for count in range(len(inner) + 1) for some in combinations(inner, count)):
        kept = [part for part in source.split("/") if part not in dropped]
        yield _plain("/".join(kept))
        yield _plain("/".join([_GROUPS[group].folder, *kept]))


def _plain(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")


def _match(path: str, by_alias: dict[str, str]) -> str | None:
    """The id of the list's video that a path ends with, the longest ending first."""
    parts = path.split("/")
    endings = (_plain("/".join(parts[start:])) for start in range(len(parts)))
    return next((by_alias[ending] for ending in endings if ending in by_alias), None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
