"""The command on embeddings: run, kill and resume, audit, compare, list; what it refuses, in a line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness import protocol, shards
from harness.data.prepare import Pipeline
from tests.harness.conftest import Bench, picture

FAKE = "tests.harness.embedding_fakes"
PROTOCOL = """\
schema: 1
name: tiny
experiment: image-classify
version: 1
title: tiny
source: tests
prepare: rgb|resize(16,bicubic)
embed: {side: 16, templates: own}
latent: mean
seed: 7
eight_bit: half-up
bootstrap: 20
expected: {}
metrics:
  - {metric: top-k, name: top-1, k: 1}
  - {metric: class-mean, name: mean per-class accuracy}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two classes of four pictures each, and a protocol."""
    for number, colour in enumerate(("blue", "red")):
        (tmp_path / "classes" / colour).mkdir(parents=True)
        for index in range(4):
            picture(tmp_path / "classes" / colour / f"{index}.png", 20, 24, seed=10 * number + index)
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    return tmp_path


def words(place: Path, *more: object, tokenizer: str = f"{FAKE}:create", runs: str = "runs") -> list[str]:
    # fmt: off
    fixed = ["run", "image-classify", "--tokenizer", tokenizer, "--data", f"classes={place / 'classes'}",
             "--protocol", place / "tiny.yaml", "--device", "cpu", "--threads", 1, "--workers", 0,
             "--runs", place / runs]
    # fmt: on
    return [str(word) for word in (*fixed, *more)]


def folder_of(runs: Path) -> Path:
    (record,) = runs.rglob("record.json")
    return record.parent


def read(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return loaded


def test_a_run_is_audited_measured_again_and_found_changed(place: Path, bench: Bench) -> None:
    done = bench(*words(place))
    assert done.code == 0, done.err
    assert "top-1" in done.out
    folder = folder_of(place / "runs")
    record = read(folder)
    assert record["understanding"]["classes"] == 2
    assert record["dataset"]["count"] == 8
    audited = bench("audit", "run", folder, "--rerun", 3)
    assert audited.code == 0, audited.out + audited.err
    assert "2 cells recomputed, 8 samples compared, 0 differences" in audited.out
    assert "3 samples measured again" in audited.out

    record["cells"][0]["value"] += 1
    (folder / "record.json").write_text(json.dumps(record))
    changed = bench("audit", "run", folder)
    assert changed.code == 1
    assert "differs: cell top-1, value" in changed.out


def test_an_embedding_that_was_changed_is_found_by_measuring_again(place: Path, bench: Bench) -> None:
    assert bench(*words(place)).code == 0
    folder = folder_of(place / "runs")
    (path,) = (folder / "shards").glob("*.safetensors")
    shard = shards.read(path)
    vectors = shard.features["embedding"].copy()
    vectors[2] = vectors[2, ::-1]
    shards.write(
        path,
        shards.Shard(
            index=0,
            rows=shard.rows,
            failed=shard.failed,
            columns=shard.columns,
            features={**shard.features, "embedding": vectors},
            work=shard.work,
        ),
    )
    again = bench("audit", "run", folder, "--rerun", 8)
    assert again.code == 1
    assert f"differs: embedding of {shard.rows[2].id}" in again.out


def test_runs_are_compared_and_guesses_are_not(place: Path, bench: Bench) -> None:
    for name in ("one", "other"):
        assert bench(*words(place, tokenizer=f"{FAKE}:create:{name}", runs=name)).code == 0
    pair = [folder_of(place / name) for name in ("one", "other")]
    compared = bench("compare", *pair, "--format", "json")
    assert compared.code == 0, compared.err
    made = json.loads(compared.out)
    assert [metric["metric"] for metric in made["metrics"]] == ["top-1", "margin"]
    assert {metric["mean_difference"] for metric in made["metrics"]} == {0.0}
    table = pq.read_table(pair[0] / "samples.parquet").to_pydict()
    assert set(table["predicted"]) <= {0.0, 1.0}


def test_runs_that_were_asked_other_names_are_not_compared(place: Path, bench: Bench) -> None:
    assert bench(*words(place, runs="one")).code == 0
    (place / "classes" / "words.txt").write_text("blue\tgreen\nred\tred\n")
    assert bench(*words(place, runs="other")).code == 0
    refused = bench("compare", *(folder_of(place / name) for name in ("one", "other")))
    assert refused.code == 1
    assert "understanding.texts_sha256" in refused.err


def test_kill_and_resume(place: Path, repository: Path, bench: Bench) -> None:
    stuck = words(place, "--shard-size", 2, "--token-budget", 2, tokenizer=f"{FAKE}:create_stuck")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *stuck],
        cwd=repository, env={**os.environ, "STUCK": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 240
    while not list((place / "runs" / "image-classify").rglob("*.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(place.rglob("record.json"))
    resumed = bench(*stuck)
    assert resumed.code == 0, resumed.err
    assert "finished shards stand" in resumed.err
    through = list(stuck)
    through[through.index(str(place / "runs"))] = str(place / "through")
    assert bench(*through).code == 0
    one, other = read(folder_of(place / "runs")), read(folder_of(place / "through"))
    assert (one["cells"], one["samples"], one["understanding"]) == (
        other["cells"], other["samples"], other["understanding"],
    )  # fmt: skip


def test_all_that_cannot_be_asked_is_said_at_once(place: Path, bench: Bench) -> None:
    refused = bench(
        "run", "image-classify", "--tokenizer", f"{FAKE}:create_textless", "--data", f"folder={place / 'classes'}",
        "--protocol", place / "tiny.yaml", "--runs", place / "runs",
    )  # fmt: skip
    assert refused.code == 1
    assert "colours: has no text head" in refused.err
    assert "has no label to compare with" in refused.err
    unknown = bench("run", "image-classify", "--tokenizer", "jpeg:50", "--runs", place / "runs")
    assert unknown.code == 1
    assert "no embedder 'jpeg'; there are: atoken" in unknown.err


def test_it_is_listed_as_built(bench: Bench) -> None:
    listed = bench("list", "experiments").out
    assert any("image-classify" in line and "built" in line for line in listed.splitlines())
    assert "harness.embedders.atoken:create" in bench("list", "embedders").out
    assert "class-mean" in bench("list", "metrics").out


@pytest.mark.parametrize("name", protocol.names("image-classify"))
def test_every_shipped_protocol_is_whole(name: str) -> None:
    loaded = protocol.load("image-classify", name)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    made = Pipeline.parse(loaded.prepare)(pixels)
    assert loaded.embed is not None
    side = loaded.embed.side
    assert made.shape[:2] == (300, 400) if side is None else made.shape[0] * made.shape[1] <= side * side
    if side is not None and "area" not in loaded.prepare:
        assert made.shape[:2] == (side, side)
    assert [metric.name for metric in loaded.metrics] == ["top-1", "top-5", "mean per-class accuracy"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("templates: own", "templates: many", "embed.templates is 'many'"),
        ("side: 16", "side: 0", "embed.side is 0"),
        ("side: 16, ", "", "embed needs the keys side and templates"),
    ],
)
def test_a_wrong_protocol_says_what_is_wrong(place: Path, bench: Bench, old: str, new: str, said: str) -> None:
    (place / "tiny.yaml").write_text(PROTOCOL.replace(old, new))
    refused = bench(*words(place))
    assert refused.code == 1
    assert said in refused.err
