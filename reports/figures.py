"""The paper's figures: which can be redone, by what, and which were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reports.build import Report
from reports.states_data import PaperFigure, StatesData, states_data
from reports.training import AblationRun

__all__ = ["FIGURE_MARKS", "FigureState", "Redone", "figure_states"]

FigureMark = Literal["redone", "partly", "ready", "planned", "drawing"]
FIGURE_MARKS: dict[FigureMark, tuple[str, str]] = {
    "redone": ("●", "redone here"),
    "partly": ("●", "redone in part"),
    "ready": ("○", "can be redone"),
    "planned": ("○", "planned"),
    "drawing": ("–", "a drawing, no result"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Redone:
    """An experiment that redoes a figure: its command, and pages (title, href) of what was run."""

    name: str
    title: str
    built: bool
    needs: str
    pages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureState:
    """A figure of the paper with where it stands."""

    figure: PaperFigure
    state: FigureMark
    experiments: tuple[Redone, ...]


def figure_states(
    report: Report,
    ablation_href: Callable[[AblationRun], str],
    data: StatesData | None = None,
) -> list[FigureState]:
    """All of them, in order.

    Args:
        ablation_href: page of an ablation, relative to the report's root.
        data: what is known beforehand; None for what ships.
    """
    states = []
    for figure in (data or states_data()).figures:
        found = tuple(_redone(report, name, ablation_href) for name in figure.experiments)
        if figure.drawing:
            state: FigureMark = "drawing"
        elif any(one.pages for one in found):
            state = "redone" if all(one.pages for one in found) else "partly"
        else:
            state = "ready" if any(one.built for one in found) else "planned"
        states.append(FigureState(figure=figure, state=state, experiments=found))
    return states


def _redone(report: Report, name: str, ablation_href: Callable[[AblationRun], str]) -> Redone:
    experiment = report.experiments.get(name)
    pages = [(run.folder.name, ablation_href(run)) for run in report.studies.ablations if run.name == name]
    shown = [record for record in report.records if record.experiment == name]
    if shown:
        # One is enough to go on from: the first page lists them all.
        pages.append((f"{len(shown)} run{'s' if len(shown) > 1 else ''}", f"index.html#{name}"))
    return Redone(
        name=name,
        title=experiment.title if experiment is not None else "not installed here",
        built=experiment is not None and experiment.status == "built",
        needs=experiment.needs if experiment is not None else "",
        pages=tuple(pages),
    )
