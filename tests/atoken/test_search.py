"""Searched codes: never worse than the encoder's, each tile on its own, and nothing at all unless asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from atoken.config import FSQConfig
from atoken.errors import InputError
from atoken.parts import join_video
from atoken.patches import pack_pixels
from atoken.quantizer import FSQ
from atoken.search import search_codes, search_levels
from atoken.space import SpaceTiles
from atoken.tokenizer import AToken
from atoken.tokens import Latents, SparseTokens
from tests.atoken.test_assets import some_asset

Noise = Callable[..., np.ndarray[Any, Any]]
SMALL = FSQ(FSQConfig(levels=(4, 3), codebooks=2))


class Pulled:
    """Rows want to be at a place of their own, through a mixing matrix as a decoder's: not every level on its own."""

    def __init__(self, rows: int, seed: int) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self.wanted = torch.randn(rows, 4, generator=drawn)
        self.mixing = torch.eye(4) + 0.6 * torch.randn(4, 4, generator=drawn)

    def __call__(self, codes: Tensor) -> Tensor:
        mixed = (codes[:, None, :] * self.mixing).sum(dim=2)  # row by row: no other row changes a bit
        return (mixed - self.wanted).square().sum(dim=1)

    def of(self, rows: slice) -> Pulled:
        part = Pulled(1, 0)
        part.wanted, part.mixing = self.wanted[rows], self.mixing
        return part


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 999), steps=st.integers(1, 12))
def test_no_group_gets_worse_and_none_feels_another(lengths: list[int], seed: int, steps: int) -> None:
    error, rows = Pulled(sum(lengths), seed), sum(lengths)
    mean = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed + 1)) * 1.5
    found = search_levels(mean, error, lengths, quantizer=SMALL, steps=steps)
    before, after = error(SMALL(mean)[0]).split(lengths), error(SMALL(found)[0]).split(lengths)
    assert all(float(new.sum()) <= float(old.sum()) for new, old in zip(after, before, strict=True))
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        alone = search_levels(mean[part], error.of(part), [length], quantizer=SMALL, steps=steps)
        assert torch.equal(alone, found[part])
        start += length


def test_comes_near_the_best_of_all_levels() -> None:
    """Against every one of 144 combinations, on rows that are groups of their own."""
    error, rows = Pulled(200, 3), 200
    mean = torch.randn(rows, 4, generator=torch.Generator().manual_seed(4))
    every = torch.tensor(list(product((-1.0, -0.5, 0.0, 0.5), (-1.0, 0.0, 1.0), repeat=2)))
    least = torch.stack([error(code.expand(rows, 4)) for code in every]).amin(0)
    at_once = error(SMALL(mean)[0])
    found = error(SMALL(search_levels(mean, error, [1] * rows, quantizer=SMALL, steps=60))[0])
    assert (found >= least - 1e-5).all()
    assert float((found - least).mean()) < 0.25 * float((at_once - least).mean())


def test_an_error_that_is_no_number_leaves_the_encoders_levels() -> None:
    mean = torch.randn(5, 4)
    broken = search_levels(mean, lambda codes: codes.sum(dim=1) * torch.nan, [2, 3], quantizer=SMALL, steps=3)
    assert torch.equal(SMALL(broken)[1], SMALL(mean)[1])


# -- With a model ----------------------------------------------------------------------------------------------------


def errors(model: AToken, tokens: SparseTokens, latents: Latents) -> list[float]:
    """Squared error of each item's tokens over the channels of its frames that come back."""
    with torch.no_grad():
        codes = model.decoder_input(model.quantize(latents))
        rebuilt = tokens.with_features(model.forward_decoder(codes)).split()
    found = []
    for wanted, got, spec in zip(tokens.split(), rebuilt, tokens.items, strict=True):
        shown = 768 if spec.out_frames == 1 else 3072
        found.append(float((wanted.features[:, :shown] - got.features[:, :shown]).square().sum()))
    return found


def test_lessens_the_error_of_images_clips_and_assets(tiny_fsq: AToken, noise: Noise) -> None:
    items = [noise(32, 48), noise(20, 16, 16, seed=1), some_asset(40)]
    plain, found = tiny_fsq.encode(items), tiny_fsq.encode(items, search=8)
    assert torch.equal(plain.logvar, found.logvar)
    tokens = pack_pixels(items, patch=(4, 16, 16))
    for old, new in zip(errors(tiny_fsq, tokens, plain), errors(tiny_fsq, tokens, found), strict=True):
        assert new < 0.999 * old
    # On levels: what is rounded again stays.
    again = replace(found.mean, features=tiny_fsq.quantizer(found.mean.features)[0])
    assert torch.equal(tiny_fsq.decoder_input(found).features, again.features)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_runs_in_any_mode_and_leaves_no_gradients(mode: type, tiny_fsq: AToken, noise: Noise) -> None:
    plain = tiny_fsq.encode([noise(32, 32)], search=3).mean.features
    with mode():
        found = tiny_fsq.encode([noise(32, 32)], search=3).mean.features
    assert torch.equal(found, plain)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in tiny_fsq.parameters())


def test_no_search_is_the_encoder_alone(tiny_fsq: AToken, noise: Noise) -> None:
    tokens = pack_pixels([noise(32, 32)], patch=(4, 16, 16))
    with torch.no_grad():
        mean = tiny_fsq.forward_encoder(tokens)[1][:, :48]
    assert search_codes(tiny_fsq, tokens, mean, 0) is mean
    assert torch.equal(tiny_fsq.encode([noise(32, 32)]).mean.features, mean)


def test_frames_that_do_not_come_back_do_not_count(tiny_fsq: AToken, noise: Noise) -> None:
    """A clip of 18 frames ends with two of four: whatever stands in the others finds the same codes."""
    tokens = pack_pixels([noise(18, 16, 16), noise(16, 16, seed=1)], patch=(4, 16, 16))
    hidden = tokens.features.clone()
    hidden[4, 2 * 768 :] += 0.5
    hidden[5, 768:] += 0.5
    mean = tiny_fsq.encode([noise(18, 16, 16), noise(16, 16, seed=1)]).mean.features
    found = search_codes(tiny_fsq, tokens, mean, 5)
    assert torch.equal(search_codes(tiny_fsq, tokens.with_features(hidden), mean, 5), found)
    shown = hidden.clone()
    shown[4, 768] += 0.5
    assert not torch.equal(search_codes(tiny_fsq, tokens.with_features(shown), mean, 5), found)


@pytest.mark.parametrize("frames", [1, 6, 16, 35])
def test_a_stream_finds_what_the_whole_clip_finds(tiny_fsq: AToken, noise: Noise, frames: int) -> None:
    clip = noise(frames, 20, 16)
    whole = tiny_fsq.quantize(tiny_fsq.encode([clip], search=4))
    parts = [tiny_fsq.quantize(part) for part in tiny_fsq.encode_video(clip, search=4)]
    joined = join_video(parts, patch=(4, 16, 16))
    # Where a latent lies on a border a last float bit decides.
    assert float((joined.features != whole.features).float().mean()) < 0.02


def test_what_cannot_be_searched(tiny: AToken, tiny_fsq: AToken, noise: Noise) -> None:
    with pytest.raises(InputError, match="tiny is continuous: it has no codes to search for"):
        tiny.encode([noise(16, 16)], search=1)
    with pytest.raises(InputError, match="0 or more, got -1"):
        tiny_fsq.encode([noise(16, 16)], search=-1)
    with pytest.raises(InputError, match="continuous"):
        tiny.encode_video([noise(16, 16)], search=1)
    with pytest.raises(InputError, match="spatial tiles"):
        tiny_fsq.encode_video([noise(16, 16)], search=1, space=SpaceTiles(32, 32, 16))


def test_the_shipped_model_gains_half_a_decibel() -> None:
    model, picture = AToken.from_pretrained("atoken-nano-d"), data.astronaut()[:256, 100:356]
    plain, found = (model.decode(model.encode([picture], search=steps))[0] for steps in (0, 10))
    gain = peak_signal_noise_ratio(picture, found) - peak_signal_noise_ratio(picture, plain)
    assert gain > 0.5


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_it_gains_as_much(dtype: torch.dtype) -> None:
    picture = data.astronaut()[:256, 100:356]
    errors = {}
    for device in ("cpu", "cuda"):
        model = AToken.from_pretrained("atoken-nano-d", device=device, dtype=dtype)
        with torch.inference_mode():
            rebuilt = [model.decode(model.quantize(model.encode([picture], search=steps)))[0] for steps in (0, 5)]
        errors[device] = [peak_signal_noise_ratio(picture, out) for out in rebuilt]
    assert errors["cuda"][1] > errors["cuda"][0] + 0.2
    assert abs(errors["cuda"][1] - errors["cpu"][1]) < 0.1
