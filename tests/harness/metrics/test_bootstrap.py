"""The bootstrap against the plain loop it stands for, and its bounds."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from harness.metrics import bootstrap
from harness.metrics.bootstrap import counts, mean_interval, percentiles, resamples


def test_interval_equals_the_plain_loop() -> None:
    values = np.random.default_rng(1).normal(size=37)
    draws = np.concatenate(list(resamples(37, 500, seed=4)))
    means = sorted(values[draw].mean() for draw in draws)
    assert draws.shape == (500, 37)
    assert mean_interval(values, count=500, seed=4) == (means[12], means[487])


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resamples(50, 30, seed=9)))
    monkeypatch.setattr(bootstrap, "_INDICES", 170)
    parts = list(resamples(50, 30, seed=9))
    assert len(parts) == 10
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_counts_are_occurrences() -> None:
    np.testing.assert_array_equal(counts(np.array([[0, 2, 2], [1, 1, 1]])), [[1, 0, 2], [0, 3, 0]])


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        interval = mean_interval(random.gamma(2, size=60), count=400, seed=seed)
        assert interval is not None
        hits += interval[0] <= 2 <= interval[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_infinities_stay_infinities() -> None:
    assert percentiles(np.array([1.0, math.inf, math.inf]), 0.95) == (1.0, math.inf)
    low, high = mean_interval(np.array([math.inf] * 3), count=100, seed=0) or (0, 0)
    assert (low, high) == (math.inf, math.inf)


def test_one_value_or_no_resample_has_no_interval() -> None:
    assert mean_interval(np.array([1.0]), count=100, seed=0) is None
    assert mean_interval(np.array([1.0, 2.0]), count=0, seed=0) is None


def test_memory_is_bounded_at_the_size_of_imagenet_val() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    tracemalloc.start()
    mean_interval(values, count=200, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 200 x 50,000 indices of 8 bytes would be 80 MB, and their values as much again.
    assert peak < 75e6
