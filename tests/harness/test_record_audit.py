"""`atoken-bench audit run`: silent about what a run wrote, and names each thing that somebody changed afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import shards
from harness.cli import app
from harness.record_audit import RunAudit, audit_run
from harness.record_rerun import measured_again
from tests.harness.conftest import PROTOCOL, Bench, picture

METRICS = """\
  - {metric: ssim, name: SSIM}
  - {metric: bits-per-pixel, name: bits}
  - {metric: lpips, name: LPIPS}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine photographs, one of them broken, in shards of four."""
    place = tmp_path_factory.mktemp("audit")
    (place / "photos").mkdir()
    for index in range(9):
        picture(place / "photos" / f"{index:02d}.png", 40, 48 + index, seed=index)
    (place / "photos" / "05.png").write_bytes(b"broken")
    (place / "tiny.yaml").write_text(PROTOCOL + METRICS)
    # fmt: off
    words = ["run", "image-recon", "--tokenizer", "jpeg:50", "--data", f"folder={place / 'photos'}",
             "--protocol", place / "tiny.yaml", "--device", "cpu", "--threads", 1, "--shard-size", 4,
             "--runs", place / "runs"]
    # fmt: on
    app([str(word) for word in words], standalone_mode=False)
    (record,) = (place / "runs").rglob("record.json")
    return record.parent


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def edit(run: Path, change: Callable[[dict[str, Any]], object], name: str = "record.json") -> None:
    record = json.loads((run / name).read_text())
    change(record)
    (run / name).write_text(json.dumps(record))


def cell(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cell for cell in record["cells"] if cell["name"] == name)


def differing(run: Path) -> list[str]:
    return list(RunAudit(run).run().differing)


def test_an_untouched_run_has_no_difference(run: Path, bench: Bench) -> None:
    outcome = RunAudit(run).run()
    assert outcome.differing == ()
    assert outcome.unchecked == ()
    assert (outcome.cells, outcome.samples) == (3, 8)
    done = bench("audit", "run", run)
    assert done.code == 0, done.err
    assert done.out.strip() == f"{run}: 3 cells recomputed, 8 samples compared, 0 differences, 0 things not checked"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: cell(r, "PSNR").update(value=99.5), "cell PSNR, value: states 99.5, recomputed "),
        (lambda r: cell(r, "PSNR").update(interval=[1.0, 2.0]), "cell PSNR, interval: states [1.0, 2.0], recomputed "),
        (lambda r: cell(r, "SSIM").update(n=9), "cell SSIM, n: states 9, recomputed 8"),
        (lambda r: cell(r, "SSIM").update(interval=None), "cell SSIM, interval: states None, recomputed "),
        (lambda r: cell(r, "bits").update(unit="dB"), "cell bits, unit: states dB, recomputed bit/pixel"),
        (lambda r: cell(r, "SSIM")["parameters"].update(window=3), "cell SSIM, parameters: states "),
        (lambda r: r["cells"].remove(cell(r, "PSNR")), "cell PSNR: missing, the shards give "),
        (lambda r: r["cells"].append({**cell(r, "PSNR"), "name": "rFID"}), "cell rFID: states "),
        (lambda r: r["samples"].update(used=9), "samples.used: states 9, the shards give 8"),
        (lambda r: r["samples"].update(failed=[]), "samples.failed: states [], the shards give "),
        (lambda r: r["time"].update(encode_ms=0.0), "time.encode_ms: states 0.0, the shards give "),
        (lambda r: r["settings"].update(seed=8), "settings.seed: states 8, the protocol has 7"),
        (lambda r: r["shards"][1].update(sha256="0" * 64), "states sha256 000000000000, the file has "),
        (lambda r: r["shards"][1].update(n=4), ": states n 4, the file has 3"),
        (lambda r: r["dataset"].update(content_sha256="0" * 64), "dataset.content_sha256: states 000000000000, the "),
        (lambda r: r["dataset"].update(ids_sha256="0" * 64), "dataset.ids_sha256: states 000000000000, the data here"),
        (lambda r: r["dataset"].update(count=10), "dataset.count: states 10, the data here has 9"),
        (lambda r: r["gallery"][0].update(value=1.0), "states PSNR 1.0, the shards give "),
        (lambda r: r["protocol"].update(sha256="0" * 64), "protocol: states sha256 000000000000, its content has "),
    ],
)
def test_names_what_was_changed_in_the_record(run: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(run, change)
    (line,) = differing(run)
    assert said in line


def test_the_last_digits_may_be_another_machines(run: Path) -> None:
    edit(run, lambda record: cell(record, "PSNR").update(value=cell(record, "PSNR")["value"] * (1 + 1e-9)))
    assert differing(run) == []


def test_a_changed_protocol_is_found_by_what_was_asked_for(run: Path) -> None:
    edit(run, lambda record: record["protocol"]["content"].update(title="another"))
    lines = differing(run)
    assert any("its content is not that of run.json" in line for line in lines)


def test_names_the_sample_that_was_changed_in_the_table(run: Path) -> None:
    path = run / "samples.parquet"
    table = pq.read_table(path)
    column = table["PSNR"].to_numpy().copy()
    column[5] += 1
    pq.write_table(table.set_column(table.column_names.index("PSNR"), "PSNR", pa.array(column)), path)
    (line,) = differing(run)
    assert line.startswith("samples.parquet, PSNR of 06.png: states ")
    pq.write_table(table.drop_columns(["SSIM"]).append_column("more", pa.array(column)), path)
    assert differing(run) == [
        "samples.parquet: no column SSIM, which the shards have",
        "samples.parquet: a column more that no shard has",
    ]
    pq.write_table(table.slice(0, 7), path)
    assert all("7 rows, the shards give 8" in line for line in differing(run))
    path.unlink()
    assert differing(run) == ["samples.parquet: missing"]


def test_a_changed_shard_is_found_by_its_hash_and_by_the_figures(run: Path) -> None:
    path = sorted((run / "shards").iterdir())[0]
    shard = shards.read(path)
    shards.write(path, shards.Shard(**{**vars(shard), "columns": {**shard.columns, "PSNR": np.full(4, 60.0)}}))
    lines = "\n".join(differing(run))
    assert "states sha256" in lines
    assert "samples.parquet, PSNR of 00.png: states" in lines
    assert "(and 3 more)" in lines
    assert "cell PSNR, value: states" in lines


def test_shards_that_cannot_be_read_are_named(run: Path) -> None:
    one, other = sorted((run / "shards").iterdir())[:2]
    one.unlink()
    other.write_bytes(other.read_bytes()[:-9])
    outcome = RunAudit(run).run()
    assert outcome.differing[0] == f"shards/{one.name}: missing"
    assert outcome.differing[1].startswith(f"shards/{other.name}: not a whole shard file")
    assert outcome.unchecked == ("cells and samples: not all shards can be read",)


def test_what_cannot_be_checked_is_said(run: Path) -> None:
    edit(run, lambda request: request["request"].update(data="folder=/nowhere"), "run.json")
    (line,) = RunAudit(run).run().unchecked
    assert line.startswith("dataset: ")
    (run / "run.json").unlink()
    edit(run, lambda record: cell(record, "LPIPS").update(value=0.1, absent=None))
    edit(run, lambda record: record["weights"].update({"vgg.pth": "0" * 64}))
    lines = "\n".join(RunAudit(run).run().unchecked)
    assert "run.json is missing" in lines
    assert "cell LPIPS: " in lines
    assert "weights vgg.pth: not on this machine" in lines


def test_the_command_fails_with_what_differs(run: Path, bench: Bench, tmp_path: Path) -> None:
    edit(run, lambda record: cell(record, "PSNR").update(value=99.5))
    done = bench("audit", "run", run)
    assert done.code == 1
    assert done.out.startswith("differs: cell PSNR, value: states 99.5, recomputed ")
    nowhere = bench("audit", "run", tmp_path)
    assert nowhere.code == 1
    assert nowhere.err.startswith(f"atoken-bench: {tmp_path / 'record.json'}: no such record")
    edit(run, lambda record: record.pop("samples"))
    assert "damaged record (KeyError('samples'))" in bench("audit", "run", run).err
    assert "no such folder" in bench("audit", "run", run, "--weights", tmp_path / "none").err


def test_infinite_figures_read_back(tmp_path: Path, made: Path) -> None:
    # fmt: off
    words = ["run", "image-recon", "--tokenizer", "identity", "--data", f"folder={made.parents[2] / 'photos'}",
             "--protocol", made.parents[2] / "tiny.yaml", "--device", "cpu", "--threads", 1, "--runs", tmp_path]
    # fmt: on
    app([str(word) for word in words], standalone_mode=False)
    (record,) = tmp_path.rglob("record.json")
    said: list[str] = []
    assert audit_run(record.parent, (), said.append) == 0, said


def test_samples_measured_again_are_the_same(run: Path, bench: Bench) -> None:
    done = bench("audit", "run", run, "--rerun", 3)
    assert done.code == 0, done.out + done.err
    assert "3 samples measured again (" in done.out
    assert done.out.rstrip().endswith("0 differences")
    assert len(measured_again(run, 100)[0]) == 8


def test_a_draw_is_its_seeds(run: Path) -> None:
    draws = {measured_again(run, 2, seed=seed)[0] for seed in (0, 0, 1, 2, 3)}
    assert 1 < len(draws) < 5
    assert all(len(draw) == 2 for draw in draws)


def test_a_value_that_was_never_measured_is_found(run: Path) -> None:
    path = run / "samples.parquet"
    table = pq.read_table(path)
    column = table["SSIM"].to_numpy() * 1.001
    pq.write_table(table.set_column(table.column_names.index("SSIM"), "SSIM", pa.array(column)), path)
    drawn, lines = measured_again(run, 3)
    assert [line.partition(":")[0] for line in lines] == [f"SSIM of {sample}" for sample in drawn]


def test_settings_that_were_found_are_those_of_the_record(tmp_path: Path, made: Path) -> None:
    # fmt: off
    words = ["run", "image-recon", "--tokenizer", "jpeg@4", "--data", f"folder={made.parents[2] / 'photos'}",
             "--protocol", made.parents[2] / "tiny.yaml", "--device", "cpu", "--threads", 1, "--runs", tmp_path]
    # fmt: on
    app([str(word) for word in words], standalone_mode=False)
    (record,) = tmp_path.rglob("record.json")
    assert measured_again(record.parent, 2)[1] == ()


def test_a_run_whose_data_is_gone_cannot_be_done_again(run: Path, bench: Bench) -> None:
    edit(run, lambda request: request["request"].update(data="folder=/nowhere"), "run.json")
    done = bench("audit", "run", run, "--rerun", 1)
    assert done.code == 1
    assert done.err.startswith("atoken-bench: ")
    assert "/nowhere" in done.err
