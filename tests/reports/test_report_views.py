"""What a run's page shows of its samples, and the headers of printed tables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from fake_runs import make_run
from hypothesis import given
from hypothesis import strategies as st

from reports import paper, views
from reports.plots import BASE, TOP, WIDTH, histogram
from reports.records import Record, read


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return read(make_run(tmp_path_factory.mktemp("views"), "jpeg:75", n=12) / "record.json")


def test_a_bar_for_every_sample_once(record: Record) -> None:
    values = [0.1, 0.1, 0.2, 0.9, 1.0]
    svg = histogram(values, "SSIM", "", 2)
    assert svg is not None
    heights = np.array([float(h) for h in re.findall(r'height="([\d.]+)"/>', svg)])
    tall, counts = BASE - TOP, [3, 2]  # four bins over [0.1, 1]: the outer two hold them all
    assert heights == pytest.approx(tall * np.array(counts) / 3, abs=0.01)
    assert "from 0.10 to 1.00, median 0.20" in svg


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_a_histogram_stays_in_its_frame(values: list[float]) -> None:
    svg = histogram(values, "x", "dB", 2)
    assert svg is not None
    for x, width in re.findall(r'<rect x="([-\d.]+)" y="[-\d.]+" width="([-\d.]+)"', svg):
        assert float(x) >= 0
        assert 0 < float(width) <= WIDTH
        assert float(x) + float(width) <= WIDTH
    place = re.search(r'class="median" x1="([-\d.]+)"', svg)
    assert place is not None
    assert 0 <= float(place[1]) <= WIDTH


def test_samples_without_a_finite_value_are_said_and_not_drawn() -> None:
    svg = histogram([math.inf, 30.0, 31.0], "PSNR <a>", "dB", 2)
    assert svg is not None
    assert "PSNR &lt;a&gt; over 2 samples: from 30.00 to 31.00 dB, median 30.50 dB; 1 more without" in svg
    assert histogram([math.inf, math.nan], "PSNR", "dB", 2) is None


def test_plots_are_of_what_differs_between_samples(record: Record) -> None:
    samples = views.read_samples(record)
    assert samples is not None
    assert [plot["name"] for plot in views.sample_plots(record, samples)] == ["PSNR", "SSIM"]
    odd = {"id": ["a", "b", "c"], "PSNR": [math.nan, 30.0, math.inf], "label": [1, 2, 3], "SSIM": [None, 0.1, 0.2]}
    assert [plot["name"] for plot in views.sample_plots(record, odd)] == ["PSNR"]


def test_extremes_are_ordered_by_the_direction(record: Record) -> None:
    samples = views.read_samples(record)
    assert samples is not None
    shown = views.extremes(record, samples)
    assert shown is not None
    values = [float(row["value"].split()[0]) for row in shown["rows"] if row is not None]
    assert values == sorted(values)
    assert len(values) == 10
    assert shown["rows"][5] is None


def test_a_sample_without_a_value_is_no_extreme(record: Record) -> None:
    samples = {"id": ["a", "b", "c"], "PSNR": [math.nan, 30.0, None]}
    shown = views.extremes(record, samples)
    assert shown is not None
    assert [row["id"] for row in shown["rows"]] == ["b"]


@pytest.mark.parametrize("name", paper.names())
def test_a_header_spans_every_column_once(name: str) -> None:
    table = paper.load(name)
    header = views.header_rows(table)
    taken = [0] * len(header)
    for level, row in enumerate(header):
        for cell in row:
            for below in range(level, level + cell.get("rows", 1)):
                taken[below] += cell.get("columns", 1)
    assert taken == [len(table.columns)] * len(header)
    leaves = [cell["column"] for row in header for cell in row if cell["leaf"]]
    assert sorted(leaves) == list(range(len(table.columns)))


def test_a_part_of_a_table_keeps_its_names() -> None:
    table = views.printed_part(paper.load("table04"), ["COCO"])
    assert [column.group for column in table.columns] == ["", "", "", "", *["COCO"] * 4]
    assert table.rows[0].values == ("SD-VAE", "(1, 8, 8)", "4", "VAE", "25.99", "0.759", "0.130", "4.142")
    assert table.columns[table.method].header == "Method"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ({}, "–"), (True, "yes"), ([1, 16, 16], "1, 16, 16"), (50_000, "50,000"), (0.1 + 0.2, "0.3")],
)
def test_fields_as_text(value: object, text: str) -> None:
    assert views.plain(value) == text


def test_facts_hold_the_protocols_hash(record: Record, tmp_path: Path) -> None:
    rows = dict(views.facts(record)[0]["rows"])
    assert rows["sha256"] == record.protocol["sha256"]
    assert rows["prepare"] == "rgb|resize_short(256,bicubic)|center_crop(256)"
