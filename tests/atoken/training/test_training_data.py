"""Which photos, which crops: named, seeded, reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atoken.training.data import Photos, center_crop, load_photos, patches, random_crops
from atoken.training.errors import TrainingError
from tests.atoken.training.pictures import picture

PHOTOS = Photos(["a", "b"], [picture(0), picture(1, 40, 200)], [])


def test_photos_are_sorted_and_come_as_they_are(folder: Path) -> None:
    photos = load_photos(folder)
    assert photos.ids == [f"p{seed}.png" for seed in range(6)]
    assert not photos.skipped
    np.testing.assert_array_equal(photos.pixels[3], picture(3))


def test_unusable_files_are_named(folder: Path) -> None:
    (folder / "p1.png").write_bytes((folder / "p1.png").read_bytes()[:300])
    Image.fromarray(picture(0, 12, 40)).save(folder / "thin.png")
    photos = load_photos(folder)
    assert photos.ids == ["p0.png", "p2.png", "p3.png", "p4.png", "p5.png"]
    assert [reason.split(":")[0] for reason in photos.skipped] == ["p1.png", "thin.png"]
    assert "40x12 pixels, needs 16" in photos.skipped[1]


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere: no such folder"):
        load_photos(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="holds no image"):
        load_photos(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"no usable image in it \(first: broken\.png"):
        load_photos(tmp_path)


def test_the_fingerprint_tells_pixels_and_names_apart() -> None:
    other = [PHOTOS.pixels[0].copy(), PHOTOS.pixels[1]]
    assert Photos(["a", "b"], other, []).fingerprint == PHOTOS.fingerprint
    other[0][0, 0, 0] ^= 1
    assert Photos(["a", "b"], other, []).fingerprint != PHOTOS.fingerprint
    assert Photos(["a", "c"], PHOTOS.pixels, []).fingerprint != PHOTOS.fingerprint


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), step=st.integers(0, 10**6), crop=st.sampled_from([16, 32, 64, 96]))
def test_a_batch_depends_on_seed_and_step_alone(seed: int, step: int, crop: int) -> None:
    batch = random_crops(PHOTOS, seed=seed, step=step, crop=crop, tokens=72)
    again = random_crops(PHOTOS, seed=seed, step=step, crop=crop, tokens=72)
    assert batch.ids == again.ids
    assert len(batch.crops) == 72 // (crop // 16) ** 2
    for part, same in zip(batch.crops, again.crops, strict=True):
        np.testing.assert_array_equal(part, same)
        assert not any(side % 16 for side in part.shape[:2])


def test_crops_are_parts_of_their_photo_mirrored_or_not() -> None:
    mirrored = 0
    for step in range(8):
        batch = random_crops(PHOTOS, seed=0, step=step, crop=64, tokens=64)
        for name, part in zip(batch.ids, batch.crops, strict=True):
            photo = PHOTOS.pixels[PHOTOS.ids.index(name)]
            assert part.shape[:2] == ((64, 64) if name == "a" else (32, 64))
            windows = np.lib.stride_tricks.sliding_window_view(photo, part.shape)
            straight = (windows == part).all(axis=(-3, -2, -1)).any()
            turned = (windows == part[:, ::-1]).all(axis=(-3, -2, -1)).any()
            assert straight or turned
            mirrored += bool(turned)
    assert 4 < mirrored < 28


def test_center_crop_is_that_of_torchvision() -> None:
    import torch
    from torchvision.transforms.v2.functional import center_crop as theirs

    for height, width in ((64, 64), (70, 66)):
        image = picture(0, height, width)
        expected = theirs(torch.from_numpy(image).permute(2, 0, 1), [64, 64]).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(center_crop(image, 64), expected)


def test_patches_are_the_librarys_tokens() -> None:
    from atoken.patches import pack_pixels

    image = picture(0, 48, 64)
    tokens = pack_pixels([image], patch=(1, 16, 16)).features
    np.testing.assert_allclose(patches([image]), tokens.numpy(), atol=1e-6)
