"""Made-up photographs."""

from __future__ import annotations

import numpy as np


def picture(seed: int, height: int = 80, width: int = 72) -> np.ndarray:
    """Edges on two scales and a little noise: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16.0
    phases = rng.uniform(0, 6, size=(3, 2))
    planes = [
        np.tanh(8 * np.sin(a + x * rng.uniform(0.5, 4)) + 8 * np.cos(b + y * rng.uniform(0.5, 4))) for a, b in phases
    ]
    noise = rng.normal(0, 2, size=(height, width, 3))
    return (np.stack(planes, axis=-1) * 50 + 128 + noise).clip(0, 255).astype(np.uint8)
