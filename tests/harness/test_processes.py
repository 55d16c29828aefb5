"""One process, torchrun with two, and two plain processes with a merge: the very same figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.harness.conftest import PROTOCOL, Bench, command, environment, finish, picture

TOKENIZERS = ("identity", "jpeg@4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "photos").mkdir()
    for index in range(13):
        picture(folder / "photos" / f"{index:02d}.png", 40, 48 + index, seed=index)
    (folder / "photos" / "04.png").write_bytes(b"broken")
    metrics = "  - {metric: ssim, name: SSIM}\n  - {metric: bits-per-pixel, name: bits}\n"
    (folder / "tiny.yaml").write_text(PROTOCOL + metrics)
    return folder


def words(place: Path, runs: str, *more: object) -> list[object]:
    # fmt: off
    return ["run", "image-recon", *(word for name in TOKENIZERS for word in ("--tokenizer", name)),
            "--data", f"folder={place / 'photos'}", "--protocol", place / "tiny.yaml", "--device", "cpu",
            "--threads", 1, "--shard-size", 2, "--runs", place / runs, *more]
    # fmt: on


@pytest.fixture
def alone(place: Path, bench: Bench) -> Path:
    if not (place / "alone").exists():
        outcome = bench(*words(place, "alone"))
        assert outcome.code == 0, outcome.err
    return place / "alone"


def equal(runs: Path, other: Path) -> None:
    folders = sorted(path.parent.relative_to(runs) for path in runs.rglob("record.json"))
    assert len(folders) == len(TOKENIZERS)
    assert folders == sorted(path.parent.relative_to(other) for path in other.rglob("record.json"))
    for folder in folders:
        one, two = (_figures(root / folder) for root in (runs, other))
        assert one == two
        tables = (pd.read_parquet(root / folder / "samples.parquet") for root in (runs, other))
        one_table, two_table = (table.drop(columns=["encode_ms", "decode_ms"]) for table in tables)
        pd.testing.assert_frame_equal(one_table, two_table, check_exact=True)


def _figures(folder: Path) -> Any:
    record = json.loads((folder / "record.json").read_text())
    pictures = {entry[kind]: (folder / entry[kind]).read_bytes() for entry in record["gallery"] for kind in ("error",)}
    same = {key: record[key] for key in ("tokenizer", "protocol", "dataset", "samples", "cells", "weights", "settings")}
    return same, [(shard["file"], shard["n"]) for shard in record["shards"]], record["gallery"], pictures


def test_torchrun(alone: Path, place: Path, repository: Path) -> None:
    prefix = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    outcome = finish([*prefix, "-m", "harness", *map(str, words(place, "torchrun"))], repository)
    assert outcome.code == 0, outcome.err
    equal(alone, place / "torchrun")
    assert outcome.out.count("SSIM") == len(TOKENIZERS)  # one process says the figures


def test_plain_processes_and_merge(alone: Path, place: Path, repository: Path, bench: Bench) -> None:
    both = [
        subprocess.Popen(
            command(*words(place, "plain", "--shard", f"{index}/2")),
            cwd=repository,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=170) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert not list((place / "plain").rglob("record.json"))
    folders = sorted(path.parent for path in (place / "plain").rglob("run.json"))
    assert all(f"atoken-bench merge {folder}" in said[0][1] for folder in folders)
    for folder in folders:
        outcome = bench("merge", folder)
        assert outcome.code == 0, outcome.err
        assert "SSIM" in outcome.out
    equal(alone, place / "plain")


def test_a_merge_says_which_shards_are_missing(place: Path, bench: Bench) -> None:
    outcome = bench(*words(place, "half", "--shard", "1/2", "--limit", 4))
    assert outcome.code == 0, outcome.err
    folder = next(path.parent for path in (place / "half").rglob("run.json"))
    merged = bench("merge", folder)
    assert merged.code == 1
    assert "1 of 2 shards are missing (first: 0)" in merged.err
    assert "Traceback" not in merged.err
    assert not (folder / "record.json").exists()


def test_a_process_that_fails_ends_torchrun_and_what_is_done_stays(place: Path, repository: Path, bench: Bench) -> None:
    prefix = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = words(place, "failing", "--limit", 4)
    arguments[arguments.index("jpeg@4")] = "tests.harness.fakes:create_rank_one_fails"
    outcome = finish([*prefix, "-m", "harness", *map(str, arguments)], repository)
    assert outcome.code != 0
    assert "rank 1 is out of order" in outcome.err
    # The failing process had finished its share of the first tokenizer; how far the other came is its own.
    assert list((place / "failing").glob("image-recon/identity*/shards/00001-*.safetensors"))
    again = bench(*words(place, "failing", "--limit", 4))
    assert again.code == 0, again.err
    assert "finished shards stand" in again.err
    assert len(list((place / "failing").rglob("record.json"))) == len(TOKENIZERS)
