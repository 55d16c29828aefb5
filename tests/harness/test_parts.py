"""The runner's parts one by one: specs, packs, files and locks, records, what is shown."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import gallery, plan, provenance, records, registry, shards, storage
from harness.console import Console, interval, number
from harness.errors import BenchError
from harness.experiment import Experiment
from harness.loading import Prepared, prepared
from harness.packing import packs
from harness.registry import TokenizerSpec
from harness.request import default_threads, default_workers, share_of
from harness.workload import Failed
from tests.harness.conftest import Bench
from tests.harness.fakes import Noise

# Registry.


@pytest.mark.parametrize(
    ("text", "name", "factory", "argument"),
    [
        ("identity", "identity", None, None),
        ("jpeg:75", "jpeg", None, "75"),
        ("jpeg@0.375", "jpeg", None, "@0.375"),
        ("atoken:/models/a@b:c.safetensors", "atoken", None, "/models/a@b:c.safetensors"),
        ("my.package:make", "my.package", "make", None),
        ("my.package:make:8@x", "my.package", "make", "8@x"),
    ],
)
def test_tokenizer_specs(text: str, name: str, factory: str | None, argument: str | None) -> None:
    assert TokenizerSpec.parse(text) == TokenizerSpec(text, name, factory, argument)


@pytest.mark.parametrize("text", ["", ":75", "jpeg:", "jpeg@", "my.package", "my.package:", "my.package:a-b", "a b"])
def test_no_tokenizer_specs(text: str) -> None:
    with pytest.raises(BenchError, match="tokenizer"):
        TokenizerSpec.parse(text)


def test_own_tokenizers_get_argument_and_options() -> None:
    made = registry.create_tokenizer(
        "tests.harness.fakes:create_blur:8", ckpt=None, preset=None, device="cpu", dtype="x"
    )
    assert made.card.name == "blur-8"
    made = registry.create_tokenizer("tests.harness.fakes:create_blur", ckpt="2", preset=None, device="cpu", dtype="x")
    assert made.card.name == "blur-2"
    with pytest.raises(BenchError, match="argument already"):
        registry.create_tokenizer("tests.harness.fakes:create_blur:8", ckpt="2", preset=None, device="cpu", dtype="x")
    with pytest.raises(BenchError, match="no --preset"):
        registry.create_tokenizer("tests.harness.fakes:create_blur", ckpt=None, preset="p", device="cpu", dtype="x")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("create_none", "returns a NoneType, not a"),
        ("create_bare", "unexpected keyword argument 'device'.*a factory is"),
    ],
)
def test_factories_that_are_none(factory: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        registry.create_tokenizer(f"tests.harness.fakes:{factory}", ckpt=None, preset=None, device="cpu", dtype="x")


def test_the_source_of_an_own_tokenizer_counts() -> None:
    assert registry.source_sha256("jpeg:75") is None
    sha256 = registry.source_sha256("tests.harness.fakes:create_blur")
    assert sha256 is not None
    assert len(sha256) == 64


EXTRA = [Experiment(name="b", title="B"), Experiment(name="a", title="A", status="built")]


def test_a_package_may_bring_several_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name="x", value="tests.harness.test_parts:EXTRA", group=registry.EXPERIMENTS)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.EXPERIMENTS else [])
    assert list(registry.experiments()) == ["a", "b"]
    points.append(EntryPoint(name="y", value="tests.harness.test_parts:nothing", group=registry.EXPERIMENTS))
    with pytest.raises(BenchError, match=r"y = tests\.harness.test_parts:nothing does not load"):
        registry.experiments()


# Packs.


@given(st.lists(st.integers(1, 50)), st.integers(1, 60))
def test_packs_keep_order_and_budget(counts: list[int], budget: int) -> None:
    made = list(packs(list(enumerate(counts)), lambda item: item[1], budget))
    assert [item for pack in made for item in pack] == list(enumerate(counts))
    for pack in made:
        assert len(pack) == 1 or sum(count for _, count in pack) <= budget
    for one, other in pairwise(made):
        assert sum(count for _, count in one) + other[0][1] > budget  # none could have been larger


def test_packs_are_lazy() -> None:
    def items() -> Iterator[int]:
        yield from (1, 1, 1)
        raise AssertionError("read ahead")

    assert next(packs(items(), lambda _: 1, 2)) == [1, 1]


# Loading.


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_come_in_the_order_asked_for(workers: int) -> None:
    dataset = Noise(40, broken=[5], sizes=[(4, 6), (3, 2)])
    wanted = [7, 5, *range(12, 40), 0]
    items = list(prepared(dataset, lambda pixels: pixels, wanted, workers=workers))
    assert [item.id for item in items] == [dataset.samples[index].id for index in wanted]
    assert items[1] == Failed(dataset.samples[5].id, "truncated")
    assert isinstance(items[0], Prepared)
    np.testing.assert_array_equal(items[0].pixels, dataset.read(7).pixels)
    assert items[0].size_in == (3, 2)


def test_any_decoders_exception_is_that_samples_own() -> None:
    def prepare(pixels: np.ndarray) -> np.ndarray:
        raise OverflowError("too much")

    (item,) = prepared(Noise(1), prepare, [0], workers=0)
    assert item == Failed("noise/00000.png", "OverflowError: too much")


READ = """
import multiprocessing, time
from harness.loading import prepared
from tests.harness.fakes import Noise
stream = prepared(Noise(100, sizes=[(300, 300)]), abs, range(100), workers=2)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the state of a process")
def test_decoding_processes_end_with_a_killed_run(repository: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", READ], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    workers = [int(word) for word in run.stdout.readline().split()]
    assert len(workers) == 2
    run.kill()
    run.wait()
    run.stdout.close()
    end = time.monotonic() + 20
    while any(_lives(worker) for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_decoding_process_ends_whose_run_was_killed_before_it_began() -> None:
    nobody = 2**22  # no process of Linux has a higher number, so this one cannot be the parent
    late = f"import time; from harness.loading import _end_with; _end_with({nobody}, 0); time.sleep(300)"
    assert subprocess.run([sys.executable, "-c", late], timeout=60, check=False).returncode == 1


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Files and locks.


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    storage.write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(BenchError, match=rf"{tmp_path}: no space left.*same command"):
        storage.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


HOLD = """
import sys
import time
from pathlib import Path
from harness.storage import FolderLock
with FolderLock(Path(sys.argv[1])) as lock:
    lock.claim_shards(range(0, 10, 2))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_shards_of_another_process_cannot_be_claimed(tmp_path: Path, repository: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(words, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with storage.FolderLock(tmp_path) as lock:
        lock.claim_shards(range(1, 10, 2))
        with pytest.raises(BenchError, match="another run is writing here"):
            lock.claim_shards([4])
        lock.wait_for(lock.MERGE)
        lock.release(lock.MERGE)
    holder.kill()
    holder.communicate()
    with storage.FolderLock(tmp_path) as lock:
        lock.claim_shards(range(10))  # a killed process holds nothing


def test_a_shard_without_a_measured_sample(tmp_path: Path) -> None:
    empty = shards.Shard(index=0, rows=[], failed=[{"id": "a", "reason": "b"}], columns={})
    shards.write(tmp_path / "s", empty)
    back = shards.read(tmp_path / "s")
    assert back.rows == []
    assert back.failed == [{"id": "a", "reason": "b"}]
    assert not shards.StreamedFeatures([tmp_path / "s"], [0])


def test_shard_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    sizes = {"height": 1, "width": 2, "height_in": 3, "width_in": 4}
    row = shards.Row(id="a", label=None, sha256="0" * 64, **sizes, encode_ms=0.1, decode_ms=1 / 3, tokens=5)
    columns = {"PSNR": np.array([math.inf]), "x": np.array([math.nan])}
    features = {"f": np.arange(6, dtype=np.float16).reshape(1, 2, 3), "g": np.ones((1, 0), np.int32)}
    for name, index in (("s0", 0), ("s1", 1)):
        shard = shards.Shard(index=index, rows=[row], failed=[], columns=columns, features=features, work={"a": 1})
        shards.write(tmp_path / name, shard)
    back = shards.read(tmp_path / "s1")
    assert (back.index, back.rows, back.work) == (1, [row], {"a": 1})
    np.testing.assert_equal(dict(back.columns), columns)
    np.testing.assert_equal(dict(back.features), features)
    streamed = shards.StreamedFeatures([tmp_path / "s0", tmp_path / "s1"], [1, 1])
    assert set(streamed) == {"f", "g"}
    np.testing.assert_array_equal(streamed["f"], np.concatenate([features["f"], features["f"]]))
    assert streamed["f"].dtype == np.float16
    with pytest.raises(KeyError):
        streamed["h"]


# Records and names.


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such record"), ("{", "not a readable record"), ("[]", "not a record"), ('{"schema": 9}', "newer")],
)
def test_records_that_cannot_be_read(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=rf"{path}: .*{said}"):
        records.load(path)


def test_an_infinite_value_comes_back(tmp_path: Path) -> None:
    cells = [{"value": math.inf, "interval": [1.5, math.inf]}, {"value": None, "interval": None}]
    record = {"schema": 1, "cells": cells, "gallery": [{"value": -math.inf}]}
    records.save(tmp_path, record)
    # Any reader of JSON can take it: Python's own constants are refused.
    json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert records.load(tmp_path / "record.json") == record


def test_a_figure_that_is_no_number_is_damage(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema": 1, "cells": [{"value": "high"}]}')
    with pytest.raises(BenchError, match=r"record\.json: damaged"):
        records.load(tmp_path / "record.json")


@given(st.text())
def test_a_folder_name_leads_nowhere_else(name: str) -> None:
    try:
        made = plan.slug(name)
    except BenchError:
        return
    assert made == Path(made).name
    assert "--" not in made
    assert not made.startswith(".")
    assert made.isascii()


def test_an_installed_copy_in_somebodys_checkout_is_not_that_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.source_sha256.cache_clear()
    try:
        assert provenance.code()["commit"] is None
        subprocess.run([*git, "add", "harness"], check=True)
        assert provenance.code()["dirty"] is True
        subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
        code = provenance.code()
        assert code["dirty"] is False
        assert code["commit"] == subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    finally:
        provenance.source_sha256.cache_clear()


# Shares.


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert share_of(None) == plan.Share()
    assert share_of("1/3") == plan.Share(index=1, count=3, merges=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert share_of(None) == plan.Share(index=1, count=4)
    assert default_threads() == len(os.sched_getaffinity(0))  # torchrun's own 1 is no user's wish
    assert default_workers() == 1
    with pytest.raises(BenchError, match="torchrun"):
        share_of("0/2")


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_shard_is_somebodys(shards_: int, count: int) -> None:
    every = [shard for index in range(count) for shard in plan.Share(index=index, count=count).of(shards_)]
    assert sorted(every) == list(range(shards_))


# What is shown.


def test_gallery_choice() -> None:
    values = np.array([5.0, math.inf, 1, math.nan, 3, 2, 4, 9, 8, 7, 6])
    assert gallery.chosen(values, higher_is_better=True) == [
        *[("worst", i) for i in (2, 5, 4)],
        *[("median", i) for i in (6, 0, 10)],
        *[("best", i) for i in (1, 7, 8)],
    ]
    assert gallery.chosen(values, higher_is_better=False)[0] == ("worst", 1)
    for count in range(9):
        indices = [index for _, index in gallery.chosen(np.arange(count, dtype=float), higher_is_better=True)]
        assert len(indices) == len(set(indices)) >= min(count, 1)


def test_error_map_is_black_for_none_and_pale_from_the_scales_end() -> None:
    reference = np.zeros((1, 4, 3), np.uint8)
    reconstruction = np.array([[[0] * 3, [16] * 3, [32] * 3, [255] * 3]], np.uint8)
    colours = gallery.error_map(reference, reconstruction)
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, 2].tolist() == colours[0, 3].tolist() == [252, 252, 200]
    grey = np.array([gallery.error_map(reference[:, :1], np.full((1, 1, 3), level, np.uint8)) for level in range(33)])
    luma = grey.reshape(-1, 3) @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > 0).all()  # rises with the error, in grey print too
    np.testing.assert_array_equal(colours, gallery.error_map(reconstruction, reference))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.123456, "27.12"),
        (0.0961234, "0.09612"),
        (0, "0.000"),
        (1234.5, "1234"),
        (math.inf, "inf"),
        (-0.5, "-0.5000"),
        (0.00123456, "0.001235"),
        (6.68e-15, "6.680e-15"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("bounds", "text"),
    [(None, ""), ([math.inf, math.inf], ""), ([25, math.inf], "25.00 to inf"), ([0.5, 0.75], "0.5000 to 0.7500")],
)
def test_intervals(bounds: list[float] | None, text: str) -> None:
    assert interval(bounds) == text


def test_progress_without_a_terminal_is_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.console.INTERVAL", 0.0)
    with Console().progress("jpeg", 4) as advance:
        advance(1)
        advance(2)
    assert capsys.readouterr().err.splitlines() == ["jpeg: 1/4", "jpeg: 3/4"]
    with Console(speaks=False).progress("jpeg", 4) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("what", "there"),
    [
        ("experiments", ["image-recon", "built", "table04", "text-to-video", "planned", "table13"]),
        ("tokenizers", ["identity", "jpeg", "webp", "dct", "pca", "atoken"]),
        ("datasets", ["samples", "imagenet-val", "50,000", "coco-val2017", "folder", "tar"]),
        ("metrics", ["psnr", "ssim", "lpips", "rfid", "kid"]),
        ("protocols", ["paper", "lightningdit", "adm", "native"]),
    ],
)
def test_list(bench: Bench, what: str, there: list[str]) -> None:
    outcome = bench("list", what)
    assert outcome.code == 0
    assert all(word in outcome.out for word in there)
    assert outcome.out in bench("list").out


def test_stored_request_is_plain_json(tmp_path: Path) -> None:
    made = plan.digest({"b": [1, None], "a": "é"})
    assert made == plan.digest(json.loads(json.dumps({"a": "é", "b": [1, None]})))
    assert made != plan.digest({"b": [1, 0], "a": "é"})
