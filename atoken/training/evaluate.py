"""PSNR on a folder: 8 bit, centre crop 256, mean over images; for a model and for `pca:K`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from atoken.tokenizer import AToken
from atoken.training.data import PATCH, center_crop, patches
from atoken.training.start.pca import Basis

__all__ = ["SIZE", "mean_psnr", "pca_psnr", "psnr"]

SIZE = 256
BATCH = 8


def psnr(rebuilt: np.ndarray, original: np.ndarray) -> float:
    """10 log10(255^2 / MSE) of two uint8 arrays; infinite if they are equal."""
    error = float(np.mean((rebuilt.astype(np.float64) - original) ** 2))
    return 10.0 * math.log10(255.0**2 / error) if error else math.inf


def mean_psnr(model: AToken, pixels: Sequence[np.ndarray], *, sample_seed: int | None = None) -> float:
    """Mean PSNR of a model's reconstructions.

    Args:
        pixels: uint8 [H, W, 3] of at least 256 pixels on each side.
        sample_seed: decode a sample of the posterior, image i with this seed + i; the mean if None.
    """
    scores: list[float] = []
    for start in range(0, len(pixels), BATCH):
        crops = [center_crop(image, SIZE) for image in pixels[start : start + BATCH]]
        latents = model.encode(crops)
        if sample_seed is None:
            rebuilt = model.decode(latents)
        else:
            seeds = [sample_seed + start + i for i in range(len(crops))]
            rebuilt = model.decode(latents.sample(seeds))
        scores += map(psnr, rebuilt, crops)
    return float(np.mean(scores))


def pca_psnr(basis: Basis, pixels: Iterable[np.ndarray], count: int) -> float:
    """Mean PSNR of keeping the first `count` PCA coefficients of every 16x16x3 patch."""
    mean = basis.mean.double().numpy()
    kept = basis.components[:, :count].double().numpy()
    scores = []
    for image in pixels:
        crop = center_crop(image, SIZE)
        rows = patches([crop])
        rebuilt = (rows - mean) @ kept @ kept.T + mean
        side = SIZE // PATCH
        cells = rebuilt.reshape(side, side, PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(SIZE, SIZE, 3)
        scores.append(psnr(((cells + 1.0) * 127.5).clip(0, 255).round().astype(np.uint8), crop))
    return float(np.mean(scores))
