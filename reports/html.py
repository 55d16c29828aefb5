"""The report as a folder of HTML pages that opens from disk: no server, no network, no script needed to read."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from harness.errors import BenchError
from harness.records import NAME
from reports import asset_page, build, clip_page, clips, numbers, table_pages, vendor, viewer, views, words
from reports.build import Report
from reports.figures import FIGURE_MARKS, figure_states
from reports.legend import legend
from reports.model import Figure, Line, Metric, Panel
from reports.pictures import Album, guesses, strips
from reports.records import Record
from reports.scatter import Scatter, scatter
from reports.states import MARKS, TableState
from reports.training_site import Site

STRIPS = 6
"""Side-by-side strips on the first page: enough to see what a tokenizer loses, few enough to look at."""


def write(
    report: Report,
    out: Path,
    tables: Mapping[str, TableState],
    downloads: Mapping[str, Sequence[tuple[str, str]]],
    files: Mapping[str, Sequence[tuple[str, str]]],
) -> None:
    """Write ``index.html`` and the folders of its pages, pictures and scripts below ``out``.

    Args:
        tables: the paper's, with the state of every cell.
        downloads: experiment name -> (format, href) of its figures in other formats.
        files: name of a table of the paper -> the same of that table; ``cells`` -> of all their cells.
    """
    for name in ("static", "tables", "runs", "clips", "assets"):
        (out / name).mkdir()
    for file in (resources.files("reports") / "static").iterdir():
        (out / "static" / file.name).write_bytes(file.read_bytes())
    vendor.write_scripts(out / "static")
    checks = table_pages.Shelf(report)
    environment = _environment(report, checks)
    album = Album(out)
    shelf = clips.Shelf(report, album)
    site = Site(report)
    if any(asset.splat for record in report.records for asset in shelf.assets(record)):
        viewer.write(out / viewer.SCRIPT)

    def page(template: str, target: str, root: str, **context: Any) -> None:
        text = environment.get_template(template).render(root=root, **context)
        (out / target).write_text(text, encoding="utf-8")

    primary = [comparison for comparison in report.comparisons if comparison.primary]
    # What was measured comes first; the order is otherwise that of the experiments.
    primary.sort(key=lambda comparison: not any(panel.measured for panel in comparison.panels))
    page(
        "index.html.j2",
        "index.html",
        "",
        records=report.records,
        comparisons=primary,
        legend=legend(primary),
        protocol_panels=report.protocols,
        galleries=_galleries(report, album),
        film_galleries=clips.galleries(report, shelf, STRIPS),
        seen_galleries=_seen_galleries(report, album),
        index=table_pages.index(report, tables),
        figures=figure_states(report, site.page_of),
        studies=site.index(),
        downloads=downloads,
        cell_files=files["cells"],
    )
    for name, state in tables.items():
        shown = table_pages.context(report, checks, state)
        page("table.html.j2", f"tables/{name}.html", "../", downloads=files[name], cell_files=files["cells"], **shown)
    checks.write(out)
    for record in report.records:
        slug = report.slug(record)
        samples = shelf.samples(record)
        shots, seen = album.shots(record), guesses(album, record)
        page(
            "run.html.j2",
            f"runs/{slug}.html",
            "../",
            record=record,
            slug=slug,
            wanted=record.expected,
            cells=views.cell_rows(record),
            plots=views.sample_plots(record, samples) if samples else [],
            listed=views.sample_table(record, samples) if samples else None,
            shots=shots,
            by_id={shot.id: shot for shot in shots},
            seen=seen,
            seen_by_id={shot.id: shot for shot in seen},
            films=shelf.shots(record),
            scatter=_scatter(record),
            pages=shelf.pages(record),
            facts=views.facts(record),
        )
        for clip in shelf.clips(record):
            page("clip.html.j2", clip.page, "../", shot=clip, **clip_page.context(shelf, clip))
        for asset in shelf.assets(record):
            page("asset.html.j2", asset.page, "../", shot=asset, **asset_page.context(shelf, asset))
        shutil.copyfile(record.folder / NAME, out / "runs" / f"{slug}.json")
    site.write(page, album, out)


def _galleries(report: Report, album: Album) -> list[dict[str, Any]]:
    """For each panel with pictures: strips of shared samples, and each run's own worst, median and best."""
    galleries = []
    for comparison in report.comparisons:
        if not comparison.primary:
            continue
        for panel in comparison.panels:
            records = [record for record in panel.measured if record.gallery]
            if records:
                runs: list[dict[str, Any]] = []
                for record in records:
                    shots = album.shots(record)
                    lossless = all(shot.lossless for shot in shots)
                    metric = record.gallery[0].metric
                    runs.append({"record": record, "shots": shots, "metric": metric, "lossless": lossless})
                shared = strips(album, records)[:STRIPS]
                galleries.append(
                    {
                        "title": panel.title,
                        "runs": runs,
                        "shots": [shot for run in runs for shot in run["shots"]],
                        "strips": shared,
                        "open": next((run["record"] for run in runs if not run["lossless"]), None),
                        "columns": 1 + max((len(strip.shots) for strip in shared), default=0),
                    }
                )
    return galleries


def _scatter(record: Record) -> Scatter | None:
    """The points of a run that drew its vectors; None for others.

    Raises:
        BenchError: the file is gone, is none, or lies outside the run's folder.
    """
    figure = record.raw.get("figure")
    if not isinstance(figure, Mapping):
        return None
    path = (record.folder / str(figure.get("file"))).resolve()
    if not path.is_relative_to(record.folder.resolve()):
        raise BenchError(f"{record.folder / NAME}: its figure lies outside the run's folder; run it again")
    return scatter(path)


def _seen_galleries(report: Report, album: Album) -> list[dict[str, Any]]:
    """For each panel whose runs classified samples: what each run shows of them."""
    return [
        {
            "title": panel.title,
            "runs": [{"record": record, "shots": guesses(album, record)} for record in panel.measured],
        }
        for comparison in report.comparisons
        if comparison.primary
        for panel in comparison.panels
        if any(record.guesses for record in panel.measured)
    ]


def _environment(report: Report, checks: table_pages.Shelf) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": numbers.figure,
        "interval": numbers.interval,
        "difference": numbers.difference,
        "count": numbers.count,
        "of_expected": numbers.of_expected,
        "used_of": numbers.used_of,
        "machine": _machine,
        "dash": lambda text: numbers.DASH if text == "-" else text,
        "plain": views.plain,
    }
    environment.globals |= {
        "version": version("atoken"),
        "run_count": len(report.records),
        "href": lambda record: f"runs/{report.slug(record)}.html",
        "caption": build.caption,
        "place_on_track": place_on_track,
        "panel_reasons": build.panel_reasons,
        "further_reasons": build.further_reasons,
        "loop_letter": build.letter,
        "noun": words.noun,
        "libraries": {name: vendor.manifest(name) for name in vendor.SCRIPTS},
        "marks": MARKS,
        "figure_marks": FIGURE_MARKS,
        "evidence": checks.evidence,
        "numbers_of": table_pages.numbers_of,
        "columns_of": table_pages.columns_of,
        "viewer": {"script": viewer.SCRIPT, **viewer.manifest()},
    }
    return environment


def place_on_track(panel: Panel, place: int, figure: Figure) -> dict[str, float | None] | None:
    """Where a figure and its interval lie between the panel's lowest and highest, in percent.

    None where there is nothing to compare: fewer than two finite figures, or this one is not finite. Nor where
    nothing was lost: in decibel that is infinite, or a number that stands for it and would squeeze all others.
    """
    figures = [line.figures[place] for line in panel.lines if not _ideal(line, panel.metrics[place])]
    if not any(one is figure for one in figures):
        return None
    cells = [one.cell for one in figures if one.cell is not None]
    finite = [cell for cell in cells if cell.value is not None and math.isfinite(cell.value)]
    if len(finite) < 2 or figure.value is None or not math.isfinite(figure.value):
        return None
    ends = [end for cell in finite for end in (cell.value, *(cell.interval or ())) if end is not None]
    low, high = min(ends), max(ends)
    if low == high:
        return None

    def percent(value: float) -> float:
        return float(round(100 * (value - low) / (high - low), 2))

    bounds = None if figure.cell is None else figure.cell.interval
    return {
        "place": percent(figure.value),
        "low": None if bounds is None else percent(bounds[0]),
        "high": None if bounds is None else percent(bounds[1]),
    }


def _ideal(line: Line, metric: Metric) -> bool:
    return metric.unit == "dB" and line.record is not None and line.record.card.get("token_type") == "none"


def _machine(value: float) -> str:
    """For scripts that sort: shortest exact decimal, ``Infinity`` as JavaScript reads it."""
    return json.dumps(value)
