"""How fast samples are read and packed: milliseconds of one core per sample, for each kind of source and task.

    python -m benchmarks.speed.training_data [--data images=PATH ...] [--recipe nano] [--stage 3] [--steps 8]

The sources are made here unless given: photographs of 340 x 256 as JPEG, thumbnails of 64 x 64 in Parquet, a tar of
the photographs, two clips as folders of frames, the photographs in motion, prepared assets of 8,000 voxels. Each is
timed alone, in each task of the recipe's stage that takes it, in processor time (a busy machine does not count). The
last column is what a step's batch takes on one core.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from atoken.assets.cameras import hammersley_views
from atoken.training.data import Batches, Sources, open_sources
from atoken.training.data.batches import modality_of
from atoken.training.data.prepared import Prepared, store_prepared
from atoken.training.errors import TrainingError
from atoken.training.recipe import Stage
from atoken.training.recipe_files import load_recipe

PHOTOS, THUMBNAILS, ASSETS, FRAMES = 64, 500, 8, 64
VOXELS = 8000


def main() -> None:
    """Print a line per source and task."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", action="append", metavar="KIND=PATH", help="Instead of what is made here.")
    parser.add_argument("--recipe", default="nano")
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(arguments.recipe)
    stage = recipe.stages[arguments.stage - 1]
    with tempfile.TemporaryDirectory() as place:
        specs = _given(arguments.data) if arguments.data else made(Path(place))
        print(f"{recipe.name}, {stage.name}: ms per sample, ms per step's batch, of one core")
        for modality, paths in specs.items():
            for path in paths:
                begun = time.process_time()
                sources = open_sources({modality: [path]}, cache=Path(place) / "cache")
                count = len(getattr(sources, modality)[0])
                print(f"{modality}={path}: {count} samples, opened in {time.process_time() - begun:.2f} s")
                for task, each in timed(sources, stage, modality, recipe.pack_tokens, arguments.steps).items():
                    print(f"    {task:14} {each:9.3f} {each * stage.tasks[task].samples:9.1f}", flush=True)


def timed(sources: Sources, stage: Stage, modality: str, pack_tokens: int, steps: int) -> dict[str, float]:
    """Milliseconds of processor time per sample, of each task that the source can serve."""
    captioned = getattr(sources, modality)[0].captioned
    tasks = {
        name: task
        for name, task in stage.tasks.items()
        if modality_of(name) == modality and (captioned or not name.endswith("_text"))
    }
    alone = Stage(name=stage.name, steps=1, latents=stage.latents, frames=4, tasks=tasks)
    batches = Batches(
        sources, alone, stage_index=0, seed=0, rank=0, world=1, patch=(4, 16, 16), pack_tokens=pack_tokens
    )
    found = {}
    for name, task in tasks.items():
        try:
            batches.batch(name, steps)  # imports, first reads
        except TrainingError:
            continue  # all of its images are too small for the task
        begun = time.process_time()
        for step in range(steps):
            batches.batch(name, step)
        found[name] = 1000 * (time.process_time() - begun) / (steps * task.samples)
    return found


def made(place: Path) -> dict[str, list[str]]:
    """Sources of every kind but video files and meshes, below `place`."""
    rng = np.random.default_rng(0)
    photos, frames, assets = place / "photos", place / "clips", place / "assets"
    tar, table = place / "photos.tar", place / "thumbnails.parquet"
    for folder in (photos, frames / "a", frames / "b", assets):
        folder.mkdir(parents=True)
    for number in range(PHOTOS):
        (photos / f"{number}.jpg").write_bytes(_jpeg(rng, 256, 340))
        (photos / f"{number}.txt").write_text(f"photograph {number}")
    with tarfile.open(tar, "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    thumbnails = [_jpeg(rng, 64, 64) for _ in range(THUMBNAILS)]
    pq.write_table(pa.table({"image": thumbnails, "class_name": ["thing"] * THUMBNAILS}), table)
    for name in "ab":
        (frames / f"{name}.txt").write_text(f"clip {name}")
        for number in range(FRAMES):
            (frames / name / f"{number:03}.jpg").write_bytes(_jpeg(rng, 288, 352))
    for number in range(ASSETS):
        store_prepared(assets / f"{number}.npz", _asset(rng))
    return {
        "images": [str(photos), str(tar), str(table)],
        "videos": [str(frames), f"moving:{photos}"],
        "assets": [str(assets)],
    }


def _jpeg(rng: np.random.Generator, height: int, width: int) -> bytes:
    """Blurred noise, about as many bytes as a photograph of that size."""
    small = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _asset(rng: np.random.Generator) -> Prepared:
    places = rng.choice(64**3, VOXELS, replace=False)
    return Prepared(
        patches=rng.integers(0, 256, (400, 768), dtype=np.uint8),
        index=rng.integers(0, 400, VOXELS).astype(np.uint16),
        coords=np.stack([places // 4096, places // 64 % 64, places % 64], axis=1).astype(np.uint8),
        pictures=rng.integers(0, 256, (24, 128, 128, 4), dtype=np.uint8),
        cameras=tuple(hammersley_views(24)),
        captions=("a thing",),
        gathering="nearest",
        key="made",
    )


def _given(items: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        kind, _, path = item.partition("=")
        found.setdefault(kind, []).append(path)
    return found


if __name__ == "__main__":
    main()
