"""Losses of pixels and latents against the formulas of torch and NumPy, with gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl
from torch.nn import functional as F

from atoken.training.losses import MSE_FLOOR, item_means, item_mse, kl_divergence, kl_per_token, l1, log_mse

LENGTHS = (2, 5, 1)


def test_an_item_counts_once_whatever_its_size() -> None:
    values = torch.tensor([1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 5.0, 7.0])
    assert item_means(values, LENGTHS).tolist() == [2.0, 1.0, 7.0]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7), seed=st.integers(0, 99))
def test_item_means_are_those_of_numpy_and_of_each_item_alone(lengths: list[int], seed: int) -> None:
    values = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(seed), requires_grad=True)
    means = item_means(values, lengths)
    parts = values.split(lengths)
    np.testing.assert_allclose(means.detach(), [part.detach().numpy().mean() for part in parts], atol=1e-6)
    assert means.tolist() == [item_means(part, [len(part)]).item() for part in parts]
    (gradient,) = torch.autograd.grad(means.sum(), values)
    np.testing.assert_allclose(gradient, np.repeat(1 / np.array(lengths), lengths), rtol=1e-6)


@pytest.mark.parametrize("lengths", [(2, 5), (2, 5, 2), (8, 0)])
def test_lengths_that_do_not_make_the_pack_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not make a pack of 8"):
        item_means(torch.zeros(8), lengths)


def test_l1_is_that_of_torch_for_each_item_with_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    rebuilt, target = torch.randn(2, 8, 12, generator=generator).unbind(0)
    rebuilt.requires_grad_()
    ours = l1(rebuilt, target, LENGTHS)
    theirs = torch.stack([F.l1_loss(x, y) for x, y in zip(rebuilt.split(LENGTHS), target.split(LENGTHS), strict=True)])
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss.sum(), rebuilt)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_columns_that_the_caller_leaves_out_do_not_count() -> None:
    target = torch.zeros(8, 12)
    rebuilt = torch.cat([torch.full((8, 3), 0.5), torch.full((8, 9), 100.0)], dim=1)
    assert l1(rebuilt[:, :3], target[:, :3], LENGTHS).tolist() == [0.5, 0.5, 0.5]


def test_pixels_in_half_precision_are_compared_in_float32() -> None:
    rebuilt, target = torch.full((8, 4096), 1.0).bfloat16(), torch.full((8, 4096), 0.9).bfloat16()
    wanted = 1.0 - target[0, 0].item()
    with torch.autocast("cpu", torch.bfloat16):
        assert l1(rebuilt, target, LENGTHS).dtype == torch.float32
        assert l1(rebuilt, target, LENGTHS).tolist() == pytest.approx([wanted] * 3, rel=1e-6)


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
    mean.requires_grad_()
    logvar.requires_grad_()
    each = torch_kl(Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), 1.0)).sum(-1)
    torch.testing.assert_close(kl_per_token(mean, logvar), each, rtol=1e-12, atol=0)
    assert kl_divergence(mean, logvar).item() == pytest.approx(each.mean().item(), rel=1e-12)
    ours = torch.autograd.grad(kl_divergence(mean, logvar), (mean, logvar))
    torch.testing.assert_close(ours, torch.autograd.grad(each.mean(), (mean, logvar)), rtol=1e-12, atol=1e-15)
    assert kl_divergence(torch.zeros(3, 5), torch.zeros(3, 5)).item() == 0.0


def test_kl_of_moments_in_half_precision_is_computed_in_float32() -> None:
    # exp(logvar) - 1 - logvar of a small logvar is 0 in bfloat16.
    logvar = torch.full((4, 48), 0.03125).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = kl_divergence(torch.zeros(4, 48).bfloat16(), logvar)
    assert value.item() == pytest.approx(24 * (math.expm1(0.03125) - 0.03125), rel=1e-4)
