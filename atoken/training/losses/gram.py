"""The Gram loss (eq. 5) in three forms, since the paper states neither network nor scale (PROTOCOLS 11.4).

F is a feature map as a matrix [C, H * W]. Per image and summed over the five maps of `VGG16Trunk`:

- G1, eq. 5 as printed, with the commonest scale: sum over C x C of squared differences of G = F F^T / (C H W).
- G2: the same sum, F normalised over channels as in LPIPS, and G = F F^T / (H W).
- G3, of NVIDIA's Cosmos tokenizers: mean over C x C, G = F F^T / (H W), the maps weighed by `COSMOS_LAYERS`. Cosmos
  multiplies it by 0.062: the recipe's weight of 1e3 belongs to the other two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from atoken.training.losses.precision import no_autocast, widened
from atoken.training.losses.unit import unit_channels

__all__ = ["COSMOS_LAYERS", "GramForm", "gram_from"]

GramForm = Literal["G1", "G2", "G3"]

COSMOS_LAYERS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
"""Weights of relu1_2 to relu5_3 in Cosmos (cosmos-predict1, tokenizer training)."""


def gram_from(rebuilt: Sequence[Tensor], original: Sequence[Tensor], form: GramForm) -> Tensor:
    """Gram loss of each pair of images: [N] float32, also under autocast.

    Args:
        rebuilt, original: the five maps of both, [N, C, H, W] each, not normalised.
        form: see the module.
    """
    if form not in get_args(GramForm):
        raise ValueError(f"no form {form!r} of the Gram loss; there are {', '.join(get_args(GramForm))}")
    layers = COSMOS_LAYERS if form == "G3" else (1.0,) * len(COSMOS_LAYERS)
    total: Tensor = torch.zeros(len(rebuilt[0]), device=rebuilt[0].device)
    for weight, one, other in zip(layers, rebuilt, original, strict=True):
        total = total + weight * _distance(one, other, form)
    return total


def _distance(one: Tensor, other: Tensor, form: GramForm) -> Tensor:
    """Of one map: [N]."""
    prepare = unit_channels if form == "G2" else widened
    a, b = prepare(one).flatten(2), prepare(other).flatten(2)
    _, channels, places = a.shape
    scale = channels * places if form == "G1" else places
    # A A^T - B B^T is the symmetric part of (A - B)(A + B)^T: one product instead of two, and no difference of large
    # numbers that are almost equal, which would be rounding error when a reconstruction is good.
    with no_autocast(a):
        product = ((a - b) / scale) @ (a + b).transpose(1, 2)
    squares = (0.5 * (product + product.transpose(1, 2))).square()
    return squares.mean(dim=(1, 2)) if form == "G3" else squares.sum(dim=(1, 2))
