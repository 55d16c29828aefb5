"""Normal noise that depends on a sample alone: not on its pack, its rank or the device.

A generator draws one number after another, so what a sample gets would depend on what stands before it. Here every
number is a hash of (seed, sample, token, channel), and all of a pack are made at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["normal_noise"]

_MASK = 0xFFFFFFFF


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers (held in int64) that spreads every bit over all: the "lowbias32" hash."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def normal_noise(
    seed: int, samples: Sequence[int], lengths: Sequence[int], channels: int, device: torch.device
) -> Tensor:
    """Standard normal numbers [L, channels] float32, L the sum of `lengths`.

    Args:
        seed: any whole number, for example of recipe, stage and step.
        samples: a number of each item, below 2^31.
        lengths: tokens of each item.
    """
    counts = torch.tensor(list(lengths), device=device)
    total = sum(lengths)
    starts = counts.cumsum(0) - counts
    token = torch.arange(total, device=device) - starts.repeat_interleave(counts, output_size=total)
    sample = torch.tensor(list(samples), device=device).repeat_interleave(counts, output_size=total)
    state = _mixed(torch.tensor(seed & _MASK, device=device) ^ _mixed(torch.tensor(seed >> 32 & _MASK, device=device)))
    row = _mixed(_mixed(sample ^ state) ^ token)[:, None]
    # Two hashes make two uniform numbers, and these a pair of normal ones (Box-Muller).
    pairs = torch.arange(-(-channels // 2), device=device)[None]
    first, second = (_mixed(row ^ _mixed(2 * pairs + part + 1)) for part in (0, 1))
    radius = torch.sqrt(-2.0 * torch.log((first.float() + 1.0) * 2.0**-32))
    angle = second.float() * (2.0 * math.pi * 2.0**-32)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)[:, :channels]
