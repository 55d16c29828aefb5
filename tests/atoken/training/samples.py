"""Small sources of made-up samples, for the tests of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache

import numpy as np

from atoken.assets.cameras import hammersley_views
from atoken.patches import Patch
from atoken.training.data import Batch, Batches, Sources
from atoken.training.data.prepared import Prepared
from atoken.training.data.source import AssetSource, ClipRequest, ClipSource, ImageSource, SampleError
from atoken.training.recipe import Stage
from atoken.training.tasks import AssetTask, ImageTask, VideoTask
from tests.atoken.training.pictures import picture as made_picture

picture = cache(made_picture)

PATCH: Patch = (4, 16, 16)


class _Made:
    """What these sources share: `broken` samples cannot be read, `dumb` ones have no caption."""

    captioned = True
    fingerprint = "made"

    def __init__(
        self, name: str, count: int, *, broken: frozenset[int] = frozenset(), dumb: frozenset[int] = frozenset()
    ):
        self.name, self.count, self.broken, self.dumb = name, count, broken, dumb

    def __len__(self) -> int:
        return self.count

    def sample_id(self, index: int) -> str:
        return f"{self.name}/{index}"

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return None if index in self.dumb else f"{self.name} number {index}"

    def texts(self) -> Iterator[str]:
        yield from (f"{self.name} number {index}" for index in range(self.count) if index not in self.dumb)

    def check(self, index: int) -> None:
        if index in self.broken:
            raise SampleError("is broken")


class MadeImages(_Made, ImageSource):
    def image(self, index: int) -> np.ndarray:
        self.check(index)
        return picture(index, 40 + 16 * (index % 5), 96 - 8 * (index % 4))


class MadeClips(_Made, ClipSource):
    def clip(self, index: int, request: ClipRequest) -> np.ndarray:
        self.check(index)
        numbers = request.frames(24, Fraction(24))
        return np.stack([np.roll(picture(index, 48, 64), t, axis=1) for t in numbers])


class MadeAssets(_Made, AssetSource):
    def asset(self, index: int) -> Prepared:
        self.check(index)
        return made_asset(index)


def made_asset(seed: int, pictures: int = 6, size: int = 32) -> Prepared:
    rng = np.random.default_rng(seed)
    voxels = int(rng.integers(20, 60))
    places = rng.choice(64**3, voxels, replace=False)
    return Prepared(
        patches=rng.integers(0, 256, (8, 768), dtype=np.uint8),
        index=rng.integers(0, 8, voxels).astype(np.uint16),
        coords=np.stack([places // 4096, places // 64 % 64, places % 64], axis=1).astype(np.uint8),
        pictures=rng.integers(0, 256, (pictures, size, size, 4), dtype=np.uint8),
        cameras=tuple(hammersley_views(pictures, rng.random(2).tolist())),
        captions=(f"asset {seed}",),
        gathering="nearest",
        key=f"{seed}",
    )


SOURCES = Sources(
    images=(MadeImages("few", 3), MadeImages("many", 9)),
    videos=(MadeClips("clips", 4),),
    assets=(MadeAssets("assets", 5),),
)

TASKS: Mapping[str, ImageTask | AssetTask] = {
    "image_text": ImageTask(samples=12, resolution=(32, 64), view="resized-crop"),
    "image_recon": ImageTask(samples=12, share=1, resolution=(32, 64), view="whole"),
    "video_text": VideoTask(samples=6, share=1, resolution=(32, 48), view="crop", frames=(4, 8), fps=8),
    "video_recon": VideoTask(
        samples=6, share=1, resolution=(32, 48), view="crop", frames=(4, 12), strides=((1, 3), (4, 12))
    ),
    "asset_text": AssetTask(samples=6, share=1),
    "asset_recon": AssetTask(samples=6, share=1, renders=3, render_size=16),
}  # fmt: skip


def stage(**tasks: ImageTask | AssetTask) -> Stage:
    return Stage(name="made", steps=10, latents=8, frames=4, tasks=tasks or TASKS)


def batches(
    sources: Sources = SOURCES,
    plan: Stage | None = None,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    index: int = 0,
    limit: int = 64,
) -> Batches:
    return Batches(
        sources, plan or stage(), stage_index=index, seed=seed, rank=rank, world=world, patch=PATCH, pack_tokens=limit
    )


def items(batch: Batch) -> list[tuple[object, ...]]:
    """Everything that a batch says of each sample, comparable."""
    found = []
    for pack in batch.packs:
        rows, places, number = pack.values.split(pack.lengths), pack.coords.split(pack.lengths), 0
        for number, (name, spec) in enumerate(zip(pack.ids, pack.items, strict=True)):
            text = pack.texts[number] if pack.texts else None
            renders = pack.renders and (
                pack.renders.pictures[number].numpy().tobytes(),
                [camera.world_to_camera.tobytes() for camera in pack.renders.cameras[number]],
            )
            found.append((name, spec, text, rows[number].numpy().tobytes(), places[number].tolist(), renders))
    return found
