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


def test_samples_are_listed_worst_first(record: Record) -> None:
    samples = views.read_samples(record)
    assert samples is not None
    shown = views.sample_table(record, samples)
    assert shown is not None
    assert [metric.name for metric in shown.metrics] == ["PSNR", "SSIM"]
    assert [row.values[0] for row in shown.rows] == sorted(samples["PSNR"])
    place = samples["id"].index(shown.rows[0].id)
    assert shown.rows[0].values == (samples["PSNR"][place], samples["SSIM"][place])
    assert (shown.rows[0].size, shown.total) == ("32 × 32", 12)


def test_a_sample_without_a_value_comes_last(record: Record) -> None:
    samples = {"id": ["a", "b", "c", "d"], "PSNR": [math.nan, 30.0, None, math.inf]}
    shown = views.sample_table(record, samples)
    assert shown is not None
    assert [row.id for row in shown.rows] == ["b", "d", "a", "c"]
    assert [row.texts for row in shown.rows] == [("30.00",), ("∞",), ("–",), ("–",)]


def test_what_is_the_same_for_all_samples_orders_nothing(record: Record) -> None:
    assert views.sample_table(record, {"id": ["a", "b"], "PSNR": [math.inf, math.inf]}) is None


@given(st.integers(0, 2**32 - 1), st.integers(views.LISTED + 1, 500))
def test_of_many_samples_the_worst_and_the_best_of_every_metric_are_listed(record: Record, seed: int, n: int) -> None:
    figures = np.random.default_rng(seed).integers(0, n // 2, (n, 2)).astype(float)
    samples = {"id": [str(place) for place in range(n)], "PSNR": figures[:, 0].tolist(), "SSIM": figures[:, 1].tolist()}
    shown = views.sample_table(record, samples)
    assert shown is not None
    assert shown.total == n
    assert len(shown.rows) == len({row.id for row in shown.rows}) <= 4 * views.EACH
    for place, name in enumerate(("PSNR", "SSIM")):
        listed, everything = sorted(row.values[place] or 0.0 for row in shown.rows), sorted(samples[name])
        assert listed[: views.EACH] == everything[: views.EACH]
        assert listed[-views.EACH :] == everything[-views.EACH :]


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
