"""Principal components of patches, and how the stream of a model that starts from them carries coefficients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from atoken.transformer import Block, Decoder, Encoder

__all__ = ["CONSTANT", "Basis", "fit_basis", "norms_of"]

CONSTANT = 60.0
"""Of the constant channels; coefficients in the stream have a standard deviation of 1 or less."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """PCA of patches in [-1, 1].

    Attributes:
        mean: [C], of 768 channels for an image, 768 a frame for a clip.
        components: [C, C], columns by falling variance.
        variances: [C], of the coefficients.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    def std(self, count: int) -> Tensor:
        """[count], of the first coefficients."""
        return self.variances[:count].sqrt()

    def gain(self, count: int) -> Tensor:
        """[count], how large the stream carries each: half whitened, so that no channel is lost in bf16."""
        std = self.std(count)
        return (std / std[0]).sqrt()


def fit_basis(patches: Iterable[np.ndarray]) -> Basis:
    """PCA of patches, float64 [n, C] in [-1, 1], given in parts; a component's largest entry is positive."""
    total: np.ndarray | float = 0.0
    products: np.ndarray | float = 0.0
    count = 0
    for rows in patches:
        total, products, count = total + rows.sum(0), products + rows.T @ rows, count + len(rows)
    mean = total / count
    variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    vectors = vectors[:, ::-1]
    # Eigenvectors have no sign; without a rule it would differ between machines.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    tensors = (mean, vectors * signs, variances[::-1].clip(min=1e-9))
    return Basis(*(torch.from_numpy(np.ascontiguousarray(t, dtype=np.float32)) for t in tensors))


def norms_of(half: Encoder | Decoder) -> list[nn.Module]:
    """The last norm and those of the blocks."""
    last = half.post_layernorm if isinstance(half, Encoder) else half.out_norm
    return [last, *(norm for block in half.blocks if isinstance(block, Block) for norm in (block.norm1, block.norm2))]
