"""The clips that runs show: where each one's files and page are, and who shows the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.build import Report
from reports.pictures import Album, by_rank, deal, figure_of
from reports.records import ClipPicture, Record
from reports.tables import newest, ordered
from reports.views import read_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShot:
    """A clip in the gallery of a run.

    Attributes:
        page, video, poster: relative to the report's root; the last two are None where the run's folder lost the file.
        figure: the value that it was chosen by.
        measured: frames that were measured; the video shows the first `clip.frames` of them.
    """

    record: Record
    clip: ClipPicture
    page: str
    video: str | None
    poster: str | None
    figure: str
    measured: int

    @property
    def id(self) -> str:
        """Of the clip."""
        return self.clip.id

    @property
    def rank(self) -> str:
        """``worst``, ``median`` or ``best``."""
        return self.clip.rank

    @property
    def error_max(self) -> float:
        """The difference in grey levels at which the error map's colours end."""
        return self.clip.error_max

    @property
    def exact(self) -> bool:
        """Whether the whole clip is shown and came back bit for bit."""
        return self.clip.lossless and self.clip.frames == self.measured

    @property
    def part(self) -> str:
        """``80 frames``, or ``the first 150 of 300 frames``."""
        shown = self.clip.frames
        if shown < self.measured:
            return f"the first {shown} of {self.measured} frames"
        return f"{shown} frame{'s' if shown != 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipStrip:
    """One clip as several tokenizers reconstructed it."""

    id: str
    shots: tuple[ClipShot, ...]


class Shelf:
    """The clips of a report's runs, and the per-sample tables that tell of them; each table is read once."""

    def __init__(self, report: Report, album: Album) -> None:
        self._report = report
        self._tables: dict[Path, dict[str, list[Any]] | None] = {}
        self._shots: dict[Path, tuple[ClipShot, ...]] = {}
        for record in report.records:
            self._shots[record.folder] = tuple(self._shot(album, record, clip) for clip in by_rank(record.clips))

    def shots(self, record: Record) -> tuple[ClipShot, ...]:
        """The clips that a run shows, worst first."""
        return self._shots[record.folder]

    def samples(self, record: Record) -> dict[str, list[Any]] | None:
        """The run's per-sample table, None without one."""
        if record.folder not in self._tables:
            self._tables[record.folder] = read_samples(record)
        return self._tables[record.folder]

    def row(self, record: Record, clip: str) -> dict[str, Any]:
        """What the per-sample table says of a clip; empty where it does not have it."""
        table = self.samples(record)
        if table is None or clip not in table["id"]:
            return {}
        place = table["id"].index(clip)
        return {name: column[place] for name, column in table.items()}

    def pages(self, record: Record) -> dict[str, str]:
        """The page of each clip that the run shows, by the clip's id, relative to the report's root."""
        return {shot.id: shot.page for shot in self.shots(record)}

    def same(self, shot: ClipShot) -> list[Record]:
        """The runs that measured the very same clip under the same protocol, this one among them."""
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

    def strips(self, records: Iterable[Record]) -> list[ClipStrip]:
        """Clips that two or more of the runs show and change: worst, median, best, worst, ... of the first run.

        Those that most runs show lead; what came back bit for bit is left out. Clips are the same where id,
        stored bytes and protocol are.
        """
        found: dict[tuple[str, ...], list[ClipShot]] = {}
        for record in records:
            for shot in self.shots(record):
                if shot.poster and not shot.clip.lossless:
                    content = str(self.row(record, shot.id).get("sha256"))
                    key = (str(record.dataset["name"]), shot.id, content, str(record.protocol["sha256"]))
                    found.setdefault(key, []).append(shot)
        return deal([ClipStrip(id=key[1], shots=tuple(shots)) for key, shots in found.items() if len(shots) > 1])

    def _shot(self, album: Album, record: Record, clip: ClipPicture) -> ClipShot:
        stem = clip.video.stem
        return ClipShot(
            record=record,
            clip=clip,
            page=f"clips/{self._report.slug(record)}--{stem}.html",
            video=album.add(clip.video),
            poster=album.add(clip.poster),
            figure=figure_of(record, clip),
            measured=int(self.row(record, clip.id).get("frames") or clip.frames),
        )


def galleries(report: Report, shelf: Shelf, most: int) -> list[dict[str, Any]]:
    """For each panel with clips: `most` strips of shared clips, and each run's own worst, median and best."""
    found = []
    for comparison in report.comparisons:
        for panel in comparison.panels if comparison.primary else ():
            runs = [record for record in panel.measured if record.clips]
            if runs:
                shown: list[dict[str, Any]] = []
                for record in runs:
                    shots = shelf.shots(record)
                    shown.append({"record": record, "shots": shots, "exact": all(shot.exact for shot in shots)})
                strips = shelf.strips(runs)[:most]
                opened = None if strips else next((run["record"] for run in shown if not run["exact"]), None)
                found.append({"title": panel.title, "runs": shown, "strips": strips, "open": opened})
    return found
