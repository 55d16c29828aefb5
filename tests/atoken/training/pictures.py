"""Made-up photographs, and what a PCA makes of photographs."""

from __future__ import annotations

import numpy as np

from atoken.training.data import PATCH, center_crop, patches
from atoken.training.start.basis import Basis
from atoken.training.validation import psnr


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


def pca_psnr(basis: Basis, pixels: list[np.ndarray], count: int) -> float:
    """Mean PSNR of keeping the first `count` PCA coefficients of every 16x16x3 patch."""
    mean, kept = basis.mean.double().numpy(), basis.components[:, :count].double().numpy()
    scores, side = [], 256 // PATCH
    for image in pixels:
        crop = center_crop(image, 256)
        rebuilt = (patches([crop]) - mean) @ kept @ kept.T + mean
        cells = rebuilt.reshape(side, side, PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(256, 256, 3)
        scores.append(psnr(((cells + 1.0) * 127.5).clip(0, 255).round().astype(np.uint8), crop))
    return float(np.mean(scores))
