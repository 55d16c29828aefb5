"""Retrieval and classification from files to records: known answers, failures, shares, audits, comparisons."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harness import protocol as protocols
from harness import registry, shards
from harness.data.frame_choice import FrameChoice
from harness.data.prepare import Pipeline
from harness.errors import BenchError
from harness.understanding.measures import build_embedding_metrics
from tests.harness.conftest import Bench
from tests.harness.data.conftest import write_clip
from tests.harness.data.test_asset_sets import OBJ

EXPERIMENTS = ("image-retrieval", "video-retrieval", "asset-classify")
LEVELS = "tests.harness.retrieval_fakes:create"
FAST = ("--workers", "0", "--device", "cpu", "--threads", "1")


def picture(level: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(data, "PNG")
    return data.getvalue()


def coco(root: Path, captions: Mapping[int, Sequence[str]]) -> Path:
    """Pictures by their levels, with captions."""
    root.mkdir()
    images = []
    for level, texts in captions.items():
        name = f"COCO_val2014_{level:012d}.jpg"
        (root / name).write_bytes(picture(level))
        images.append({"filename": name, "split": "test", "sentences": [{"raw": text} for text in texts]})
    (root / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return root


def record_of(runs: Path, experiment: str, name: str = "levels") -> tuple[Path, dict[str, Any]]:
    (folder,) = (path for path in (runs / experiment).iterdir() if path.name.startswith(name))
    return folder, json.loads((folder / "record.json").read_text())


def values(record: Mapping[str, Any]) -> dict[str, float]:
    return {cell["name"]: cell["value"] for cell in record["cells"]}


RIGHT = {0: ["level 0"] * 5, 40: ["level 40 too", "it is level 40", "level 40 a", "level 40 b", "at level 40", "6"]}
ONE_WRONG = {**RIGHT, 80: ["level 40 by mistake", *["level 80"] * 4], 120: ["level 0 alone"]}


def run_coco(bench: Bench, root: Path, runs: Path, *more: object, name: str = "levels") -> tuple[Path, dict[str, Any]]:
    outcome = bench(
        *("run", "image-retrieval", "--tokenizer", f"{LEVELS}:{name}", "--data", f"coco-karpathy={root}"),
        *("--protocol", "own-64", "--runs", runs, *FAST, *more),
    )
    assert outcome.code == 0, outcome.err
    return record_of(runs, "image-retrieval", name)


def test_images_by_hand(tmp_path: Path, bench: Bench) -> None:
    _, record = run_coco(bench, coco(tmp_path / "coco", ONE_WRONG), tmp_path / "runs")
    found = values(record)
    assert sorted(found) == sorted(f"{way} R@{k}" for k in (1, 5, 10) for way in ("text-to-image", "image-to-text"))
    # Of the 17 captions two name another picture, and "6" none: noise gives it to another.
    assert found["text-to-image R@1"] == pytest.approx(100 * 14 / 17)
    assert found["image-to-text R@5"] >= 75
    assert found["text-to-image R@5"] is None  # of four images
    assert record["cells"][2]["absent"] == "of 4 answers 5 are all"
    cell = record["cells"][0]
    assert (cell["n"], cell["parameters"]["queries"], cell["parameters"]["gallery"]) == (4, 17, 4)
    assert record["dataset"]["expected"] == 5000
    assert record["understanding"]["captions"] == 17
    assert "captions: the published file has 25,010, this one 17" in record["dataset"]["notes"]


def test_cells_are_those_of_the_plain_definitions_on_the_kept_vectors(tmp_path: Path, bench: Bench) -> None:
    random = np.random.default_rng(5)
    captions = {
        level: [f"level {random.choice(range(0, 240, 20))} {text}" for text in range(random.integers(1, 8))]
        for level in range(0, 240, 20)
    }
    folder, record = run_coco(bench, coco(tmp_path / "coco", captions), tmp_path / "runs", "--shard-size", "5")
    parts = [shards.read(path) for path in sorted((folder / "shards").glob("*.safetensors"))]
    features = {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features}
    images, counts = features["embedding"], features["caption_count"]
    texts = np.concatenate([row[:count] for row, count in zip(features["captions"], counts, strict=True)])
    owners = np.repeat(np.arange(12), counts)
    scores = (texts.astype(np.float64) @ images.T.astype(np.float64)).astype(np.float32)
    own = scores[np.arange(len(texts)), owners]
    places = (scores >= own[:, None]).sum(1)
    first = [
        min(1 + (scores[owners != image, image] >= mine).sum() for mine in scores[owners == image, image])
        for image in range(12)
    ]
    for k in (1, 5, 10):  # of 12 images
        assert values(record)[f"text-to-image R@{k}"] == pytest.approx(100 * np.mean(places <= k))
        assert values(record)[f"image-to-text R@{k}"] == pytest.approx(100 * np.mean(np.array(first) <= k))
    table = pq.read_table(folder / "samples.parquet").to_pydict()
    assert np.average(table["text-to-image R@1"], weights=counts) == pytest.approx(values(record)["text-to-image R@1"])


def test_an_image_that_cannot_be_read_is_missing_with_its_captions(tmp_path: Path, bench: Bench) -> None:
    root = coco(tmp_path / "coco", ONE_WRONG)
    (root / "COCO_val2014_000000000040.jpg").write_bytes(b"no picture")
    _, record = run_coco(bench, root, tmp_path / "runs")
    assert [failed["id"] for failed in record["samples"]["failed"]] == ["COCO_val2014_000000000040.jpg"]
    cell = record["cells"][0]
    assert (cell["n"], cell["parameters"]["queries"], cell["parameters"]["gallery"]) == (3, 11, 3)
    assert record["samples"]["used"] == 3


def test_shares_and_a_resume_give_the_same_record(tmp_path: Path, bench: Bench) -> None:
    root = coco(tmp_path / "coco", ONE_WRONG)
    _, whole = run_coco(bench, root, tmp_path / "one", "--shard-size", "1")
    for share in ("0/2", "1/2"):
        outcome = bench(
            *("run", "image-retrieval", "--tokenizer", f"{LEVELS}:levels", "--data", f"coco-karpathy={root}"),
            *("--protocol", "own-64", "--runs", tmp_path / "two", "--shard", share, "--shard-size", "1", *FAST),
        )
        assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "two" / "image-retrieval").iterdir()
    assert bench("merge", folder).code == 0
    assert json.loads((folder / "record.json").read_text())["cells"] == whole["cells"]
    next((folder / "shards").glob("00002-*")).unlink()
    (folder / "record.json").unlink()
    _, again = run_coco(bench, root, tmp_path / "two", "--shard-size", "1")
    assert again["cells"] == whole["cells"]


def test_another_caption_is_another_figure_of_the_same_run(tmp_path: Path, bench: Bench) -> None:
    root = coco(tmp_path / "coco", RIGHT)
    folder, before = run_coco(bench, root, tmp_path / "runs")
    content = json.loads((root / "dataset_coco.json").read_text())
    content["images"][0]["sentences"][0]["raw"] = "level 40 of all"
    (root / "dataset_coco.json").write_text(json.dumps(content))
    after_folder, after = run_coco(bench, root, tmp_path / "runs")
    assert after_folder == folder
    assert values(after)["text-to-image R@1"] < values(before)["text-to-image R@1"]
    assert after["understanding"]["texts_sha256"] != before["understanding"]["texts_sha256"]


def test_a_run_can_be_audited_and_a_changed_recall_is_found(tmp_path: Path, bench: Bench) -> None:
    folder, record = run_coco(bench, coco(tmp_path / "coco", ONE_WRONG), tmp_path / "runs")
    outcome = bench("audit", "run", folder)
    assert outcome.code == 0, outcome.out + outcome.err
    record["cells"][0]["value"] += 1
    (folder / "record.json").write_text(json.dumps(record))
    outcome = bench("audit", "run", folder)
    assert outcome.code == 1
    assert "text-to-image R@1" in outcome.out + outcome.err


def test_two_embedders_are_compared_sample_by_sample(tmp_path: Path, bench: Bench) -> None:
    root = coco(tmp_path / "coco", {level: [f"level {level}", f"at level {level}"] for level in range(0, 160, 20)})
    good, _ = run_coco(bench, root, tmp_path / "runs")
    bad, record = run_coco(bench, root, tmp_path / "runs", name="blind")
    assert values(record)["text-to-image R@1"] == 0  # each picture has a double
    outcome = bench("compare", good, bad, "--format", "json")
    assert outcome.code == 0, outcome.err
    metrics = {metric["metric"]: metric for metric in json.loads(outcome.out)["metrics"]}
    assert metrics["text-to-image R@1"]["mean_difference"] == 100
    assert metrics["text-to-image R@1"]["wins_a"] == 8


def test_a_set_without_captions_is_refused(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    outcome = bench(
        *("run", "image-retrieval", "--tokenizer", LEVELS, "--data", f"folder={tmp_path}", "--runs", tmp_path / "runs"),
        *FAST,
    )
    assert outcome.code == 1
    assert "has no captions, and retrieval needs them" in outcome.err


# Videos.


def film(path: Path, *levels: int) -> None:
    """One second of each level, at four frames a second."""
    frames = np.concatenate([np.full((4, 32, 48, 3), level, np.uint8) for level in levels])
    write_clip(path, frames, rate=4)


def msrvtt(root: Path) -> Path:
    rows = ["key,vid_key,video_id,sentence"]
    for number, levels in enumerate(((0,), (40, 40, 80), (120, 160))):
        film(root / "videos" / f"video{number}.mkv", *levels)
        rows.append(f"ret{number},msr{number},video{number},level {levels[0]} of {number}")
    write_clip(root / "videos" / "video3.mkv", np.full((1, 32, 48, 3), 200, np.uint8), rate=4)
    rows.append("ret3,msr3,video3,level 200")
    (root / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(rows) + "\n")
    return root


def run_videos(bench: Bench, data: str, runs: Path, protocol: str) -> dict[str, Any]:
    outcome = bench(
        *("run", "video-retrieval", "--tokenizer", LEVELS, "--data", data, "--protocol", protocol, "--runs", runs),
        *FAST,
    )
    assert outcome.code == 0, outcome.err
    (folder,) = (path for path in (runs / "video-retrieval").iterdir() if f"--{protocol}--" in path.name)
    return json.loads((folder / "record.json").read_text())


def test_videos_of_several_lengths_are_found(tmp_path: Path, bench: Bench) -> None:
    record = run_videos(bench, f"msrvtt-1ka={msrvtt(tmp_path / 'm')}", tmp_path / "runs", "own-64")
    assert values(record)["text-to-video R@1"] == values(record)["video-to-text R@1"] == 100
    assert {value for name, value in values(record).items() if not name.endswith("R@1")} == {None}  # of four videos
    table = pq.read_table(next((tmp_path / "runs").rglob("samples.parquet"))).to_pydict()
    assert dict(zip(table["id"], table["frames"], strict=True)) == {"video0": 1, "video1": 3, "video2": 2, "video3": 1}
    assert record["cells"][0]["parameters"] == {"k": 1, "queries": 4, "gallery": 4, "ties": "against"}


def test_a_video_that_breaks_is_named_and_left_out(tmp_path: Path, bench: Bench) -> None:
    root = msrvtt(tmp_path / "m")
    broken = root / "videos" / "video1.mkv"
    broken.write_bytes(broken.read_bytes()[:-200])
    (root / "videos" / "video2.mkv").unlink()
    record = run_videos(bench, f"msrvtt-1ka={root}", tmp_path / "runs", "uniform8-224")
    (failed,) = record["samples"]["failed"]
    assert failed["id"] == "video1"
    assert "cut off" in failed["reason"]
    assert record["cells"][0]["parameters"]["queries"] == 2
    assert "not here: 1 of the 4 videos (video2)" in record["dataset"]["notes"]


def test_the_two_rules_from_video_to_text(tmp_path: Path, bench: Bench) -> None:
    root = tmp_path / "m"
    for number in range(7):
        film(root / f"v{number}.mkv", 20 * number)
    # Video 0 is told of by one weak caption; video 1 by six that tell of video 0.
    captions = {f"v{number}": [["level", str(20 * number)]] for number in range(7)}
    captions["v1"] = [["level", "0", word] for word in "abcdef"] + [["level", "20"]]
    captions["v0"] = [["nothing", "at", "all"]]
    (root / "test_list.txt").write_text("\n".join(captions))
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    found = values(run_videos(bench, f"msvd={root}", tmp_path / "runs", "own-64"))
    # By its best caption only video 1 (and a few of no meaning) stands before video 0; caption by caption six do.
    assert found["video-to-text R@1"] == pytest.approx(100 * 6 / 7)
    assert found["video-to-text R@5 (captions ranked)"] == pytest.approx(100 * 6 / 7)
    assert found["video-to-text R@5"] >= found["video-to-text R@5 (captions ranked)"]
    other = values(run_videos(bench, f"msvd={root}", tmp_path / "runs", "pe-224"))
    assert other["video-to-text R@1"] == found["video-to-text R@1"]
    assert other["video-to-text R@5"] == found["video-to-text R@5 (captions ranked)"]
    assert other["video-to-text R@5 (videos ranked)"] == found["video-to-text R@5"]


# Assets.


def test_assets_are_compared_with_all_categories(tmp_path: Path, bench: Bench) -> None:
    for name in ("airplane/airplane_000", "violin/violin_001"):
        (tmp_path / "toys" / name).mkdir(parents=True)
        (tmp_path / "toys" / name / "mesh.obj").write_text(OBJ)
    outcome = bench(
        *("run", "asset-classify", "--tokenizer", LEVELS, "--data", f"toys4k={tmp_path / 'toys'}"),
        *("--runs", tmp_path / "runs", *FAST),
    )
    assert outcome.code == 0, outcome.err
    _, record = record_of(tmp_path / "runs", "asset-classify")
    assert (record["understanding"]["classes"], record["understanding"]["templates"]) == (105, 5)
    assert record["samples"]["expected"] == 3229
    assert list(values(record)) == ["top-1", "top-5", "mean per-class accuracy"]
    assert values(record)["top-1"] <= 50  # two alike of two classes


def test_an_asset_of_no_category_is_refused(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "toys" / "own" / "own_000").mkdir(parents=True)
    (tmp_path / "toys" / "own" / "own_000" / "mesh.obj").write_text(OBJ)
    outcome = bench(
        *("run", "asset-classify", "--tokenizer", LEVELS, "--data", f"toys4k={tmp_path / 'toys'}"),
        *("--runs", tmp_path / "runs", *FAST),
    )
    assert outcome.code == 1
    assert "own/own_000 has no label" in outcome.err


# What ships.


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_protocol_that_ships_is_listed_and_can_be_measured(name: str) -> None:
    experiment = registry.experiment(name)
    assert sorted(experiment.protocols) == protocols.names(name)
    assert set(experiment.defaults.values()) <= set(experiment.protocols)
    for title in experiment.protocols:
        protocol = protocols.load(name, title)
        (metric,), absent = build_embedding_metrics(protocol)
        assert absent == []
        assert metric.higher_is_better
        assert protocol.embed is not None
        names = {spec.name for spec in protocol.metrics}
        assert {column for fills in experiment.fills for column in fills.columns} <= names
        if name == "asset-classify":
            continue
        Pipeline.parse(protocol.prepare)
        assert protocol.embed.templates is None
        if name == "video-retrieval":
            FrameChoice(protocol.embed.frames or "")


def test_a_protocol_of_captions_takes_recalls_alone() -> None:
    wrong = protocols.load("image-retrieval", "own-64").content()
    wrong["metrics"] = [{"metric": "top-k", "name": "top-1", "k": 1}]
    with pytest.raises(BenchError, match=r"top-1 does not fit what vectors are compared with \(captions"):
        build_embedding_metrics(protocols.Protocol.from_content(wrong, "here"))
    wrong = protocols.load("asset-classify", "bare").content()
    wrong["metrics"] = [{"metric": "recall", "name": "R@1", "query": "text"}]
    with pytest.raises(BenchError, match=r"R@1 does not fit what vectors are compared with \(classes"):
        build_embedding_metrics(protocols.Protocol.from_content(wrong, "here"))
