"""video-recon as a user starts it: one process, two, torchrun, killed and resumed: the very same figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from atoken.video import VideoWriter
from tests.harness.conftest import Bench, checkpoint, command, environment, finish

PROTOCOL = """\
schema: 1
name: tiny
experiment: video-recon
version: 1
title: tiny
source: tests
prepare: rgb|center_crop_multiple(16)
latent: sample
seed: 7
eight_bit: half-up
bootstrap: 20
expected: {}
clip: {first_frames: 30, first_seconds: null, frames: common}
metrics:
  - {metric: psnr, name: PSNR, mse: clip}
  - {metric: ssim, name: SSIM, flavour: skimage, images: [0, 255]}
  - {metric: lpips, name: LPIPS}
  - {metric: seam, name: seam}
  - {metric: bits-per-pixel, name: bits}
  - {metric: tokens, name: tokens}
"""


def clip(path: Path, frames: int, height: int, width: int, seed: int) -> None:
    """Waves that drift."""
    t, rows, columns = np.mgrid[:frames, :height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(rows / 5 + p + t / 3) + np.cos(columns / 7 - p + t / 4) for p in phase]
    with VideoWriter(path, Fraction(24)) as writer:
        writer.write((127.5 + 60 * np.stack(waves, 3)).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    (folder / "clips").mkdir()
    for index, (frames, height, width) in enumerate([(21, 32, 48), (18, 40, 50), (33, 32, 32), (5, 32, 48)]):
        clip(folder / "clips" / f"{index}.mkv", frames, height, width, index)
    (folder / "clips" / "broken.mp4").write_bytes(b"broken")
    clip(folder / "clips" / "short.mkv", 2, 32, 48, 9)
    checkpoint(folder / "model")
    (folder / "tiny.yaml").write_text(PROTOCOL)
    return folder


def words(place: Path, runs: str, *more: object) -> list[object]:
    names = ("identity", "h264@0.5", f"atoken:{place / 'model'}", "jpeg:50", "tests.harness.clip_fakes:create_stuck")
    # fmt: off
    return ["run", "video-recon", *(word for name in names for word in ("--tokenizer", name)),
            "--data", f"folder={place / 'clips'}", "--protocol", place / "tiny.yaml", "--device", "cpu",
            "--threads", 1, "--runs", place / runs, *more]
    # fmt: on


@pytest.fixture
def alone(place: Path, repository: Path) -> Path:
    if not (place / "alone").exists():
        outcome = finish(command(*words(place, "alone")), repository)
        assert outcome.code == 0, outcome.err
    return place / "alone"


def equal(runs: Path, other: Path) -> None:
    folders = sorted(path.parent.relative_to(runs) for path in runs.rglob("record.json"))
    assert len(folders) == 5
    assert folders == sorted(path.parent.relative_to(other) for path in other.rglob("record.json"))
    for folder in folders:
        assert _figures(runs / folder) == _figures(other / folder)
        for name in ("samples.parquet", "frames.parquet"):
            one, two = (pd.read_parquet(root / folder / name) for root in (runs, other))
            times = [column for column in ("encode_ms", "decode_ms") if column in one]
            pd.testing.assert_frame_equal(one.drop(columns=times), two.drop(columns=times), check_exact=True)


def _figures(folder: Path) -> Any:
    record = json.loads((folder / "record.json").read_text())
    pictures = [(folder / entry[kind]).read_bytes() for entry in record["gallery"] for kind in ("video", "poster")]
    same = ("tokenizer", "protocol", "dataset", "samples", "cells", "weights", "settings", "gallery")
    return {key: record[key] for key in same}, [shard["file"] for shard in record["shards"]], pictures


def test_what_one_process_says(alone: Path) -> None:
    for path in alone.rglob("record.json"):
        record = json.loads(path.read_text())
        assert record["modality"] == "video"
        assert record["samples"]["used"] == 4
        reasons = {failed["id"]: failed["reason"] for failed in record["samples"]["failed"]}
        assert set(reasons) == {"broken.mp4", "short.mkv"}
        assert "fewer than the 4 frames" in reasons["short.mkv"]
        samples = pd.read_parquet(path.with_name("samples.parquet"))
        assert samples["frames"].tolist() == [20, 16, 28, 4]  # of 21, 18, 30 and 5 what 4 k and 4 k + 1 share
        cells = {cell["name"]: cell for cell in record["cells"]}
        assert cells["LPIPS"]["absent"]
        assert cells["PSNR"]["n"] == 4


def test_plain_processes_and_merge(alone: Path, place: Path, repository: Path, bench: Bench) -> None:
    for index in range(2):
        outcome = finish(command(*words(place, "plain", "--shard", f"{index}/2")), repository)
        assert outcome.code == 0, outcome.err
    for folder in sorted(path.parent for path in (place / "plain").rglob("run.json")):
        merged = bench("merge", folder)
        assert merged.code == 0, merged.err
    equal(alone, place / "plain")


def test_torchrun(alone: Path, place: Path, repository: Path) -> None:
    prefix = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    outcome = finish([*prefix, "-m", "harness", *map(str, words(place, "torchrun"))], repository)
    assert outcome.code == 0, outcome.err
    equal(alone, place / "torchrun")


def test_killed_in_a_clip_and_taken_up_again(alone: Path, place: Path, repository: Path) -> None:
    process = subprocess.Popen(
        command(*words(place, "killed")), cwd=repository, env=environment(STUCK="1"), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 170
        # The stuck tokenizer is the last row; two of its clips are done, or named as broken, when it stops.
        while len(list((place / "killed").glob("video-recon/groups*/shards/*.safetensors"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert not list((place / "killed").glob("video-recon/groups*/record.json"))
    outcome = finish(command(*words(place, "killed")), repository)
    assert outcome.code == 0, outcome.err
    assert "finished shards stand" in outcome.err
    equal(alone, place / "killed")


def test_options_and_lists_reach_the_run(place: Path, bench: Bench, tmp_path: Path) -> None:
    listed = tmp_path / "two.txt"
    listed.write_text("# two of them\n3.mkv\n0.mkv\n")
    common = ("--data", f"folder={place / 'clips'}", "--protocol", place / "tiny.yaml", "--runs", tmp_path / "runs")
    model = ("--tokenizer", f"atoken:{place / 'model'}")
    run = ("run", "video-recon", *common, *model, "--list", listed)
    outcome = bench(*run, "--option", "space_tiles=32x32+16")
    assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "runs").rglob("record.json")
    record = json.loads(path.read_text())
    assert record["samples"]["used"] == 2
    assert "32x32+16" in json.dumps(record["tokenizer"]["card"]["settings"])
    refused = bench(*run, "--option", "speed=9")
    assert refused.code == 1
    assert "takes no --option speed; it takes: " in refused.err
    assert "space_tiles" in refused.err
    unset = bench(*run, "--option", "speed")
    assert unset.err.splitlines()[-1:] == ["atoken-bench: --option speed: write KEY=VALUE"]
