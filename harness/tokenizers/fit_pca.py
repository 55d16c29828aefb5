"""Fits the reference bases on a folder of photographs: PCA of 16x16x3 patches, and the DCT's ranking.

    python -m harness.tokenizers.fit_pca DIR OUT.safetensors

Deterministic: whole patches of every image in the order of the file names, one pass, a covariance
in float64, memory for one image. The shipped ``pca_basis.safetensors`` was made with it from the
training photographs that its metadata names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import scipy.fft
import scipy.linalg
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atoken.errors import ATokenError
from harness.data import open_images
from harness.data.base import SampleError
from harness.errors import BenchError

PATCH = 16
CHANNELS = PATCH * PATCH * 3
SHIPPED_COMPONENTS = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """Statistics of patches in [-1, 1], flattened row, column, channel (channel fastest); of videos frame first.

    Attributes:
        mean: float32 ``[C]``, C = 768 for 16x16 pixels, 3072 for 4 frames of them.
        components: float32 ``[K, C]``, orthonormal rows by falling variance; in each row the entry
            of the largest size is positive, so that two fits agree in sign.
        dct_energy: float32 ``[C]``, mean square of each coefficient of `dct_matrix` (of videos, with time).
        images, clips, patches: what it was fitted on.
        content_sha256: of the files' hashes in order: says on which pixels, not where they lay.
    """

    mean: Tensor
    components: Tensor
    dct_energy: Tensor
    images: int
    patches: int
    content_sha256: str
    clips: int = 0


class Moments:
    """First and second moments of patches ``[n, channels]``, as they come."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._total = torch.zeros(channels, dtype=torch.float64)
        self._second = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, patches: Tensor) -> None:
        """Count float32 patches in."""
        self._total += patches.sum(0, dtype=torch.float64)
        self._second += patches.T @ patches
        self.count += len(patches)

    @property
    def mean(self) -> Tensor:
        """float64 ``[channels]``."""
        return self._total / self.count

    def basis(
        self, components: int, axes: tuple[int, ...], *, images: int, content_sha256: str, clips: int = 0
    ) -> Basis:
        """The principal components, and the energy of each DCT coefficient of patches of shape `axes`."""
        mean, second = self.mean, self._second / self.count
        # Only the components that are wanted: four times as fast as all of them.
        channels = len(mean)
        covariance = (second - torch.outer(mean, mean)).numpy()
        found = scipy.linalg.eigh(covariance, subset_by_index=(channels - components, channels - 1))[1]
        rows = torch.from_numpy(found.T[::-1].copy())
        rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        # The transform of both sides of the second moments: that of the coefficients, their energies its diagonal.
        spectrum = scipy.fft.dctn(second.numpy().reshape(axes + axes), norm="ortho").reshape(channels, channels)
        return Basis(
            mean=mean.float(),
            components=rows.float(),
            dct_energy=torch.from_numpy(spectrum.diagonal().copy()).float(),
            images=images,
            patches=self.count,
            content_sha256=content_sha256,
            clips=clips,
        )


def to_patches(image: Tensor) -> Tensor:
    """``[3, 16 h, 16 w]`` to ``[h * w, 768]``: patches row by row, each flattened as `Basis` says."""
    _, height, width = image.shape
    grid = image.reshape(3, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.permute(1, 3, 2, 4, 0).reshape(-1, CHANNELS)


def from_patches(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Inverse of `to_patches`: ``[rows * columns, 768]`` to ``[3, 16 rows, 16 columns]``."""
    grid = patches.reshape(rows, columns, PATCH, PATCH, 3)
    return grid.permute(4, 0, 2, 1, 3).reshape(3, rows * PATCH, columns * PATCH)


def dct_matrix() -> Tensor:
    """Orthonormal DCT-II over rows, columns and colour: float64 ``[768, 768]``, one function a row.

    The DCT of the three colours is the orthonormal luma-chroma transform (R+G+B)/sqrt(3),
    (R-B)/sqrt(2), (R-2G+B)/sqrt(6). Row (u * 16 + v) * 3 + c has vertical frequency u, horizontal
    frequency v and colour function c.
    """

    axis, colour = dct_axis(PATCH), dct_axis(3)
    return torch.einsum("ux,vy,cd->uvcxyd", axis, axis, colour).reshape(CHANNELS, CHANNELS)


def dct_axis(length: int) -> Tensor:
    """Orthonormal DCT-II of one axis: float64 ``[length, length]``, one function a row."""
    k = torch.arange(length, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * k + 1) * k[:, None] / (2 * length)) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix


def fit(folder: Path, components: int) -> Basis:
    """Fit on every image below `folder`; the right and lower remainders beyond whole patches are left out.

    Raises:
        BenchError: an image cannot be read, or there are fewer patches than components.
    """
    moments, images = Moments(CHANNELS), 0
    content = hashlib.sha256()
    for pixels, sha256 in photographs(folder):
        height, width = (side // PATCH * PATCH for side in pixels.shape[:2])
        image = pixels[:height, :width].permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1)
        moments.add(to_patches(image))
        images += 1
        content.update(bytes.fromhex(sha256))
    if moments.count < components:
        raise BenchError(
            f"{folder}: {images} images hold {moments.count} whole 16x16 patches, too few for {components} components; "
            "add photographs"
        )
    return moments.basis(components, (PATCH, PATCH, 3), images=images, content_sha256=content.hexdigest())


def photographs(folder: Path) -> Iterator[tuple[Tensor, str]]:
    """Every image below `folder`: uint8 ``[H, W, 3]`` and its file's SHA-256."""
    dataset = open_images("folder", folder)
    for index in range(len(dataset)):
        try:
            decoded = dataset.read(index)
        except SampleError as error:
            raise BenchError(f"{folder}: {error}; mend or remove it, a basis of fewer images is another one") from None
        yield torch.tensor(decoded.pixels), decoded.sha256


def save(basis: Basis, path: Path) -> None:
    """Write a basis. Components are stored in float16: below 0.001 dB apart for all 96 of them."""
    tensors = {
        "mean": basis.mean,
        "components": basis.components.half().contiguous(),
        "dct_energy": basis.dct_energy.contiguous(),
    }
    facts = {"images": basis.images, "patches": basis.patches, "content_sha256": basis.content_sha256}
    if basis.clips:
        facts["clips"] = basis.clips
    save_file(tensors, path, metadata={"fit_pca": json.dumps(facts)})


def load(path: Path) -> Basis:
    """Read what `save` wrote.

    Raises:
        BenchError: not a basis, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["fit_pca"])
            tensors = {name: file.get_tensor(name).float() for name in ("mean", "components", "dct_energy")}
    except Exception as error:  # safetensors raises its own kinds, and OSError, KeyError, JSON errors
        raise BenchError(f"{path}: not a basis written by harness.tokenizers.fit_pca: {error}") from None
    return Basis(**tensors, **facts)


def main(arguments: list[str] | None = None) -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m harness.tokenizers.fit_pca", description=__doc__)
    parser.add_argument("folder", type=Path, help="photographs to fit on")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--components", type=int, default=SHIPPED_COMPONENTS, help="default %(default)s")
    given = parser.parse_args(arguments)
    if not 1 <= given.components <= CHANNELS:
        parser.error(f"--components {given.components}: give 1 to {CHANNELS}")
    try:
        basis = fit(given.folder, given.components)
        save(basis, given.out)
    except (ATokenError, OSError) as error:
        sys.exit(str(error))
    sha256 = hashlib.sha256(given.out.read_bytes()).hexdigest()
    print(f"{given.out}: {given.components} components of {basis.patches} patches, {basis.images} images")
    print(f"sha256 {sha256}")


if __name__ == "__main__":
    main()
