"""The clips and assets that runs show: where each one's files and page are, and who shows the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.build import Report
from reports.entries import AssetPicture, ClipPicture, Film
from reports.pictures import Album, by_rank, deal, figure_of
from reports.records import Record
from reports.tables import newest, ordered
from reports.views import read_samples
from reports.words import noun


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmShot(ABC):
    """A clip or an asset in the gallery of a run.

    Attributes:
        page, video, poster: relative to the report's root; the last two are None where the run's folder lost the file.
        figure: the value that it was chosen by.
    """

    record: Record
    page: str
    video: str | None
    poster: str | None
    figure: str

    @property
    @abstractmethod
    def film(self) -> Film:
        """What is shown."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether all of it came back bit for bit."""

    @property
    @abstractmethod
    def part(self) -> str:
        """How much of it is shown."""

    @property
    def id(self) -> str:
        """Of the clip or asset."""
        return self.film.id

    @property
    def rank(self) -> str:
        """``worst``, ``median`` or ``best``."""
        return self.film.rank

    @property
    def error_max(self) -> float:
        """The difference in grey levels at which the error map's colours end."""
        return self.film.error_max


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShot(FilmShot):
    """A clip; `measured` frames of it count, and the video shows the first `clip.frames` of them."""

    clip: ClipPicture
    measured: int

    @property
    def film(self) -> Film:
        return self.clip

    @property
    def exact(self) -> bool:
        return self.clip.lossless and self.clip.frames == self.measured

    @property
    def part(self) -> str:
        """``80 frames``, or ``the first 150 of 300 frames``."""
        shown = self.clip.frames
        if shown < self.measured:
            return f"the first {shown} of {self.measured} frames"
        return f"{shown} frame{'s' if shown != 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetShot(FilmShot):
    """An asset; `splat` is the script with its Gaussians, None without any or where the file is lost."""

    asset: AssetPicture
    splat: str | None

    @property
    def film(self) -> Film:
        return self.asset

    @property
    def exact(self) -> bool:
        return self.asset.lossless

    @property
    def part(self) -> str:
        """``24 views``."""
        return f"{self.asset.frames} view{'s' if self.asset.frames != 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmStrip:
    """One clip or asset as several tokenizers reconstructed it."""

    id: str
    shots: tuple[FilmShot, ...]


class Shelf:
    """The clips of a report's runs, and the per-sample tables that tell of them; each table is read once."""

    def __init__(self, report: Report, album: Album) -> None:
        self._report = report
        self._tables: dict[Path, dict[str, list[Any]] | None] = {}
        self._clips: dict[Path, tuple[ClipShot, ...]] = {}
        self._assets: dict[Path, tuple[AssetShot, ...]] = {}
        for record in report.records:
            self._clips[record.folder] = tuple(self._clip(album, record, clip) for clip in by_rank(record.clips))
            self._assets[record.folder] = tuple(self._asset(album, record, asset) for asset in by_rank(record.assets))

    def clips(self, record: Record) -> tuple[ClipShot, ...]:
        """The clips that a run shows, worst first."""
        return self._clips[record.folder]

    def assets(self, record: Record) -> tuple[AssetShot, ...]:
        """The assets that a run shows, worst first."""
        return self._assets[record.folder]

    def shots(self, record: Record) -> tuple[FilmShot, ...]:
        """Whichever of the two it shows."""
        return self.clips(record) or self.assets(record)

    def beside(self, shot: FilmShot) -> dict[str, FilmShot | None]:
        """The shots ``before`` and ``after`` it in its run's gallery."""
        shots = self.shots(shot.record)
        place = shots.index(shot)
        after = shots[place + 1] if place + 1 < len(shots) else None
        return {"before": shots[place - 1] if place else None, "after": after}

    def samples(self, record: Record) -> dict[str, list[Any]] | None:
        """The run's per-sample table, None without one."""
        if record.folder not in self._tables:
            self._tables[record.folder] = read_samples(record)
        return self._tables[record.folder]

    def row(self, record: Record, sample: str) -> dict[str, Any]:
        """What the per-sample table says of a clip or asset; empty where it does not have it."""
        table = self.samples(record)
        if table is None or sample not in table["id"]:
            return {}
        place = table["id"].index(sample)
        return {name: column[place] for name, column in table.items()}

    def pages(self, record: Record) -> dict[str, str]:
        """The page of each clip or asset that the run shows, by its id, relative to the report's root."""
        return {shot.id: shot.page for shot in self.shots(record)}

    def same(self, shot: FilmShot) -> list[Record]:
        """The runs that measured the very same clip or asset under the same protocol, this one among them."""
        mine = shot.record
        content = self.row(mine, shot.id).get("sha256")
        found = [
            record
            for record in self._report.records
            if record.experiment == mine.experiment
            and record.dataset["name"] == mine.dataset["name"]
            and record.protocol["sha256"] == mine.protocol["sha256"]
            and (row := self.row(record, shot.id))
            and row.get("sha256") == content
        ]
        kept = [record for record in newest(found) if record.tokenizer_key != mine.tokenizer_key]
        return ordered([*kept, mine])

    def strips(self, records: Iterable[Record]) -> list[FilmStrip]:
        """Clips or assets that two or more of the runs show and change.

        Worst, median, best, worst, ... of the first run; those that most runs show lead. What came back bit for bit
        is left out. They are the same where id, stored bytes and protocol are.
        """
        found: dict[tuple[str, ...], list[FilmShot]] = {}
        for record in records:
            for shot in self.shots(record):
                if shot.poster and not shot.film.lossless:
                    content = str(self.row(record, shot.id).get("sha256"))
                    key = (str(record.dataset["name"]), shot.id, content, str(record.protocol["sha256"]))
                    found.setdefault(key, []).append(shot)
        return deal([FilmStrip(id=key[1], shots=tuple(shots)) for key, shots in found.items() if len(shots) > 1])

    def _clip(self, album: Album, record: Record, clip: ClipPicture) -> ClipShot:
        measured = int(self.row(record, clip.id).get("frames") or clip.frames)
        return ClipShot(**self._film(album, record, clip, "clips"), clip=clip, measured=measured)

    def _asset(self, album: Album, record: Record, asset: AssetPicture) -> AssetShot:
        splat = None if asset.splat is None else album.embed(asset.splat)
        return AssetShot(**self._film(album, record, asset, "assets"), asset=asset, splat=splat)

    def _film(self, album: Album, record: Record, film: Film, folder: str) -> dict[str, Any]:
        return {
            "record": record,
            "page": f"{folder}/{self._report.slug(record)}--{film.video.stem}.html",
            "video": album.add(film.video),
            "poster": album.add(film.poster),
            "figure": figure_of(record, film),
        }


def galleries(report: Report, shelf: Shelf, most: int) -> list[dict[str, Any]]:
    """For each panel with clips or assets: `most` strips of shared ones, and each run's own worst, median and best."""
    found = []
    for comparison in report.comparisons:
        for panel in comparison.panels if comparison.primary else ():
            runs = [record for record in panel.measured if shelf.shots(record)]
            if runs:
                shown: list[dict[str, Any]] = []
                for record in runs:
                    shots = shelf.shots(record)
                    shown.append({"record": record, "shots": shots, "exact": all(shot.exact for shot in shots)})
                strips = shelf.strips(runs)[:most]
                opened = None if strips else next((run["record"] for run in shown if not run["exact"]), None)
                unit = noun(runs[0].modality)
                found.append({"title": panel.title, "noun": unit, "runs": shown, "strips": strips, "open": opened})
    return found
