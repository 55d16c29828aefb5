"""Pages of assets, Table 8, and the viewer's library."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from fake_assets import EXPERIMENTS, GAUSSIANS, VIEWS, make_asset_run

from harness.errors import BenchError
from reports import asset_page, viewer
from reports.build import Report, build
from reports.clips import AssetShot, Shelf
from reports.command import write
from reports.model import Line, Panel
from reports.pictures import Album
from reports.records import Record, read_all

MIDDLE = "lamp/lamp_02.glb"


@pytest.fixture(scope="module")
def shelf(assets_made: Report, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(assets_made, Album(tmp_path_factory.mktemp("shelf")))


def record(report: Report, title: str, dataset: str = "samples", protocol: str = "paper") -> Record:
    return next(
        r
        for r in report.records
        if (r.title, r.dataset["name"], r.protocol["name"], r.modality) == (title, dataset, protocol, "asset")
    )


def shot(report: Report, shelf: Shelf, title: str, **where: str) -> AssetShot:
    return next(shot for shot in shelf.assets(record(report, title, **where)) if shot.id == MIDDLE)


def panel(report: Report, slug: str, table: str) -> Panel:
    return next(p for c in report.comparisons if c.table and c.table.name == table for p in c.panels if p.slug == slug)


def line(found: Panel, name: str) -> Line:
    return next(one for one in found.lines if one.name == name)


class Page(HTMLParser):
    """Links, ids and the viewer's files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        here = dict(attrs)
        keys = ("href", "src", "poster", "data-library", "data-file")
        self.links += [str(here[key]) for key in keys if here.get(key)]
        if here.get("id"):
            self.ids.append(str(here["id"]))


def test_every_asset_has_a_page_and_every_link_resolves(assets_made: Report, assets_out: Path) -> None:
    pages = {path: Page(path) for path in assets_out.rglob("*.html")}
    assert len(list((assets_out / "assets").iterdir())) == sum(len(r.assets) for r in assets_made.records) == 10
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), f"{path.name}: an id twice"
        for link in page.links:
            target, _, anchor = link.partition("#")
            if link != "data:,":
                assert not re.match(r"[a-z]+:|//", link), f"{path.name}: {link} leaves the folder"
                file = (path.parent / target).resolve() if target else path
                assert file.is_file(), f"{path.name}: {link}"
                assert not anchor or anchor in pages[file].ids, f"{path.name}: {link}"


def test_table_8_sets_the_papers_figures_beside_the_measured(assets_made: Report) -> None:
    found = panel(assets_made, "asset-recon-toys4k", "table08")
    assert [one.name for one in found.lines] == ["Trellis-SLAT", "AToken-So/C", "AToken-So/D"]
    ours = line(found, "AToken-So/C")
    assert ours.badges == ("n = 1 of 3,229",)
    psnr = ours.figures[0]
    assert psnr.printed is not None
    assert psnr.value is not None
    assert (psnr.printed.text, found.metrics[0].name) == ("28.28", "PSNR")
    assert psnr.difference == pytest.approx(psnr.value - 28.28)
    in_table_3 = line(panel(assets_made, "asset-recon-toys4k", "table03"), "AToken-So/C")
    assert in_table_3.figures[0].value == psnr.value
    assert [f.printed.text for f in in_table_3.figures if f.printed] == ["28.28", "0.062"]


def test_a_tokenizer_without_a_decoder_says_why_and_shows_nothing(assets_made: Report, assets_out: Path) -> None:
    row = line(panel(assets_made, "asset-recon-samples", "table08"), "atoken-nano")
    assert [figure.value for figure in row.figures] == [None] * 3
    run = record(assets_made, "atoken-nano")
    page = (assets_out / "runs" / f"{assets_made.slug(run)}.html").read_text()
    assert f"Absent: {GAUSSIANS}" in page
    assert "Gallery" not in page
    assert GAUSSIANS in (assets_out / "index.html").read_text()
    assert "no trained Gaussian decoder is at hand" in (assets_out / "table08.md").read_text()


def test_counts_say_their_unit_once_and_have_no_decimals(assets_made: Report, shelf: Shelf) -> None:
    context = asset_page.context(shelf, shot(assets_made, shelf, "Voxel colour, 64³"))
    tokens = next(metric for metric in context["metrics"] if metric.name == "tokens")
    assert (tokens.unit, tokens.decimals) == ("", 0)
    row = next(row for row in context["rows"] if row.here)
    assert row.figures[-1] == "4321"


def test_the_same_asset_under_other_tokenizers(assets_made: Report, shelf: Shelf) -> None:
    context = asset_page.context(shelf, shot(assets_made, shelf, "Voxel colour, 64³"))
    rows = [(row.record.title, row.here, row.page is not None) for row in context["rows"]]
    # The run that cannot decode measured the same asset and has no page of it; the one under `release` is another.
    assert rows == [("atoken-nano", False, False), ("identity", False, True), ("Voxel colour, 64³", True, True)]
    assert context["rows"][0].figures[0] == "–"


def test_curves_round_the_turn_and_over_the_measured_views(assets_made: Report, shelf: Shelf) -> None:
    mine = shot(assets_made, shelf, "Voxel colour, 64³")
    context = asset_page.context(shelf, mine)
    turn = context["turn"]
    assert (turn.of, turn.frames, len(json.loads(turn.values))) == ("view", 24, 24)
    assert turn.summary.startswith(f"worst {mine.asset.rms[2]:.3f} at view 2, best")
    assert [(c.name, c.frames, c.values) for c in context["curves"]] == [
        *(("PSNR", VIEWS, None), ("SSIM", VIEWS, None), ("foreground", VIEWS, None))
    ]
    assert re.match(r"worst .* dB at view \d, best", context["curves"][0].summary)


def test_what_came_back_exactly_has_nothing_to_plot(assets_made: Report, shelf: Shelf, assets_out: Path) -> None:
    exact = shot(assets_made, shelf, "identity")
    context = asset_page.context(shelf, exact)
    assert context["turn"] is None
    assert "PSNR" not in [c.name for c in context["curves"]]
    text = (assets_out / exact.page).read_text()
    assert "Every view shown came back bit for bit" in text
    assert 'class="viewer"' not in text


def test_facts(assets_made: Report, shelf: Shelf) -> None:
    facts = dict(asset_page.context(shelf, shot(assets_made, shelf, "Voxel colour, 64³"))["facts"])
    assert facts["Measured"] == f"{VIEWS} views of 512 × 512 pixels"
    assert (facts["Tokens"], facts["Voxels"], facts["Gaussians"]) == ("4,321", "4,321", "900")
    assert facts["Shown"].startswith("24 views of a full turn, on a ground of RGB 74, 94, 118")
    facts = dict(asset_page.context(shelf, shot(assets_made, shelf, "identity"))["facts"])
    assert facts["Voxels"].startswith("none")
    assert facts["Gaussians"].startswith("none")


def test_strips_compare_tokenizers_and_name_what_they_show(assets_made: Report, assets_out: Path) -> None:
    text = (assets_out / "index.html").read_text()
    assert "Sample assets: assets" in text
    run = record(assets_made, "identity")
    assert "All assets shown came back bit for bit." in text
    page = (assets_out / "runs" / f"{assets_made.slug(run)}.html").read_text()
    assert f"512 × 512 × {VIEWS} views" in page
    assert "the worst, the median and the best assets" in page


def test_protocols_say_from_where_assets_are_seen(tmp_path: Path) -> None:
    make_asset_run(tmp_path, "identity")
    make_asset_run(tmp_path, "identity", protocol="release")
    (found,) = build(read_all(tmp_path), EXPERIMENTS).protocols
    assert all("measured in thirty views of 512" in definition for _, definition in found.definitions)


def test_gaussians_are_embedded_once_for_equal_files(assets_made: Report, assets_out: Path) -> None:
    (script,) = (assets_out / "pictures").glob("*.ply.js")
    head, _, text = script.read_text().partition(" = ")
    assert head == f'(self.embedded ??= {{}})["{script.name}"]'
    splat = record(assets_made, "Voxel colour, 64³").assets[0].splat
    assert splat is not None
    assert base64.b64decode(text.removesuffix(";\n").strip('"')) == splat.read_bytes()


def test_the_library_is_the_one_that_its_manifest_names(assets_out: Path) -> None:
    folder = resources.files("reports") / "vendor" / "gsplat"
    script = (assets_out / viewer.SCRIPT).read_text()
    assert "Permission is hereby granted, free of charge" in script  # its licence asks to be kept with every copy
    text = script[script.index('self.splatLibrary = "') :].split('"')[1]
    assert base64.b64decode(text) == (folder / "index.es.js").read_bytes()


def test_a_report_without_gaussians_has_no_library(clips_out: Path) -> None:
    assert not (clips_out / viewer.SCRIPT).exists()


def test_nasty_names_stay_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>/a b#1?%20.glb"
    make_asset_run(tmp_path / "runs", "voxel-colour", ids=(nasty,))
    out = tmp_path / "out"
    out.mkdir()
    write(build(read_all(tmp_path / "runs"), EXPERIMENTS), out, ("html",))
    (page,) = (out / "assets").iterdir()
    assert "<script>alert" not in page.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;/a b#1?%20.glb" in page.read_text()


def test_lost_files_are_said(asset_runs: Path, tmp_path: Path) -> None:
    for path in asset_runs.glob("asset-recon/voxel-colour*/gallery/*"):
        path.unlink()
    out = tmp_path / "out"
    out.mkdir()
    made = build(read_all(asset_runs), EXPERIMENTS)
    write(made, out, ("html",))
    page = (out / "assets" / f"{made.slug(record(made, 'Voxel colour, 64³'))}--000001.html").read_text()
    assert "The video is missing from the run's folder." in page
    assert "The file with the Gaussians is missing from the run's folder." in page


@pytest.mark.parametrize(
    ("field", "value"),
    [("splat", "../../other.ply"), ("splat", "gallery/000000.txt"), ("views", 0), ("rms", [1.0]), ("voxels", "many")],
)
def test_a_damaged_gallery_is_named(asset_runs: Path, field: str, value: object) -> None:
    path = next(asset_runs.glob("asset-recon/voxel-colour*/record.json"))
    content = json.loads(path.read_text())
    content["gallery"][0][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"record\.json: damaged record"):
        read_all(asset_runs)
