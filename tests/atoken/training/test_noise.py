"""Noise of a sample is its own."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atoken.training.noise import normal_noise

CPU = torch.device("cpu")


def test_it_is_standard_normal_without_correlation() -> None:
    noise = normal_noise(3, range(40), [100] * 40, 48, CPU)
    assert noise.shape == (4000, 48)
    assert noise.dtype == torch.float32
    assert stats.kstest(noise.flatten().double().numpy(), "norm").pvalue > 1e-3
    # Of 1128 pairs of channels, 4000 rows: five standard deviations.
    assert np.abs(np.corrcoef(noise.numpy().T) - np.eye(48)).max() < 5 / 4000**0.5
    other_step = normal_noise(4, range(40), [100] * 40, 48, CPU)
    for a, b in ((noise, other_step), (noise[1:], noise[:-1]), (noise[100:], noise[:-100])):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 2**60))
def test_it_depends_on_seed_and_sample_alone(items: list[tuple[int, int]], seed: int) -> None:
    samples, lengths = [a for a, _ in items], [n for _, n in items]
    together = normal_noise(seed, samples, lengths, 7, CPU).split(lengths)
    for sample, length, part in zip(samples, lengths, together, strict=True):
        assert torch.equal(part, normal_noise(seed, [sample], [length], 7, CPU))
    assert torch.isfinite(torch.cat(together)).all()
