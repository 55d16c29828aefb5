"""The sigmoid loss of SigLIP (Zhai et al. 2023), for videos and assets (paper 3.3).

The texts' tower is frozen: the texts of the global batch are gathered without gradient, and each rank computes the
pairs of its own images with all texts. The sum of the ranks' values is the loss of the global batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from atoken.training.losses.precision import no_autocast, widened

__all__ = ["sigmoid_loss"]


def sigmoid_loss(
    images: Tensor, texts: Tensor, positives: Tensor, log_scale: Tensor, bias: Tensor, *, total: int
) -> Tensor:
    """Sum over pairs of -log sigmoid(y * (exp(log_scale) * cosine + bias)), divided by `total`: a scalar.

    y is 1 for positives and -1 for the rest. Where an optimiser averages gradients over ranks, the caller multiplies
    by their number.

    Args:
        images: [n, D] unit vectors, of this rank or a part of them.
        texts: [M, D] unit vectors of the global batch.
        positives: [n, M] bool. Texts of one wording are positives of one another's images, not negatives.
        log_scale, bias: learned scalars; gradients flow to them.
        total: images of the global batch.
    """
    with no_autocast(images):
        # In half precision a cosine has steps of 0.004, times a scale of 100.
        scores = widened(log_scale).exp() * (widened(images) @ widened(texts).T) + widened(bias)
    signed = scores.where(positives, -scores)
    return -F.logsigmoid(signed).sum() / total
