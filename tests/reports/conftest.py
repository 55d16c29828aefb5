"""Fake runs for the report's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, make_run

from reports.build import Report, build
from reports.records import read_all


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The rows of the demo on sample photographs, two protocols, and two rows of the paper on ImageNet."""
    folder = tmp_path / "runs"
    for spec in ("identity", "jpeg:75", "jpeg:10", "dct:48", "atoken"):
        make_run(folder, spec)
    make_run(folder, "atoken", protocol="adm", shift=0.25)
    make_run(folder, "dct:48", protocol="adm", shift=-0.5)
    make_run(folder, "atoken:so-c.pt", dataset="imagenet-val", expected=50_000)
    make_run(folder, "omni:vq", dataset="imagenet-val", n=6, expected=6)
    return folder


@pytest.fixture
def made(runs: Path) -> Report:
    """The report of `runs`."""
    return build(read_all(runs), EXPERIMENTS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees two experiments, whatever else is installed."""
    monkeypatch.setattr("harness.registry.experiments", lambda: EXPERIMENTS)
