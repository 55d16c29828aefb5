"""Voxels and their patches: equal to the release's on its golden case, to Open3D's grid, and to plain loops."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from atoken.assets.asset import Asset
from atoken.assets.asset_tokens import asset_coords, fill_asset
from atoken.assets.cameras import camera_from_opengl, hammersley_views, look_at
from atoken.assets.mesh import DEFAULT, Material, Mesh, normalised
from atoken.assets.render import EMPTY, RenderSettings, render_views
from atoken.assets.triangle_boxes import touched_cells
from atoken.assets.voxel_features import nearest_patches, patches_of_views, voxel_features
from atoken.assets.voxels import occupied_by_mesh, occupied_by_points, unprojected, voxel_centres
from atoken.errors import InputError

SMALL = RenderSettings(height=64, width=64, samples=1)


def _box(*, low: float = -0.4, high: float = 0.4) -> Mesh:
    corners = np.array(list(product((low, high), repeat=3)))
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]], np.int32)  # fmt: skip
    return Mesh("box", corners, faces, np.zeros(12, np.int32), (DEFAULT,))


def test_the_releases_golden_case(shared: Path) -> None:
    path = shared / "reference" / "golden" / "n_multiview.safetensors"
    case = load_file(path)
    cameras = [camera_from_opengl(matrix, 0.8552113334772214) for matrix in case["in/c2w_opengl"]]
    np.testing.assert_allclose([c.world_to_camera for c in cameras], case["out/w2c"], atol=1e-6)
    points = unprojected(case["in/depth"], cameras, corner=True)
    np.testing.assert_allclose(points[:256], case["out/surface_points_first256"], atol=1e-6)
    coords = occupied_by_points(points, 12)
    np.testing.assert_array_equal(coords, case["out/coords"])
    view, row, column, channel = np.indices((5, 256, 256, 3))
    pictures = (37 * view + 3 * row + 7 * column + 91 * channel + (row * column) // 16) % 256
    features = voxel_features(coords, patches_of_views(pictures.astype(np.uint8)), cameras, resolution=12)
    np.testing.assert_array_equal(features, case["out/feats_uint8"].astype(np.float32) / np.float32(255))


# Borders are binary fractions then: whether a point lies on one is no matter of rounding.
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_points_fill_voxels_within_half_a_cell(seed: int, resolution: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(-0.6, 0.6, (60, 3))
    points[::2] = np.rint((points[::2] + 0.5) * resolution) / resolution - 0.5
    centres = voxel_centres(np.indices((resolution,) * 3).reshape(3, -1).T, resolution)
    within = (np.abs(centres[:, None] - points) <= 0.5 / resolution).all(-1).any(1)
    expected = np.argwhere(within.reshape((resolution,) * 3))
    np.testing.assert_array_equal(occupied_by_points(points, resolution), expected)


def test_the_subset_of_points_is_seeded() -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 3))
    first, again, other = (occupied_by_points(points, 16, most=500, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)
    every = {tuple(v) for v in occupied_by_points(points, 16, most=None)}
    assert {tuple(v) for v in first} < every


def test_depth_comes_back_to_the_surface() -> None:
    cameras = hammersley_views(6, (0.3, 0.6))
    mesh = _box()
    views = render_views(mesh, cameras, SMALL)
    points = unprojected(views.depth, cameras)
    assert len(points) > 2000
    # On one of the six sides, to float32's last digits; at the pixel's corner it would not be.
    np.testing.assert_allclose(np.abs(points).max(1), 0.4, atol=3e-6)
    assert np.abs(np.abs(unprojected(views.depth, cameras, corner=True)).max(1) - 0.4).max() > 1e-3
    with pytest.raises(InputError, match="camera for each"):
        unprojected(views.depth, cameras[:2])


def test_a_box_of_voxels() -> None:
    coords = occupied_by_mesh(_box(low=-0.3, high=0.3), 10)
    # Borders at 2.0 and 8.0 cells: cells from 2 on, and 8 by touching, as Open3D counts.
    shell = [v for v in product(range(2, 9), repeat=3) if {2, 8} & set(v)]
    found = {tuple(v) for v in coords.tolist()}
    assert {v for v in shell if max(v) < 8} <= found
    assert all(min(v) in (1, 2) or max(v) in (7, 8) for v in found)
    assert (np.diff(coords @ [100, 10, 1]) > 0).all()


def _left_by_clipping(triangle: np.ndarray, cell: np.ndarray) -> int:
    """Corners of what is left of a triangle when it is cut at the six planes of a unit cell."""
    polygon = list(triangle - cell)
    for axis in range(3):
        for sign, border in ((1, 1.0), (-1, 0.0)):
            cut = []
            for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                inside_a, inside_b = sign * (border - a[axis]) >= 0, sign * (border - b[axis]) >= 0
                if inside_a:
                    cut.append(a)
                if inside_a != inside_b:
                    cut.append(a + (b - a) * (border - a[axis]) / (b[axis] - a[axis]))
            polygon = cut
    return len(polygon)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_triangles_touch_the_cells_that_clipping_finds(seed: int) -> None:
    triangle = np.random.default_rng(seed).uniform(-1, 5, (3, 3))
    found = touched_cells(triangle[None], 4)
    expected = [_left_by_clipping(triangle, np.array(cell)) > 0 for cell in product(range(4), repeat=3)]
    np.testing.assert_array_equal(found.reshape(-1), expected)


def test_open3d_fills_the_same_voxels() -> None:
    open3d = pytest.importorskip("open3d", reason="open3d is not installed; it was 0.20.0 when the two agreed")
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=3)
    vertices = ball.vertices * [1, 0.7, 0.4]
    mesh = normalised(Mesh("ball", vertices, np.asarray(ball.faces, np.int32), np.zeros(len(ball.faces)), (DEFAULT,)))
    theirs = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(np.clip(mesh.vertices, -0.5 + 1e-6, 0.5 - 1e-6)),
        open3d.utility.Vector3iVector(mesh.faces),
    )
    grid = open3d.geometry.VoxelGrid.create_from_triangle_mesh_within_bounds(
        theirs, voxel_size=1 / 64, min_bound=(-0.5,) * 3, max_bound=(0.5,) * 3
    )
    expected = sorted(tuple(voxel.grid_index) for voxel in grid.get_voxels())
    assert [tuple(v) for v in occupied_by_mesh(mesh)] == expected


def test_patches_follow_torchs_grid_sample() -> None:
    random = np.random.default_rng(3)
    cameras = [look_at(random.normal(size=3) * 0.8, random.uniform(-0.3, 0.3, 3)) for _ in range(4)]
    patches = random.integers(0, 256, (4, 256, 768), dtype=np.uint8)
    coords = np.argwhere(random.random((16, 16, 16)) < 0.3)
    ours = voxel_features(coords, patches, cameras, resolution=16)
    centres = voxel_centres(coords, 16)
    depth = np.stack([camera.project(centres)[1] for camera in cameras])
    uv = np.stack([camera.project(centres)[0] for camera in cameras])
    grids = torch.from_numpy(patches.reshape(4, 16, 16, 768)).permute(0, 3, 1, 2).double()
    places = torch.from_numpy(2 * uv - 1)[:, None]
    sampled = torch.nn.functional.grid_sample(grids, places, mode="nearest", align_corners=True)[:, :, 0]
    expected = sampled.permute(0, 2, 1).numpy()[depth.argmin(0), np.arange(len(coords))] / 255
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert (ours.sum(1) == 0).any()


def _two_walls() -> tuple[Mesh, list, np.ndarray]:  # type: ignore[type-arg]
    """A red wall before a green one; a camera before the red, and one, farther away, behind the green."""
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    vertices = np.concatenate([square - np.array([0, 0.2, 0]), square + np.array([0, 0.2, 0])])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    materials = (Material(colour=(1, 0, 0, 1)), Material(colour=(0, 1, 0, 1)))
    mesh = Mesh("walls", vertices, faces, np.array([0, 0, 1, 1], np.int32), materials)
    coords = np.array([[32, round((y + 0.5) * 64), z] for y in (-0.2, 0.2) for z in (20, 32, 44)])
    return mesh, [look_at((0, -1.6, 0)), look_at((0, 2.6, 0)), look_at((0, -1.7, 0))], coords


def test_the_visibility_test_sees_what_the_release_does_not() -> None:
    mesh, cameras, coords = _two_walls()
    views = render_views(mesh, cameras, SMALL)
    patches = patches_of_views(views.on(0.0))
    colour = {}
    for gathering in ("nearest", "visible", "average"):
        features = voxel_features(coords, patches, cameras, depth=views.depth, gathering=gathering)  # type: ignore[arg-type]
        colour[gathering] = features.reshape(2, 3, 256, 3).mean((1, 2)).tolist()
    # The nearest camera stands before the red wall, and knows of no green one.
    assert colour["nearest"] == [pytest.approx([1, 0, 0]), pytest.approx([1, 0, 0])]
    assert colour["visible"] == [pytest.approx([1, 0, 0]), pytest.approx([0, 1, 0])]
    assert colour["average"] == [pytest.approx([1, 0, 0]), pytest.approx([0, 1, 0])]


def test_what_no_view_sees_gets_the_nearest_view_that_holds_it() -> None:
    mesh, cameras, coords = _two_walls()
    views = render_views(mesh, cameras[:1], SMALL)
    patches = patches_of_views(views.on(0.0))
    plain = voxel_features(coords, patches, cameras[:1])
    for gathering in ("visible", "average"):
        given = voxel_features(coords, patches, cameras[:1], depth=views.depth, gathering=gathering)  # type: ignore[arg-type]
        np.testing.assert_array_equal(given, plain)


def test_the_average_is_that_of_the_views_that_see() -> None:
    mesh, cameras, coords = _two_walls()
    patches = np.random.default_rng(0).integers(0, 256, (3, 256, 768), dtype=np.uint8)
    views = render_views(mesh, cameras, SMALL)
    given = voxel_features(coords, patches, cameras, depth=views.depth, gathering="average")
    _, first = nearest_patches(coords, cameras[:1])
    _, third = nearest_patches(coords, cameras[2:])
    _, second = nearest_patches(coords, cameras[1:2])
    np.testing.assert_allclose(given[:3], (patches[0, first[:3]] / 255 + patches[2, third[:3]] / 255) / 2, atol=1e-6)
    np.testing.assert_allclose(given[3:], patches[1, second[3:]] / 255, atol=1e-6)


def test_a_view_whose_pixel_is_empty_sees_nothing() -> None:
    cameras, coords = [look_at((0, -1.6, 0)), look_at((0, -2, 0))], np.array([[32, 32, 32]])
    patches = np.stack([np.full((256, 768), value, np.uint8) for value in (0, 255)])
    depth = np.stack([np.full((32, 32), value, np.float32) for value in (EMPTY, 2.0)])
    for gathering in ("visible", "average"):
        given = voxel_features(coords, patches, cameras, depth=depth, gathering=gathering)  # type: ignore[arg-type]
        assert (given == 1).all()
    assert (voxel_features(coords, patches, cameras) == 0).all()


def test_input_tokens_are_laid_out_as_an_images() -> None:
    features = np.random.default_rng(0).random((5, 768)).astype(np.float32)
    asset = Asset(features, np.arange(15).reshape(5, 3).astype(np.int32))
    rows, places = torch.zeros(5, 3072), asset_coords(asset)
    fill_asset(rows, asset)
    np.testing.assert_array_equal(rows[:, :768], features * 2 - 1)
    assert not rows[:, 768:].any()
    assert places.dtype == torch.int32
    np.testing.assert_array_equal(places, np.concatenate([np.zeros((5, 1)), asset.coords], 1))


def test_patches_run_row_by_row_channels_last() -> None:
    row, column, channel = np.indices((256, 256, 3))
    picture = ((row * 5 + column * 3 + channel) % 256).astype(np.uint8)
    patches = patches_of_views(picture[None])
    np.testing.assert_array_equal(patches[0, 3 * 16 + 7].reshape(16, 16, 3), picture[48:64, 112:128])


def test_what_does_not_fit_is_refused() -> None:
    camera, patches, coords = look_at((0, -2, 0)), np.zeros((1, 256, 768), np.uint8), np.zeros((1, 3), np.int32)
    with pytest.raises(InputError, match="depth"):
        voxel_features(coords, patches, [camera], gathering="visible")
    with pytest.raises(InputError, match="cameras"):
        voxel_features(coords, patches, [camera, camera])
    with pytest.raises(InputError, match="nearest, average, visible"):
        voxel_features(coords, patches, [camera], gathering="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="square"):
        patches_of_views(np.zeros((1, 8, 9, 3), np.uint8))
