"""Clips made of photographs, where clips are few: `atoken.training.data.moving` over any source of images."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from atoken.training.data.source import ClipRequest, ClipSource, ImageSource, PassedOverError, fingerprint_of

__all__ = ["MovingImages"]

FRAMES, RATE = 256, Fraction(24)
"""A motion lasts as long as a usual shot; reflections fill what lies outside of the photograph."""


class MovingImages(ClipSource):
    """A clip of each image, with its caption; another motion each time it is drawn."""

    def __init__(self, images: ImageSource) -> None:
        self.name = f"moving:{images.name}"
        self.fingerprint = fingerprint_of(["moving", images.fingerprint])
        self.captioned = images.captioned
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def sample_id(self, index: int) -> str:
        return f"moving:{self._images.sample_id(index)}"

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return self._images.caption(index, rng)

    def texts(self) -> Iterator[str]:
        return self._images.texts()

    def clip(self, index: int, request: ClipRequest) -> np.ndarray:
        """A square clip of the wanted side; images that are smaller are passed over."""
        import torch

        from atoken.training.data.moving import moving_clip

        photo = self._images.image(index)
        side = request.side
        if min(photo.shape[:2]) < side:
            raise PassedOverError(f"{photo.shape[1]}x{photo.shape[0]} pixels, needs {side} on each side")
        numbers = request.frames(FRAMES, RATE)
        stride = (numbers[-1] - numbers[0]) / max(len(numbers) - 1, 1)
        random = torch.Generator().manual_seed(int(request.rng.integers(2**63)))
        pixels = torch.from_numpy(photo if photo.flags.writeable else photo.copy())
        return moving_clip(pixels, frames=len(numbers), side=side, random=random, stride=stride).numpy()
