"""Reading records: what is whole is read, what is not is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_run

from harness.errors import BenchError
from reports.records import read, read_all


def change(folder: Path, **fields: Any) -> Path:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_reads_what_the_runner_wrote(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "identity", n=5)
    record = read(folder / "record.json")
    assert (record.spec, record.kind, record.used, record.expected) == ("identity", "reference", 5, None)
    psnr, rfid = record.cell("PSNR"), record.cell("rFID")
    assert psnr is not None
    assert psnr.value == math.inf
    assert rfid is not None
    assert (rfid.value, "pt_inception" in str(rfid.absent)) == (None, True)
    assert [picture.rank for picture in record.gallery] == ["worst", "median", "best"]
    assert all(picture.original.is_file() for picture in record.gallery)


def test_finds_every_run_in_order(runs: Path) -> None:
    names = [record.folder.name for record in read_all(runs)]
    assert len(names) == 9
    assert names == sorted(names)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"nothing: no such folder of runs; `atoken-bench run image-recon` makes one"):
        read_all(tmp_path / "nothing")


def test_newer_schema_names_the_file_and_the_mend(tmp_path: Path) -> None:
    path = change(make_run(tmp_path, "identity", n=2), schema=2)
    with pytest.raises(BenchError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: written by a newer version (schema 2, known 1); update atoken-bench"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"schema": "1"}', "\udcff"])
def test_what_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(BenchError, match=r"record\.json: not a "):
        read(path)


@pytest.mark.parametrize("field", ["tokenizer", "protocol", "dataset", "samples", "cells", "gallery", "settings"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = make_run(tmp_path, "identity", n=2) / "record.json"
    raw = json.loads(path.read_text())
    del raw[field]
    path.write_text(json.dumps(raw))
    with pytest.raises(BenchError, match=rf"record\.json: damaged record \(missing '{field}'\)"):
        read(path)


def test_a_cell_without_value_and_reason_is_damage(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "identity", n=2)
    cells = json.loads((folder / "record.json").read_text())["cells"]
    path = change(folder, cells=[cells[0] | {"value": None}])
    with pytest.raises(BenchError, match="cell PSNR has neither a value nor a reason"):
        read(path)
    path = change(folder, cells=[cells[0] | {"value": math.nan}])
    with pytest.raises(BenchError, match="cell PSNR is not a number"):
        read(path)


@pytest.mark.parametrize("stray", ["../../secret.png", "/etc/passwd", "record.json"])
def test_a_gallery_cannot_reach_out_of_its_run(tmp_path: Path, stray: str) -> None:
    folder = make_run(tmp_path / "runs", "jpeg:75", n=2)
    (tmp_path / "secret.png").write_bytes(b"")
    gallery = json.loads((folder / "record.json").read_text())["gallery"]
    path = change(folder, gallery=[gallery[0] | {"error": stray}])
    with pytest.raises(BenchError, match="is not a picture inside the run's folder"):
        read(path)
