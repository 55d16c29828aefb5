"""An item's result depends on the item alone: not on batch mates, order, or where its time starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoken.errors import InputError
from atoken.tokens import SparseTokens

TOLERANCE = 2e-5
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

images = st.tuples(st.integers(1, 50), st.integers(1, 50))
videos = st.tuples(st.integers(1, 37), st.integers(1, 33), st.integers(1, 33))
batches = st.lists(st.one_of(images, videos), min_size=2, max_size=4)


@relaxed
@given(sizes=batches, data=st.data())
def test_neither_mates_nor_order_matter(tiny, noise, sizes, data):
    items = [noise(*size, seed=i) for i, size in enumerate(sizes)]
    order = data.draw(st.permutations(range(len(items))))
    latents = tiny.encode([items[i] for i in order])
    embedded = tiny.embed([items[i] for i in order])
    pixels = tiny.decode(latents, output="float")
    samples = latents.sample(7).split()
    for place, i in enumerate(order):
        alone = tiny.encode([items[i]])
        together = latents.split()[place]
        torch.testing.assert_close(together.mean.features, alone.mean.features, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(together.logvar, alone.logvar, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(samples[place].features, alone.sample(7).features, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(embedded[place], tiny.embed([items[i]])[0], rtol=0, atol=TOLERANCE)
        rebuilt = tiny.decode(alone, output="float")[0]
        assert rebuilt.shape == items[i].shape
        np.testing.assert_allclose(pixels[place], rebuilt, rtol=0, atol=TOLERANCE)


@relaxed
@given(
    frames=st.lists(st.integers(1, 41), min_size=2, max_size=4),
    stride=st.sampled_from([4, 8, 12, 16]),
    cache=st.sampled_from([4, 8, 12]),
)
def test_cache_horizon_is_the_items_own(tiny, noise, frames, stride, cache):
    items = [noise(t, 16, 32, seed=i) for i, t in enumerate(frames)]
    latents = tiny.encode(items)
    windows = {"stride_frames": stride, "cache_frames": cache}
    together = tiny.decode(latents, output="float", **windows)
    for part, pixels in zip(latents.split(), together, strict=True):
        alone = tiny.decode(part, output="float", **windows)[0]
        np.testing.assert_allclose(pixels, alone, rtol=0, atol=TOLERANCE)


def shifted(tokens: SparseTokens, by: int) -> SparseTokens:
    return replace(tokens, coords=tokens.coords + torch.tensor([by, 0, 0, 0], dtype=torch.int32))


@pytest.mark.parametrize("windows", [{}, {"stride_frames": 8, "cache_frames": 4}])
def test_time_may_start_anywhere(tiny, noise, windows):
    mean = tiny.encode([noise(24, 16, 16)]).mean
    with torch.no_grad():
        plain = tiny.forward_decoder(mean, **windows)
        assert torch.equal(tiny.forward_decoder(shifted(mean, 5), **windows), plain)
        mate = tiny.encode([noise(32, 32)]).mean
        packed = SparseTokens.cat([mate, shifted(mean, 5)])
        rows = tiny.forward_decoder(packed, **windows)[mate.lengths[0] :]
    torch.testing.assert_close(rows, plain, rtol=0, atol=TOLERANCE)


def test_nothing_stale_is_carried_over_a_gap_in_time(tiny, noise):
    mean = tiny.encode([noise(16, 16, 16)]).mean
    gap = torch.tensor([[0], [0], [40], [40]], dtype=torch.int32) * torch.tensor([[1, 0, 0, 0]], dtype=torch.int32)
    apart = replace(mean, coords=mean.coords + gap)
    with torch.no_grad():
        cached = tiny.forward_decoder(apart, stride_frames=8, cache_frames=8)
        alone = tiny.forward_decoder(apart, stride_frames=8)
    torch.testing.assert_close(cached, alone, rtol=0, atol=TOLERANCE)


def test_the_cache_is_used(tiny, noise):
    mean = tiny.encode([noise(16, 16, 16)]).mean
    with torch.no_grad():
        cached = tiny.forward_decoder(mean, stride_frames=8, cache_frames=4)
        alone = tiny.forward_decoder(mean, stride_frames=8)
    torch.testing.assert_close(cached[:2], alone[:2], rtol=0, atol=TOLERANCE)
    assert (cached[2:] - alone[2:]).abs().max() > 1e-3


def test_windows_follow_the_latent_steps(tiny, noise):
    mean = tiny.encode([noise(40, 16, 16)]).mean
    with torch.no_grad():
        same = [tiny.forward_decoder(mean, stride_frames=s, cache_frames=c) for s, c in ((8, 0), (10, 3))]
        assert torch.equal(*same)
        for bad in ({"stride_frames": 3}, {"cache_frames": -4}):
            with pytest.raises(InputError, match="stride_frames"):
                tiny.forward_decoder(mean, **bad)


def test_tokens_must_be_sorted_in_time(tiny, noise):
    mean = tiny.encode([noise(16, 16, 16)]).mean
    with pytest.raises(InputError, match="sorted by t"):
        tiny.forward_decoder(replace(mean, coords=mean.coords.flip(0)))
    with pytest.raises(InputError, match="negative"):
        tiny.forward_decoder(shifted(mean, -1))
