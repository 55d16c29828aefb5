"""Linear reference rows at the latent size of a learned tokenizer: K numbers per 16x16x3 patch.

``dct:K`` keeps K fixed DCT coefficients, ``pca:K`` the first K principal components. Which
coefficients the DCT keeps is fixed for all patches: those of the highest mean energy on the
photographs that the shipped PCA was fitted on. Picking each patch's own best K would keep more
energy, but the positions are information too (48 of 768 positions take some 260 bits a patch), so K
would no longer be the size of the latent that it is compared with.

Both compute in float32 whatever the run's dtype: a reference row must not move with an option that
is meant for models.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import BenchError
from harness.plan import slug
from harness.tokenizers.arguments import whole_number
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard
from harness.tokenizers.fit_pca import CHANNELS, PATCH, Basis, dct_matrix, fit, from_patches, load, to_patches

SHIPPED = Path(__file__).with_name("pca_basis.safetensors")


class Linear(Tokenizer):
    """Orthonormal projection of patches; sides that are no multiples of 16 are padded by reflection and cropped back.

    Args:
        mean: float32 ``[768]``, subtracted before and added after.
        rows: float32 ``[K, 768]``, orthonormal.
    """

    def __init__(self, card: TokenizerCard, *, mean: Tensor, rows: Tensor, device: str) -> None:
        self.card = card
        self._device = torch.device(device)
        self._mean = mean.to(self._device)
        self._rows = rows.to(self._device)

    @property
    def device(self) -> torch.device:
        return self._device

    def encode(
        self,
        images: Sequence[Tensor],
        *,
        latent: LatentMode,  # noqa: ARG002 - a projection has nothing to sample
        seeds: Sequence[int],  # noqa: ARG002
    ) -> Encoded:
        # One product per image: in a joint one the last bits would depend on the batch's size.
        latents = [(to_patches(reflected(x, (1, 2), PATCH)) - self._mean) @ self._rows.T for x in images]
        sizes = [(x.shape[1], x.shape[2]) for x in images]
        return Encoded(payload=(latents, sizes), tokens=[len(z) for z in latents])

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [
            from_patches(z @ self._rows + self._mean, -(-height // PATCH), -(-width // PATCH))[:, :height, :width]
            for z, (height, width) in zip(*encoded.payload, strict=True)
        ]


def reflected(pixels: Tensor, dims: Sequence[int], step: int) -> Tensor:
    """Reflect at the far edge of each dimension up to a multiple of `step`, as often as it takes."""
    for dim in dims:
        side = pixels.shape[dim]
        if side % step:
            # A triangle wave over the indices: also right for a side shorter than what it is padded by.
            index = torch.arange(-(-side // step) * step, device=pixels.device) % max(1, 2 * (side - 1))
            pixels = pixels.index_select(dim, torch.minimum(index, 2 * (side - 1) - index))
    return pixels


@functools.cache
def _shipped() -> tuple[Basis, str]:
    """The shipped basis and the SHA-256 of its file."""
    return load(SHIPPED), hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def _card(name: str, title: str, latent_size: int, source: str, **settings: object) -> TokenizerCard:
    return TokenizerCard(
        name=name,
        title=title,
        token_type="transform",
        compression=(1, PATCH, PATCH),
        latent_size=latent_size,
        source=source,
        settings={"arithmetic": "float32", "padding": "reflect", **settings},
    )


def create_dct(argument: str | None, *, device: str, dtype: str) -> Linear:  # noqa: ARG001
    """Factory of ``dct:K``, K from 1 to 768.

    Raises:
        BenchError: no K, or one out of range.
    """
    count = whole_number("dct", "number of coefficients", argument, 1, CHANNELS)
    basis, sha256 = _shipped()
    kept = basis.dct_energy.argsort(descending=True, stable=True)[:count]
    card = _card(
        f"dct-{count}",
        f"DCT, {count} coefficients",
        count,
        f"no model: fixed coefficients, ranked by their energy on {basis.images} photographs",
        ranking_sha256=sha256,
    )
    return Linear(card, mean=torch.zeros(CHANNELS), rows=dct_matrix()[kept].float(), device=device)


def create_pca(argument: str | None, *, device: str, dtype: str) -> Linear:  # noqa: ARG001
    """Factory of ``pca:K`` (the shipped basis) and ``pca:K@FOLDER`` (fitted on a folder of images here and now).

    Raises:
        BenchError: no K, one that the basis does not hold, or a folder that cannot be fitted on.
    """
    number, separator, folder = (argument or "").partition("@")
    count = whole_number("pca", "number of components", number or None, 1, CHANNELS)
    if separator:
        basis, path = fit(Path(folder), count), Path(folder).resolve()
        card = _card(
            slug(f"pca-{count}-{path.name}"),
            f"PCA of {path.name}, {count} components",
            count,
            f"fitted on {basis.patches} patches of {basis.images} images of the user's",
            basis_content_sha256=basis.content_sha256,
        )
    else:
        basis, sha256 = _shipped()
        if count > len(basis.components):
            raise BenchError(
                f"pca:{count}: the shipped basis has {len(basis.components)} components; "
                f"fit your own with pca:{count}@FOLDER"
            )
        card = _card(
            f"pca-{count}",
            f"PCA, {count} components",
            count,
            f"fitted on {basis.patches} patches of {basis.images} photographs (ImageNet, BSDS500 and COCO samples)",
            basis_sha256=sha256,
        )
    return Linear(card, mean=basis.mean, rows=basis.components[:count], device=device)
