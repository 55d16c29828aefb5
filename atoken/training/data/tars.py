"""Images in tar archives as webdataset has them: members of one name but for the ending make a sample.

Nothing is unpacked: an index of where each member's bytes lie is made once, kept in the cache, and any sample is one
read. Members' names are names alone, no paths that could lead anywhere; links and devices are passed over.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from atoken.files import replacing
from atoken.media import is_image
from atoken.training.data.captions import chosen
from atoken.training.data.images import decode
from atoken.training.data.source import ImageSource, SampleError, fingerprint_of
from atoken.training.errors import TrainingError

__all__ = ["TarImages"]

INDEX_FORMAT = 1
_WORDS = (".txt", ".json")
_KEYS = ("caption", "text")


@dataclass(frozen=True, slots=True)
class _Member:
    """An image of an archive and its words, as offsets and sizes of their bytes."""

    name: str
    offset: int
    size: int
    words: str = ""
    words_offset: int = 0
    words_size: int = 0


class TarImages(ImageSource):
    """The images of one archive, or of all .tar files of a folder."""

    def __init__(self, place: Path, cache: Path | None) -> None:
        """Read the archives' headers, or what the cache has of them.

        Raises:
            TrainingError: missing, damaged, compressed, or without images.
        """
        self.name = str(place)
        self._archives = sorted(place.glob("*.tar")) if place.is_dir() else [place]
        self._members: list[tuple[int, _Member]] = []
        stamps = []
        for number, archive in enumerate(self._archives):
            members = _index(archive, cache)
            self._members += [(number, member) for member in members]
            stamps.append((archive.name, archive.stat().st_size, len(members)))
        if not self._members:
            raise TrainingError(f"{place}: holds no image")
        self.captioned = any(member.words for _, member in self._members)
        self.fingerprint = fingerprint_of(stamps)

    def __len__(self) -> int:
        return len(self._members)

    def sample_id(self, index: int) -> str:
        number, member = self._members[index]
        return f"{self._archives[number]}/{member.name}"

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        number, member = self._members[index]
        return chosen(self._words(number, member), rng)

    def texts(self) -> Iterator[str]:
        for number, member in self._members:
            try:
                yield from self._words(number, member)
            except SampleError:
                continue  # told when it is drawn

    def image(self, index: int) -> np.ndarray:
        number, member = self._members[index]
        return decode(self._bytes(number, member.offset, member.size))

    def _words(self, number: int, member: _Member) -> tuple[str, ...]:
        if not member.words:
            return ()
        return _captions(self._bytes(number, member.words_offset, member.words_size), member.words)

    def _bytes(self, number: int, offset: int, size: int) -> bytes:
        try:
            # Opened for each: an open file would share its place among forked workers.
            with self._archives[number].open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise SampleError(error.strerror or str(error)) from None
        if len(data) < size:
            raise SampleError("the archive is cut off")
        return data


def _captions(data: bytes, name: str) -> tuple[str, ...]:
    try:
        words: object = data.decode("utf-8")
        if name.endswith(".json"):
            record = json.loads(data)
            words = next((record[key] for key in _KEYS if key in record), "") if isinstance(record, dict) else record
    except ValueError:  # of UTF-8 and of JSON
        raise SampleError(f"its caption {name} cannot be read") from None
    given = words if isinstance(words, list) else [words]
    lines = (" ".join(one.split()) for one in given if isinstance(one, str))
    return tuple(line for line in lines if line)


def _index(archive: Path, cache: Path | None) -> list[_Member]:
    try:
        state = archive.stat()
    except OSError as error:
        raise TrainingError(f"{archive}: {error.strerror}") from None
    if cache is None:
        return _scan(archive)
    stamp = fingerprint_of([INDEX_FORMAT, str(archive.absolute()), state.st_size, state.st_mtime_ns])
    path = cache / "tars" / f"{archive.stem}-{stamp[:16]}.json"
    try:
        return [_Member(*row) for row in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        members = _scan(archive)
    rows = [[m.name, m.offset, m.size, m.words, m.words_offset, m.words_size] for m in members]
    with replacing(path) as aside:
        aside.write_text(json.dumps(rows))
    return members


def _scan(archive: Path) -> list[_Member]:
    images: dict[str, tarfile.TarInfo] = {}
    words: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(archive, "r:") as file:
            for info in file:
                if not info.isreg() or info.issparse() or PurePosixPath(info.name).name.startswith("."):
                    continue
                # webdataset: a sample's name ends at the first dot of the last part.
                folder, _, last = info.name.rpartition("/")
                key = f"{folder}/{last.partition('.')[0]}"
                if is_image(info.name):
                    images.setdefault(key, info)
                elif PurePosixPath(last).suffix in _WORDS:
                    words.setdefault(key, info)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TrainingError(
            f"{archive}: no .tar that can be read ({error}); compressed ones must be unpacked"
        ) from None
    members = []
    for key, info in images.items():
        text = words.get(key)
        about = () if text is None else (text.name, text.offset_data, text.size)
        members.append(_Member(info.name, info.offset_data, info.size, *about))
    return members
