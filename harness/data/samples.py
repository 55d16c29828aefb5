"""The photographs that every installation has: those inside the scikit-image package.

Chosen by eye from what the wheel ships, so that nothing is downloaded. Left out are what no camera took
(chessboards, colour wheel, horse silhouette, logo, phantom, binary and multipage files), the phase image
``cell`` (computed from a hologram), ``brick`` (a texture warped by a perspective transform),
``microaneurysms`` (one channel of a 102 x 102 detail), ``lfw_subset`` (25 x 25 pixels) and
``motorcycle_right`` (the other eye's view of ``motorcycle_left``, which would count one scene twice).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from harness.data.base import Sample
from harness.data.captioned import CaptionedImages
from harness.data.catalog import DatasetEntry
from harness.data.images import Member
from harness.data.stores import FolderStore, UnreadableError
from harness.errors import BenchError


@dataclass(frozen=True, slots=True)
class Photograph:
    """One photograph.

    Attributes:
        file: its name in scikit-image's data folder, and its id.
        height, width: in pixels.
        sha256: of the file.
        subject: what it shows.
        credit: origin and terms, as scikit-image's documentation states them.
    """

    file: str
    height: int
    width: int
    sha256: str
    subject: str
    credit: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut.png",
        512,
        512,
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "portrait of Eileen Collins",
        "NASA, public domain",
    ),
    Photograph(
        "camera.png",
        512,
        512,
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "man with a film camera, grey",
        "Lav Varshney, CC0",
    ),
    Photograph(
        "chelsea.png",
        300,
        451,
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "a cat",
        "Stéfan van der Walt, CC0",
    ),
    Photograph(
        "clock_motion.png",
        300,
        400,
        "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        "wall clock taken with a moving camera, grey",
        "Stéfan van der Walt, public domain",
    ),
    Photograph(
        "coffee.png",
        400,
        600,
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "cup of coffee",
        "Rachel Michetti, Pikolo Espresso Bar, CC0",
    ),
    Photograph(
        "coins.png",
        303,
        384,
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        "Greek coins from Pompeii, grey",
        "Brooklyn Museum, no known copyright restrictions",
    ),
    Photograph(
        "grass.png",
        512,
        512,
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "grass, grey",
        "linolafett, CC0",
    ),
    Photograph(
        "gravel.png",
        512,
        512,
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "gravel, grey",
        "CC0Textures, CC0",
    ),
    Photograph(
        "hubble_deep_field.jpg",
        872,
        1000,
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "Hubble eXtreme Deep Field",
        "NASA, public domain",
    ),
    Photograph(
        "ihc.png",
        512,
        512,
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        "stained colonic glands under the microscope",
        "Center for Microscopy and Molecular Imaging, no known copyright restrictions",
    ),
    Photograph(
        "moon.png",
        512,
        512,
        "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
        "surface of the moon, grey",
        "scikit-image states no origin",
    ),
    Photograph(
        "motorcycle_left.png",
        500,
        741,
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        "motorcycle in a garage",
        "Middlebury Stereo Datasets 2014 (Scharstein et al.)",
    ),
    Photograph(
        "page.png",
        191,
        384,
        "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
        "scanned page of text, grey",
        "scikit-image states no origin",
    ),
    Photograph(
        "retina.jpg",
        1411,
        1411,
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "human retina",
        "Mikael Häggström, CC0",
    ),
    Photograph(
        "rocket.jpg",
        427,
        640,
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "rocket on its launch pad",
        "SpaceX, public domain",
    ),
    Photograph(
        "text.png",
        172,
        448,
        "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
        "handwriting, grey",
        "Wikipedia, public domain",
    ),
)


def open_samples(entry: DatasetEntry) -> CaptionedImages:
    """The photographs above, each checked against its hash; what one shows is its caption, and a class of its own.

    Raises:
        BenchError: scikit-image is not installed, or ships other files.
    """
    spec = find_spec("skimage")  # its place alone; importing it would take longer than reading the images
    if spec is None or spec.origin is None:
        raise BenchError(
            "samples are the photographs of scikit-image, which is not installed: pip install scikit-image"
        )
    store = FolderStore(Path(spec.origin).parent / "data")
    for photograph in PHOTOGRAPHS:
        try:
            found = hashlib.sha256(store.read(photograph.file)).hexdigest()
        except UnreadableError as error:
            found = str(error)
        if found != photograph.sha256:
            raise BenchError(
                f"samples: {photograph.file} of the installed scikit-image {version('scikit-image')} is not the one "
                f"that figures are compared on ({found}); install scikit-image 0.25 or 0.26 anew"
            )
    members = [Member(Sample(photograph.file, place), photograph.file) for place, photograph in enumerate(PHOTOGRAPHS)]
    captions = {photograph.file: [photograph.subject] for photograph in PHOTOGRAPHS}
    samples = CaptionedImages(entry, store, members, captions)
    samples.class_names = tuple(photograph.subject for photograph in PHOTOGRAPHS)
    return samples
