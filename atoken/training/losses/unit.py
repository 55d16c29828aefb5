"""Features normalised over their channels, as LPIPS and one form of the Gram loss take them."""

from __future__ import annotations

import torch
from torch import Tensor

from atoken.training.losses.precision import widened

__all__ = ["unit_channels"]

EPS = 1e-10
"""As in the package ``lpips``."""


def unit_channels(features: Tensor) -> Tensor:
    """[N, C, H, W] divided by the length of the vector of channels at each place, plus `EPS`; float32.

    The gradient is finite where all channels are 0, unlike that of a square root of a sum.
    """
    features = widened(features)
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + EPS)
