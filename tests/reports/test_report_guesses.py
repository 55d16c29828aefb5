"""Runs that put samples into classes: their pages, their rows in tables 1, 3 and 5."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_guesses import WITH_CLASSES, make_guess_run
from fake_runs import make_run

from harness.errors import BenchError
from reports import views
from reports.build import Report, build
from reports.capabilities import capability_state
from reports.command import FORMATS, write
from reports.composed import composed
from reports.records import read, read_all
from reports.states import StateCell, table_state


def report_of(runs: Path) -> Report:
    return build(read_all(runs), WITH_CLASSES)


def page_of(runs: Path, out: Path) -> str:
    out.mkdir()
    write(report_of(runs), out, FORMATS)
    return next((out / "runs").glob("*own-64*.html")).read_text()


def test_the_page_says_what_was_taken_for_what(tmp_path: Path) -> None:
    make_guess_run(tmp_path / "runs")
    text = page_of(tmp_path / "runs", tmp_path / "out")
    assert "4 classes, 7 sentences each" in text
    assert "texts by sentence" in text
    gallery = text[text.index('class="seen-samples"') :]
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", gallery, flags=re.DOTALL)
    said = [" ".join(re.sub(r"<[^>]+>", "", figure).split()) for figure in figures[:3]]
    # Worst first: the second sample, a goldfish that was nearer to the shark's sentences.
    assert said[0].startswith("✗ wrong: &lt;b&gt;goldfish&lt;/b&gt; taken for great white shark (0.229)")
    assert "Worst, margin −0.210" in said[0]
    assert said[-1].startswith("✓ right: tench (0.290)")
    assert "<b>goldfish</b>/" not in text


def test_samples_are_listed_by_margin(tmp_path: Path) -> None:
    record = read(make_guess_run(tmp_path) / "record.json")
    samples = views.read_samples(record)
    assert samples is not None
    listed = views.sample_table(record, samples)
    assert listed is not None
    # The class that was guessed is no quantity, and what is the same for all orders nothing.
    assert [metric.name for metric in listed.metrics] == ["margin", "top-1"]
    assert [row.values[0] for row in listed.rows] == sorted(samples["margin"])
    assert [plot["name"] for plot in views.sample_plots(record, samples)] == ["margin"]


def test_a_row_for_every_resolution(tmp_path: Path) -> None:
    row = {"paper_row": "AToken-So/D", "title": "AToken-So/D"}
    for side in (256, 384):
        make_guess_run(tmp_path, name="so-d", dataset="imagenet-val", protocol=f"siglip2-{side}", side=side, card=row)
    state = table_state(report_of(tmp_path), "table05")
    rows = [one for one in state.rows if one.name == "AToken-So/D"]
    assert [one.cells[0].text for one in rows] == ["256", "384", "512"]
    assert [one.cells[3].state for one in rows] == ["measured", "measured", "printed"]
    # The default protocol is not told; another one is.
    assert [one.badges for one in rows] == [(), ("protocol siglip2-384",), ()]
    assert table_state(report_of(tmp_path), "table03").rows[-2].cells[6].state == "measured"


def tick(report: Report, name: str) -> StateCell:
    state = capability_state(report)
    place = [column.header for column in state.table.columns].index("Understanding / Image")
    return next(row for row in state.rows if row.name == name).cells[place]


def test_understanding_is_more_than_chance(tmp_path: Path) -> None:
    make_guess_run(tmp_path / "good", margins=(0.1,) * 6)
    good = tick(report_of(tmp_path / "good"), "atoken-nano")
    assert (good.state, good.tick) == ("measured", "✓")
    assert "top-1 100.0 % [80.0, 100.0], chance 25.0 %" in good.seen
    make_guess_run(tmp_path / "bad", margins=(0.1, 0.1, -0.1, -0.1, -0.1, -0.1))
    bad = tick(report_of(tmp_path / "bad"), "atoken-nano")
    assert (bad.state, bad.tick) == ("measured", "✗")


def test_table_3_has_both_halves_of_a_tokenizer_in_one_row(tmp_path: Path) -> None:
    weights = {"weights_sha256": {"model.safetensors": "ab" * 32}}
    make_run(tmp_path, "atoken")
    make_guess_run(tmp_path, card=weights)
    made = composed(report_of(tmp_path))
    assert made is not None
    (row,) = made.rows
    headers = [column.header for column in made.table.columns]
    filled = [header for header, one in zip(headers, row.cells, strict=True) if one.state == "measured"]
    assert filled == ["Image / PSNR↑", "Image / Acc.↑"]


def test_columns_that_say_nothing_of_encoders_are_left_out(tmp_path: Path) -> None:
    make_guess_run(tmp_path)
    (comparison, _) = (one for one in report_of(tmp_path).comparisons if one.experiment.name == "image-classify")
    measured = next(panel for panel in comparison.panels if panel.measured)
    assert not measured.described
    assert measured.lines[0].section.endswith("Encoders")


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    path = make_guess_run(tmp_path) / "record.json"
    record = json.loads(path.read_text())
    del record["gallery"][0]["score"]
    path.write_text(json.dumps(record))
    with pytest.raises(BenchError, match="missing 'score'"):
        read(path)
    record["gallery"][0] |= {"score": 0.1, "original": "../../secret.png"}
    path.write_text(json.dumps(record))
    with pytest.raises(BenchError, match="not a picture inside"):
        read(path)
