"""DESIGN.md, "What always holds": the lines that the runner answers for, one by one."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import signal
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from harness import records, shards
from harness.console import Console, print_reasons, print_record
from harness.data.base import Decoded
from harness.data.fingerprint import content_sha256, ids_sha256
from harness.errors import BenchError
from harness.execution import execute, merge_only
from harness.metrics.base import Cell, Pairs
from harness.metrics.registry import build_metrics
from harness.plan import Plan, Share, sample_seed
from harness.protocol import MetricSpec
from harness.registry import create_tokenizer
from harness.tokenizers.base import Tokenizer
from harness.weights import WeightStore
from tests.harness.conftest import checkpoint
from tests.harness.fakes import Blur, Fitted, MeanColour, Noise, Poison, Psnr, plan, protocol

QUIET = Console(speaks=False)
TIMES = ["encode_ms", "decode_ms"]
# Two sizes, one of them no multiple of the patch, so that packs hold groups and padding.
MIXED = Noise(23, broken=[3, 11], sizes=[(16, 16), (16, 16), (9, 21)])


def done(made: Plan, runs: Path, *, share: Share | None = None, workers: int = 0) -> dict[str, Any] | None:
    return execute(made, runs, share=share or Share(), workers=workers, console=QUIET)


def figures(record: dict[str, Any] | None) -> Any:
    assert record is not None
    return record["cells"], record["samples"], record["dataset"]


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "samples.parquet").drop(columns=TIMES)


def same(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(table(one), table(other), check_exact=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# 1. A sample's result depends on the sample, the tokenizer and the protocol alone.


@pytest.mark.parametrize("count", [2, 3, 7])
def test_number_and_order_of_processes_change_no_bit(tmp_path: Path, count: int) -> None:
    whole = done(plan(dataset=MIXED), tmp_path / "one")
    for index in reversed(range(count)):
        assert done(plan(dataset=MIXED), tmp_path / "many", share=Share(index=index, count=count, merges=False)) is None
    folder = plan(dataset=MIXED).folder(tmp_path / "many")
    assert not (folder / "record.json").exists()
    assert figures(merge_only(plan(dataset=MIXED), folder, QUIET)) == figures(whole)
    same(plan(dataset=MIXED).folder(tmp_path / "one"), folder)


def test_the_last_process_writes_the_record(tmp_path: Path) -> None:
    assert done(plan(), tmp_path, share=Share(index=1, count=2)) is None
    assert figures(done(plan(), tmp_path, share=Share(index=0, count=2))) == figures(done(plan(), tmp_path / "one"))


def test_worker_processes_change_no_bit(tmp_path: Path) -> None:
    one, two = plan(dataset=MIXED), plan(dataset=MIXED)
    assert figures(done(one, tmp_path / "a")) == figures(done(two, tmp_path / "b", workers=2))
    same(one.folder(tmp_path / "a"), two.folder(tmp_path / "b"))


def test_a_resume_changes_no_bit_and_measures_only_what_is_missing(tmp_path: Path) -> None:
    whole = done(plan(dataset=MIXED), tmp_path / "a")
    done(plan(dataset=MIXED), tmp_path / "b")
    folder = plan(dataset=MIXED).folder(tmp_path / "b")
    for path in sorted((folder / "shards").glob("*.safetensors"))[1::2]:
        path.unlink()
    (folder / "record.json").unlink()
    tokenizer = Blur()
    resumed = done(plan(dataset=MIXED, tokenizer=tokenizer), tmp_path / "b")
    assert figures(resumed) == figures(whole)
    same(plan(dataset=MIXED).folder(tmp_path / "a"), folder)
    again = {s for i in (1, 3, 5) for s in plan(dataset=MIXED).indices(i)} - {3, 11}
    assert resumed is not None
    assert sum(tokenizer.batches) == len(again) + len(resumed["gallery"])


def test_batch_mates_change_no_bit(tmp_path: Path) -> None:
    few, many = plan(settings={"limit": 6}), plan(settings={"shard_size": 10, "token_budget": 1000})
    done(few, tmp_path)
    done(many, tmp_path)
    other = table(many.folder(tmp_path)).head(6)
    pd.testing.assert_frame_equal(table(few.folder(tmp_path)), other, check_exact=True)


def test_a_sampled_latent_is_the_samples_own(tmp_path: Path) -> None:
    sampled = protocol(latent="sample")
    one = plan(protocol=sampled, settings={"token_budget": 16})
    other = plan(protocol=sampled, settings={"shard_size": 3, "token_budget": 1000})
    mean = plan()
    for made in (one, other, mean):
        done(made, tmp_path)
    same(one.folder(tmp_path), other.folder(tmp_path))
    assert (table(one.folder(tmp_path))["PSNR"] != table(mean.folder(tmp_path))["PSNR"]).all()
    assert sample_seed(7, "a") == sample_seed(7, "a") < 2**63
    assert len({sample_seed(seed, name) for seed in (7, 8) for name in "ab"}) == 4


def test_packs_follow_the_budget_inside_a_shard(tmp_path: Path) -> None:
    tokenizer = Blur()  # 16 tokens an image
    done(plan(tokenizer=tokenizer, metrics=[MeanColour()], settings={"token_budget": 40}), tmp_path)
    assert tokenizer.batches == [2, 2, 2, 2, 2]
    tokenizer = Blur()
    done(plan(tokenizer=tokenizer, metrics=[MeanColour()], settings={"token_budget": 1000}), tmp_path)
    assert tokenizer.batches == [4, 4, 2]


@pytest.fixture(scope="module")
def atoken(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    return create_tokenizer(f"atoken:{folder}", ckpt=None, preset=None, device="cpu", dtype="float32")


def real(tokenizer: Tokenizer, **settings: int) -> Plan:
    """AToken itself, a sampled latent, SSIM through a convolution, images of several sizes."""
    specs = [MetricSpec(metric=name, name=name.upper()) for name in ("psnr", "ssim", "tokens")]
    made = protocol(latent="sample", metrics=tuple(specs))
    metrics, absent = build_metrics(made, WeightStore(), torch.device("cpu"))
    data = Noise(9, broken=[4], sizes=[(32, 32), (32, 32), (21, 40)])
    settings = {"shard_size": 3, "token_budget": 8, **settings}
    return plan(tokenizer=tokenizer, dataset=data, protocol=made, metrics=metrics, absent=absent, settings=settings)


def test_atoken_itself_in_processes_and_after_a_resume(atoken: Tokenizer, tmp_path: Path) -> None:
    whole = done(real(atoken), tmp_path / "one")
    for index in (1, 0):
        done(real(atoken), tmp_path / "two", share=Share(index=index, count=2, merges=False))
    folder = real(atoken).folder(tmp_path / "two")
    next((folder / "shards").glob("00001-*")).unlink()
    assert figures(done(real(atoken), tmp_path / "two", workers=2)) == figures(whole)
    same(real(atoken).folder(tmp_path / "one"), folder)


def test_another_token_budget_moves_the_last_bits_only(atoken: Tokenizer, tmp_path: Path) -> None:
    """Another batch may split a float sum otherwise; here that must stay below 1e-4 dB and 1e-4 of SSIM."""
    tables = []
    for budget in (1, 8, 1000):
        done(real(atoken, token_budget=budget), tmp_path)
        tables.append(table(real(atoken, token_budget=budget).folder(tmp_path)))
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=False, rtol=0, atol=1e-4)


# 2. Finished shards stand; their names carry what they depend on.

CHANGES: dict[str, Callable[[], Plan]] = {
    "protocol": lambda: plan(protocol=protocol(eight_bit="floor")),
    "seed": lambda: plan(protocol=protocol(seed=8)),
    "tokenizer": lambda: plan(tokenizer=Blur(8)),
    "ids": lambda: plan(dataset=Noise(11)),
    "replaced samples": lambda: plan(dataset=Noise(10, seed=1)),
    "limit": lambda: plan(settings={"limit": 9}),
    "budget": lambda: plan(settings={"token_budget": 65}),
    "dtype": lambda: plan(settings={"dtype": "bfloat16"}),
    "threads": lambda: plan(settings={"threads": 2}),
    "metrics": lambda: plan(metrics=[Psnr()]),
    "weights": lambda: plan(metrics=[Psnr(), _weighted()]),
    "code": lambda: plan(software={"source": "2"}),
}


def _weighted() -> MeanColour:
    metric = MeanColour()
    metric.weights = {"vgg.pth": "f" * 64}
    return metric


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_stands_only_while_all_that_it_depends_on_is_the_same(change: str) -> None:
    names = {made.shard_name(0, None).split(".")[1] for made in (plan(), plan(), CHANGES[change]())}
    assert len(names) == 2


def test_found_settings_are_part_of_the_name() -> None:
    assert plan().shard_name(0, {"quality": 1}) != plan().shard_name(0, {"quality": 2})


def test_cuda_threads_are_no_part_of_the_name() -> None:
    one, two = (plan(settings={"device": "cuda:0", "threads": n}) for n in (1, 2))
    assert one.key == two.key == plan(settings={"device": "cuda:1"}).key != plan().key


def test_other_weights_or_code_replace_the_record_in_its_folder(tmp_path: Path) -> None:
    old = plan(metrics=[Psnr()], absent=[Cell(name="colour", value=None, n=0, higher_is_better=False, absent="none")])
    new = plan()
    done(old, tmp_path)
    done(new, tmp_path)
    assert old.folder(tmp_path) == new.folder(tmp_path)
    record = records.load(new.folder(tmp_path) / "record.json")
    assert [cell["absent"] for cell in record["cells"]] == [None, None]
    there = {path.name for path in (new.folder(tmp_path) / "shards").iterdir()}
    assert there == {Path(shard["file"]).name for shard in record["shards"]}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "not safetensors"])
def test_a_damaged_shard_is_seen_said_and_measured_again(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan()
    whole = done(made, tmp_path)
    victim = made.folder(tmp_path) / "shards" / made.shard_name(1, None)
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    damaged = {"truncated": data[: len(data) // 2], "flipped": data, "empty": b"", "not safetensors": b"x" * 200}
    victim.write_bytes(bytes(damaged[damage]))
    again = execute(plan(), tmp_path, share=Share(), workers=0, console=Console())
    assert figures(again) == figures(whole)
    assert victim.name in capsys.readouterr().err
    shards.read(victim)


def test_a_shard_that_does_not_get_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    monkeypatch.setattr("harness.storage.os.fsync", _power_cut)
    with pytest.raises(_PowerCut):
        done(made, tmp_path)
    monkeypatch.undo()
    assert not list((made.folder(tmp_path) / "shards").glob("*.safetensors"))
    (made.folder(tmp_path) / "shards" / f".{made.shard_name(0, None)}.123.tmp").write_bytes(b"half")
    done(plan(), tmp_path)
    assert not list(made.folder(tmp_path).rglob("*.tmp"))


class _PowerCut(BaseException):
    pass


def _power_cut(descriptor: int) -> None:
    raise _PowerCut


def test_a_tokenizer_that_looks_at_the_set_does_so_once(tmp_path: Path) -> None:
    first, second, third = Fitted(), Fitted(), Fitted()
    done(plan(tokenizer=first), tmp_path, share=Share(index=0, count=2, merges=False))
    done(plan(tokenizer=second), tmp_path, share=Share(index=1, count=2, merges=False))
    made = plan(tokenizer=third)
    record = merge_only(made, made.folder(tmp_path), QUIET)
    assert (first.searches, second.searches, third.searches) == (1, 0, 0)
    assert record["tokenizer"]["card"]["settings"] == first.card.settings == third.card.settings
    assert figures(record) == figures(done(plan(tokenizer=Fitted()), tmp_path / "one"))
    other = Fitted()
    done(plan(tokenizer=other, software={"source": "2"}), tmp_path)
    assert other.searches == 1


# 3. Every number can be traced.


def test_a_record_leads_to_table_shards_and_samples(tmp_path: Path) -> None:
    made = plan(dataset=MIXED)
    record = done(made, tmp_path)
    folder = made.folder(tmp_path)
    assert record == records.load(folder / "record.json")
    frame = pd.read_parquet(folder / "samples.parquet")
    cell = record["cells"][0]
    assert cell["name"] == "PSNR"
    assert cell["n"] == len(frame) == record["samples"]["used"] == 21
    assert cell["value"] == frame["PSNR"].to_numpy().mean()
    ids = []
    for entry in record["shards"]:
        path = folder / entry["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
        shard = shards.read(path)
        assert len(shard.rows) == entry["n"]
        ids += [row.id for row in shard.rows]
        np.testing.assert_array_equal(
            shard.columns["PSNR"], frame.set_index("id")["PSNR"].loc[[row.id for row in shard.rows]]
        )
    assert ids == frame["id"].tolist() == [s.id for i, s in enumerate(MIXED.samples) if i not in (3, 11)]
    assert frame["label"].tolist() == [MIXED.samples[i].label for i in range(23) if i not in (3, 11)]
    assert frame[["height_in", "width_in"]].iloc[2].tolist() == [9, 21]
    for index in (0, 22):
        assert frame.set_index("id").loc[MIXED.samples[index].id, "sha256"] == MIXED.read(index).sha256


def test_the_table_holds_any_id_and_samples_without_a_label(tmp_path: Path) -> None:
    from harness.merge import _write_table

    ids, labels = ["a/\u00e9 \u732b.png", "", 'quote".png'], [None, 2, None]
    sizes = {"height": 1, "width": 2, "height_in": 3, "width_in": 4}
    rows = [
        shards.Row(id=name, label=label, sha256="0", **sizes, encode_ms=0.5, decode_ms=1, tokens=9)
        for name, label in zip(ids, labels, strict=True)
    ]
    _write_table(tmp_path / "t.parquet", rows, {"PSNR": np.array([1.5, math.inf, math.nan])})
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.column_names == [*shards.ROW, "PSNR"]
    assert read["id"].to_pylist() == ids
    assert read["label"].to_pylist() == labels
    assert read["decode_ms"].to_pylist() == [1.0] * 3
    np.testing.assert_array_equal(read["PSNR"].to_numpy(), [1.5, math.inf, math.nan])


def test_a_record_holds_its_provenance(tmp_path: Path, repository: Path) -> None:
    metric = _weighted()
    made = plan(metrics=[Psnr(), metric], dataset=Noise(10, expected=50))
    record = done(made, tmp_path)
    assert record is not None
    assert record["protocol"] == {
        "name": "tiny",
        "version": 1,
        "sha256": made.protocol.sha256,
        "content": made.protocol.content(),
    }
    assert record["dataset"]["ids_sha256"] == ids_sha256(sample.id for sample in made.dataset.samples)
    assert record["dataset"]["content_sha256"] == content_sha256(
        (sample.id, made.dataset.read(index).sha256) for index, sample in enumerate(made.dataset.samples)
    )
    assert record["samples"] == {"expected": 50, "selected": 10, "used": 10, "failed": []}
    assert record["weights"] == {"vgg.pth": "f" * 64}
    assert record["settings"]["token_budget"] == 64
    assert record["settings"]["seed"] == 7
    assert record["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert record["environment"]["device_name"]
    assert (record["code"]["commit"] is None) == (not (repository / ".git").exists())
    assert record["code"]["version"]
    assert record["time"]["started"] <= record["time"]["finished"]
    assert record["time"]["encode_ms"] > 0
    assert record["memory"]["peak_rss_bytes"] > 2**20


def test_the_protocols_word_on_the_expected_count_goes_first() -> None:
    assert plan(protocol=protocol(expected={"noise": 50_000}), dataset=Noise(10, expected=10)).expected == 50_000
    assert plan().expected is None


# 4. Decoded once, reconstructed once, all metrics in one pass; features stay in the shards.


def test_each_sample_is_decoded_and_reconstructed_once(tmp_path: Path) -> None:
    dataset, tokenizer = Noise(10), Blur()
    done(plan(dataset=dataset, tokenizer=tokenizer, metrics=[MeanColour()]), tmp_path)
    assert dataset.reads == sum(tokenizer.batches) == 10
    # Every statistic again, without decoding or reconstructing anything: from the shards' features.
    dataset, tokenizer = Noise(10), Blur()
    made = plan(dataset=dataset, tokenizer=tokenizer, metrics=[MeanColour()])
    record = merge_only(made, made.folder(tmp_path), QUIET)
    assert dataset.reads == sum(tokenizer.batches) == 0
    features = [shards.read(made.folder(tmp_path) / s["file"]).features["colour_reference"] for s in record["shards"]]
    assert np.concatenate(features).shape == (10, 3)


def test_cells_equal_a_plain_loop_over_the_samples(tmp_path: Path) -> None:
    """Packs, groups, padding and merge against the definition, one image at a time."""
    record = done(plan(dataset=MIXED, tokenizer=Blur(multiple=4)), tmp_path)
    assert record is not None
    tokenizer, values = Blur(), []
    for index in range(23):
        if index in (3, 11):
            continue
        pixels = MIXED.read(index).pixels
        height, width = pixels.shape[:2]
        wide = np.pad(pixels, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
        image = torch.from_numpy(wide).permute(2, 0, 1).float() / 127.5 - 1
        (output,) = tokenizer.decode(tokenizer.encode([image], latent="mean", seeds=[0]))
        levels = np.clip(np.floor(127.5 * output.numpy() + 128), 0, 255)[:, :height, :width].transpose(1, 2, 0)
        values.append(10 * np.log10(255**2 / np.mean((levels.astype(np.float64) - pixels) ** 2)))
    frame = table(plan(dataset=MIXED, tokenizer=Blur(multiple=4)).folder(tmp_path))
    np.testing.assert_allclose(frame["PSNR"], values, rtol=1e-12)


class Wide(MeanColour):
    """Features that would be noticed if anyone kept those of the whole run: 64 KiB a sample."""

    def update(self, pairs: Pairs) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        columns, features = super().update(pairs)
        return columns, {**features, "wide": np.zeros((len(pairs.reference), 2**14), np.float32)}


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peaks = []
    for count in (40, 400):
        made = plan(dataset=Noise(count), metrics=[Wide(), Psnr()], settings={"shard_size": 8})
        tracemalloc.start()
        done(made, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A row, an id and a few numbers stay; an image (768 bytes as it is, 6 KiB as floats) and a feature do not.
    assert peaks[1] - peaks[0] < 360 * 4096


class Deadly(Noise):
    """Whoever reads its 30th image is ended by the system, as for want of memory."""

    def read(self, index: int) -> Decoded:
        if index == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def test_a_killed_worker_is_explained_and_costs_no_finished_shard(tmp_path: Path) -> None:
    made = plan(dataset=Deadly(40))
    with pytest.raises(BenchError, match=r"decodes images was killed.*--workers"):
        done(made, tmp_path, workers=2)
    assert (made.folder(tmp_path) / "shards" / made.shard_name(0, None)).exists()


# 5. What cannot be had is absent with its reason; n is said beside what was expected.


def test_an_absent_cell_keeps_its_place_and_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "no vgg16.pth in /weights"
    specs = [MetricSpec(metric="lpips", name="LPIPS"), MetricSpec(metric="psnr", name="PSNR")]
    absent = [Cell(name="LPIPS", value=None, n=0, higher_is_better=False, absent=reason)]
    made = plan(protocol=protocol(metrics=tuple(specs)), absent=absent, dataset=Noise(10, broken=[1], expected=50_000))
    record = done(made, tmp_path)
    assert record is not None
    assert [(c["name"], c["value"] is None, c["absent"]) for c in record["cells"][:2]] == [
        ("LPIPS", True, reason),
        ("PSNR", False, None),
    ]
    print_record(record)
    print_reasons([record, record], {})
    said = capsys.readouterr().out
    assert "9/50,000" in said
    assert "absent: LPIPS\n" in said
    assert said.count(f"absent LPIPS: {reason}") == 1
    assert "noise/00001.png: truncated" in said


# 6. Nothing is loaded unsafely.


def test_no_source_loads_anything_that_can_run_code(repository: Path) -> None:
    found = []
    for room in ("atoken", "harness", "benchmarks", "reports"):
        for path in (repository / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (reason := _unsafe(node)):
                    found.append(f"{path.relative_to(repository)}:{node.lineno}: {reason}")
    assert not found


def _unsafe(call: ast.Call) -> str | None:
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "torch.load" and options.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name in ("pickle.load", "pickle.loads", "yaml.load", "eval", "exec", "os.system"):
        return name
    if name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
        return "np.load with allow_pickle"
    if name.endswith((".extractall", ".extract")):
        return "unpacks an archive to disk"
    if name.endswith("load_state_dict") and options.get("strict", "True") != "True":
        return "load_state_dict that drops keys"
    return None


# 7. No network: see test_bad_input.py, where a whole command runs without it.


def test_nan_ends_the_run_with_the_samples_name(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"blur-4: the reconstruction of noise/00000\.png holds NaN"):
        done(plan(tokenizer=Poison()), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_identity_of_a_plan_is_plain_data() -> None:
    made = plan(tokenizer=Fitted())
    before = made.key
    made.tokenizer.card = replace(made.tokenizer.card, settings={"grey": 1.0})
    assert made.key == before
    assert json.loads(json.dumps(made.identity()))["settings"]["threads"] == 1
