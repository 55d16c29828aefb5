"""A shrunk asset has fewer voxels and looks the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoken.training.data.shrink import shrunk
from atoken.training.errors import TrainingError
from atoken.training.tasks import AssetTask
from tests.atoken.training.samples import made_asset


@given(factor=st.integers(1, 8), seed=st.integers(0, 99))
def test_cameras_see_every_point_where_they_saw_it(factor: int, seed: int) -> None:
    asset, rng = made_asset(0), np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (20, 3))
    for before, after in zip(asset.cameras, shrunk(asset, factor, rng).cameras, strict=True):
        seen = [
            (camera.world_to_camera @ np.c_[place, np.ones(20)].T)[:3]
            for camera, place in ((before, points), (after, points / factor))
        ]
        on_the_picture = [place[:2] / place[2] for place in seen]
        np.testing.assert_allclose(*on_the_picture, rtol=1e-9, atol=1e-9)


@given(factor=st.integers(2, 8), seed=st.integers(0, 99))
def test_voxels_lie_where_the_shrunk_points_are_and_keep_their_pixels(factor: int, seed: int) -> None:
    asset, rng = made_asset(0), np.random.default_rng(seed)
    coords = np.unique(rng.integers(0, 64, (200, 3)), axis=0).astype(np.uint8)
    index = rng.integers(0, len(asset.patches), len(coords)).astype(np.uint16)
    small = shrunk(dataclasses.replace(asset, coords=coords, index=index), factor, rng)
    world = (coords + 0.5) / 64 - 0.5
    wanted = np.floor((world / factor + 0.5) * 64).astype(int)
    assert {tuple(row) for row in small.coords.tolist()} == {tuple(row) for row in wanted.tolist()}
    assert len(np.unique(small.coords, axis=0)) == len(small.coords)
    for place, kept in zip(small.coords, small.index, strict=True):
        assert kept in index[(wanted == place).all(axis=1)]


def test_a_factor_of_one_changes_nothing() -> None:
    asset = made_asset(0)
    assert shrunk(asset, 1, np.random.default_rng(0)) is asset


@pytest.mark.parametrize("factor", [0, 9, 1.5])
def test_a_recipe_shrinks_by_one_to_eight(factor: float) -> None:
    with pytest.raises(TrainingError, match=r"asset_text\.shrink must be 1 to 8"):
        AssetTask(samples=1, share=1, shrink=factor).check("asset_text")
