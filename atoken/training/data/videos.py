"""Clips: video files, and folders of numbered frames. Only folders need no video library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from atoken.media import MediaError, is_image, is_video, read_image
from atoken.training.data.folders import FolderCaptions, files_below
from atoken.training.data.source import ClipRequest, ClipSource, SampleError, fingerprint_of
from atoken.training.errors import TrainingError
from atoken.video.clip import SEQUENCE_RATE
from atoken.video.sequences import numbered

if TYPE_CHECKING:
    from atoken.video.seeking import SeekableVideo

__all__ = ["VideoFolder"]

_MOST_HELD = 256
"""Clips; of more, none is held in memory."""


class VideoFolder(ClipSource):
    """Every video file below a folder, and every folder of numbered images; or the one file or folder itself."""

    def __init__(self, place: Path) -> None:
        """List the clips; none is opened.

        Raises:
            TrainingError: no such place, no clip in it, or a caption file that cannot be used.
        """
        files, self._folder = _listed(place)
        folders = {str(PurePosixPath(name).parent) for name, _ in files if is_image(name)}
        clips = sorted({name for name, _ in files if is_video(name)} | folders)
        if not clips:
            raise TrainingError(f"{place}: holds no video and no folder of numbered frames")
        self.name, self._clips = str(place), clips
        self._captions = FolderCaptions.of(self._folder, clips, files)
        self.captioned = bool(self._captions)
        kept = [(name, size) for name, size in files if is_video(name) or is_image(name)]
        self.fingerprint = fingerprint_of([*kept, sorted(self._captions.listed.items())])
        self._open: dict[int, SeekableVideo | list[Path]] = {}
        self._held: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def sample_id(self, index: int) -> str:
        return str(self._folder / self._clips[index])

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return self._captions.caption(self._clips[index], rng)

    def texts(self) -> Iterator[str]:
        return self._captions.texts()

    def clip(self, index: int, request: ClipRequest) -> np.ndarray:
        try:
            opened = self._opened(index)
            rate = SEQUENCE_RATE if isinstance(opened, list) else opened.rate
            numbers = request.frames(len(opened), rate)
            if index in self._held:
                return self._held[index][numbers]
            return _read(opened, numbers)
        except MediaError as error:
            raise SampleError(str(error).removeprefix(f"{self._folder / self._clips[index]}: ")) from None

    def hold(self, limit: int) -> int:
        """Decode clips into memory, which forked processes share, the smallest first, up to `limit` bytes in all.

        Returns:
            How many bytes they are; nothing is held of a folder of very many.
        """
        sizes = [] if len(self) > _MOST_HELD else [(self._bytes(index), index) for index in range(len(self))]
        held = 0
        for size, index in sorted(sizes):
            if held + size > limit:
                break
            try:
                opened = self._opened(index)
                self._held[index] = _read(opened, list(range(len(opened))))
            except MediaError:
                continue  # told when it is drawn
            held += size
        return held

    def _bytes(self, index: int) -> int:
        try:
            opened = self._opened(index)
            return len(opened) * _read(opened, [0]).nbytes
        except MediaError:
            return 0

    def _opened(self, index: int) -> SeekableVideo | list[Path]:
        """A file ready for seeking, or the files of a folder's frames in order."""
        if index not in self._open:
            path = self._folder / self._clips[index]
            if path.is_dir():
                self._open[index] = numbered(path)
            else:
                from atoken.video.seeking import SeekableVideo

                self._open[index] = SeekableVideo(path)
        return self._open[index]


def _listed(place: Path) -> tuple[list[tuple[str, int]], Path]:
    """Files with their sizes, and the folder that their names are relative to, which is never a clip itself."""
    if place.is_file():
        if not is_video(place):
            raise TrainingError(f"{place}: no video; give a video file, a folder of them, or of folders of frames")
        beside = place.with_suffix(".txt")
        texts = [(beside.name, beside.stat().st_size)] if beside.is_file() else []
        return [(place.name, place.stat().st_size), *texts], place.parent
    files = files_below(place)
    if any(is_image(name) and "/" not in name for name, _ in files):
        place = place.absolute()
        beside = place.with_suffix(".txt")
        texts = [(beside.name, beside.stat().st_size)] if beside.is_file() else []
        return [*((f"{place.name}/{name}", size) for name, size in files), *texts], place.parent
    return files, place


def _read(opened: SeekableVideo | list[Path], numbers: list[int]) -> np.ndarray:
    if not isinstance(opened, list):
        return opened.frames(numbers)
    frames = [read_image(opened[number]) for number in numbers]
    for number, frame in zip(numbers, frames, strict=True):
        if frame.shape != frames[0].shape:
            height, width = frames[0].shape[:2]
            raise MediaError(f"{opened[number]}: is {frame.shape[1]}x{frame.shape[0]}, not {width}x{height} as others")
    return np.stack(frames)
