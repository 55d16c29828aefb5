"""Images: loose files of a folder, and decoded ones in memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import numpy as np

from atoken.media import MediaError, is_image, read_image
from atoken.training.data.folders import FolderCaptions, files_below
from atoken.training.data.source import ImageSource, SampleError, fingerprint_of
from atoken.training.errors import TrainingError

__all__ = ["DecodedImages", "ImageFolder", "decode", "decoded"]


class ImageFolder(ImageSource):
    """Every image below a folder."""

    def __init__(self, folder: Path) -> None:
        """List the folder.

        Raises:
            TrainingError: no such folder, no image in it, or a caption file that cannot be used.
        """
        files = files_below(folder)
        self.name, self._folder = str(folder), folder
        self._files = [name for name, _ in files if is_image(name)]
        if not self._files:
            raise TrainingError(f"{folder}: holds no image")
        self._captions = FolderCaptions.of(folder, self._files, files)
        self.captioned = bool(self._captions)
        kept = set(self._files)
        self.fingerprint = fingerprint_of(
            [*((name, size) for name, size in files if name in kept), sorted(self._captions.listed.items())]
        )

    def __len__(self) -> int:
        return len(self._files)

    def sample_id(self, index: int) -> str:
        return f"{self.name}/{self._files[index]}"

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return self._captions.caption(self._files[index], rng)

    def texts(self) -> Iterator[str]:
        return self._captions.texts()

    def image(self, index: int) -> np.ndarray:
        return decode(self._folder / self._files[index])


def decode(source: Path | bytes) -> np.ndarray:
    """`read_image` whose error says the reason alone.

    Raises:
        SampleError: see there.
    """
    try:
        return read_image(source)
    except MediaError as error:
        name = str(source) if isinstance(source, Path) else "image"
        raise SampleError(str(error).removeprefix(f"{name}: ")) from None


class DecodedImages(ImageSource):
    """The images of another source, held in memory; processes that are forked share them."""

    def __init__(self, source: ImageSource, images: list[np.ndarray | str]) -> None:
        """Of `source`, its images; a text where one could not be decoded, the reason."""
        self.name, self.fingerprint, self.captioned = source.name, source.fingerprint, source.captioned
        self._source, self._images = source, images

    def __len__(self) -> int:
        return len(self._images)

    def sample_id(self, index: int) -> str:
        return self._source.sample_id(index)

    def caption(self, index: int, rng: np.random.Generator) -> str | None:
        return self._source.caption(index, rng)

    def texts(self) -> Iterator[str]:
        return self._source.texts()

    def image(self, index: int) -> np.ndarray:
        image = self._images[index]
        if isinstance(image, str):
            raise SampleError(image)
        return image


_PROBES = 32
"""Images of which the size of all is told."""


def decoded(source: ImageSource, limit: int) -> tuple[ImageSource, int]:
    """The source with its images in memory, if these are fewer than `limit` bytes; and how many bytes.

    Else the source as it was, and 0.
    """
    places = np.linspace(0, len(source) - 1, min(len(source), _PROBES)).astype(int)
    sizes = [0 if isinstance(image := _image(source, int(place)), str) else image.nbytes for place in places]
    if np.mean(sizes) * len(source) > limit:
        return source, 0
    images: list[np.ndarray | str] = []
    total = 0
    # Decoders let go of the interpreter's lock.
    with ThreadPoolExecutor(min(8, cpu_count() or 1)) as pool:
        for start in range(0, len(source), 1024):
            block = range(start, min(start + 1024, len(source)))
            images += pool.map(lambda index: _image(source, index), block)
            total += sum(image.nbytes for image in images[start:] if not isinstance(image, str))
            if total > limit:
                return source, 0
    return DecodedImages(source, images), total


def _image(source: ImageSource, index: int) -> np.ndarray | str:
    try:
        return source.image(index)
    except SampleError as error:
        return str(error)
