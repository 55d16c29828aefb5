"""Bootstrap intervals of statistics that are no means: the kernel distance and the Inception Score."""

from __future__ import annotations

import numpy as np

from harness.metrics.bootstrap import counts, mean_interval, percentiles, resamples

# Images whose pairs are weighed at once: three kernels of 4,096 x 4,096 in float64 are 0.4 GB.
_BLOCK = 4096


def kid_interval(
    reference: np.ndarray, reconstruction: np.ndarray, value: float, *, count: int, seed: int
) -> tuple[float, float] | None:
    """Interval of torch-fidelity's kernel distance (cubic kernel, unbiased within each set).

    Resamples the influences of the images, each with its reconstruction, on the distance: resampling the
    distance itself would count an image drawn twice as two that resemble each other. Beyond 4,096 images an
    influence is taken within a random block of them.

    Args:
        reference, reconstruction: features ``[n, d]``.
        value: the measured distance, which the interval is laid around.

    Returns:
        None without resamples or below four images.
    """
    n = len(reference)
    if n < 4:
        return None
    order = np.random.default_rng(seed).permutation(n)
    blocks = np.array_split(order, -(-n // _BLOCK))
    influences = np.concatenate([kid_influences(reference[block], reconstruction[block]) for block in blocks])
    spread = mean_interval(influences, count=count, seed=seed)
    return None if spread is None else (value + spread[0], value + spread[1])


def kid_influences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivative of the kernel distance of two paired sets by an image's weight, times n, less its mean.

    The distance is the mean over pairs of different images of ``k(x,x') + k(y,y') - 2 (n-1)/n k(x,y')``, less
    ``2/n`` times the mean of ``k(x_i, y_i)``, which torch-fidelity counts among the pairs across the sets.

    Returns:
        float64 ``[n]``.
    """
    n, d = x.shape
    a, b = x.astype(np.float64), y.astype(np.float64)
    pairs = (a @ a.T / d + 1) ** 3
    pairs += (b @ b.T / d + 1) ** 3
    across = (a @ b.T / d + 1) ** 3
    paired = across.diagonal().copy()
    pairs -= 2 * (n - 1) / n * across
    np.fill_diagonal(pairs, 0)
    influences = (pairs.sum(axis=0) + pairs.sum(axis=1)) / (n - 1) - 2 * paired / n
    return np.asarray(influences - influences.mean())


def inception_score_interval(
    logits: np.ndarray, value: float, *, splits: int, count: int, seed: int
) -> tuple[float, float] | None:
    """Interval of the mean of the splits' ``exp(mean KL(p | mean p))``; images are resampled within their split.

    An image drawn twice lowers the score, so the interval is the spread of the resampled scores about their own
    mean, laid around the measured one.

    Args:
        logits: ``[n, classes]`` in the order in which they are split.

    Returns:
        None without resamples or where a split has a single image.
    """
    n = len(logits)
    if count < 1 or n < 2 * splits:
        return None
    scores = np.zeros(count)
    for split in range(splits):
        part = logits[split * n // splits : (split + 1) * n // splits].astype(np.float64)
        part -= part.max(axis=1, keepdims=True)
        p = np.exp(part)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        negentropy = (p * (part - np.log(total))).sum(axis=1)
        start = 0
        for indices in resamples(len(part), count, seed + split):
            weights = counts(indices) / len(part)
            q = weights @ p
            divergence = weights @ negentropy - (q * np.log(q)).sum(axis=1)
            scores[start : start + len(indices)] += np.exp(divergence)
            start += len(indices)
    low, high = percentiles((scores - scores.mean()) / splits, 0.95)
    return value + low, value + high
