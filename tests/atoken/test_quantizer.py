"""FSQ: exact inverse, range, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.config import FSQConfig
from atoken.errors import InputError
from atoken.quantizer import FSQ

configs = st.builds(
    FSQConfig, levels=st.lists(st.integers(2, 9), min_size=1, max_size=5).map(tuple), codebooks=st.integers(1, 4)
)


@settings(max_examples=50, deadline=None)
@given(config=configs, seed=st.integers(0, 99))
def test_indices_and_codes_are_inverse(config, seed):
    quantizer = FSQ(config)
    z = torch.randn(32, config.channels, generator=torch.Generator().manual_seed(seed)) * 3
    codes, indices = quantizer(z)
    assert indices.dtype == torch.int32
    assert indices.shape == (32, config.codebooks)
    assert 0 <= int(indices.min()) <= int(indices.max()) < config.codebook_size
    assert torch.equal(quantizer.indices_to_codes(indices), codes)
    assert torch.equal(quantizer.indices_to_codes(indices.long()), codes)
    assert codes.abs().max() <= 1


def test_every_entry_can_be_reached_and_is_distinct():
    quantizer = FSQ(FSQConfig(levels=(4, 3), codebooks=1))
    codes = quantizer.indices_to_codes(torch.arange(12)[:, None])
    assert len({tuple(code) for code in codes.tolist()}) == 12
    assert sorted({c for c, _ in codes.tolist()}) == [-1.0, -0.5, 0.0, 0.5]
    extremes = torch.tensor([[-9.0, -9.0], [9.0, 9.0]])
    assert quantizer(extremes)[0].tolist() == [[-1.0, -1.0], [0.5, 1.0]]


@settings(max_examples=30, deadline=None)
@given(config=configs, seed=st.integers(0, 99))
def test_latents_on_levels_round_to_them(config, seed):
    quantizer = FSQ(config)
    drawn = torch.randint(
        0, config.codebook_size, (32, config.codebooks), generator=torch.Generator().manual_seed(seed)
    )
    codes = quantizer.indices_to_codes(drawn)
    low, high = quantizer.outermost(codes.device)
    levels = codes * -low  # codes are levels over half their number
    assert bool(((levels >= low) & (levels <= high)).all())
    found, indices = quantizer(quantizer.unbound(levels))
    assert torch.equal(found, codes)
    assert torch.equal(indices, drawn.int())
    torch.testing.assert_close(quantizer.bound(quantizer.unbound(levels)), levels, atol=1e-4, rtol=0)


def test_gradients_pass_straight_through_and_values_stay_levels():
    quantizer = FSQ(FSQConfig())
    z = torch.randn(8, 48, requires_grad=True)
    codes, _ = quantizer(z)
    assert torch.equal(codes, quantizer(z.detach())[0])
    codes.sum().backward()
    assert (z.grad > 0).all()
    assert not FSQ(FSQConfig()).state_dict()


def test_bounds_are_computed_in_float32_step_by_step():
    # Four levels: 3 x float32(1.001) / 2 rounds to 1.5015001, one above the float32 nearest to 1.5015.
    # A latent beside the border between two levels shows which of the two was used.
    half = torch.tensor(3.0) * torch.tensor(1.001) / 2
    assert half == torch.nextafter(torch.tensor(1.5015), torch.tensor(2.0))
    shift = torch.atanh(0.5 / half)
    border = torch.tensor([-1.5, -0.5, 0.5])
    around = (torch.atanh((border + 0.5) / half) - shift).repeat(64)
    z = (around + torch.linspace(-1e-6, 1e-6, 192)).view(4, 48)
    quantizer = FSQ(FSQConfig())
    assert torch.equal(quantizer.bound(z), torch.tanh(z + shift) * half - 0.5)
    assert torch.equal(quantizer(z)[0], (torch.tanh(z + shift) * half - 0.5).round() / 2)


def test_half_precision_latents_are_quantised_in_float32():
    z = torch.randn(8, 48).bfloat16()
    codes, indices = FSQ(FSQConfig())(z)
    assert codes.dtype == torch.float32
    assert torch.equal(indices, FSQ(FSQConfig())(z.float())[1])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((2, 8), 4096), "0..4095, got 4096..4096"),
        (torch.full((2, 8), -1), "got -1"),
        (torch.zeros(2, 7, dtype=torch.int32), r"\[L, 8\]"),
        (torch.zeros(2, 8), "whole numbers"),
    ],
)
def test_bad_codes(codes, message):
    with pytest.raises(InputError, match=message):
        FSQ(FSQConfig()).indices_to_codes(codes)


def test_bad_latents():
    with pytest.raises(InputError, match=r"\[L, 48\] latents, got \[2, 47\]"):
        FSQ(FSQConfig())(torch.zeros(2, 47))
