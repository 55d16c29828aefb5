"""Fits the reference bases of videos: PCA of 4x16x16x3 patches, and the ranking of their DCT.

    python -m harness.tokenizers.fit_pca3d OUT.safetensors --clips CLIP... --photos DIR

The shipped ``pca3d_basis.safetensors`` was made with it from three clips that no experiment measures (``tree.avi``
of OpenCV, ``imageio_realshort.mp4`` of imageio, ``gradio_world.mp4`` of Gradio), each at full and at half size, and
from the training photographs of the image basis, each set in motion twice (`atoken.training.data.moving`).
Three clips are few: most of the patches are of the photographs, whose motion is an assumption.

Deterministic for one seed: at most 8,192 patches of each clip, evenly over its length, one pass, a covariance in
float64, memory for one clip's patches.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.errors import ATokenError
from atoken.training.data.moving import moving_clip
from atoken.video import open_video
from harness.data import open_clips
from harness.data.base import Clip, ClipShape, SampleError
from harness.data.fingerprint import clip_sha256
from harness.errors import BenchError
from harness.tokenizers.clip_blocks import regrouped
from harness.tokenizers.codecs import spread
from harness.tokenizers.fit_pca import PATCH, SHIPPED_COMPONENTS, Basis, Moments, dct_axis, photographs, save

FRAMES = 4
CHANNELS = FRAMES * PATCH * PATCH * 3
GROUP_PATCHES = 64
CLIP_PATCHES = 8192
BATCH_PATCHES = 2048
# A photograph of 256 pixels at half size and a margin to move in; 49 patches.
MOVING_SIDE = 112
MOVING_CLIPS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What is fitted on.

    Attributes:
        clips: video files, and folders of them.
        photos: a folder of photographs to set in motion; None for none.
        halved: take each clip at half size too.
        seed: of the choice of patches and of the motion.
    """

    clips: Sequence[Path]
    photos: Path | None = None
    halved: bool = False
    seed: int = 0


def to_patches(group: Tensor) -> Tensor:
    """``[4, 16 h, 16 w, 3]`` to ``[h * w, 3072]``: patches row by row, flattened frame, row, column, channel."""
    _, height, width, _ = group.shape
    grid = group.reshape(FRAMES, height // PATCH, PATCH, width // PATCH, PATCH, 3)
    return grid.permute(1, 3, 0, 2, 4, 5).reshape(-1, CHANNELS)


def from_patches(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Inverse of `to_patches`: ``[rows * columns, 3072]`` to ``[4, 16 rows, 16 columns, 3]``."""
    grid = patches.reshape(rows, columns, FRAMES, PATCH, PATCH, 3)
    return grid.permute(2, 0, 3, 1, 4, 5).reshape(FRAMES, rows * PATCH, columns * PATCH, 3)


def dct_matrix() -> Tensor:
    """Orthonormal DCT-II over frames, rows, columns and colour: float64 ``[3072, 3072]``, one function a row.

    Row ``((s * 16 + u) * 16 + v) * 3 + c`` has temporal frequency s; the others as in `fit_pca.dct_matrix`.
    """
    time, space, colour = dct_axis(FRAMES), dct_axis(PATCH), dct_axis(3)
    return torch.einsum("st,ux,vy,cd->suvctxyd", time, space, space, colour).reshape(CHANNELS, CHANNELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """Moments of a `Material`, how many clips and photographs they are of, and the hash of their hashes."""

    moments: Moments
    clips: int
    images: int
    content_sha256: str


def collect(material: Material) -> Collected:
    """Read everything; remainders beyond whole patches are left out.

    Raises:
        BenchError: a clip or photograph that cannot be read.
    """
    moments = Moments(CHANNELS)
    clips: list[str] = []
    photos: list[str] = []
    try:
        for clip in _clips(material.clips):
            clips.append(clip.sha256)
            for halved in (False, True) if material.halved else (False,):
                random = torch.Generator().manual_seed(material.seed + len(clips))
                _add(moments, map(torch.from_numpy, _chosen(_groups(clip, halved), random)))
    except SampleError as error:
        raise BenchError(f"{error}; mend or remove it, a basis of fewer clips is another one") from None
    if material.photos is not None:
        _add(moments, _moving(material.photos, material.seed, photos))
    content = hashlib.sha256(bytes.fromhex("".join(clips + photos))).hexdigest()
    return Collected(moments=moments, clips=len(clips), images=len(photos), content_sha256=content)


def fit(material: Material, components: int) -> Basis:
    """Fit on clips and photographs.

    Raises:
        BenchError: as `collect`, or fewer patches than components.
    """
    found = collect(material)
    if found.moments.count < components:
        where = ", ".join(map(str, material.clips))
        raise BenchError(
            f"{where}: {found.clips} clips hold {found.moments.count} whole 4x16x16 patches, too few for {components} "
            "components; add clips"
        )
    return found.moments.basis(
        components,
        (FRAMES, PATCH, PATCH, 3),
        images=found.images,
        clips=found.clips,
        content_sha256=found.content_sha256,
    )


def _add(moments: Moments, patches: Iterable[Tensor]) -> None:
    # In thousands: the product of a few patches costs as much as reading the whole matrix.
    for batch in regrouped(patches, BATCH_PATCHES):
        moments.add(batch.to(torch.float32).div_(127.5).sub_(1))


def _moving(folder: Path, seed: int, seen: list[str]) -> Iterator[Tensor]:
    """Patches of the photographs in motion; `seen` gets their hashes."""
    for photo, sha256 in photographs(folder):
        random = torch.Generator().manual_seed(seed + len(seen))
        seen.append(sha256)
        for _ in range(MOVING_CLIPS):
            yield to_patches(moving_clip(photo, frames=FRAMES, side=MOVING_SIDE, random=random))


def _clips(paths: Iterable[Path]) -> Iterator[Clip]:
    for path in paths:
        if path.is_dir():
            dataset = open_clips("folder", path)
            yield from map(dataset.open, range(len(dataset)))
        else:
            video = open_video(path)
            shape = ClipShape(height=video.info.height, width=video.info.width, rate=video.info.rate)
            yield Clip(shape=shape, sha256=clip_sha256(path), blocks=video.blocks)


def _groups(clip: Clip, halved: bool) -> Iterator[Tensor]:
    """Whole groups of 4 frames, cut to whole patches: uint8 ``[4, 16 h, 16 w, 3]``."""
    for block in clip.blocks(FRAMES):
        frames = torch.from_numpy(block)
        if halved:
            frames = F.avg_pool2d(frames.permute(0, 3, 1, 2).float(), 2).round().byte().permute(0, 2, 3, 1)
        height, width = (side // PATCH * PATCH for side in frames.shape[1:3])
        if len(frames) == FRAMES and height and width:
            yield frames[:, :height, :width]


def _chosen(groups: Iterable[Tensor], random: torch.Generator) -> list[np.ndarray]:
    """At most `GROUP_PATCHES` of a group, at random, and of a long clip every 2nd (4th, ...) group."""

    def some() -> Iterator[np.ndarray]:
        for group in groups:
            patches = to_patches(group)
            chosen = torch.randperm(len(patches), generator=random)[:GROUP_PATCHES]
            yield patches[chosen].numpy()

    return spread(some(), CLIP_PATCHES * CHANNELS)[0]


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m harness.tokenizers.fit_pca3d", description=__doc__)
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="video files and folders of them")
    parser.add_argument("--photos", type=Path, help="photographs to set in motion")
    parser.add_argument("--full-size-only", action="store_true", help="leave out the clips at half size")
    parser.add_argument("--components", type=int, default=SHIPPED_COMPONENTS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    given = parser.parse_args(arguments)
    if not 1 <= given.components <= CHANNELS:
        parser.error(f"--components {given.components}: give 1 to {CHANNELS}")
    material = Material(clips=given.clips, photos=given.photos, halved=not given.full_size_only, seed=given.seed)
    try:
        basis = fit(material, given.components)
        save(basis, given.out)
    except (ATokenError, OSError) as error:
        sys.exit(str(error))
    sha256 = hashlib.sha256(given.out.read_bytes()).hexdigest()
    print(
        f"{given.out}: {given.components} components of {basis.patches} patches, "
        f"{basis.clips} clips and {basis.images} photographs"
    )
    print(f"sha256 {sha256}")


if __name__ == "__main__":
    main()
