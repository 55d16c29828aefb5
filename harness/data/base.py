"""What a dataset is to the harness: an ordered list of samples that can be read one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Sample:
    """One image (video, asset) of a dataset.

    ``id`` is stable and unique in its dataset: the path below the dataset's root in POSIX form.
    """

    id: str
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample as it was read.

    Attributes:
        pixels: uint8 ``[H, W, 3]``, RGB, orientation applied.
        sha256: of the stored bytes (the file as it lies in the folder, tar or zip).
    """

    pixels: np.ndarray
    sha256: str


class SampleError(Exception):
    """One sample cannot be read. The run names it, counts it and goes on."""

    def __init__(self, sample_id: str, reason: str) -> None:
        super().__init__(f"{sample_id}: {reason}")
        self.sample_id = sample_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        # Worker processes send it back; the default would call __init__ with one argument.
        return type(self), (self.sample_id, self.reason)


class Dataset(ABC):
    """An ordered list of samples. Picklable: worker processes get a copy and open files lazily.

    Attributes:
        name: registry name, e.g. ``imagenet-val``.
        title: as a reader sees it, e.g. ``ImageNet-1k val``.
        expected: the official number of samples; ``None`` where none is fixed (any folder).
        credits: source and licence, one line.
    """

    name: str
    title: str
    expected: int | None
    credits: str

    @property
    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """In a fixed order that depends on the content alone (sorted by id)."""

    @abstractmethod
    def read(self, index: int) -> Decoded:
        """Decode one sample.

        Raises:
            SampleError: the bytes are broken, truncated or of an unsupported kind.
        """

    def stamp(self, index: int) -> str:
        """Cheap to get, and the same for every copy: the size of the stored file (a zip's CRC, ...).

        Part of what a shard depends on: a sample whose stamp has changed under its name is measured again.
        """
        del index
        return ""

    def __len__(self) -> int:
        return len(self.samples)
