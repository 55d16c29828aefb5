"""Gallery pictures of runs, copied once each and set side by side where they show the same sample."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from reports import numbers
from reports.entries import Film, Guess, Picture
from reports.records import Record

RANKS = ("worst", "median", "best")
Chosen = TypeVar("Chosen", bound=Picture | Film | Guess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A reconstructed sample of one run; the hrefs are relative to the report's root, None where a file is gone."""

    record: Record
    id: str
    rank: str
    figure: str
    original: str | None
    reconstruction: str | None
    error: str | None
    error_max: float | None

    @property
    def lossless(self) -> bool:
        """Whether the very same picture came back."""
        return self.original is not None and self.original == self.reconstruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sample that a run put into a class; ``href`` as in `Shot`, ``margin`` and ``score`` as text."""

    record: Record
    id: str
    rank: str
    label: str
    predicted: str
    score: str
    margin: str
    href: str | None
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One sample as several tokenizers reconstructed it."""

    id: str
    original: str
    shots: tuple[Shot, ...]


class _Ranked(Protocol):
    @property
    def rank(self) -> str: ...


class _Shots(Protocol):
    @property
    def shots(self) -> Sequence[_Ranked]: ...


AnyStrip = TypeVar("AnyStrip", bound=_Shots)


class Album:
    """Copies pictures into the report, named by their content: an original that ten runs share lies there once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, str | None] = {}

    def add(self, path: Path) -> str | None:
        """Copy a picture; its href relative to the root, None if the run's folder lost it."""
        if path not in self._known:
            self._known[path] = self._copy(path) if path.is_file() else None
        return self._known[path]

    def embed(self, path: Path) -> str | None:
        """Put a file into a script that a page from disk can load (it cannot fetch anything); else as `add`.

        The script keeps the bytes in base64 in the page's ``embedded``, under its own name.
        """
        if path not in self._known:
            self._known[path] = self._script(path) if path.is_file() else None
        return self._known[path]

    def _script(self, path: Path) -> str:
        data = path.read_bytes()
        target = self._target(data, f"{path.suffix.lower()}.js")
        text = base64.b64encode(data).decode("ascii")
        target.write_text(f'(self.embedded ??= {{}})["{target.name}"] = "{text}";\n', encoding="ascii")
        return target.relative_to(self._root).as_posix()

    def _target(self, data: bytes, suffix: str) -> Path:
        folder = self._root / "pictures"
        folder.mkdir(exist_ok=True)
        return folder / f"{hashlib.sha256(data).hexdigest()[:16]}{suffix}"

    def _copy(self, path: Path) -> str:
        target = self._target(path.read_bytes(), path.suffix.lower())
        if not target.exists():
            shutil.copyfile(path, target)
        return target.relative_to(self._root).as_posix()

    def shots(self, record: Record) -> tuple[Shot, ...]:
        """The run's gallery, worst first."""
        return tuple(
            Shot(
                record=record,
                id=picture.id,
                rank=picture.rank,
                figure=figure_of(record, picture),
                original=self.add(picture.original),
                reconstruction=self.add(picture.reconstruction),
                error=self.add(picture.error),
                error_max=picture.error_max,
            )
            for picture in by_rank(record.gallery)
        )


def guesses(album: Album, record: Record) -> tuple[Seen, ...]:
    """The classified samples that a run shows, worst first."""
    return tuple(
        Seen(
            record=record,
            id=guess.id,
            rank=guess.rank,
            label=guess.label,
            predicted=guess.predicted,
            score=numbers.figure(guess.score, 3),
            margin="" if guess.value is None else numbers.difference(guess.value, 3),
            href=album.add(guess.picture),
            # Above the best of the other classes: names may be alike, margins are not.
            right=guess.value is not None and guess.value > 0,
        )
        for guess in by_rank(record.guesses)
    )


def by_rank(pictures: Iterable[Chosen]) -> list[Chosen]:
    """Worst first, then median, then best."""
    return sorted(pictures, key=lambda picture: _place(picture.rank))


def _place(rank: str) -> int:
    return RANKS.index(rank) if rank in RANKS else len(RANKS)


def figure_of(record: Record, picture: Picture | Film) -> str:
    """The value that a picture was chosen by, with its unit; empty without one."""
    if picture.value is None:
        return ""
    cell = record.cell(picture.metric)
    unit = cell.unit if cell is not None else ""
    return f"{numbers.figure(picture.value, numbers.decimals_for([picture.value], unit))} {unit}".rstrip()


def strips(album: Album, records: Iterable[Record]) -> list[Strip]:
    """Samples that two or more of the runs show and change: worst, median, best, worst, ... of the first run.

    Those that most runs show lead; pictures that came back bit for bit show nothing beside the original
    and are left out. Samples are the same where dataset, id and the very bytes of the original picture agree, so runs
    under protocols that crop differently never share a strip.
    """
    found: dict[tuple[str, str, str], dict[int, Shot]] = {}
    for place, record in enumerate(records):
        for shot in album.shots(record):
            if shot.original and shot.reconstruction and not shot.lossless:
                key = (str(record.dataset["name"]), shot.id, shot.original)
                found.setdefault(key, {}).setdefault(place, shot)
    return deal([Strip(id=key[1], original=key[2], shots=tuple(s.values())) for key, s in found.items() if len(s) > 1])


def deal(shared: Sequence[AnyStrip]) -> list[AnyStrip]:
    """Strips with the most runs first; among those the ranks in turn, so that the first few are not the worst only."""
    dealt: dict[str, int] = {}
    turns = []
    for strip in sorted(shared, key=lambda strip: -len(strip.shots)):
        rank = strip.shots[0].rank
        dealt[rank] = dealt.get(rank, 0) + 1
        turns.append(((-len(strip.shots), dealt[rank], _place(rank)), strip))
    return [strip for _, strip in sorted(turns, key=lambda item: item[0])]
