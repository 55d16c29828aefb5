"""Linear reference rows of videos: K numbers per 4x16x16x3 patch, the patch and latent size of AToken.

``dct3d:K`` keeps the K fixed DCT coefficients of the highest mean energy, ``pca3d:K`` the first K principal
components, both of the patches that `harness.tokenizers.fit_pca3d` tells of; see `harness.tokenizers.linear` for
why the DCT's choice is one for all patches. Both compute in float32 whatever the run's dtype.

Four frames are held at a time: at 1920x1080 some 0.6 GB with the patches before and after.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from harness.data.base import ClipShape
from harness.data.prepare import to_unit_range
from harness.errors import BenchError
from harness.plan import slug
from harness.tokenizers.arguments import whole_number
from harness.tokenizers.base import LatentMode, TokenizerCard
from harness.tokenizers.clip_blocks import regrouped
from harness.tokenizers.fit_pca import PATCH, Basis, load
from harness.tokenizers.fit_pca3d import CHANNELS, FRAMES, Material, dct_matrix, fit, from_patches, to_patches
from harness.tokenizers.linear import reflected
from harness.tokenizers.video import EncodedPart, VideoTokenizer

SHIPPED = Path(__file__).with_name("pca3d_basis.safetensors")


class LinearVideo(VideoTokenizer):
    """Orthonormal projection of patches of 4 frames.

    The last group is completed by repeating its last frame, sides by reflection; both are cut again.

    Args:
        mean: float32 ``[3072]``, subtracted before and added after.
        rows: float32 ``[K, 3072]``, orthonormal.
    """

    def __init__(self, card: TokenizerCard, *, mean: Tensor, rows: Tensor, device: str) -> None:
        self.card = card
        self._device = torch.device(device)
        self._mean = mean.to(self._device)
        self._rows = rows.to(self._device)

    @property
    def device(self) -> torch.device:
        return self._device

    def encode_clip(
        self,
        frames: Iterator[Tensor],
        shape: ClipShape,  # noqa: ARG002 - the frames say it
        *,
        latent: LatentMode,  # noqa: ARG002 - a projection has nothing to sample
        seed: int,  # noqa: ARG002
    ) -> Iterator[EncodedPart]:
        for group in regrouped(frames, FRAMES):
            full = torch.cat([group, group[-1:].expand(FRAMES - len(group), -1, -1, -1)])
            patches = to_patches(to_unit_range(reflected(full, (1, 2), PATCH)))
            latents = (patches - self._mean) @ self._rows.T
            yield EncodedPart(payload=(latents, len(group)), tokens=len(latents))

    def decode_clip(self, parts: Iterator[EncodedPart], shape: ClipShape) -> Iterator[Tensor]:
        rows, columns = -(-shape.height // PATCH), -(-shape.width // PATCH)
        for part in parts:
            latents, count = part.payload
            group = from_patches(latents @ self._rows + self._mean, rows, columns)
            yield group[:count, : shape.height, : shape.width]


@functools.cache
def _shipped() -> tuple[Basis, str]:
    """The shipped basis and the SHA-256 of its file."""
    return load(SHIPPED), hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def _card(name: str, title: str, latent_size: int, source: str, **settings: object) -> TokenizerCard:
    return TokenizerCard(
        name=name,
        title=title,
        modalities=("video",),
        token_type="transform",
        compression=(FRAMES, PATCH, PATCH),
        latent_size=latent_size,
        frames=(FRAMES, 0),
        tile=(FRAMES, PATCH, PATCH),
        source=source,
        settings={"arithmetic": "float32", "padding": "reflect; last frame repeated", **settings},
    )


def _material(basis: Basis) -> str:
    return (
        f"{basis.patches} patches of {basis.clips} clips (from OpenCV, imageio and Gradio) and of {basis.images} "
        "photographs (ImageNet, BSDS500 and COCO samples) in synthetic motion"
    )


def create_dct3d(argument: str | None, *, device: str, dtype: str) -> LinearVideo:  # noqa: ARG001
    """Factory of ``dct3d:K``, K from 1 to 3072.

    Raises:
        BenchError: no K, or one out of range.
    """
    count = whole_number("dct3d", "number of coefficients", argument, 1, CHANNELS)
    basis, sha256 = _shipped()
    kept = basis.dct_energy.argsort(descending=True, stable=True)[:count]
    card = _card(
        f"dct3d-{count}",
        f"3D DCT, {count} coefficients",
        count,
        f"no model: fixed coefficients, ranked by their energy on {_material(basis)}",
        ranking_sha256=sha256,
    )
    return LinearVideo(card, mean=torch.zeros(CHANNELS), rows=dct_matrix()[kept].float(), device=device)


def create_pca3d(argument: str | None, *, device: str, dtype: str) -> LinearVideo:  # noqa: ARG001
    """Factory of ``pca3d:K`` (the shipped basis) and ``pca3d:K@FOLDER`` (fitted on a folder of clips here and now).

    Raises:
        BenchError: no K, one that the basis does not hold, or a folder that cannot be fitted on.
    """
    number, separator, folder = (argument or "").partition("@")
    count = whole_number("pca3d", "number of components", number or None, 1, CHANNELS)
    if separator:
        basis, path = fit(Material(clips=[Path(folder)]), count), Path(folder).resolve()
        card = _card(
            slug(f"pca3d-{count}-{path.name}"),
            f"3D PCA of {path.name}, {count} components",
            count,
            f"fitted on {basis.patches} patches of {basis.clips} clips of the user's",
            basis_content_sha256=basis.content_sha256,
        )
    else:
        basis, sha256 = _shipped()
        if count > len(basis.components):
            raise BenchError(
                f"pca3d:{count}: the shipped basis has {len(basis.components)} components; "
                f"fit your own with pca3d:{count}@FOLDER"
            )
        card = _card(
            f"pca3d-{count}",
            f"3D PCA, {count} components",
            count,
            f"fitted on {_material(basis)}",
            basis_sha256=sha256,
        )
    return LinearVideo(card, mean=basis.mean, rows=basis.components[:count], device=device)
