"""Which metrics a protocol gets, and what it hears of those that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from i3d_files import random_state, vouched

from harness.errors import BenchError
from harness.metrics.families import CLIP_METRICS, METRICS
from harness.metrics.inception import Inception
from harness.metrics.registry import build_clip_metrics, build_metrics
from harness.metrics.rfvd import Rfvd
from harness.protocol import SCHEMA, Protocol, load, names
from harness.weights import ENVIRONMENT, I3D_PROGRAM, I3D_STATE, INCEPTION, KNOWN, VGG16, WeightStore


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def protocol(*metrics: dict[str, Any]) -> Protocol:
    content = {
        "schema": SCHEMA,
        "name": "test",
        "experiment": "image-recon",
        "version": 1,
        "title": "",
        "source": "",
        "prepare": "rgb",
        "latent": "mean",
        "seed": 0,
        "eight_bit": "half-up",
        "bootstrap": 10,
        "expected": {},
        "metrics": [dict(metric) for metric in metrics],
    }
    return Protocol.from_content(content, "test")


EVERY = protocol(*({"metric": family, "name": f"my {family}"} for family in METRICS))
EVERY_CLIP = protocol(*({"metric": family, "name": f"my {family}"} for family in CLIP_METRICS))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of I3D."""
    folder = tmp_path_factory.mktemp("i3d")
    path = folder / I3D_STATE.name
    torch.save(random_state(), path)
    path.with_name(path.name + ".sha256").write_text(f"{vouched(path).sha256}  {path.name}\n")
    return folder


def test_every_family_builds_and_columns_are_called_like_the_protocol_calls_them(cache: Path) -> None:
    metrics, absent = build_metrics(EVERY, WeightStore([cache]), CPU, codebook_size=16)
    assert absent == []
    columns = [column for metric in metrics for column in metric.columns]
    assert columns == ["my psnr", "my ssim", "my lpips", "my bits-per-pixel", "my tokens"]
    # The two groups share one object each.
    assert len(metrics) == len(columns) + 2
    inception = next(metric for metric in metrics if isinstance(metric, Inception))
    assert len(inception.specs) == 5


def test_without_weights_or_codebook_the_cells_are_absent_with_the_reason(tmp_path: Path) -> None:
    metrics, absent = build_metrics(EVERY, WeightStore(), CPU)
    reasons = {cell.name.removeprefix("my "): cell.absent or "" for cell in absent}
    built = {column.removeprefix("my ") for metric in metrics for column in metric.columns}
    assert built | reasons.keys() == METRICS.keys()
    assert built.isdisjoint(reasons)
    for family in ("rfid", "kid", "inception-score"):
        assert INCEPTION.name in reasons[family]
    assert VGG16.name in reasons["lpips"]
    assert reasons["codebook-usage"] == "the tokenizer has no codebook"
    for cell in absent:
        assert (cell.value, cell.n) == (None, 0)
        assert cell.higher_is_better is METRICS[cell.name.removeprefix("my ")].higher_is_better


def test_metrics_say_what_weights_they_measure_with(cache: Path) -> None:
    metrics, _ = build_metrics(EVERY, WeightStore([cache]), CPU)
    weights = {name: digest for metric in metrics for name, digest in metric.weights.items()}
    assert {VGG16.name, INCEPTION.name, "lpips/weights/v0.1/vgg.pth"} == weights.keys()
    assert all(len(digest) == 64 for digest in weights.values())


def test_weights_name_the_families_that_use_them() -> None:
    assert {family for file in KNOWN.values() for family in file.used_by} <= METRICS.keys() | CLIP_METRICS.keys()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([{"metric": "fvd", "name": "x"}], "no metric family 'fvd'; for images there are: psnr"),
        ([{"metric": "psnr", "name": "x", "peak": 1}], "psnr has no option peak; it has: none"),
        ([{"metric": "psnr", "name": "x"}, {"metric": "ssim", "name": "x"}], "two metrics are called x"),
        ([{"metric": "lpips", "name": "x", "net": "squeeze"}], "LPIPS net 'squeeze'"),
    ],
)
def test_a_protocol_that_asks_for_what_is_not_there_is_refused(metrics: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build_metrics(protocol(*metrics), WeightStore(), CPU)


def test_every_family_of_videos_builds_with_columns_of_its_own(cache: Path, i3d: Path) -> None:
    metrics, absent = build_clip_metrics(EVERY_CLIP, WeightStore([cache, i3d]), CPU, codebook_size=16)
    assert {cell.name for cell in absent} == {"my rfvd", "my rfvd-mean", "my rfvd-covariance"}
    assert all(I3D_PROGRAM.name in (cell.absent or "") and cell.applies for cell in absent)
    columns = [column for metric in metrics for column in metric.columns]
    assert columns == [
        "my psnr",
        "my psnr identical frames",
        "my ssim",
        "my lpips",
        "my seam",
        "my seam borders",
        "my bits-per-pixel",
        "my tokens",
    ]
    curves = [column for metric in metrics for column in metric.frame_columns]
    assert curves == ["my psnr", "my ssim", "my lpips", "my seam"]


def test_the_families_of_rfvd_share_a_network_for_each_detector(i3d: Path) -> None:
    families = ("rfvd", "rfvd-mean", "rfvd-covariance")
    asked = [
        {"metric": family, "name": f"{family} {frames}", "detector": "state-dict", "max_frames": frames}
        for frames in (16, 300)
        for family in families
    ]
    metrics, absent = build_clip_metrics(protocol(*asked), WeightStore([i3d]), CPU)
    assert absent == []
    assert [metric.max_frames for metric in metrics if isinstance(metric, Rfvd)] == [16, 300]
    assert len(metrics) == 2


@pytest.mark.parametrize("name", names("video-recon"))
def test_every_shipped_protocol_of_videos_builds(name: str) -> None:
    asked = load("video-recon", name)
    metrics, absent = build_clip_metrics(asked, WeightStore(), CPU)
    assert all(cell.absent for cell in absent)
    built = {column for metric in metrics for column in metric.columns}
    assert {spec.name for spec in asked.metrics} <= built | {cell.name for cell in absent}


@pytest.mark.parametrize(
    ("build", "metrics", "message"),
    [
        (build_metrics, [{"metric": "seam", "name": "x"}], "family 'seam' is of videos, not of images; for images"),
        (
            build_clip_metrics,
            [{"metric": "rfid", "name": "x"}],
            "family 'rfid' is of images, not of videos; for videos",
        ),
        (build_metrics, [{"metric": "psnr", "name": "x", "mse": "clip"}], "psnr has no option mse; it has: none"),
        (build_clip_metrics, [{"metric": "psnr", "name": "x", "mse": "video"}], "x: mse is 'video'"),
        (build_clip_metrics, [{"metric": "rfvd", "name": "x", "detector": "c3d"}], "x: detector 'c3d'; there are"),
        (
            build_clip_metrics,
            [{"metric": "seam", "name": "x"}, {"metric": "ssim", "name": "x borders"}],
            "two metrics keep a column called x borders; rename one",
        ),
    ],
)
def test_what_one_modality_has_and_the_other_has_not_is_told(
    build: Any, metrics: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        build(protocol(*metrics), WeightStore(), CPU)
