"""What a dataset is to the harness: an ordered list of samples that can be read one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from harness.experiment import Modality

if TYPE_CHECKING:
    from atoken.assets.mesh import Mesh
    from atoken.video.colour import Colour


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, video or asset of a dataset.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipShape:
    """What holds for every frame of a clip.

    Attributes:
        height, width: in pixels, upright.
        rate: average frames per second.
    """

    height: int
    width: int
    rate: Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video that was opened: what is known before its frames are decoded, and the frames.

    Attributes:
        shape: size and rate.
        sha256: of what is stored (see `harness.data.fingerprint.clip_sha256`).
        blocks: given a size, the frames as uint8 RGB ``[n, H, W, 3]``, n that size but for the last block; each
            call decodes anew, and reads no further than it is asked to. Raises `SampleError` where the file breaks.
        ffmpeg_blocks: the same, with the colours that ffmpeg gives when nothing is asked of it (see
            `atoken.video.colour`); None where there is no difference, as for images of a folder.
        by_number: given a colour (see there), its frames by their numbers, without decoding all of them; None where
            the clip's form has no quicker way than to go through it. Raises `SampleError` where the file breaks.
    """

    shape: ClipShape
    sha256: str
    blocks: Callable[[int], Iterator[np.ndarray]]
    ffmpeg_blocks: Callable[[int], Iterator[np.ndarray]] | None = None
    by_number: Callable[[Colour], NumberedFrames] | None = None


class NumberedFrames(Protocol):
    """The frames of a clip by number, from 0 on."""

    def __len__(self) -> int:
        """How many there are."""

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """Some of them, uint8 RGB ``[n, H, W, 3]``; `numbers` rise.

        Raises:
            SampleError: the file breaks.
        """


@dataclass(frozen=True, slots=True)
class Model:
    """A 3D asset that was read.

    Attributes:
        mesh: in the unit cube, z up.
        sha256: of everything of it that can be seen (`Mesh.content_hash`): a model is spread over several files,
            and may share them with others.
    """

    mesh: Mesh
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
        modality: what its samples are.
        name: registry name, e.g. ``imagenet-val``.
        title: as a reader sees it, e.g. ``ImageNet-1k val``.
        expected: the official number of samples; ``None`` where none is fixed (any folder).
        credits: source and licence, one line.
        notes: what a reader of ``data check`` should know of this copy, one line each.
        captions: of each sample, in the order of `samples`, one text or several; None where the set has none.
        class_names: what a label means, by label; None where the set does not say it.
    """

    modality: ClassVar[Modality]
    name: str
    title: str
    expected: int | None
    credits: str
    notes: tuple[str, ...] = ()
    captions: Sequence[Sequence[str]] | None = None
    class_names: Sequence[str] | None = None

    @property
    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """In a fixed order that depends on the content alone (sorted by id)."""

    def official_ids(self) -> Sequence[str] | None:
        """The ids that a complete copy has; None where no list of them is known."""
        return None

    def id_of(self, entry: str) -> str:
        """The id that an entry of a list of samples means (see `harness.data.subsets`): itself, unless the lists
        that go round for this set write it otherwise."""
        return entry

    def may_have(self, sample_id: str) -> bool:
        """Whether another copy could hold this id, where its form says so and no list of all ids is known."""
        del sample_id
        return False

    def stamp(self, index: int) -> str:
        """Cheap to get, and the same for every copy: the size of the stored file (a zip's CRC, ...).

        Part of what a shard depends on: a sample whose stamp has changed under its name is measured again.
        """
        del index
        return ""

    def __len__(self) -> int:
        return len(self.samples)


class ImageSource(Dataset):
    """A dataset of images."""

    modality = "image"

    @abstractmethod
    def read(self, index: int) -> Decoded:
        """Decode one sample.

        Raises:
            SampleError: the bytes are broken, truncated or of an unsupported kind.
        """


class ClipSource(Dataset):
    """A dataset of videos."""

    modality = "video"

    @abstractmethod
    def open(self, index: int) -> Clip:
        """Open one sample; its frames are decoded as they are asked for.

        Raises:
            SampleError: no video there, or a header that cannot be read.
        """


class AssetSource(Dataset):
    """A dataset of 3D assets."""

    modality = "asset"

    @abstractmethod
    def open(self, index: int) -> Model:
        """Read one sample.

        Raises:
            SampleError: not a mesh that can be rendered.
        """
