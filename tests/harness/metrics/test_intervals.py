"""Intervals of KID and IS against the loops that they replace, with torch-fidelity's own functions inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from harness.metrics import intervals
from harness.metrics.bootstrap import resamples
from harness.metrics.intervals import inception_score_interval, kid_influences, kid_interval


def features(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)).astype(np.float32)
    return x, (0.8 * x + 0.5 * random.normal(size=(n, d)) + 0.3).astype(np.float32)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Of all images at once."""
    result = kid_features_to_metric(
        torch.from_numpy(y), torch.from_numpy(x), kid_subsets=1, kid_subset_size=len(x), verbose=False
    )
    return float(result[KEY_METRIC_KID_MEAN])


def test_kid_influences_are_those_of_leaving_images_out() -> None:
    x, y = features(60, 7)
    without = np.array([kid(np.delete(x, i, axis=0), np.delete(y, i, axis=0)) for i in range(60)])
    influences = kid_influences(x, y)
    np.testing.assert_allclose(
        influences, -59 * (without - without.mean()), rtol=0.05, atol=0.01 * np.abs(influences).max()
    )


def test_kid_interval_is_as_wide_as_the_distance_varies_from_set_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.std([kid(*features(64, 6, seed)) for seed in range(100)])
    for block in (intervals._BLOCK, 40):
        monkeypatch.setattr(intervals, "_BLOCK", block)
        widths = []
        for seed in range(10):
            x, y = features(64, 6, seed)
            low, high = kid_interval(x, y, kid(x, y), count=300, seed=0) or (0, 0)
            assert low < kid(x, y) < high
            widths.append((high - low) / 3.92)
        assert 0.6 <= np.mean(widths) / truth <= 1.8


def test_kid_interval_is_absent_where_there_is_too_little_to_resample() -> None:
    assert kid_interval(*features(3, 4), 0.0, count=100, seed=0) is None
    assert kid_interval(*features(20, 4), 0.0, count=0, seed=0) is None


def test_inception_score_interval_equals_the_loop() -> None:
    logits = (np.random.default_rng(0).normal(size=(37, 9)) * 2).astype(np.float32)
    splits, count = 3, 40
    statistics = np.zeros(count)
    for split in range(splits):
        part = logits[split * 37 // splits : (split + 1) * 37 // splits]
        (draws,) = resamples(len(part), count, split)
        for index, draw in enumerate(draws):
            score = isc_features_to_metric(torch.from_numpy(part[draw]), splits=1, shuffle=False)
            statistics[index] += score[KEY_METRIC_ISC_MEAN] / splits
    spread = np.sort(statistics - statistics.mean())
    interval = inception_score_interval(logits, 5.0, splits=splits, count=count, seed=0)
    assert interval == pytest.approx((5 + spread[0], 5 + spread[38]), rel=1e-9)


def test_inception_score_interval_is_absent_where_a_split_has_one_image() -> None:
    assert inception_score_interval(np.zeros((5, 3)), 1.0, splits=3, count=10, seed=0) is None
    assert inception_score_interval(np.zeros((6, 3)), 1.0, splits=3, count=0, seed=0) is None
