"""Packed tokens and latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from atoken.errors import InputError
from atoken.patches import pack_pixels
from atoken.tokens import ItemSpec, Latents, SparseTokens


@pytest.fixture
def tokens(noise) -> SparseTokens:
    return pack_pixels([noise(32, 48), noise(9, 16, 16), noise(16, 16)])


def spec(**changes):
    size = {"kind": "image", "frames": 1, "height": 5, "width": 6, "out_frames": 1, "out_height": 5, "out_width": 6}
    return ItemSpec(**(size | changes))


def test_lengths_and_order(tokens):
    assert len(tokens) == 3
    assert tokens.lengths == (6, 3, 1)
    assert tokens.coords[:6].tolist() == [[0, x, y, 0] for x in range(2) for y in range(3)]
    assert tokens.coords[6:9, 0].tolist() == [0, 1, 2]


def test_split_and_cat_are_inverse(tokens):
    again = SparseTokens.cat(tokens.split())
    assert torch.equal(again.features, tokens.features)
    assert torch.equal(again.coords, tokens.coords)
    assert (again.lengths, again.items) == (tokens.lengths, tokens.items)
    assert tokens.split()[1].features.data_ptr() == tokens.features[6:].data_ptr()


def test_dtype_applies_to_features_but_not_to_codes(tokens):
    assert tokens.to(dtype=torch.bfloat16).features.dtype == torch.bfloat16
    assert tokens.to(dtype=torch.bfloat16).coords.dtype == torch.int32
    codes = tokens.with_features(torch.zeros(10, 8, dtype=torch.int32))
    assert codes.is_codes
    assert codes.to("cpu", torch.float16).features.dtype == torch.int32


def test_parts_must_fit(tokens):
    for change, message in [
        ({"features": tokens.features[1:]}, r"features must be \[10, C\]"),
        ({"features": tokens.features[:, 0]}, "features must be"),
        ({"coords": tokens.coords.long()}, "int32"),
        ({"coords": tokens.coords[:, :3]}, r"coords must be \[10, 4\]"),
        ({"items": tokens.items[:2]}, "3 lengths for 2 items"),
        ({"lengths": (6, 4, 0)}, "every item needs a token"),
        ({"coords": tokens.coords.to("meta")}, "meta"),
    ]:
        with pytest.raises(InputError, match=message):
            replace(tokens, **change)
    with pytest.raises(InputError, match="at least one item"):
        SparseTokens(tokens.features[:0], tokens.coords[:0], (), ())
    with pytest.raises(InputError, match="empty"):
        SparseTokens.cat([])
    with pytest.raises(InputError, match="unlike"):
        SparseTokens.cat([tokens, tokens.with_features(tokens.features[:, :5])])


def test_specs_are_checked():
    assert spec().grid((4, 16, 16)) == (1, 1, 1)
    assert spec(kind="video", frames=5, out_frames=5, out_width=17).grid((4, 16, 16)) == (2, 1, 2)
    for change in ({"kind": "asset"}, {"height": 0}, {"top": -1}, {"frames": 2, "out_frames": 2}):
        with pytest.raises(InputError):
            spec(**change)


@pytest.fixture
def latents(tokens) -> Latents:
    generator = torch.Generator().manual_seed(1)
    mean, logvar = torch.randn(2, 10, 48, generator=generator)
    return Latents(tokens.with_features(mean), logvar)


def test_a_sample_follows_its_posterior(latents):
    many = torch.stack([latents.sample(seed).features for seed in range(800)])
    torch.testing.assert_close(many.mean(0), latents.mean.features, rtol=0, atol=0.6)
    torch.testing.assert_close(many.std(0) / latents.std, torch.ones(10, 48), rtol=0, atol=0.2)


def test_seeds_are_the_items_own(latents):
    one = latents.sample(5)
    assert torch.equal(one.features, latents.sample([5, 5, 5]).features)
    assert not torch.equal(one.features, latents.sample(6).features)
    mixed = latents.sample([5, 6, 5])
    assert torch.equal(mixed.features[:6], one.features[:6])
    assert not torch.equal(mixed.features[6:9], one.features[6:9])
    backwards = Latents.cat(latents.split()[::-1]).sample(5)
    for got, want in zip(backwards.split()[::-1], one.split(), strict=True):
        assert torch.equal(got.features, want.features)
    assert torch.equal(latents.sample(np.int64(5)).features, one.features)
    assert torch.equal(latents.sample(np.array([5, 6, 5])).features, mixed.features)
    for seed in (1.5, "a", None, [1.5, 2, 3]):
        with pytest.raises(InputError, match="whole number"):
            latents.sample(seed)
    with pytest.raises(InputError, match="2 seeds for 3 items"):
        latents.sample([1, 2])


def test_kl_is_the_closed_form(latents):
    posterior = torch.distributions.Normal(latents.mean.features, latents.std)
    prior = torch.distributions.Normal(torch.zeros(10, 48), torch.ones(10, 48))
    want = torch.distributions.kl_divergence(posterior, prior).sum(-1)
    torch.testing.assert_close(latents.kl_per_token, want, rtol=1e-5, atol=1e-4)


def test_latents_split_cat_and_check(latents):
    again = Latents.cat(latents.split())
    assert torch.equal(again.logvar, latents.logvar)
    assert len(again) == 3
    assert latents.to("meta").logvar.device.type == "meta"
    with pytest.raises(InputError, match="logvar"):
        Latents(latents.mean, latents.logvar[1:])
