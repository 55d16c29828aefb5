"""The Frechet distance against torch-fidelity's and a textbook one; its influences against sampling itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.metrics.frechet import frechet


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    """torch-fidelity's own function."""
    statistics = [fid_features_to_statistics(torch.from_numpy(array)) for array in (x, y)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def features(n: int, d: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    return x, x + noise * random.normal(size=(n, d)) + 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(2, 40), st.integers(0, 1000))
def test_equals_torch_fidelity_for_few_and_for_many_samples(n: int, d: int, seed: int) -> None:
    x, y = features(n, d, seed)
    scale = np.trace(np.atleast_2d(np.cov(x, rowvar=False)))
    # Its eigenvalues of a singular product are good to 1e-7 of the trace; ours are compared with that in mind.
    assert frechet(x, y).distance == pytest.approx(textbook(x, y), rel=1e-6, abs=3e-6 * scale)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 30), st.integers(0, 1000))
def test_laws(n: int, d: int, seed: int) -> None:
    x, y = features(n, d, seed)
    order = np.random.default_rng(seed).permutation(n)
    result = frechet(x, y)
    trace = (x.var(axis=0) + y.var(axis=0)).sum()
    assert frechet(x, x).distance == pytest.approx(0, abs=1e-10 * trace)
    assert frechet(y, x).distance == pytest.approx(result.distance, rel=1e-9)
    assert frechet(x[order], y[order]).distance == pytest.approx(result.distance, rel=1e-9)
    # Which reconstruction belongs to which reference does not matter to the distance.
    assert frechet(x[order], y).distance == pytest.approx(result.distance, rel=1e-9, abs=1e-10 * trace)
    moved = frechet(x, y + 3.0)
    assert moved.covariance == pytest.approx(result.covariance, rel=1e-7, abs=1e-10 * trace)
    assert moved.mean == pytest.approx(((x.mean(0) - y.mean(0) - 3) ** 2).sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000), st.floats(-3, 3), st.floats(0.01, 100))
def test_laws_of_far_fewer_samples_than_features(n: int, seed: int, shift: float, scale: float) -> None:
    """As rFVD has it, in 400 dimensions."""
    d = 400
    x, y = features(n, d, seed)
    result = frechet(x, y)
    trace = (x.var(axis=0) + y.var(axis=0)).sum()
    random = np.random.default_rng(seed)
    direction = random.normal(size=d)
    moved = frechet(x, x + shift * direction)
    assert moved.distance == pytest.approx(shift**2 * direction @ direction, rel=1e-9, abs=1e-10 * trace)
    scaled = frechet(scale * x, scale * y)
    assert scaled.mean == pytest.approx(scale**2 * result.mean, rel=1e-9)
    assert scaled.covariance == pytest.approx(scale**2 * result.covariance, rel=1e-8)
    rotation = np.linalg.qr(random.normal(size=(d, d)))[0]
    turned = frechet(x @ rotation, y @ rotation)
    assert (turned.mean, turned.covariance) == pytest.approx((result.mean, result.covariance), rel=1e-8)
    # Shrunk about its mean by s, the distance is known: (1 - s)^2 times the variance.
    middle = x.mean(axis=0)
    shrunk = frechet(x, middle + 0.9 * (x - middle))
    assert shrunk.covariance == pytest.approx(0.01 * x.var(axis=0, ddof=1).sum(), rel=1e-8)
    assert shrunk.mean == pytest.approx(0, abs=1e-20 * (x**2).sum() + 1e-20)


def test_a_large_common_offset_costs_no_digits() -> None:
    """Features far from zero, as float32: sums of squares would lose what is measured."""
    x, y = (part.astype(np.float32) for part in features(20, 400, 5))
    near = frechet(x, y)
    far = frechet(np.round(x * 64) / 64 + np.float32(2**14), np.round(y * 64) / 64 + np.float32(2**14))
    same = frechet(np.round(x * 64) / 64, np.round(y * 64) / 64)
    assert far.covariance == pytest.approx(same.covariance, rel=1e-9)
    assert far.mean == pytest.approx(same.mean, rel=1e-9)
    assert same.distance == pytest.approx(near.distance, rel=1e-2)


def test_both_ways_to_the_trace_agree_where_they_meet() -> None:
    x, y = features(31, 30, 3)
    wide = frechet(np.pad(x, ((0, 0), (0, 5))), np.pad(y, ((0, 0), (0, 5))))
    tall = frechet(x, y)
    assert wide.covariance == pytest.approx(tall.covariance, rel=1e-9)
    np.testing.assert_allclose(wide.covariance_influence, tall.covariance_influence, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_influence_is_the_derivative_by_a_samples_weight(n: int, d: int) -> None:
    """Weights enter as repetitions: 50 copies of each sample, and one more of one of them."""
    x, y = features(n, d, 7)
    result = frechet(x, y)
    copies = 50
    total = n * copies
    base_x, base_y = np.repeat(x, copies, axis=0), np.repeat(y, copies, axis=0)
    for i in (0, n // 2):
        # One sample gains a copy and every other loses its share: to first order the influence of i.
        more_x, more_y = np.vstack([base_x, x[i : i + 1]]), np.vstack([base_y, y[i : i + 1]])
        scale = (total - 1) / total * n / (n - 1)
        term = scale * frechet(base_x, base_y).covariance
        assert term == pytest.approx(result.covariance, rel=1e-6)
        change = total * (total / (total + 1) * frechet(more_x, more_y).covariance * n / (n - 1) - term)
        assert change == pytest.approx(result.covariance_influence[i], rel=0.05, abs=0.02 * result.covariance)
        change = total * (frechet(more_x, more_y).mean - result.mean)
        assert change == pytest.approx(result.mean_influence[i], rel=0.05, abs=0.02 * result.mean)


@pytest.mark.parametrize(("n", "d"), [(150, 8), (16, 60), (60, 30)])
def test_influences_foretell_how_the_distance_varies_from_set_to_set(n: int, d: int) -> None:
    """Also with fewer samples than features, where naive resampling is off by factors."""
    random = np.random.default_rng(0)
    basis = random.normal(size=(d, d))
    values, foretold = [], []
    for _ in range(80):
        x = random.normal(size=(n, d)) @ basis
        result = frechet(x, x + 0.6 * random.normal(size=(n, d)) + 0.05)
        values.append(result.distance)
        foretold.append((result.mean_influence + result.covariance_influence).std() / n**0.5)
    assert 0.75 <= np.mean(foretold) / np.std(values) <= 1.6
