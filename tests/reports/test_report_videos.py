"""Records of videos in the tables: Table 6, Table 3's video columns, every format."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_clips import EXPERIMENTS, VIDEO_RECON, clip, make_clip_run
from markdown_it import MarkdownIt

from harness.errors import BenchError
from reports.build import Report, build
from reports.command import terminal, write
from reports.model import Panel
from reports.protocols import spreads
from reports.records import read, read_all

LATEX = shutil.which("pdflatex")


def panels(report: Report, table: str) -> dict[str, Panel]:
    mine = [c for c in report.comparisons if c.experiment.name == "video-recon" and c.table is not None]
    found = next(c for c in mine if c.table is not None and c.table.name == table)
    return {panel.dataset: panel for panel in found.panels}


def test_table_6_holds_the_measured_beside_the_printed(clips_made: Report, clips_out: Path) -> None:
    davis = panels(clips_made, "table06")["davis"]
    row = next(line for line in davis.lines if line.name == "AToken-So/C / Stage 3")
    psnr = row.figures[0]
    assert psnr.printed is not None
    assert psnr.printed.text == "33.11"
    assert psnr.difference == pytest.approx(psnr.value - 33.11)  # type: ignore[operator]
    assert row.badges == ("n = 1 of 50",)
    assert row.figures[3].cell is not None
    assert "i3d_torchscript.pt" in str(row.figures[3].cell.absent)
    with (clips_out / "table06.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (line,) = [r for r in rows if r["spec"] == "atoken:so-c.pt" and r["metric"] == "PSNR"]
    assert (float(line["printed"]), float(line["measured"]), line["n_expected"]) == (33.11, psnr.value, "50")
    assert json.loads((clips_out / "table06.json").read_text())
    assert "33.11" in (clips_out / "table06.md").read_text()


def test_a_reference_row_stands_below_the_papers(clips_made: Report) -> None:
    bench = panels(clips_made, "table06")["tokenbench"]
    row = next(line for line in bench.lines if line.record is not None)
    assert (row.name, row.badges) == ("H.264, 0.09375 bit per pixel", ("n = 1 of 471",))
    assert row.section == "Measured here, not in the paper: Reference rows"
    assert all(figure.printed is None for figure in row.figures)


def test_table_3s_video_columns(clips_made: Report) -> None:
    bench = panels(clips_made, "table03")["tokenbench"]
    assert [metric.name for metric in bench.metrics] == ["PSNR", "rFVD"]
    printed = {line.name: line.figures[0].printed for line in bench.lines}
    assert printed["Wan2.2"] is not None
    assert printed["Wan2.2"].text == "36.39"
    assert any(line.record is not None for line in bench.lines)


def test_text_formats_say_what_the_page_says(clips_made: Report, clips_out: Path) -> None:
    html = MarkdownIt("js-default").enable("table").render((clips_out / "table06.md").read_text())
    assert "H.264, 0.09375 bit per pixel" in html
    assert "n = 1 of 471" in html
    said = terminal(clips_made, color=False, width=110)
    assert "Table 6, measured on Sample clips" in said


@pytest.mark.skipif(LATEX is None, reason="needs pdflatex")
def test_latex_of_table_6_compiles(clips_out: Path, tmp_path: Path) -> None:
    body = (clips_out / "table06.tex").read_text() + (clips_out / "protocols.tex").read_text()
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,amssymb,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n")
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"video": "../../x.webm"},
            {"video": "record.json"},
            {"poster": "/etc/passwd"},
            {"video": "gallery/a#b.webm"},
        ),
        *({"frames": 0}, {"rate": 0}, {"rate": "NaN"}, {"tile": [16]}, {"width": 0}),
    ],
)
def test_a_damaged_entry_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = make_clip_run(tmp_path, "identity", clips={"a": clip(0, 1, 8, 8)}) / "record.json"
    raw = json.loads(path.read_text())
    raw["gallery"][0] |= change
    path.write_text(json.dumps(raw))
    with pytest.raises(BenchError, match=r"record\.json: damaged record \("):
        read(path)


def test_infinite_values_are_read_back(clips_made: Report) -> None:
    assert next(r for r in clips_made.records if r.spec == "identity").clips[0].value == math.inf


def test_the_legend_and_the_words_follow_what_was_measured(
    clips_out: Path, clip_template: Path, tmp_path: Path
) -> None:
    index = (clips_out / "index.html").read_text()
    for said in ("rFID ↓", "rFVD ↓", "seam ↓", "side by side"):
        assert said in index
    only = [r for r in read_all(clip_template) if r.modality == "video"]
    write(build(only, {"video-recon": VIDEO_RECON}), tmp_path, ("html",))
    alone = (tmp_path / "index.html").read_text()
    assert "rFID" not in alone.split("</header>")[0]
    assert "photograph" not in alone


def test_a_protocols_frames_are_part_of_its_definition(clips_made: Report) -> None:
    (panel,) = spreads(VIDEO_RECON, clips_made.records)
    for _, text in panel.definitions:
        assert text.endswith("frames common, the first 300 frames or 10 s (whichever is more)")


@pytest.mark.parametrize(("frames", "badges"), [(4, ("loses to floor in PSNR",)), (1, ())])
def test_a_transform_of_single_frames_is_no_floor_for_a_code_of_four(
    tmp_path: Path, frames: int, badges: tuple[str, ...]
) -> None:
    floor = {"title": "floor", "token_type": "transform", "compression": [frames, 16, 16], "latent_size": 48}
    make_clip_run(tmp_path, "h264@0.09375", changes=floor)
    make_clip_run(tmp_path, "atoken")
    samples = panels(build(read_all(tmp_path), EXPERIMENTS), "table06")["samples"]
    assert next(line for line in samples.lines if line.name == "atoken-nano").badges == badges
