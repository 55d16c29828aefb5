"""From a mesh to an asset: each step that it names is taken, as the parts take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atoken.assets.asset import Asset
from atoken.assets.cameras import hammersley_views
from atoken.assets.mesh import load_mesh
from atoken.assets.mesh_to_asset import Recipe, voxelise
from atoken.assets.render import RenderSettings, render_views
from atoken.assets.sources import AssetError
from atoken.errors import InputError
from tests.atoken.assets.models import Gltf, cube_obj, write_square_obj

COLOURS = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 1, 1)}


def test_each_side_of_a_cube_has_its_colour(tmp_path: Path) -> None:
    """What faces +y and +z in the file (y up) faces +z and -y in the world (z up)."""
    obj, mtl = cube_obj(COLOURS)
    (tmp_path / "cube.obj").write_text(obj)
    (tmp_path / "cube.mtl").write_text(mtl)
    asset = voxelise(tmp_path / "cube.obj", Recipe(views=24, size=128, gathering="visible"))
    coords, patches = asset.coords.numpy(), asset.features.numpy().reshape(-1, 256, 3)
    sides = {"+x": (0, 63), "-x": (0, 0), "+y": (2, 63), "-y": (2, 0), "+z": (1, 0), "-z": (1, 63)}
    for name, (axis, place) in sides.items():
        middle = (np.abs(np.delete(coords, axis, axis=1) - 31.5) < 12).all(axis=1)
        mine = patches[middle & (coords[:, axis] == place)]
        assert len(mine) > 400
        np.testing.assert_allclose(np.median(mine.reshape(-1, 3), axis=0), COLOURS[name], atol=0.02)


def test_defaults_are_the_releases_way() -> None:
    assert Recipe() == Recipe(views=150, size=512, occupancy="depth", gathering="nearest")


def test_each_part_of_the_recipe_counts(tmp_path: Path) -> None:
    mesh = load_mesh(write_square_obj(tmp_path))
    plain = voxelise(mesh, Recipe(views=6, size=64))
    same = Asset.from_mesh(mesh, Recipe(views=6, size=64))
    assert np.array_equal(plain.features, same.features)
    assert np.array_equal(plain.coords, same.coords)
    assert plain.name == mesh.name
    others: list[dict[str, Any]] = [{"views": 7}, {"size": 65}, {"gathering": "average"}, {"gathering": "visible"}]
    for change in [*others, {"occupancy": "mesh"}]:
        other = voxelise(mesh, Recipe(**{"views": 6, "size": 64} | change))
        assert other.features.shape != plain.features.shape or (other.features != plain.features).any(), change


def test_views_of_another_renderer_take_the_place_of_ours(tmp_path: Path) -> None:
    mesh, recipe = load_mesh(write_square_obj(tmp_path)), Recipe(views=6, size=64)
    ours = render_views(mesh, hammersley_views(6, mostly_above=True), RenderSettings(height=64, width=64))
    plain, same = voxelise(mesh, recipe), voxelise(mesh, recipe, views=ours)
    assert np.array_equal(plain.features, same.features)
    assert np.array_equal(plain.coords, same.coords)
    grey = replace(ours, colours=np.where(ours.colours[..., 3:] > 0, np.uint8(255), ours.colours))
    white = voxelise(mesh, recipe, views=grey)
    assert np.array_equal(plain.coords, white.coords)
    assert white.features.mean() > plain.features.mean()


def test_views_are_told_as_they_are_drawn(tmp_path: Path) -> None:
    mesh, heard = load_mesh(write_square_obj(tmp_path)), []
    voxelise(mesh, Recipe(views=3, size=32), passed=heard.append)
    assert heard == [1, 1, 1]


def test_what_cannot_be_seen_is_said(tmp_path: Path) -> None:
    model = Gltf()
    model.document["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}, "alphaMode": "BLEND"}]
    model.add(model.square(0))
    path = model.write(tmp_path / "ghost.glb")
    with pytest.raises(AssetError, match=r"ghost\.glb: no view shows anything of it; is all of it transparent\?"):
        voxelise(path, Recipe(views=4, size=32))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"views": 0}, "at least one view"), ({"occupancy": "rays"}, "'rays'"), ({"gathering": "best"}, "'best'")],
)
def test_recipes_that_make_no_sense(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Recipe(**change)
