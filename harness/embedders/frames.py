"""Image embedders on videos and 3D assets: the mean of the vectors of frames or views.

``frames:SPEC`` as CLIP4Clip averages (PROTOCOLS 5.2), ``views:SPEC`` on the views that the protocol gives (3.6). Every
frame or view is embedded as an image, at unit length; their mean over what is there (nothing is padded) is brought to
unit length again. Meta's evaluation of PE leaves the mean as it is, which moves no ranking of texts for a video and can
move that of videos for a text; vectors here have unit length, so that way is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from harness.embedders.base import Embedder, SeenAsset, unit
from harness.errors import BenchError

GROUNDS = {"black": 0.0, "white": 1.0}
BATCH_FRAMES = 64
"""Frames that go to the image embedder at once."""


class Averaged(Embedder):
    """What `ByFrames` and `ByViews` share: an image embedder, and its texts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def device(self) -> torch.device:
        return self._embedder.device

    def token_count(self, height: int, width: int) -> int:
        return self._embedder.token_count(height, width)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._embedder.embed_texts(texts)

    def _mean(self, pictures: np.ndarray) -> np.ndarray:
        """The unit vector ``[width]`` of uint8 ``[N, H, W, 3]``."""
        total = np.zeros(self.card.width)
        for start in range(0, len(pictures), BATCH_FRAMES):
            # One by one in order: how the sum is cut must not reach its last bit.
            for each in self._embedder.embed_images(list(pictures[start : start + BATCH_FRAMES])):
                total += each
        vector: np.ndarray = unit((total / len(pictures))[None])[0]
        return vector


class ByFrames(Averaged):
    """Videos by their frames."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder)
        card = embedder.card
        self.card = replace(
            card,
            name=f"{card.name}-frames",
            title=f"{card.title}, mean of frames",
            modalities=("video",),
            settings={**card.settings, "clips": "mean of the unit vectors of frames, at unit length"},
        )

    def embed_clips(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([self._mean(clip) for clip in clips])


class ByViews(Averaged):
    """3D assets by the views that the protocol draws, on a black or white ground."""

    def __init__(self, embedder: Embedder, ground: str) -> None:
        super().__init__(embedder)
        card = embedder.card
        self._ground = GROUNDS[ground]
        self.card = replace(
            card,
            name=f"{card.name}-views",
            title=f"{card.title}, mean of views on {ground}",
            modalities=("asset",),
            # The paper prints no row that looks at pictures of an asset.
            paper_row=None,
            settings={**card.settings, "assets": "mean of the unit vectors of views, at unit length", "ground": ground},
        )

    def embed_assets(self, assets: Sequence[SeenAsset]) -> np.ndarray:
        return np.stack([self._mean(asset.views.render(asset.mesh).on(self._ground)) for asset in assets])


def create_frames(argument: str | None, *, device: str, dtype: str, **options: str) -> ByFrames:
    """Factory of ``frames:SPEC``; options are those of SPEC.

    Raises:
        BenchError: no SPEC, or one of an embedder that takes no images.
    """
    return ByFrames(_of_images("frames", argument, device, dtype, options))


def create_views(
    argument: str | None, *, device: str, dtype: str, background: str = "white", **options: str
) -> ByViews:
    """Factory of ``views:SPEC``; further options are those of SPEC.

    Args:
        background: ``white`` or ``black``, what the views lie on.

    Raises:
        BenchError: no SPEC, one of an embedder that takes no images, or another background.
    """
    if background not in GROUNDS:
        raise BenchError(f"--option background={background}: not one of {', '.join(GROUNDS)}")
    return ByViews(_of_images("views", argument, device, dtype, options), background)


def _of_images(word: str, spec: str | None, device: str, dtype: str, options: dict[str, str]) -> Embedder:
    from harness import registry  # the registry knows this module by its entry point, and is not needed by the classes

    if spec is None:
        raise BenchError(f"{word} needs an embedder of images: {word}:SPEC, for example {word}:open_clip:MODEL:FILE")
    embedder = registry.create_embedder(spec, ckpt=None, preset=None, device=device, dtype=dtype, options=options)
    if "image" not in embedder.card.modalities:
        raise BenchError(f"{word}:{spec}: {embedder.card.name} takes no images")
    return embedder
