"""Fake runs for the report's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_assets import EXPERIMENTS as WITH_ASSETS
from fake_assets import make_asset_run
from fake_clips import EXPERIMENTS as WITH_CLIPS
from fake_clips import clip, make_clip_run
from fake_runs import EXPERIMENTS, make_run

from reports.build import Report, build
from reports.command import FORMATS, write
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


@pytest.fixture(scope="session")
def clip_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos under four tokenizers and two protocols, a row of the paper, and photographs on a dataset of that name."""
    folder = tmp_path_factory.mktemp("clips") / "runs"
    for spec in ("identity", "h264@0.09375", "dct3d:48", "atoken"):
        make_clip_run(folder, spec)
    make_clip_run(folder, "atoken", protocol="native", shown=20)
    make_clip_run(folder, "atoken:so-c.pt", dataset="davis", expected=50, clips={"goat": clip(0, 1, 18, 32)})
    make_clip_run(folder, "h264@0.09375", dataset="tokenbench", expected=471, clips={"a b#1.mov": clip(1, 9, 32, 18)})
    make_run(folder, "jpeg:75")
    return folder


@pytest.fixture
def clip_runs(clip_template: Path, tmp_path: Path) -> Path:
    """A copy of `clip_template` that the test may change."""
    return Path(shutil.copytree(clip_template, tmp_path / "runs"))


@pytest.fixture(scope="session")
def clips_made(clip_template: Path) -> Report:
    """The report of `clip_template`."""
    return build(read_all(clip_template), WITH_CLIPS)


@pytest.fixture(scope="session")
def clips_out(clips_made: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, in every format."""
    folder = tmp_path_factory.mktemp("report-of-clips")
    write(clips_made, folder, FORMATS)
    return folder


@pytest.fixture(scope="session")
def asset_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Assets under three tokenizers and two protocols, one that cannot decode, and a row of the paper."""
    folder = tmp_path_factory.mktemp("assets") / "runs"
    for spec in ("identity", "voxel-colour"):
        make_asset_run(folder, spec)
    make_asset_run(folder, "atoken", shown=False)
    make_asset_run(folder, "atoken", protocol="release")
    make_asset_run(folder, "atoken:so-c.pt", dataset="toys4k", expected=3229, ids=("toys/a b#1.blend",))
    make_clip_run(folder, "dct3d:48", clips={"goat": clip(0, 3, 18, 32)})
    return folder


@pytest.fixture
def asset_runs(asset_template: Path, tmp_path: Path) -> Path:
    """A copy of `asset_template` that the test may change."""
    return Path(shutil.copytree(asset_template, tmp_path / "runs"))


@pytest.fixture(scope="session")
def assets_made(asset_template: Path) -> Report:
    """The report of `asset_template`."""
    return build(read_all(asset_template), WITH_ASSETS)


@pytest.fixture(scope="session")
def assets_out(assets_made: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, in every format."""
    folder = tmp_path_factory.mktemp("report-of-assets")
    write(assets_made, folder, FORMATS)
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees two experiments, whatever else is installed."""
    monkeypatch.setattr("harness.registry.experiments", lambda: EXPERIMENTS)
