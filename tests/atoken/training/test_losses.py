"""Losses against the formulas of torch and NumPy, with gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from atoken.training.losses import MSE_FLOOR, item_means, item_mse, kl_divergence, log_mse

LENGTHS = (2, 5, 1)


def test_an_item_counts_once_whatever_its_size() -> None:
    values = torch.tensor([1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 5.0, 7.0])
    assert item_means(values, LENGTHS).tolist() == [2.0, 1.0, 7.0]


def test_log_mse_is_psnr_in_other_units_down_to_the_floor() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, size=(8, 12))
    rebuilt = target + rng.normal(0, [[0.01]] * 2 + [[0.1]] * 5 + [[0.3]], size=(8, 12))
    ends = np.cumsum((0, *LENGTHS))
    psnr = [peak_signal_noise_ratio(target[a:b], rebuilt[a:b], data_range=2.0) for a, b in pairwise(ends)]
    mse = 4.0 / 10 ** (np.array(psnr) / 10)
    ours, theirs = torch.from_numpy(rebuilt), torch.from_numpy(target)
    np.testing.assert_allclose(item_mse(ours, theirs, LENGTHS), mse, rtol=1e-5)
    assert log_mse(ours, theirs, LENGTHS).item() == pytest.approx(np.log(mse + MSE_FLOOR).mean(), rel=1e-5)


def test_log_mse_of_equal_images_is_finite_with_a_gradient_of_zero() -> None:
    rebuilt = torch.zeros(8, 3, requires_grad=True)
    loss = log_mse(rebuilt, torch.zeros(8, 3), LENGTHS)
    (gradient,) = torch.autograd.grad(loss, rebuilt)
    assert math.isfinite(loss.item())
    assert not gradient.any()


def test_kl_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64).unbind(0)
    theirs = torch_kl(Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), 1.0)).sum(-1).mean()
    assert kl_divergence(mean, logvar).item() == pytest.approx(theirs.item(), rel=1e-12)
    assert kl_divergence(torch.zeros(3, 5), torch.zeros(3, 5)).item() == 0.0
