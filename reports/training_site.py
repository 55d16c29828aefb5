"""The pages of trainings and ablations: their names, what the first page says of them, and how they are written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.ablation_record import LOG, NAME
from reports import training_ablation, training_page
from reports.build import Report, reasons
from reports.pictures import Album
from reports.training import AblationRun, Training

__all__ = ["Site"]

ABLATIONS, TRAININGS = "ablations", "trainings"
"""Folders of the pages, below the report's root."""

Page = Callable[..., None]
"""Writes a page: template, target, root, then the template's names."""


class Site:
    """The trainings of a report, each with the name of its page."""

    def __init__(self, report: Report) -> None:
        self._report, self.studies = report, report.studies
        self._owner = {
            variant.training.folder: run
            for run in self.studies.ablations
            for variant in run.variants
            if variant.training is not None
        }
        taken: set[str] = set()
        self._ablations = {run.folder: _slug(f"{run.name}-{run.folder.name}", taken) for run in self.studies.ablations}
        self._trainings = {one.folder: _slug(self._name(one), taken) for one in self.studies.trainings}

    def _name(self, training: Training) -> str:
        owner = self._owner.get(training.folder)
        return training.name if owner is None else f"{owner.name}-{owner.folder.name}-{training.name}"

    def page_of(self, one: AblationRun | Training) -> str:
        """Its page, relative to the root."""
        if isinstance(one, AblationRun):
            return f"{ABLATIONS}/{self._ablations[one.folder]}.html"
        return f"{TRAININGS}/{self._trainings[one.folder]}.html"

    def index(self) -> dict[str, Any]:
        """What the first page lists: ablations, and trainings that belong to none."""
        latest = sorted(self.studies.ablations, key=lambda run: (run.name, run.finished))
        return {
            "ablations": [
                {"run": run, "page": self.page_of(run), "steps": training_ablation.steps(run)} for run in latest
            ],
            "trainings": [
                {"training": one, "page": self.page_of(one)}
                for one in self.studies.trainings
                if one.folder not in self._owner
            ],
        }

    def write(self, page: Page, album: Album, out: Path) -> None:
        """Write every page, and beside each what it was drawn from."""
        records = {(record.folder / "record.json").resolve(): record for record in self._report.records}
        for name in (ABLATIONS, TRAININGS):
            (out / name).mkdir()
        for run in self.studies.ablations:
            slug = self._ablations[run.folder]
            shown = training_ablation.context(run, records, self._report.experiments)
            page(
                "ablation.html.j2",
                self.page_of(run),
                "../",
                slug=slug,
                training_href=self.page_of,
                reasons_of=lambda part: reasons([row.figures for row in part.rows]),
                **shown,
            )
            shutil.copyfile(run.folder / NAME, out / ABLATIONS / f"{slug}.json")
        for training in self.studies.trainings:
            owner = self._owner.get(training.folder)
            pictures = [(span.name, step, album.add(path)) for span, step, path in training.pictures()]
            slug = self._trainings[training.folder]
            page(
                "training.html.j2",
                self.page_of(training),
                "../",
                slug=slug,
                ablation=None if owner is None else {"title": owner.title, "page": self.page_of(owner)},
                **training_page.context(training, pictures),
            )
            shutil.copyfile(training.folder / LOG, out / TRAININGS / f"{slug}.jsonl")


def _slug(text: str, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-").lower() or "training"
    slug, number = stem, 2
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    taken.add(slug)
    return slug
