"""What every source of samples has, and what is asked of one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from atoken.training.data.prepared import Prepared

__all__ = [
    "AssetSource",
    "ClipRequest",
    "ClipSource",
    "ImageSource",
    "Modality",
    "PassedOverError",
    "SampleError",
    "Source",
    "fingerprint_of",
]

Modality = Literal["images", "videos", "assets"]


class SampleError(Exception):
    """A sample that cannot be used as it is; the message is the reason alone. Another is drawn in its place."""


class PassedOverError(SampleError):
    """A sample that is sound, but not what a step is looking for; another is drawn, and nobody need be told."""


class Source(ABC):
    """Samples of one modality in one place, in an order that the place alone decides.

    Attributes:
        name: the place, as it was given.
        fingerprint: SHA-256 of names, sizes and captions: what a resumed run must find again. Contents are not read
            for it.
        captioned: whether any sample has a caption.
    """

    name: str
    fingerprint: str
    captioned: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name of a sample, for messages."""

    @abstractmethod
    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        """What the sample shows, or None; drawn where there are several.

        Raises:
            SampleError: the caption cannot be read.
        """

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Every caption that can be drawn, in order."""


class ImageSource(Source):
    """A source of images."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """Pixels of an image, uint8 RGB [H, W, 3]; not to be written to.

        Raises:
            SampleError: it cannot be decoded.
        """


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """Which frames of a clip are wanted.

    Attributes:
        frames: given how many frames a clip has and how many it shows a second, the numbers of those wanted, rising.
            Raises SampleError where the clip is too short.
        side: of the square that will be cut from the frames, in pixels, for sources that make their clips.
        rng: of the sample.
    """

    frames: Callable[[int, Fraction], list[int]]
    side: int
    rng: np.random.Generator


class ClipSource(Source):
    """A source of clips."""

    @abstractmethod
    def clip(self, index: int, request: ClipRequest) -> np.ndarray:
        """The wanted frames, uint8 RGB [T, H, W, 3]; not to be written to.

        Raises:
            SampleError: the clip is too short or cannot be decoded.
        """


class AssetSource(Source):
    """A source of 3D assets."""

    def check_pictures(self, count: int, size: int) -> None:
        """Refuse, before the first step, a task that wants other pictures than there are.

        Raises:
            TrainingError: an asset has fewer than `count`, or of a side that is no multiple of `size`; names it.
        """

    @abstractmethod
    def asset(self, index: int) -> Prepared:
        """An asset with its pictures.

        Raises:
            SampleError: it cannot be read.
        """


def fingerprint_of(parts: Iterable[object]) -> str:
    """SHA-256 of the representations of plain values, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()
