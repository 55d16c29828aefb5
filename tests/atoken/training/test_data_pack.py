"""Packs are the library's own tokens, as bytes."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from atoken.assets.asset import Asset
from atoken.errors import InputError
from atoken.patches import pack_pixels
from atoken.tokens import SparseTokens
from atoken.training.data.pack import Pack, asset_sample, pack_samples, pixel_sample
from atoken.training.data.pictures import premultiplied
from tests.atoken.training.pictures import picture
from tests.atoken.training.samples import TASKS, batches, made_asset

IMAGES = [picture(0, 32, 48), picture(1, 16, 16), picture(2, 80, 32)[:, ::-1]]
CLIPS = [np.stack([picture(t, 32, 48) for t in range(8)]), np.stack([picture(t, 48, 16) for t in range(4)])]


def images(limit: int = 1000) -> tuple[Pack, ...]:
    return pack_samples([pixel_sample(i[None], str(n), None, is_image=True) for n, i in enumerate(IMAGES)], limit)


def same(ours: SparseTokens, theirs: SparseTokens) -> None:
    assert torch.equal(ours.features, theirs.features)
    assert torch.equal(ours.coords, theirs.coords)
    assert (ours.lengths, ours.items) == (theirs.lengths, theirs.items)
    assert ours.features.dtype == torch.float32


@pytest.mark.parametrize("frames", [1, 4])
def test_images_are_packed_as_by_the_library(frames: int) -> None:
    patch = (frames, 16, 16)
    same(images()[0].tokens(patch, "cpu"), pack_pixels(IMAGES, patch=patch))


def test_frames_that_pad_an_image_are_mid_grey() -> None:
    features = images()[0].tokens((4, 16, 16)).features
    assert torch.equal(features[:, 768:], torch.zeros(len(features), 3 * 768))


def test_clips_are_packed_as_by_the_library() -> None:
    pack = pack_samples([pixel_sample(c, str(n), None, is_image=False) for n, c in enumerate(CLIPS)], 1000)[0]
    same(pack.tokens((4, 16, 16)), pack_pixels(CLIPS))


def test_assets_are_packed_as_by_the_library() -> None:
    prepared = [made_asset(seed) for seed in range(3)]
    assets = [Asset(p.features.astype(np.float32) / 255, p.coords.astype(np.int32)) for p in prepared]
    pack = pack_samples([asset_sample(p.features, p.coords, "a", None) for p in prepared], 1000)[0]
    ours, theirs = pack.tokens((4, 16, 16)), pack_pixels(assets)
    # Bytes over 255 and times 2 round otherwise than bytes over 127.5.
    torch.testing.assert_close(ours.features, theirs.features, atol=2e-7, rtol=0)
    assert torch.equal(ours.features[:, 768:], theirs.features[:, 768:])
    assert torch.equal(ours.coords, theirs.coords)
    assert (ours.lengths, ours.items) == (theirs.lengths, theirs.items)


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="1 frames of 16x16"):
        images()[0].tokens((4, 8, 8))
    clip = pack_samples([pixel_sample(CLIPS[0], "c", None, is_image=False)], 9)[0]
    with pytest.raises(InputError, match="4 frames"):
        clip.tokens((1, 16, 16))


def test_packs_travel_between_processes() -> None:
    for task in TASKS:
        batch = batches().batch(task, 0)
        file = io.BytesIO()
        pickle.dump(batch, file)
        again = pickle.loads(file.getvalue())
        for pack, other in zip(batch.packs, again.packs, strict=True):
            assert torch.equal(pack.values, other.values)
            assert (pack.ids, pack.items, pack.texts) == (other.ids, other.items, other.texts)


@pytest.mark.cuda
def test_pinned_packs_give_the_same_tokens_on_the_gpu() -> None:
    for task in TASKS:
        for pack in batches().batch(task, 0).pin_memory().packs:
            assert pack.values.is_pinned()
            assert pack.renders is None or pack.renders.pictures.is_pinned()
            there = pack.tokens((4, 16, 16), "cuda").to("cpu")
            torch.testing.assert_close(there.features, pack.tokens((4, 16, 16)).features, atol=1e-6, rtol=0)


def test_pictures_are_premultiplied_and_shrunk_by_means() -> None:
    pictures = made_asset(0).pictures
    plain = premultiplied(pictures)
    alpha = pictures[..., 3:] / 255.0
    np.testing.assert_allclose(plain[..., :3], pictures[..., :3] * alpha, atol=0.51)
    np.testing.assert_array_equal(plain[..., 3], pictures[..., 3])
    exact = np.concatenate([pictures[..., :3] * alpha, pictures[..., 3:]], axis=-1)
    means = exact.reshape(6, 16, 2, 16, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(premultiplied(pictures, 2), means, atol=0.51)
