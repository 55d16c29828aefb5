"""Frechet distance between two sets of features, its two terms, and how much each sample moves them.

``d = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. The last trace is the sum of the singular values of
``A1 A2^T`` where ``S_i = A_i^T A_i``: with fewer samples than features the centred samples themselves serve
as A. Torch-fidelity takes it from the eigenvalues of ``S1 S2``, which is the same number up to rounding, but of
a singular product that rounding is some 1e-7 of the trace. Records print torch-fidelity's value and keep this one
beside it; the influences, which the intervals need, come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Rows that are turned into float64 at once.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Frechet:
    """A distance and its terms.

    Attributes:
        mean, covariance: the terms; their sum is the distance.
        mean_influence, covariance_influence: float64 ``[n]``, the derivative of each term by the weight
            of a sample pair, times n, less its mean: to first order, a resample in which pair i occurs w_i
            times has the term plus ``sum((w_i - 1) influence_i) / n``.
    """

    mean: float
    covariance: float
    mean_influence: np.ndarray
    covariance_influence: np.ndarray

    @property
    def distance(self) -> float:
        return self.mean + self.covariance


def frechet(x: np.ndarray, y: np.ndarray) -> Frechet:
    """Distance of two paired sets of features, in float64, with unbiased covariances (n - 1).

    Args:
        x, y: ``[n, d]``, n at least 2; row i of both belongs to sample i (only the influences care).
    """
    n, d = x.shape
    mu_x, mu_y = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    if n <= d:
        a, b = x - mu_x, y - mu_y
        left, cross, right = np.linalg.svd(a @ b.T)
        root_x, root_y = (left**2) @ cross, (right.T**2) @ cross
    else:
        left_root, left_inverse = _root(x, mu_x)
        right_root, right_inverse = _root(y, mu_y)
        left, cross, right = np.linalg.svd(left_root @ right_root.T)
        root_x = _quadratic(x, mu_x, left_inverse @ left, cross)
        root_y = _quadratic(y, mu_y, right_inverse @ right.T, cross)
    square_x, square_y = _squares(x, mu_x), _squares(y, mu_y)
    shift = mu_x - mu_y
    mean_influence = 2 * _project(x, mu_x, shift) - 2 * _project(y, mu_y, shift)
    covariance_influence = n / (n - 1) * (square_x + square_y - root_x - root_y)
    # Rounding can leave a few 1e-12 of the traces below zero; the term itself cannot be negative.
    covariance = max(0.0, float(square_x.sum() + square_y.sum() - 2 * cross.sum()) / (n - 1))
    return Frechet(
        mean=float(shift @ shift),
        covariance=covariance,
        mean_influence=mean_influence - mean_influence.mean(),
        covariance_influence=covariance_influence - covariance_influence.mean(),
    )


def _root(x: np.ndarray, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A with ``A^T A`` = scatter matrix of x, ``[d, d]``, and its pseudo-inverse."""
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for rows in _centred(x, mu):
        scatter += rows.T @ rows
    values, vectors = np.linalg.eigh(scatter)
    roots = np.sqrt(values.clip(0))
    solid = values > values[-1] * len(values) * np.finfo(np.float64).eps
    inverse = np.divide(1, roots, out=np.zeros_like(roots), where=solid)
    return roots[:, None] * vectors.T, vectors * inverse


def _quadratic(x: np.ndarray, mu: np.ndarray, basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.concatenate([((rows @ basis) ** 2) @ weights for rows in _centred(x, mu)])


def _squares(x: np.ndarray, mu: np.ndarray) -> np.ndarray:
    return np.concatenate([(rows**2).sum(axis=1) for rows in _centred(x, mu)])


def _project(x: np.ndarray, mu: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return np.concatenate([rows @ direction for rows in _centred(x, mu)])


def _centred(x: np.ndarray, mu: np.ndarray) -> Iterator[np.ndarray]:
    return (x[start : start + _ROWS] - mu for start in range(0, len(x), _ROWS))
