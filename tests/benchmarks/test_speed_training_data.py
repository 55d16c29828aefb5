"""The benchmark of training data times every kind of source in every task that takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoken.training.data import open_sources
from atoken.training.recipe import Stage
from atoken.training.tasks import AssetTask, ImageTask, VideoTask
from benchmarks.speed import training_data as bench

STAGE = Stage(
    name="s",
    steps=1,
    latents=8,
    frames=4,
    tasks={
        "image_text": ImageTask(samples=2, resolution=(32, 32), view="resized-crop"),
        "image_recon": ImageTask(samples=2, share=1, resolution=(32, 64), view="crop"),
        "video_recon": VideoTask(
            samples=2, share=1, resolution=(32, 32), view="crop", frames=(4, 4), strides=((1, 3),)
        ),
        "asset_recon": AssetTask(samples=2, share=1, renders=2, render_size=64),
    },
)


def test_every_source_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("PHOTOS", 4), ("THUMBNAILS", 4), ("ASSETS", 2), ("FRAMES", 6), ("VOXELS", 50)):
        monkeypatch.setattr(bench, name, count)
    tasks = {"images": {"image_text", "image_recon"}, "videos": {"video_recon"}, "assets": {"asset_recon"}}
    specs = bench.made(tmp_path)
    assert {modality: len(paths) for modality, paths in specs.items()} == {"images": 3, "videos": 2, "assets": 1}
    for modality, paths in specs.items():
        for path in paths:
            found = bench.timed(open_sources({modality: [path]}, cache=None), STAGE, modality, 1000, 1)
            assert set(found) == tasks[modality]
            assert all(milliseconds > 0 for milliseconds in found.values())
