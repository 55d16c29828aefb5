"""Percentile bootstrap over samples: seeded, in bounded memory, the same resamples for every metric."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Indices held at once: 4 M of 8 bytes, whatever the number of samples and resamples.
_INDICES = 1 << 22


def resamples(n: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of `count` resamples with replacement of `n` samples, in chunks ``[c, n]`` of int64.

    The draws depend on ``(n, count, seed)`` alone: metrics of one run see the same resamples.
    """
    random = np.random.default_rng(seed)
    step = max(1, _INDICES // max(n, 1))
    for start in range(0, count, step):
        yield random.integers(0, n, size=(min(step, count - start), n))


def counts(indices: np.ndarray) -> np.ndarray:
    """How often each sample occurs in each resample: ``[c, n]`` indices -> float64 ``[c, n]``."""
    c, n = indices.shape
    flat = (indices + n * np.arange(c)[:, None]).ravel()
    return np.bincount(flat, minlength=c * n).reshape(c, n).astype(np.float64)


def percentiles(statistics: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval of resampled statistics.

    By nearest rank, without interpolation: a PSNR of infinity must not turn into not-a-number.
    """
    tail = round((1 - level) / 2, 12)  # 0.025 and not a rank more
    low, high = np.quantile(statistics, [tail, round(1 - tail, 12)], method="inverted_cdf")
    return float(low), float(high)


def mean_interval(values: np.ndarray, *, count: int, seed: int, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean of ``values [n]`` (infinities allowed); None below two values or without resamples."""
    n = len(values)
    if n < 2 or count < 1:
        return None
    means = [values[indices].mean(axis=1) for indices in resamples(n, count, seed)]
    return percentiles(np.concatenate(means), level)
