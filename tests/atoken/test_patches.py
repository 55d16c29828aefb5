"""Pixels to tokens and back, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atoken.errors import InputError
from atoken.patches import pack_pixels, to_uint8, unpack_pixels

side = st.integers(1, 70)


@settings(max_examples=60, deadline=None)
@given(size=st.one_of(st.tuples(side, side), st.tuples(st.integers(1, 23), side, side)), channels=st.just(3))
def test_every_size_comes_back(size, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    tokens = pack_pixels([pixels])
    back = unpack_pixels(tokens)[0]
    assert back.shape == (size if len(size) == 3 else (1, *size)) + (3,)
    assert np.array_equal(to_uint8(back).numpy().reshape(pixels.shape), pixels)
    t, h, w = tokens.items[0].grid((4, 16, 16))
    assert tokens.lengths == (t * h * w,)
    assert tokens.features.abs().max() <= 1


def test_value_order_inside_a_token():
    video = torch.rand(4, 32, 32, 3) * 2 - 1
    row = pack_pixels([video]).features[3]  # t 0, row 1, column 1
    assert torch.equal(row.view(4, 16, 16, 3), video[:, 16:, 16:])


def test_padding_reflects_without_repeating_the_edge():
    ramp = np.arange(20, dtype=np.uint8).reshape(1, 20, 1).repeat(3, -1)
    cells = to_uint8(pack_pixels([ramp]).features.view(2, 4, 16, 16, 3)[:, 0, :, :, 0])
    columns = cells.permute(1, 0, 2).flatten(1)
    assert columns[0].tolist() == [*range(20), *range(18, 6, -1)]
    assert torch.equal(columns, columns[:1].expand(16, -1))
    short = np.array([[[10] * 3, [20] * 3, [30] * 3]], dtype=np.uint8)
    cells = to_uint8(pack_pixels([short]).features.view(4, 16, 16, 3)[0, 0, :, 0])
    assert cells.tolist() == [10, 20, 30, 20] * 4


def test_missing_frames():
    grey_end = pack_pixels([torch.ones(2, 16, 16, 3)]).features.view(4, 16, 16, 3)
    assert grey_end[:2].eq(1).all()
    assert grey_end[2:].eq(0).all()
    clip = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(-1, 16, 16, 3)
    still_end = pack_pixels([clip]).features.view(8, 16, 16, 3)[:, 0, 0, 0]
    assert torch.equal(still_end, clip[[0, 1, 2, 3, 4, 5, 5, 5], 0, 0, 0])


@pytest.mark.parametrize(("frames", "out"), [(1, 4), (3, 4), (4, 4), (5, 4), (13, 12)])
def test_frames_as_the_release_counts_them(noise, frames, out):
    tokens = pack_pixels([noise(frames, 16, 16)], frames="drop")
    assert unpack_pixels(tokens)[0].shape == (out, 16, 16, 3)
    assert tokens.items[0].frames == frames


def test_crop_is_centred(noise):
    image = noise(37, 50)
    tokens = pack_pixels([image], fit="crop")
    back = to_uint8(unpack_pixels(tokens)[0])[0].numpy()
    assert np.array_equal(back, image[2:34, 1:49])
    assert (tokens.items[0].top, tokens.items[0].left) == (2, 1)
    with pytest.raises(InputError, match="item 0: 15x50 is smaller than a 16x16 patch; use fit='pad'"):
        pack_pixels([noise(15, 50)], fit="crop")


def test_all_kinds_of_input_agree(noise):
    image = noise(20, 30)
    want = pack_pixels([image]).features
    backwards = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    frozen = image.copy()
    frozen.flags.writeable = False
    for same in (Image.fromarray(image), torch.from_numpy(image), backwards, frozen):
        assert torch.equal(pack_pixels([same]).features, want)
    as_float = image.astype(np.float32) / 127.5 - 1
    for same in (as_float, as_float.astype(np.float64), torch.from_numpy(as_float).half()):
        torch.testing.assert_close(pack_pixels([same]).features, want, rtol=0, atol=1e-3)
    grey = Image.fromarray(image[..., 0])
    assert unpack_pixels(pack_pixels([grey]))[0].shape == (1, 20, 30, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\[H, W, 3\].*\[4, 4\]"),
        (np.zeros((3, 32, 32), np.uint8), "RGB last"),
        (np.zeros((4, 4, 4), np.uint8), "RGB last"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.int32), "uint8 or float, got .*int32"),
        (np.zeros((4, 4, 3), np.longdouble), "not supported"),
        (np.zeros((4, 4, 3), ">f4"), "not supported"),
        (np.full((4, 4, 3), np.nan, np.float32), "finite"),
        (np.full((4, 4, 3), np.inf, np.float32), "finite"),
        (np.full((4, 4, 3), 255.0), r"\[-1, 1\], got 255..255"),
        (torch.zeros(4, 4, 3, dtype=torch.bool), "bool"),
        ("photo.png", "got str"),
    ],
)
def test_bad_items_are_named(noise, bad, message):
    with pytest.raises(InputError, match="item 1: .*" + message):
        pack_pixels([noise(4, 4), bad])


def test_bad_calls(noise):
    with pytest.raises(InputError, match="empty"):
        pack_pixels([])
    with pytest.raises(InputError, match=r"write \[item\]"):
        pack_pixels(noise(4, 4))
    with pytest.raises(InputError, match="'stretch'"):
        pack_pixels([noise(4, 4)], fit="stretch")


def test_only_whole_rasters_become_pixels(noise):
    tokens = pack_pixels([noise(32, 32)])
    swapped = tokens.with_features(tokens.features)
    object.__setattr__(swapped, "coords", tokens.coords.flip(0))
    with pytest.raises(InputError, match="1x2x2 raster"):
        unpack_pixels(swapped)
    object.__setattr__(swapped, "items", pack_pixels([noise(32, 33)]).items)
    with pytest.raises(InputError, match="1x2x3 raster"):
        unpack_pixels(swapped)


def test_rounding_to_8_bit():
    every = torch.arange(256)
    assert torch.equal(to_uint8(every / 127.5 - 1), every.to(torch.uint8))
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
    assert to_uint8((torch.tensor([99.4, 99.6])) / 127.5 - 1).tolist() == [99, 100]
