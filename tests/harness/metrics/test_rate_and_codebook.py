"""Rate, tokens and codebook figures against counting by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_inputs import images, pairs_of
from scipy.stats import entropy

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.codebook import FEATURE, Codebook
from harness.metrics.rate import BitsPerPixel, Tokens
from harness.protocol import MetricSpec

SPECS = (
    MetricSpec(metric="codebook-usage", name="usage", options={"max_tokens": 12}),
    MetricSpec(metric="codebook-entropy", name="entropy", options={"max_tokens": 12}),
)


def pairs_with(codes: list[torch.Tensor]) -> Pairs:
    image = images(len(codes), 8, 8)
    return replace(pairs_of(image, image), codes=codes, tokens=[len(code) for code in codes])


def test_bits_per_pixel_is_the_mean_over_images() -> None:
    metric = BitsPerPixel(name="bpp", resamples=100)
    image = images(2, 10, 20)
    columns, features = metric.update(replace(pairs_of(image, image), bits=[100, 300.0]))
    np.testing.assert_array_equal(columns["bpp"], [0.5, 1.5])
    cell = metric.cells(columns, features, seed=0)[0]
    assert (cell.value, cell.interval, cell.unit, cell.n) == (1.0, (0.5, 1.5), "bit/pixel", 2)


def test_continuous_latent_has_no_rate() -> None:
    metric = BitsPerPixel(name="bpp", resamples=100)
    image = images(2, 8, 8)
    cell = metric.cells(metric.update(pairs_of(image, image))[0], {}, seed=0)[0]
    assert (cell.value, cell.n, cell.absent) == (
        None,
        0,
        "no rate is defined: the latent is continuous or there is no code",
    )


def test_tokens_are_averaged() -> None:
    metric = Tokens(name="tokens", resamples=10)
    image = images(2, 8, 8)
    columns, _ = metric.update(replace(pairs_of(image, image), tokens=[4, 8]))
    assert metric.cells(columns, {}, seed=0)[0].value == 6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.sampled_from([5, 300, 70_000]), st.integers(0, 1000))
def test_usage_and_entropy_equal_counting_all_codes(n: int, books: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = [torch.from_numpy(random.integers(0, size, (random.integers(1, 13), books))) for _ in range(n)]
    metric = Codebook(SPECS, codebook_size=size)
    parts = [metric.update(pairs_with(part))[1][FEATURE] for part in (codes[:1], codes[1:]) if part]
    assert parts[0].dtype == (np.int32 if size == 70_000 else np.uint16)
    usage, bits = metric.cells({}, {FEATURE: np.concatenate(parts)}, seed=0)
    pooled = torch.cat(codes).numpy()
    unique = [np.unique(column, return_counts=True)[1] for column in pooled.T]
    assert usage.value == pytest.approx(np.mean([len(counts) / size for counts in unique]))
    assert bits.value == pytest.approx(np.mean([entropy(counts, base=2) for counts in unique]), abs=1e-12)
    assert bits.value is not None
    assert bits.value <= math.log2(size) + 1e-12
    assert usage.parameters["codes"] == pooled.size
    assert (usage.n, bits.unit) == (n, "bit")


def test_codes_that_cannot_be_kept_stop_the_run_with_the_mend() -> None:
    metric = Codebook(SPECS, codebook_size=8)
    with pytest.raises(BenchError, match="13 tokens, and the codebook metrics keep 12: raise max_tokens"):
        metric.update(pairs_with([torch.zeros(13, 1, dtype=torch.int64)]))
    with pytest.raises(BenchError, match="code 8 is none of the 8 entries"):
        metric.update(pairs_with([torch.tensor([[8]])]))
    with pytest.raises(BenchError, match="code -1 is none"):
        metric.update(pairs_with([torch.tensor([[-1]])]))
    image = images(1, 8, 8)
    with pytest.raises(BenchError, match="it gives no codes"):
        metric.update(pairs_of(image, image))
    with pytest.raises(BenchError, match="max_tokens must be the same"):
        Codebook((SPECS[0], MetricSpec(metric="codebook-entropy", name="entropy")), codebook_size=8)


def test_no_sample_is_a_reason() -> None:
    metric = Codebook(SPECS, codebook_size=8)
    assert [cell.absent for cell in metric.cells({}, {}, seed=0)] == ["no sample was measured"] * 2
