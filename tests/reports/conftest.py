"""Fake runs for the report's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_runs import EXPERIMENTS, make_run

from reports.build import Report, build
from reports.records import read_all


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the demo on sample photographs, two protocols, and two rows of the paper on ImageNet."""
    folder = tmp_path_factory.mktemp("template") / "runs"
    for spec in ("identity", "jpeg:75", "jpeg:10", "dct:48", "atoken"):
        make_run(folder, spec)
    make_run(folder, "atoken", protocol="adm", shift=0.25)
    make_run(folder, "dct:48", protocol="adm", shift=-0.5)
    make_run(folder, "atoken:so-c.pt", dataset="imagenet-val", expected=50_000)
    make_run(folder, "omni:vq", dataset="imagenet-val", n=6, expected=6)
    return folder


@pytest.fixture
def runs(template: Path, tmp_path: Path) -> Path:
    """A copy of `template` that the test may change."""
    return Path(shutil.copytree(template, tmp_path / "runs"))


@pytest.fixture(scope="session")
def made(template: Path) -> Report:
    """The report of `template`."""
    return build(read_all(template), EXPERIMENTS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees two experiments, whatever else is installed."""
    monkeypatch.setattr("harness.registry.experiments", lambda: EXPERIMENTS)
