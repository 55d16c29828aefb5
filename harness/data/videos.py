"""Datasets of clips: files and folders of numbered frames, any folder of them, and what the official sets build on."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from atoken.media import MediaError, is_image, is_video
from atoken.video import Video, open_video
from atoken.video.colour import Colour
from atoken.video.containers import stated_size
from atoken.video.seeking import SeekableVideo
from harness.data.base import Clip, ClipShape, ClipSource, Sample, SampleError
from harness.data.catalog import DatasetEntry
from harness.data.fingerprint import clip_sha256
from harness.data.images import printable
from harness.data.stores import FolderStore
from harness.errors import BenchError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClipMember:
    """A sample and where it lies.

    Attributes:
        name: path below the dataset's root, of a file or of a folder of frames.
        rate: frames per second where the set fixes it and the file does not say it.
        frames: how many frames it must have, where that is known: a folder that lost its tail shows no gap.
    """

    sample: Sample
    name: str
    rate: Fraction | None = None
    frames: int | None = None


class VideoDataset(ClipSource):
    """Clips below a folder, in the order of their ids.

    Args:
        official: the ids that a complete copy has; None where no list of them is known.

    Raises:
        BenchError: two clips with one id.
    """

    def __init__(
        self,
        entry: DatasetEntry,
        root: Path,
        members: Iterable[ClipMember],
        *,
        title: str | None = None,
        notes: Sequence[str] = (),
        official: Sequence[str] | None = None,
    ) -> None:
        self.name = entry.name
        self.title = title or entry.title
        self.expected = entry.expected
        self.credits = entry.credits
        self.notes = tuple(notes)
        self._root = root
        self._official = official
        self._members = tuple(sorted(members, key=lambda member: member.sample.id))
        for one, other in pairwise(self._members):
            if one.sample.id == other.sample.id:
                raise BenchError(
                    f"{root}: {one.name} and {other.name} are both {one.sample.id}; give the folder of one"
                )
        self._samples = tuple(member.sample for member in self._members)

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def official_ids(self) -> Sequence[str] | None:
        return self._official

    def open(self, index: int) -> Clip:
        member = self._members[index]
        sample_id, path = member.sample.id, self._root / member.name
        try:
            # Opening a pipe or a device would wait for ever.
            if not (path.is_dir() or stat.S_ISREG(path.stat().st_mode)):
                raise SampleError(sample_id, "not a regular file")
            video = open_video(path, rate=member.rate)
            sha256 = clip_sha256(path)
        except FileNotFoundError:
            link = path.is_symlink()
            raise SampleError(sample_id, "a link that leads nowhere" if link else "the file is gone") from None
        except OSError as error:
            raise SampleError(sample_id, error.strerror or str(error)) from None
        except MediaError as error:
            raise SampleError(sample_id, _reason(path, error)) from None
        info = video.info
        if member.frames not in (None, info.frames):
            raise SampleError(sample_id, f"has {info.frames} frames, and {member.frames} belong to it")
        shape = ClipShape(height=info.height, width=info.width, rate=info.rate)
        blocks = partial(_blocks, sample_id, path, video)
        other = None if path.is_dir() else partial(_blocks, sample_id, path, replace(video, colour="ffmpeg"))
        by_number = None if path.is_dir() else partial(_Numbered, sample_id, path, info.frames)
        return Clip(shape=shape, sha256=sha256, blocks=blocks, ffmpeg_blocks=other, by_number=by_number)

    def stamp(self, index: int) -> str:
        path = self._root / self._members[index].name
        try:
            if not path.is_dir():
                return str(path.stat().st_size)
            sizes = [file.stat().st_size for file in path.iterdir() if _is_frame(file.name)]
        except OSError:
            return "unreadable"
        return f"{len(sizes)}-{sum(sizes)}"


def _blocks(sample_id: str, path: Path, video: Video, size: int) -> Iterator[np.ndarray]:
    try:
        yield from video.blocks(size)
    except MediaError as error:
        raise SampleError(sample_id, _reason(path, error)) from None
    except OSError as error:
        raise SampleError(sample_id, error.strerror or str(error)) from None


class _Numbered:
    """A file's frames by number, whose errors are of the sample.

    Args:
        stated: frames by the file's header, None where it does not say.
    """

    def __init__(self, sample_id: str, path: Path, stated: int | None, colour: Colour) -> None:
        self._sample_id, self._path = sample_id, path
        self._video = self._tried(lambda: SeekableVideo(path, colour=colour))
        # What was cut off is not among the packets: the rest would pass for a shorter clip.
        cut = self._tried(lambda: stated_size(path) > path.stat().st_size)
        if cut and not 0 < (stated or 0) <= len(self._video):
            raise SampleError(sample_id, f"cut off after {len(self._video)} frames; copy or download it again")

    def __len__(self) -> int:
        return len(self._video)

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        return self._tried(lambda: self._video.frames(numbers))

    def _tried(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except MediaError as error:
            raise SampleError(self._sample_id, _reason(self._path, error)) from None
        except OSError as error:
            raise SampleError(self._sample_id, error.strerror or str(error)) from None


def _reason(path: Path, error: MediaError) -> str:
    """The reader's line without the path that the sample's id says already; a frame's own name stays."""
    line = str(error)
    return line.removeprefix(f"{path}: ").removeprefix(f"{path}/")


def _is_frame(name: str) -> bool:
    return is_image(name) and not name.startswith(".")


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds that could be clips.

    Attributes:
        files, sequences: paths below it, of video files and of folders of numbered images; ``.`` is itself.
        passed: images that are no frames: beside video files, or without a number.
    """

    files: tuple[str, ...]
    sequences: tuple[str, ...]
    passed: int


def find_clips(names: Iterable[str]) -> Found:
    """Tell clips from the files below a folder.

    Args:
        names: POSIX paths below it.
    """
    files, images = [], defaultdict(list)
    for name in names:
        if is_video(name):
            files.append(name)
        elif is_image(name):
            images[PurePosixPath(name).parent.as_posix()].append(PurePosixPath(name).stem)
    beside = {PurePosixPath(name).parent.as_posix() for name in files}
    sequences = {
        folder for folder, stems in images.items() if folder not in beside and any(s[-1:].isdecimal() for s in stems)
    }
    passed = sum(len(stems) for folder, stems in images.items() if folder not in sequences)
    return Found(tuple(sorted(files)), tuple(sorted(sequences)), passed)


def open_folder(entry: DatasetEntry, location: Path) -> VideoDataset:
    """Every clip below a folder: video files, and folders of numbered frames. Ids are the paths below it.

    Raises:
        BenchError: no such folder, or no clip in it.
    """
    found = find_clips(FolderStore(location).names())
    title = location.resolve().name or entry.title
    if not (found.files or found.sequences):
        raise BenchError(
            f"{location}: holds no clips (files named .mp4, .mov, .mkv, ..., or folders of numbered images)"
        )
    members = [
        ClipMember(Sample(printable(title if name == "." else name)), name) for name in (*found.files, *found.sequences)
    ]
    notes = [f"passed over: {found.passed:,} images that are no frames of a sequence"] if found.passed else []
    return VideoDataset(entry, location, members, title=title, notes=notes)
