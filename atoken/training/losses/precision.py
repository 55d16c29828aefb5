"""Sums, norms and products of losses are taken in float32 at least, whatever the network computes in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["no_autocast", "widened"]


def widened(values: Tensor) -> Tensor:
    """In float32 where `values` are in half precision; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def no_autocast(values: Tensor) -> torch.autocast:
    """A context in which matrix products on the device of `values` keep the precision of their inputs."""
    return torch.autocast(values.device.type, enabled=False)
