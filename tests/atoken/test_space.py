"""Spatial tiles: weights sum to 1, one tile changes nothing, blending invents nothing."""

from __future__ import annotations

import itertools
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken import SpaceTiles, join_video
from atoken.errors import InputError
from atoken.space import spots

sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))


@settings(max_examples=200, deadline=None)
@given(grid=sizes, tile=sizes, overlap=st.integers(0, 29), scale=st.sampled_from([(1, 1), (4, 4), (2, 3)]))
def test_the_weights_sum_to_one_everywhere(grid, tile, overlap, scale):
    overlap = min(overlap, *(side - 1 for side in tile))
    total = torch.zeros(grid[0] * scale[0], grid[1] * scale[1], dtype=torch.float64)
    placed = spots(grid, tile, overlap, scale)
    for spot in placed:
        assert spot.size == tuple(min(a, b) * s for a, b, s in zip(grid, tile, scale, strict=True))
        assert (spot.weights > 0).all()
        total[spot.rows, spot.columns] += spot.weights
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    starts = sorted({spot.columns.start for spot in placed})
    for before, after in itertools.pairwise(starts):
        assert before + min(tile[1], grid[1]) * scale[1] - after >= overlap * scale[1]


def test_two_tiles_meet_in_linear_ramps():
    (_, left), (_, right) = ((s, s.weights[0]) for s in spots((1, 6), (1, 4), 2, (1, 2)))
    assert left.tolist() == [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125]
    assert right.tolist() == left.flip(0).tolist()


@pytest.mark.parametrize("windows", [{}, {"stride_frames": 8, "cache_frames": 4}])
def test_one_tile_over_all_is_no_tile(tiny, noise, windows):
    clip = noise(37, 40, 50)
    space = SpaceTiles(48, 64, 16)
    plain, tiled = (join_video(tiny.encode_video([clip], space=given)) for given in (None, space))
    assert torch.equal(plain.mean.features, tiled.mean.features)
    assert torch.equal(plain.logvar, tiled.logvar)
    pairs = (np.concatenate(list(tiny.decode_video([plain], space=given, **windows))) for given in (None, space))
    np.testing.assert_array_equal(*pairs)


def pointwise(model):
    """The model with tokens that neither see each other nor know where they are."""
    blind = deepcopy(model)
    with torch.no_grad():
        for half in (blind.encoder, blind.decoder):
            half.pos_embedder.position_embedding.weight.zero_()
            for block in half.blocks:
                block.attn.to_out.weight.zero_()
    return blind


@pytest.mark.parametrize(
    "space", [SpaceTiles(32, 48, 16), SpaceTiles(16, 16), SpaceTiles(32, 32, 0), SpaceTiles(64, 32, 16)]
)
def test_what_no_neighbour_can_change_tiles_do_not_change(tiny, noise, space):
    model, clip = pointwise(tiny), noise(21, 70, 90)
    plain, tiled = (join_video(model.encode_video([clip], space=given)) for given in (None, space))
    assert plain.mean.items == tiled.mean.items
    assert torch.equal(plain.mean.coords, tiled.mean.coords)
    torch.testing.assert_close(tiled.mean.features, plain.mean.features, rtol=0, atol=5e-6)
    torch.testing.assert_close(tiled.logvar, plain.logvar, rtol=0, atol=5e-6)
    for windows in ({}, {"stride_frames": 8, "cache_frames": 12}):
        blocks = (
            np.concatenate(list(model.decode_video([plain], output="float", space=s, **windows))) for s in (None, space)
        )
        np.testing.assert_allclose(*blocks, rtol=0, atol=5e-6)


def test_a_tile_is_what_its_region_gives_alone(tiny, noise):
    clip = noise(20, 64, 96)
    space = SpaceTiles(64, 48)  # two tiles without overlap
    tiled = join_video(tiny.encode_video([clip], space=space))
    cells = tiled.mean.features.view(5, 4, 6, -1)
    left = tiny.encode([clip[:, :, :48]])
    torch.testing.assert_close(cells[:, :, :3].flatten(0, 2), left.mean.features, rtol=0, atol=5e-6)
    for windows in ({}, {"stride_frames": 4, "cache_frames": 8}):
        pixels = np.concatenate(list(tiny.decode_video([tiled], output="float", space=space, **windows)))
        half = left.mean.with_features(cells[:, :, :3].flatten(0, 2).contiguous())
        np.testing.assert_allclose(
            pixels[:, :, :48], tiny.decode(half, output="float", **windows)[0], rtol=0, atol=5e-6
        )
        whole = np.concatenate(list(tiny.decode_video([tiled], output="float", **windows)))
        assert np.abs(pixels - whole).max() > 1e-3  # tiles do change what a model makes of neighbours


def test_far_tiles_do_not_see_a_change(tiny, noise):
    clip = noise(16, 32, 160)
    other = clip.copy()
    other[:, :, 130:] = 255 - other[:, :, 130:]
    space = SpaceTiles(32, 64, 16)
    one, two = (next(tiny.encode_video([x], space=space)).mean.features.view(4, 2, 10, -1) for x in (clip, other))
    same = (one == two).all(-1).all(1).all(0)
    # Tiles start at columns 0, 3 and 6: what the last one does not cover stays as it was, bit for bit.
    assert same.tolist() == [True] * 6 + [False] * 4


def test_the_cut_of_the_stream_does_not_matter_with_tiles_either(tiny, noise):
    clip, space = noise(37, 40, 70), SpaceTiles(32, 32, 16)
    parts = [join_video(tiny.encode_video(blocks, space=space)) for blocks in ([clip], clip, [clip[:5], clip[5:]])]
    assert torch.equal(parts[0].mean.features, parts[1].mean.features)
    assert torch.equal(parts[0].mean.features, parts[2].mean.features)


@pytest.mark.parametrize(
    "bad", [(40, 48, 16), (48, 48, 8), (48, 48, 48), (48, 32, 32), (48, 48, -16), (0, 16, 0), (32.0, 32, 0)]
)
def test_bad_tiles_are_refused_before_any_frame(tiny, bad):
    with pytest.raises(InputError, match="spatial tiles of"):
        tiny.encode_video([], space=SpaceTiles(*bad))
    with pytest.raises(InputError, match="spatial tiles of"):
        tiny.decode_video([], space=SpaceTiles(*bad))
