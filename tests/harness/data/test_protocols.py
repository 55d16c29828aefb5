"""The protocols of image-recon that ship: they load, build, and hold what their names promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.image_recon import EXPERIMENT
from harness.data import DATASETS
from harness.data.prepare import Pipeline
from harness.metrics.families import METRICS
from harness.metrics.registry import build_metrics
from harness.protocol import Protocol, load, names
from harness.weights import WeightStore

SHIPPED = names("image-recon")


@pytest.fixture(params=SHIPPED)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return load("image-recon", request.param)


def test_every_protocol_of_the_experiment_ships() -> None:
    assert {"paper", "paper-mean", "lightningdit", "adm", "native"} <= set(SHIPPED)
    assert set(EXPERIMENT.protocols) <= set(SHIPPED)


def test_the_pipeline_parses(protocol: Protocol) -> None:
    assert Pipeline.parse(protocol.prepare).text == protocol.prepare


def test_metrics_build_and_without_weights_say_what_is_missing(protocol: Protocol, tmp_path: Path) -> None:
    metrics, absent = build_metrics(protocol, WeightStore([tmp_path]), torch.device("cpu"), codebook_size=16)
    built = {column for metric in metrics for column in metric.columns}
    assert {"PSNR", "SSIM"} <= built
    reasons = {cell.name: cell.absent or "" for cell in absent}
    assert "vgg16" in reasons["LPIPS"]
    assert "inception" in reasons["rFID"]


def test_the_cells_of_the_papers_tables_are_there(protocol: Protocol) -> None:
    measured = {spec.name for spec in protocol.metrics}
    for fills in EXPERIMENT.fills:
        assert set(fills.columns) <= measured


def test_main_cells_are_what_the_paper_reports(protocol: Protocol) -> None:
    """The four names mean one family and trunk under every protocol."""
    main = {spec.name: spec for spec in protocol.metrics}
    assert main["PSNR"].metric == "psnr"
    assert (main["SSIM"].metric, main["SSIM"].options["flavour"]) == ("ssim", "gaussian")
    assert (main["LPIPS"].metric, main["LPIPS"].options["net"]) == ("lpips", "vgg")
    assert main["rFID"].metric == "rfid"
    assert all(spec.metric in METRICS for spec in protocol.metrics)


def test_expected_counts_are_the_official_ones(protocol: Protocol) -> None:
    counts = {entry.name: entry.expected for entry in DATASETS}
    assert protocol.expected == {name: counts[name] for name in ("imagenet-val", "coco-val2017")}


def test_variants_differ_from_the_main_protocol_in_one_thing() -> None:
    main = load("image-recon", "paper").content()
    for name, key in (("paper-mean", "latent"), ("adm", "prepare"), ("native", "prepare")):
        other = load("image-recon", name).content()
        assert {k for k in main if main[k] != other[k]} == {"name", "title", "source", key}
