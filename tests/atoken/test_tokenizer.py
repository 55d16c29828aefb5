"""The public methods, as a user calls them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import atoken
from atoken.config import preset
from atoken.errors import InputError
from atoken.patches import pack_pixels
from atoken.tokenizer import AToken
from atoken.tokens import SparseTokens


def test_the_package_exports_what_the_readme_uses():
    assert atoken.AToken is AToken
    assert atoken.SparseTokens is SparseTokens
    with pytest.raises(AttributeError, match="Nothing"):
        _ = atoken.Nothing


def test_sizes_and_types_come_back(tiny, noise):
    items = [noise(33, 17), noise(3, 16, 20), noise(1, 16, 16), noise(21, 18, 16), noise(1, 1)]
    latents = tiny.encode(items)
    assert latents.mean.features.shape == (sum(latents.mean.lengths), 48)
    assert not latents.mean.features.requires_grad
    assert not latents.mean.features.is_inference()  # so that others may train on them
    for output, dtype in (("uint8", np.uint8), ("float", np.float32)):
        decoded = tiny.decode(latents, output=output)
        assert [d.shape for d in decoded] == [i.shape for i in items]
        assert all(d.dtype == dtype for d in decoded)
    eight_bit = tiny.decode(latents)[0]
    exact = np.clip(np.round((tiny.decode(latents, output="float")[0] + 1) * 127.5), 0, 255)
    assert np.array_equal(eight_bit, exact.astype(np.uint8))


def test_what_can_be_decoded(tiny, noise):
    latents = tiny.encode([noise(20, 20), noise(5, 16, 16)])
    from_mean = tiny.decode(latents.mean, output="float")
    for a, b in zip(tiny.decode(latents, output="float"), from_mean, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(tiny.decode(latents.sample(1), output="float")[0], from_mean[0])
    again = [tiny.decode(part, output="float")[0] for part in latents.mean.split()]
    for a, b in zip(again, from_mean, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_codes(tiny_fsq, noise):
    latents = tiny_fsq.encode([noise(20, 20), noise(8, 16, 16)])
    codes = tiny_fsq.quantize(latents)
    assert codes.features.dtype == torch.int32
    assert codes.features.shape == (4 + 2, 8)
    assert torch.equal(codes.features, tiny_fsq.quantize(latents.mean).features)
    wide = codes.with_features(codes.features.long())
    for a, b, c in zip(*(tiny_fsq.decode(x) for x in (latents, codes, wide)), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    with pytest.raises(InputError, match="codes already"):
        tiny_fsq.quantize(codes)


def test_embeddings_are_unit_vectors_over_all_tiles(tiny, noise):
    clip = noise(40, 16, 16)
    vectors = tiny.embed([noise(16, 16), clip])
    assert vectors.shape == (2, 32)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    assert (vectors[1] - tiny.embed([clip[:16]])[0]).abs().max() > 1e-3


def test_features_are_the_encoders(tiny, noise):
    features = tiny.features([noise(32, 32), noise(16, 16)])
    assert features.lengths == (4, 1)
    assert features.features.shape == (5, 32)


def test_bfloat16_stays_near_float32(tiny, noise):
    image = noise(64, 64)
    latents = tiny.encode([image])
    half = AToken(tiny.config).eval().to(torch.bfloat16)
    half.load_state_dict(tiny.state_dict())
    assert half.dtype == torch.bfloat16
    coarse = half.encode([image])
    assert coarse.mean.features.dtype == torch.float32
    spread = latents.mean.features.std()
    assert (coarse.mean.features - latents.mean.features).square().mean().sqrt() < 0.05 * spread
    assert half.decode(coarse)[0].shape == image.shape


def test_gradients_reach_every_weight(noise):
    config = preset("nano")
    small = replace(config.encoder, width=32, blocks=1, heads=2, mlp=32)
    model = AToken(replace(config, encoder=small, decoder=small))
    tokens = pack_pixels([noise(20, 20), noise(5, 16, 16)])
    features, moments = model.forward_encoder(tokens)
    rebuilt = model.forward_decoder(tokens.with_features(moments[:, :48]))
    (rebuilt.square().mean() + model.pool(features, tokens.lengths).sum() + moments.square().mean()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_cached_decoding_is_differentiable(tiny, noise):
    mean = tiny.encode([noise(12, 16, 16)]).mean
    leaf = mean.features.clone().requires_grad_()
    tiny.forward_decoder(mean.with_features(leaf), stride_frames=4, cache_frames=4)[-1].sum().backward()
    assert leaf.grad[0].abs().max() > 0  # two windows back, through the carried keys of deeper layers
    tiny.zero_grad(set_to_none=True)


def test_misuse_is_explained(tiny, tiny_fsq, noise):
    latents = tiny.encode([noise(16, 16)])
    with pytest.raises(InputError, match="tiny is continuous"):
        tiny.quantize(latents)
    with pytest.raises(InputError, match="cannot decode codes"):
        tiny.decode(tiny_fsq.quantize(latents))
    with pytest.raises(InputError, match="'png'"):
        tiny.decode(latents, output="png")
    with pytest.raises(InputError, match="decodes 48 latent channels, got 5"):
        tiny.decode(latents.mean.with_features(latents.mean.features[:, :5]))
    with pytest.raises(InputError, match="NaN"):
        tiny.decode(latents.mean.with_features(latents.mean.features * torch.nan))
    with pytest.raises(InputError, match="not a list"):
        tiny.decode([latents])
    with pytest.raises(InputError, match="not a Tensor"):
        tiny.decode(latents.mean.features)
    huge = replace(latents.mean, coords=latents.mean.coords + 2_000_000)
    with pytest.raises(InputError, match="raster"):
        tiny.decode(huge)


def test_nano_fits_in_the_package():
    with torch.device("meta"):
        model = AToken(preset("nano"))
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters < 5.9e6
