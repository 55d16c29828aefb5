"""`atoken-bench compare`: paired figures against scipy and plain arithmetic, the laws they obey, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_rel, wilcoxon

from harness.errors import BenchError
from reports.compare import Paired, compare, paired, remarks, show, to_json

VALUES = st.floats(-100, 100) | st.sampled_from([float("inf"), float("-inf"), float("nan")])
COLUMNS = st.integers(1, 12).flatmap(lambda n: st.tuples(*(arrays(np.float64, n, elements=VALUES) for _ in "ab")))


def of(made: Any, metric: str) -> Paired:
    return next(one for one in made.metrics if one.metric == metric)


@settings(max_examples=60, deadline=None)
@given(COLUMNS, st.sampled_from([True, False, None]))
def test_b_with_a_is_minus_a_with_b(columns: tuple[np.ndarray, np.ndarray], up: bool | None) -> None:
    there, back = paired("m", *columns, higher_is_better=up), paired("m", *columns[::-1], higher_is_better=up)
    for name in ("mean_difference", "effect_size"):
        value, other = getattr(there, name), getattr(back, name)
        assert (value is None) == (other is None)
        assert value is None or value == -other
    if there.interval is not None:
        assert back.interval == (-there.interval[1], -there.interval[0])
        assert there.interval[0] <= there.interval[1]
    assert (there.wins_a, there.wins_b, there.ties) == (back.wins_b, back.wins_a, back.ties)
    assert there.p_value == back.p_value if there.p_value is None else there.p_value == pytest.approx(back.p_value)
    assert there.n + there.undefined == len(columns[0])


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, st.integers(2, 12), elements=VALUES.filter(lambda value: value == value)))
def test_a_column_with_itself_is_nothing(column: np.ndarray) -> None:
    same = paired("m", column, column, higher_is_better=True)
    assert (same.mean_difference, same.interval, same.p_value, same.effect_size) == (0, (0, 0), 1, 0)
    assert (same.wins_a, same.wins_b, same.ties, same.infinite) == (0, 0, len(column), 0)


def test_against_scipy() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=200)
    b = a + random.normal(0.1, 0.5, size=200)
    made = paired("m", a, b, higher_is_better=False)
    assert made.p_value == wilcoxon(a, b).pvalue
    test = ttest_rel(a, b)
    assert made.effect_size == pytest.approx(test.statistic / np.sqrt(200))
    assert made.interval is not None
    # For 200 normal differences the bootstrap and Student's interval are nearly one.
    assert made.interval == pytest.approx(tuple(test.confidence_interval(0.95)), abs=0.01)
    assert made.wins_a == (a < b).sum()


def test_infinite_differences_count_as_the_largest_and_stay_out_of_the_mean() -> None:
    a = np.array([np.inf, np.inf, 31.0, 30.0, np.nan])
    b = np.array([np.inf, 30.0, 30.0, 32.0, 1.0])
    made = paired("PSNR", a, b, higher_is_better=True)
    assert (made.n, made.undefined, made.infinite) == (4, 1, 1)
    assert made.mean_difference == pytest.approx((0 + 1 - 2) / 3)
    assert (made.wins_a, made.wins_b, made.ties) == (2, 1, 1)
    assert made.p_value == wilcoxon([0, 1000, 1, -2]).pvalue


def test_equal_differences_have_no_effect_size() -> None:
    made = paired("m", np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]), higher_is_better=True)
    assert made.effect_size is None
    assert made.interval == (1, 1)


def test_two_runs(tmp_path: Path) -> None:
    good, bad = make_run(tmp_path, "jpeg:75"), make_run(tmp_path, "jpeg:10")
    made = compare(good, bad)
    columns = [pq.read_table(run / "samples.parquet")["PSNR"].to_numpy() for run in (good, bad)]
    psnr = of(made, "PSNR")
    assert psnr.mean_difference == pytest.approx(columns[0].mean() - columns[1].mean())
    assert (psnr.n, psnr.wins_a, psnr.wins_b) == (12, 12, 0)
    assert psnr.p_value == pytest.approx(2 / 2**12)  # all signs alike: the smallest that 12 pairs allow
    assert of(made, "SSIM").mean_difference == 0
    data = json.loads(to_json(made))
    assert data["metrics"][0]["mean_difference"] == psnr.mean_difference
    assert data["a"]["tokenizer"] == "jpeg:75"


def test_identity_is_said_to_be_infinite(tmp_path: Path) -> None:
    made = compare(make_run(tmp_path, "identity"), make_run(tmp_path, "jpeg:10"))
    psnr = of(made, "PSNR")
    assert (psnr.infinite, psnr.mean_difference, psnr.interval, psnr.wins_a) == (12, None, None, 12)
    assert any("12 of 12 differences are infinite" in line for line in remarks(made))
    assert json.loads(to_json(made))["metrics"][0]["mean_difference"] is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"protocol": "adm"}, "protocol.name (paper and adm), protocol.sha256"),
        ({"dataset": "coco-val2017"}, "dataset.name (samples and coco-val2017)"),
        ({"n": 6}, "dataset.content_sha256"),
        ({"changes": {"experiment": "video-recon"}}, "experiment (image-recon and video-recon)"),
        ({"changes": {"weights": {"vgg16-397923af.pth": "34" * 32}}}, "weights.vgg16-397923af.pth (121212121212 and"),
    ],
)
def test_refuses_what_is_not_the_same(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    run, other = make_run(tmp_path, "jpeg:75"), make_run(tmp_path, "jpeg:10", **change)
    with pytest.raises(BenchError) as said:
        compare(run, other)
    assert field in str(said.value)
    assert "\n" not in str(said.value)


def test_refuses_a_table_of_other_samples(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, "jpeg:75"), make_run(tmp_path, "jpeg:10")
    path = other / "samples.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    with pytest.raises(BenchError, match="column id differs"):
        compare(run, other)


def test_metrics_of_one_run_alone_are_named(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, "jpeg:75"), make_run(tmp_path, "jpeg:10")
    path = run / "samples.parquet"
    pq.write_table(pq.read_table(path).append_column("LPIPS", pa.array([0.1] * 12)), path)
    made = compare(run, other)
    assert made.left_out == {"LPIPS": f"only in {run}"}


def test_a_metric_with_other_weights_is_another_metric(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, "jpeg:75"), make_run(tmp_path, "jpeg:10")
    record = json.loads((run / "record.json").read_text())
    next(cell for cell in record["cells"] if cell["name"] == "SSIM")["name"] = "SSIM (unofficial)"
    record["cells"] = [cell for cell in record["cells"] if cell["name"] != "SSIM (scikit-image)"]
    (run / "record.json").write_text(json.dumps(record))
    made = compare(run, other)
    assert made.left_out == {"SSIM": "A measured SSIM (unofficial), B SSIM"}


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, "jpeg:75")
    with pytest.raises(BenchError, match="no such record"):
        compare(run, tmp_path)
    with pytest.raises(BenchError, match="no format 'xml'"):
        show(run, run, "xml")
    (run / "samples.parquet").write_bytes(b"broken")
    with pytest.raises(BenchError, match="not a readable table"):
        compare(run, run)


def test_the_command(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path, spec)) for spec in ("jpeg:75", "jpeg:10")]
    words = [sys.executable, "-m", "harness", "compare", *runs]
    table = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "JPEG, quality 75 (A) less JPEG, quality 10 (B)" in table
    assert "PSNR ↑ dB" in table
    text = subprocess.run([*words, "--format", "json"], capture_output=True, text=True, check=True).stdout
    assert [metric["metric"] for metric in json.loads(text)["metrics"]] == ["PSNR", "SSIM"]


def test_needs_no_torch() -> None:
    program = "import sys, reports.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
