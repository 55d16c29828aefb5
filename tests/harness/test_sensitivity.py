"""`atoken-bench sensitivity`: every protocol measured once, what stands left alone, one line where it cannot be."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.image_recon import EXPERIMENT
from harness import sensitivity
from harness.console import Console
from harness.errors import BenchError
from harness.execution import execute
from harness.plan import Share
from harness.request import Request
from harness.sensitivity import Outcome, measure, stands
from tests.harness.fakes import Blur, Fitted, plan


def asked(photos: Path, runs: Path, **more: Any) -> Request:
    settings = {"tokenizers": ("jpeg:50",), "limit": 2, "workers": 0, "threads": 1, "device": "cpu"}
    return Request(**{**settings, "data": (f"folder={photos}",), "runs": runs, **more})


def test_measures_every_protocol_and_none_twice(bench: Any, photos: Path, tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    common = ("--tokenizer", "jpeg:50", "--data", f"folder={photos}", "--limit", 1, "--workers", 0, "--threads", 1)
    common = (*common, "--device", "cpu", "--runs", runs)
    first = bench("run", "image-recon", "--protocol", "adm", *common)
    assert first.code == 0, first.err
    (stood,) = runs.rglob("record.json")
    before = stood.read_bytes(), stood.stat().st_mtime_ns

    made = bench("sensitivity", "image-recon", *common, "--out", out)
    assert made.code == 0, made.err
    assert made.err.count("measured already") == 1
    assert f"adm: measured already, in {stood.parent}" in made.err
    assert (stood.read_bytes(), stood.stat().st_mtime_ns) == before
    records = {json.loads(path.read_bytes())["protocol"]["name"]: path for path in runs.rglob("record.json")}
    assert sorted(records) == sorted(EXPERIMENT.protocols)

    times = {name: path.stat().st_mtime_ns for name, path in records.items()}
    again = bench("sensitivity", "image-recon", *common, "--out", out)
    assert again.err.count("measured already") == len(EXPERIMENT.protocols)
    assert again.out == made.out
    assert {name: path.stat().st_mtime_ns for name, path in records.items()} == times

    with (out / "sensitivity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, path in records.items():
        cells = {cell["name"]: cell["value"] for cell in json.loads(path.read_bytes())["cells"]}
        (psnr,) = (row for row in rows if row["protocol"] == name and row["metric"] == "PSNR")
        assert float(psnr["measured"]) == cells["PSNR"]
        assert psnr["default"] == str(name == "paper").lower()
    values = [float(row["measured"]) for row in rows if row["metric"] == "PSNR"]
    assert {float(row["spread"]) for row in rows if row["metric"] == "PSNR"} == {max(values) - min(values)}
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "plots",
        *(f"sensitivity.{s}" for s in ("csv", "json", "md")),
    }


@pytest.mark.parametrize("tokenizer", [Blur, Fitted])
def test_a_record_stands_while_it_is_what_the_plan_would_measure(tokenizer: type[Blur], tmp_path: Path) -> None:
    made = plan(tokenizer=tokenizer())
    folder = made.folder(tmp_path)
    assert not stands(made, folder)
    execute(made, tmp_path, share=Share(), workers=0, console=Console(speaks=False))
    assert stands(plan(tokenizer=tokenizer()), folder)
    assert not stands(plan(tokenizer=tokenizer(), software={"source": "2"}), folder)
    shard = next((folder / "shards").glob("*.safetensors"))
    kept = shard.read_bytes()
    shard.unlink()
    assert not stands(plan(tokenizer=tokenizer()), folder)
    shard.write_bytes(kept)
    assert stands(plan(tokenizer=tokenizer()), folder)
    (folder / "record.json").write_text("{")
    assert not stands(plan(tokenizer=tokenizer()), folder)


def test_what_fails_under_one_protocol_is_measured_under_the_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(one: Any, *arguments: Any, **options: Any) -> Any:
        if one.protocol.name in broken:
            raise BenchError(f"{one.protocol.name} is out of order")
        return execute(one, *arguments, **options)

    monkeypatch.setattr(sensitivity, "execute", failing)
    broken = set(EXPERIMENT.protocols) - {"paper"}
    outcomes = measure(EXPERIMENT, asked(photos, tmp_path / "runs"), Console())
    assert [one.protocol for one in outcomes] == list(EXPERIMENT.protocols)
    assert outcomes[-1] == Outcome(protocol="native", folder=None, reason="native is out of order")
    assert [(one.new, one.folder is not None) for one in outcomes if one.reason is None] == [(True, True)]
    assert "native: native is out of order" in capsys.readouterr().err

    broken = set(EXPERIMENT.protocols)
    with pytest.raises(
        BenchError, match="no protocol of image-recon could be measured: paper is out of order; paper-m"
    ):
        measure(EXPERIMENT, asked(photos, tmp_path / "others"), Console())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("image-recon",), "sensitivity is of one tokenizer, none is named; write --tokenizer SPEC"),
        (
            ("image-recon", "--tokenizer", "identity", "--tokenizer", "dct:4"),
            "identity, dct:4 are 2; write --tokenizer",
        ),
        (("image-recon", "--tokenizer", "dct:4", "--data", "samples", "--data", "folder=x"), "--data names 2: samples"),
        (("ablation-gram", "--tokenizer", "identity"), "ablation-gram has no protocols: nothing to compare"),
        (("image-gen", "--tokenizer", "identity"), "no experiment 'image-gen'"),
        (("image-recon", "--tokenizer", "nothing"), "no tokenizer 'nothing'; there are: "),
        (("image-recon", "--tokenizer", "dct:4", "--data", "nothing"), "nothing"),
        (("image-recon", "--tokenizer", "dct:4", "--dtype", "int8"), "--dtype int8: not one of"),
    ],
)
def test_bad_input_ends_with_one_line(bench: Any, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = bench("sensitivity", *arguments, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert ended.code == 1
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.html"))


def test_an_experiment_whose_samples_depend_on_the_protocol_is_refused(tmp_path: Path) -> None:
    other = replace(EXPERIMENT, name="other", runner="somewhere.else:run")
    with pytest.raises(
        BenchError, match="other chooses its samples by the protocol, so that protocols cannot be compar"
    ):
        measure(other, Request(tokenizers=("identity",), runs=tmp_path), Console())


def test_a_planned_experiment_is_said_to_be_planned(bench: Any, tmp_path: Path) -> None:
    from harness import registry

    planned = next(one.name for one in registry.experiments().values() if one.status == "planned")
    ended = bench("sensitivity", planned, "--tokenizer", "identity", "--runs", tmp_path)
    assert (ended.code, len(ended.err.splitlines())) == (3, 1)
    assert f"{planned} is planned and not built yet" in ended.err


def test_a_folder_that_cannot_be_written_is_named(bench: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = bench(
        *("sensitivity", "image-recon", "--tokenizer", "identity", "--data", f"folder={photos}", "--limit", 1),
        *("--workers", 0, "--runs", tmp_path / "runs", "--out", tmp_path / "file" / "out"),
    )
    assert ended.code == 1
    assert f"--out {tmp_path / 'file' / 'out'}: cannot be made" in ended.err.splitlines()[-1]
