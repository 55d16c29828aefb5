"""Renders must be right side up, not mirrored, of the right colour and depth: whatever file the mesh came from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from models import CORNERS, GREEN, RED, SQUARE_UV_UP, WHITE, Gltf, cube_obj, png, quarters, write_square_obj

from atoken.assets.cameras import Camera, look_at, orbit
from atoken.assets.mesh import DEFAULT, Material, Mesh, Texture, load_mesh
from atoken.assets.render import EMPTY, RenderSettings, Views, render_views
from atoken.errors import InputError

SMALL = RenderSettings(height=32, width=32)
# glTF's and OBJ's +z, to which the square faces, is -y here.
FRONT, BACK = look_at((0, -2, 0)), look_at((0, 2, 0))


def _view(mesh: Mesh, camera: Camera, settings: RenderSettings = SMALL) -> Views:
    return render_views(mesh, [camera], settings)


def _quarters_seen(views: Views) -> dict[str, tuple[int, ...]]:
    """Colours at the middle of each quarter of the square, which spans 0.69 of the picture at distance 2."""
    picture = views.colours[0]
    near, far = round(32 * (0.5 - 0.17)), round(32 * (0.5 + 0.17))
    places = {
        "top left": (near, near),
        "top right": (near, far),
        "bottom left": (far, near),
        "bottom right": (far, far),
    }
    assert all(picture[place][3] == 255 for place in places.values())
    return {name: tuple(picture[place][:3].tolist()) for name, place in places.items()}


def _square_glb(tmp_path: Path, **texture: object) -> Path:
    model = Gltf()
    model.add(model.square(model.textured(**texture)))
    return model.write(tmp_path / "square.glb")


def _square_ply(tmp_path: Path) -> Path:
    # z up already, so the square stands up by itself: (x, -z, y).
    (tmp_path / "quarters.png").write_bytes(png(quarters()))
    header = "ply\nformat ascii 1.0\ncomment TextureFile quarters.png\nelement vertex 4\n"
    header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "s", "t"))
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x - 0.5} 0 {z - 0.5} {u} {v}" for (x, z), (u, v) in zip(SQUARE_UV_UP, SQUARE_UV_UP, strict=True)]
    path = tmp_path / "square.ply"
    path.write_text(header + "\n".join([*rows, "4 0 1 2 3", ""]))
    return path


@pytest.mark.parametrize("make", [write_square_obj, _square_glb, _square_ply])
def test_a_texture_is_upright_and_not_mirrored(make: object, tmp_path: Path) -> None:
    mesh = load_mesh(make(tmp_path))  # type: ignore[operator]
    assert mesh.notes == ()
    assert _quarters_seen(_view(mesh, FRONT)) == CORNERS
    # From behind, left and right change places.
    swapped = {
        name: CORNERS[name.replace("left", "?").replace("right", "left").replace("?", "right")] for name in CORNERS
    }
    assert _quarters_seen(_view(mesh, BACK)) == swapped


def test_each_side_of_a_cube_is_seen_from_its_side(tmp_path: Path) -> None:
    colours = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 0, 1)}
    obj, mtl = cube_obj(colours)
    (tmp_path / "cube.obj").write_text(obj)
    (tmp_path / "cube.mtl").write_text(mtl)
    upright, flipped = load_mesh(tmp_path / "cube.obj"), load_mesh(tmp_path / "cube.obj", up="z")
    directions = {
        "+x": (2, 0, 0),
        "-x": (-2, 0, 0),
        "+y": (0, 2, 0),
        "-y": (0, -2, 0),
        "+z": (0, 0, 2),
        "-z": (0, 0, -2),
    }
    # y up becomes z up; what faced +z faces -y.
    moved = {"+x": "+x", "-x": "-x", "+y": "+z", "-y": "-z", "+z": "-y", "-z": "+y"}
    for name, colour in colours.items():
        for mesh, side in ((upright, moved[name]), (flipped, name)):
            camera = look_at(directions[side], up=(0, 1, 0) if side[1] == "z" else (0, 0, 1))
            views = _view(mesh, camera)
            assert views.colours[0, 16, 16].tolist() == [*(255 * value for value in colour), 255]
            # The near side of the unit cube is 1.5 away.
            assert views.depth[0, 16, 16] == pytest.approx(1.5, abs=1e-6)


def test_depth_of_a_slanted_plane_is_exact() -> None:
    corners = np.array([[-0.5, 0.3, -0.5], [0.5, -0.3, -0.5], [0.5, -0.3, 0.5], [-0.5, 0.3, 0.5]])
    mesh = Mesh("plane", corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.zeros(2, np.int32), (DEFAULT,))
    camera = orbit(math.radians(-70), math.radians(10))
    depth = _view(mesh, camera, RenderSettings(height=48, width=64)).depth[0]
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    v, u = np.meshgrid((np.arange(48) + 0.5) / 48, (np.arange(64) + 0.5) / 64, indexing="ij")
    focal = camera.intrinsics[0, 0]
    local = np.stack([(u - 0.5) / focal, (v - 0.5) / focal, np.ones_like(u)], axis=-1)
    ray = local @ camera.world_to_camera[:3, :3]
    z = ((corners[0] - camera.position) @ normal) / (ray @ normal)
    hit = depth != EMPTY
    assert 200 < hit.sum() < depth.size
    np.testing.assert_allclose(depth[hit], z[hit], atol=2e-6)
    inside = (np.abs(camera.position + z[..., None] * ray) <= 0.499).all(-1)
    assert hit[inside].all()


def test_depth_of_a_sphere() -> None:
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    faces = np.asarray(ball.faces, np.int32)
    mesh = Mesh("ball", ball.vertices, faces, np.zeros(len(faces), np.int32), (DEFAULT,))
    depth = _view(mesh, look_at((0, -2, 0))).depth[0]
    u, v = np.meshgrid((np.arange(32) + 0.5) / 32 - 0.5, (np.arange(32) + 0.5) / 32 - 0.5)
    slope = (u**2 + v**2) / 1.3737387**2
    # |(slope) z|^2 + (z - 2)^2 = 1/4
    root = 4 - (1 + slope) * 3.75
    z = (2 - np.sqrt(np.maximum(root, 0))) / (1 + slope)
    well_inside = root > 0.05
    np.testing.assert_allclose(depth[well_inside], z[well_inside], atol=2e-3)
    np.testing.assert_array_equal(depth[root < -0.05], EMPTY)


def test_uniform_colours_come_out_to_the_byte() -> None:
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    faces, uv = np.array([[0, 1, 2], [0, 2, 3]], np.int32), SQUARE_UV_UP[[[0, 1, 2], [0, 2, 3]]]
    for value in range(0, 256, 15):
        pixels = np.full((4, 4, 4), [value, 255 - value, 7, 255], np.uint8)
        material = Material(texture=Texture(pixels))
        mesh = Mesh("square", square, faces, np.zeros(2, np.int32), (material,), uv=uv)
        assert _view(mesh, FRONT).colours[0, 16, 16].tolist() == [value, 255 - value, 7, 255]


def _strip(texture: Texture, uv: np.ndarray, **material: object) -> Views:
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    made = Material(texture=texture, **material)  # type: ignore[arg-type]
    mesh = Mesh("square", square, faces, np.zeros(2, np.int32), (made,), uv=uv[faces].astype(np.float32))
    return _view(mesh, FRONT)


@pytest.mark.parametrize(
    ("wrap", "expected"), [("repeat", (RED, GREEN)), ("mirror", (GREEN, RED)), ("clamp", (GREEN, GREEN))]
)
def test_beyond_its_border_a_texture_wraps_as_it_says(wrap: str, expected: tuple[object, object]) -> None:
    picture = np.dstack([quarters(), np.full((64, 64), 255, np.uint8)])
    uv = np.array([[1, 0.25], [2, 0.25], [2, 0.25], [1, 0.25]])
    row = _strip(Texture(picture, (wrap, "repeat")), uv).colours[0, 16]  # type: ignore[arg-type]
    assert (tuple(row[10, :3].tolist()), tuple(row[21, :3].tolist())) == expected


def test_between_texels_light_is_mixed_linearly() -> None:
    pixels = np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8)
    uv = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    # Half the light is 188 in sRGB, not 128.
    assert _strip(Texture(pixels), uv).colours[0, 16, 16, :3].tolist() == [188] * 3


def test_a_texture_far_away_shows_its_mean() -> None:
    checkers = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    picture = np.dstack([checkers] * 3 + [np.full_like(checkers, 255)])
    seen = _strip(Texture(picture), SQUARE_UV_UP * 4).colours[0, 8:24, 8:24, :3]
    assert np.abs(seen.astype(int) - 188).max() <= 2


def test_alpha_masks_blends_or_is_ignored() -> None:
    pixels = np.full((2, 2, 4), [255, 255, 255, 100], np.uint8)
    uv = SQUARE_UV_UP
    opaque, masked, blended = (_strip(Texture(pixels), uv, alpha=mode) for mode in ("opaque", "mask", "blend"))
    low = _strip(Texture(pixels), uv, alpha="mask", cutoff=0.3)
    alphas = [views.colours[0, 16, 16, 3] for views in (opaque, masked, blended, low)]
    assert alphas == [255, 0, 100, 255]
    # Depth counts from half opacity on, as Cycles has it.
    assert [views.depth[0, 16, 16] > 0 for views in (opaque, masked, blended, low)] == [True, False, False, True]
    assert masked.colours.sum() == 0


def test_what_lies_behind_glass_shines_through() -> None:
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    vertices = np.concatenate([square - np.array([0, 0.2, 0]), square + np.array([0, 0.2, 0])])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    glass = Material(colour=(1, 0, 0, 0.25), alpha="blend")
    mesh = Mesh("glass", vertices, faces, np.array([0, 0, 1, 1], np.int32), (glass, Material(colour=(0, 1, 0, 1))))
    views = _view(mesh, FRONT)
    red, green, _, alpha = views.colours[0, 16, 16].tolist()
    assert (red, green, alpha) == (137, 225, 255)  # sRGB of 0.25 and 0.75
    assert views.depth[0, 16, 16] == pytest.approx(2.2, abs=1e-5)
    assert _view(mesh, BACK).colours[0, 16, 16].tolist() == [0, 255, 0, 255]


def test_nothing_is_transparent_and_the_ground_shows() -> None:
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    mesh = Mesh("square", square, faces, np.zeros(2, np.int32), (Material(),))
    # 30 pixels: the silhouette's border cuts through some.
    views = _view(mesh, FRONT, RenderSettings(height=30, width=30))
    assert views.colours[0, 0, 0].tolist() == [0, 0, 0, 0]
    assert views.on(0.0)[0, 0, 0].tolist() == [0, 0, 0]
    assert views.on(1.0)[0, 0, 0].tolist() == [255, 255, 255]
    # The silhouette: 1 * 1.3737 / 2 of the picture along each side.
    assert (views.colours[..., 3].mean() / 255) == pytest.approx((1.3737387 / 2) ** 2, rel=0.02)
    edge = views.colours[0, 15, :, 3]
    assert ((edge > 0) & (edge < 255)).any()


def test_vertex_colours_run_across_a_face() -> None:
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    colours = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    mesh = Mesh("square", square, faces, np.zeros(2, np.int32), (Material(),), colours=colours)
    row = _view(mesh, FRONT).colours[0, 16, 6:26].astype(int)
    assert (np.diff(row[:, 0]) < 0).all()
    assert (np.diff(row[:, 2]) > 0).all()


def test_settings_that_cannot_be_are_refused() -> None:
    for bad in ({"height": 0}, {"width": 10**6}, {"samples": 2}, {"samples": 0}):
        with pytest.raises(InputError):
            RenderSettings(**bad)


def test_the_cache_gives_the_same_views_and_mends_itself(tmp_path: Path) -> None:
    mesh, cache = load_mesh(write_square_obj(tmp_path)), tmp_path / "cache"
    fresh = render_views(mesh, [FRONT, BACK], SMALL, cache=cache)
    (entry,) = cache.iterdir()
    written = entry.stat().st_mtime_ns
    for damage in (
        None,
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + b"XXXX" + data[204:],
        lambda _: b"",
    ):
        if damage is not None:
            entry.write_bytes(damage(entry.read_bytes()))
        again = render_views(mesh, [FRONT, BACK], SMALL, cache=cache)
        np.testing.assert_array_equal(again.colours, fresh.colours)
        np.testing.assert_array_equal(again.depth, fresh.depth)
        if damage is None:
            assert entry.stat().st_mtime_ns == written
    assert [path.name for path in cache.iterdir()] == [entry.name]
    render_views(mesh, [FRONT], SMALL, cache=cache)
    render_views(mesh, [FRONT, BACK], RenderSettings(height=32, width=32, samples=1), cache=cache)
    # One texel changed: another mesh.
    picture = quarters()
    picture[0, 0] = WHITE
    (tmp_path / "quarters.png").write_bytes(png(picture))
    render_views(load_mesh(tmp_path / "square.obj"), [FRONT, BACK], SMALL, cache=cache)
    assert len(list(cache.iterdir())) == 4
