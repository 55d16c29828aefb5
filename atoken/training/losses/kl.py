"""The KL term of eq. 4."""

from __future__ import annotations

from torch import Tensor

from atoken.training.losses.precision import widened

__all__ = ["kl_divergence", "kl_per_token"]


def kl_per_token(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of [L, C] latents, summed over channels as in the release (FACTS 7): [L]."""
    mean, logvar = widened(mean), widened(logvar)
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=-1)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mean of `kl_per_token` over the tokens of a pack: a scalar.

    The mean over tokens is what the paper's "normalised over patches" says.
    """
    return kl_per_token(mean, logvar).mean()
