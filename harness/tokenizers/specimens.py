"""Images and clips that the contract checks put through an adapter, and what they compare by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

# Flat colours show a wrong value range ([0, 1], 0..255) or channel order at once: each moves one of
# them by 1 or more, and a tokenizer that works is far closer than half of that.
FLAT = {"black": (-1.0, -1.0, -1.0), "white": (1.0, 1.0, 1.0), "red": (1.0, -1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
FLAT_TOLERANCE = 0.5
FLAT_SIDE = 64

T = TypeVar("T")


def image(seed: int, height: int, width: int) -> Tensor:
    """Waves with a little noise: uint8 ``[3, height, width]``."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    waves = (6 * torch.rand(3, 4, generator=random)).tolist()
    pixels = torch.stack([torch.sin(a + b * y + c * x + d * x * y) for a, b, c, d in waves])
    return (127.5 + 100 * pixels + 5 * torch.randn(pixels.shape, generator=random)).round().clamp(0, 255).byte()


def clip(seed: int, frames: int, height: int, width: int) -> Tensor:
    """An image that moves by a pixel a frame, down and to the right: uint8 ``[frames, height, width, 3]``."""
    whole = image(seed, height + frames, width + frames).permute(1, 2, 0)
    return torch.stack([whole[t : t + height, t : t + width] for t in range(frames)])


def fit(side: int, multiple: int) -> int:
    """The multiple of `multiple` next above `side`."""
    return -(-side // multiple) * multiple


def with_random_state(seed: int, call: Callable[[], T]) -> T:
    """Under another global random state, which must not matter; the caller's comes back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call()


def gap(x: Tensor, y: Tensor) -> float:
    """Largest absolute difference; infinite for images of different sizes."""
    return float((x - y).abs().max()) if x.shape == y.shape else float("inf")
