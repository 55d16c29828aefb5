"""What the readers make of well-formed files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import SQUARE, SQUARE_FACES, Gltf, cube_obj, png, quarters, write_square_obj

from atoken.assets.mesh import DEFAULT, GREY, Mesh, load_mesh, normalised
from atoken.assets.polygons import triangles
from atoken.assets.textures import linear_to_srgb, srgb_to_linear


def _area(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


@given(
    scale=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    shift=st.tuples(*[st.floats(-1e4, 1e4)] * 3),
)
def test_any_mesh_ends_in_the_unit_cube(scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
    corners = np.indices((2, 2, 2)).reshape(3, 8).T * scale + np.array(shift)
    lost = np.concatenate([corners, [[1e9, 0, 0]]])
    mesh = normalised(Mesh("box", lost, np.array([[0, 3, 5], [6, 7, 1], [2, 4, 0]], np.int32), np.zeros(3), (DEFAULT,)))
    assert len(mesh.vertices) == 8
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    np.testing.assert_allclose(low, -high, atol=1e-6)
    assert (high - low).max() == pytest.approx(1)
    assert np.abs(mesh.vertices).max() <= 0.5
    expected = (corners - corners.mean(0)) / max(scale)
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-6)


def test_srgb_comes_back_to_the_byte() -> None:
    every = np.arange(256)
    np.testing.assert_array_equal(linear_to_srgb(srgb_to_linear(every / 255).astype(np.float32)), every)
    assert srgb_to_linear(np.array(188 / 255)) == pytest.approx(0.5, abs=0.005)


@given(st.integers(3, 12), st.integers(0, 10**6))
def test_a_star_is_cut_without_overlap(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # A ring around the origin with radii at will is bent inwards as often as not, and its area is known.
    angles = np.arange(count) / count * 2 * np.pi
    radii = random.uniform(0.2, 1.0, count)
    flat = np.stack([radii * np.cos(angles), radii * np.sin(angles), np.zeros(count)], 1)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    corners = flat @ turn.T
    cut = triangles(corners)
    assert len(cut) == count - 2
    pieces = sum(np.linalg.norm(np.cross(corners[b] - corners[a], corners[c] - corners[a])) / 2 for a, b, c in cut)
    x, y = flat[:, 0], flat[:, 1]
    whole = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    if count > 3:  # three corners may miss the origin
        assert pieces == pytest.approx(whole)


def test_obj_knows_its_ways(tmp_path: Path) -> None:
    (tmp_path / "two words.mtl").write_text(
        "newmtl half glass\nKd 1 0.5 0\nTr 0.75\nnewmtl moved\nmap_Kd -s 2 3 -o 0.5 0.25 0 -clamp on my wood.png\n"
    )
    (tmp_path / "my wood.png").write_bytes(png(quarters(8)))
    (tmp_path / "shape.obj").write_text(
        "mtllib two words.mtl\r\n# a comment\nv 0 0 0\nv 1 0 0 \\\n\nv 1 1 0\nv 0 1 0\nv 5 5 5\nvt 0 0\nvt 1 1 0\n"
        "vn 0 0 1\nusemtl half glass\nf -5//1 -4//1 -3//1\nusemtl moved\nf 1/1/1 3/2/1 4/1/1\nl 1 2\nf 1 2\n"
    )
    mesh = load_mesh(tmp_path / "shape.obj")
    assert mesh.notes == ()
    assert [material.name for material in mesh.materials] == ["half glass", "moved"]
    assert len(mesh.vertices) == 4
    glass, wood = mesh.materials
    assert glass.colour == pytest.approx((1, 0.21404, 0, 0.25), abs=1e-5)
    assert (glass.alpha, wood.alpha) == ("blend", "opaque")
    assert wood.colour == (1, 1, 1, 1)
    assert wood.texture is not None
    assert wood.texture.wrap == ("clamp", "clamp")
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv[1], [[0.5, 0.75], [2.5, -2.25], [0.5, 0.75]])
    np.testing.assert_allclose(mesh.vertices[mesh.faces[1]], [[-0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])


def test_obj_quads_and_polygons_keep_their_area(tmp_path: Path) -> None:
    # An arrow head (bent inwards at its third corner, then at its second) and an L of six corners.
    for ring, area in (
        ([(0, 0), (1, 0.5), (0, 1), (0.4, 0.5)], 0.3),
        ([(0.4, 0.5), (0, 0), (1, 0.5), (0, 1)], 0.3),
        ([(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)], 0.75),
    ):
        path = tmp_path / "ring.obj"
        path.write_text(
            "\n".join([f"v {x} {y} 0" for x, y in ring] + ["f " + " ".join(map(str, range(1, len(ring) + 1)))])
        )
        assert _area(load_mesh(path)) == pytest.approx(area)


def test_obj_vertex_colours_are_srgb(tmp_path: Path) -> None:
    path = tmp_path / "tri.obj"
    path.write_text("v 0 0 0 1 0 0.5\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nf 1 2 3\n")
    mesh = load_mesh(path)
    assert mesh.colours is not None
    assert mesh.materials[0].colour == (1, 1, 1, 1)
    np.testing.assert_allclose(mesh.colours[0], [1, 0, 0.21404, 1], atol=1e-5)


def test_gltf_places_instances_by_their_matrices(tmp_path: Path) -> None:
    model = Gltf()
    model.add(model.square())
    # A parent turned by 90 degrees about y whose child is scaled and moved, and a second instance by matrix.
    half = float(np.sqrt(0.5))
    model.document["nodes"] = [
        {"rotation": [0, half, 0, half], "translation": [0, 0, 1], "children": [1]},
        {"mesh": 0, "scale": [2, 1, 1], "translation": [1, 0, 0]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 3, 0, 0, 1]},
        {"mesh": 0, "translation": [99, 0, 0]},
    ]
    model.document["scenes"] = [{"nodes": [3]}, {"nodes": [0, 2]}]
    model.document["scene"] = 1
    mesh = load_mesh(model.write(tmp_path / "two.glb"))
    turned = SQUARE * [2, 1, 1] + [1, 0, 0]
    # A quarter turn about y: (x, y, z) -> (z, y, -x).
    turned = np.stack([turned[:, 2], turned[:, 1], -turned[:, 0]], 1) + np.array([0, 0, 1])
    world = np.concatenate([turned, SQUARE + np.array([3, 0, 0])])
    upright = np.stack([world[:, 0], -world[:, 2], world[:, 1]], 1)
    low, high = upright.min(0), upright.max(0)
    np.testing.assert_allclose(mesh.vertices, (upright - (low + high) / 2) / (high - low).max(), atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_gltf_materials(suffix: str, tmp_path: Path) -> None:
    model = Gltf()
    transform = {"extensions": {"KHR_texture_transform": {"offset": [0.5, 0], "scale": [2, 3], "rotation": np.pi / 2}}}
    textured = model.textured(**transform)
    model.document["samplers"] = [{"wrapS": 33071, "wrapT": 33648}]
    model.document["materials"] += [
        {"pbrMetallicRoughness": {"baseColorFactor": [0.02, 0.5, 1, 0.5]}, "alphaMode": "BLEND"},
        {"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [1, 0, 0, 1]}}, "alphaMode": "MASK",
         "alphaCutoff": 0.25, "emissiveFactor": [1, 1, 1]},
    ]  # fmt: skip
    shades = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8) * 255
    bytes_uv = (np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * 65535).astype(np.uint16)
    primitives = [model.square(textured), model.square(1), model.square(2), model.square()]
    primitives[0]["attributes"]["TEXCOORD_0"] = model.accessor(bytes_uv, normalized=True)
    primitives[3]["attributes"]["COLOR_0"] = model.accessor(shades, normalized=True)
    model.add(*primitives)
    mesh = load_mesh(model.write(tmp_path / f"m{suffix}"))
    picture, glass, mask, plain = mesh.materials
    assert picture.texture is not None
    assert picture.texture.wrap == ("clamp", "mirror")
    np.testing.assert_array_equal(picture.texture.pixels[..., :3], quarters())
    # Factors are linear and keep their digits.
    assert (glass.colour, glass.alpha) == ((0.02, 0.5, 1, 0.5), "blend")
    assert (mask.colour, mask.alpha, mask.cutoff) == ((1, 0, 0, 1), "mask", 0.25)
    assert plain.colour == (1, 1, 1, 1)
    assert mesh.notes == ("emission is left out: surfaces show their base colour",)
    assert mesh.uv is not None
    # (0, 1): scaled to (0, 3), turned counter-clockwise to (3, 0), moved to (3.5, 0).
    np.testing.assert_allclose(mesh.uv[0, 0], [3.5, 0], atol=1e-6)
    assert mesh.colours is not None
    np.testing.assert_array_equal(mesh.colours[12:, :3], shades / 255)
    np.testing.assert_array_equal(mesh.material_of_face, [0, 0, 1, 1, 2, 2, 3, 3])


def test_gltf_strips_and_fans(tmp_path: Path) -> None:
    for mode, order in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3]), (4, SQUARE_FACES.reshape(-1))):
        model = Gltf()
        primitive = {**model.square(), "mode": mode, "indices": model.accessor(np.array(order, np.uint8))}
        points = {**model.square(), "mode": 0}
        model.add(primitive, points)
        mesh = load_mesh(model.write(tmp_path / "m.glb"))
        assert _area(mesh) == pytest.approx(1)
        normals = np.cross(*(mesh.vertices[mesh.faces[:, i]] - mesh.vertices[mesh.faces[:, 0]] for i in (1, 2)))
        assert (normals[:, 1] < 0).all()
        assert mesh.notes == ("1 primitives of points or lines are left out",)


def test_trimesh_reads_the_same_gltf(tmp_path: Path) -> None:
    """A scene that trimesh writes, with transforms, read by both."""
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    for number in range(3):
        turn = trimesh.transformations.random_rotation_matrix(seed=number, translate=True)
        scene.add_geometry(trimesh.creation.box((1, 2, 3 + number)), transform=turn)
    path = tmp_path / "scene.glb"
    path.write_bytes(scene.export(file_type="glb"))
    mesh = load_mesh(path)
    theirs = trimesh.load(path, force="mesh", process=False)
    upright = np.stack([theirs.vertices[:, 0], -theirs.vertices[:, 2], theirs.vertices[:, 1]], 1)
    low, high = upright.min(0), upright.max(0)
    expected = (upright - (low + high) / 2) / (high - low).max()
    ours, other = mesh.vertices[mesh.faces], expected[theirs.faces]
    np.testing.assert_allclose(np.sort(ours.reshape(-1, 9), 0), np.sort(other.reshape(-1, 9), 0), atol=1e-6)


@pytest.mark.parametrize("kind", ["ply", "stl", "ply_ascii", "stl_ascii"])
def test_ply_and_stl_are_z_up(kind: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((1, 2, 4))
    form = kind.partition("_")[0]
    data = box.export(
        file_type=kind if kind != "ply_ascii" else "ply", **({"encoding": "ascii"} if kind == "ply_ascii" else {})
    )
    path = tmp_path / f"box.{form}"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    mesh = load_mesh(path)
    assert mesh.vertices.max(0).tolist() == pytest.approx([0.125, 0.25, 0.5])
    assert _area(mesh) == pytest.approx(28 / 16)
    assert mesh.materials == (DEFAULT,)
    assert load_mesh(path, up="y").vertices.max(0).tolist() == pytest.approx([0.125, 0.5, 0.25])


@pytest.mark.parametrize(
    "faces", [[range(5)], [range(5), range(5)], [range(4), (0, 3, 4)], [range(4), (0, 3, 4), range(5)]]
)
def test_ply_polygons_keep_their_area(faces: list[tuple[int, ...]], tmp_path: Path) -> None:
    corners = np.exp(2j * np.pi * np.arange(5) / 5)
    head = "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{c.real} {c.imag} 0" for c in corners] + [f"{len(f)} {' '.join(map(str, f))}" for f in faces]
    path = tmp_path / "p.ply"
    path.write_text(head + "\n".join([*rows, ""]))
    size = np.ptp(corners.imag)
    whole = 2.5 * np.sin(2 * np.pi / 5) / size**2
    pentagons = sum(len(face) == 5 for face in faces) + any(len(face) == 4 for face in faces)
    assert _area(load_mesh(path)) == pytest.approx(whole * pentagons, rel=1e-5)


def test_ply_colours_of_vertices_and_of_faces(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box, path = trimesh.creation.box(), tmp_path / "box.ply"
    box.visual.vertex_colors = np.tile([[255, 0, 128, 255]], (8, 1))
    path.write_bytes(box.export(file_type="ply"))
    mesh = load_mesh(path)
    assert mesh.colours is not None
    np.testing.assert_allclose(mesh.colours, np.tile([1, 0, 0.21586, 1], (8, 1)), atol=1e-5)
    box = trimesh.creation.box()
    box.visual.face_colors = np.array([[20 * i, 0, 0, 255] for i in range(12)], np.uint8)
    path.write_bytes(box.export(file_type="ply"))
    mesh = load_mesh(path)
    assert mesh.colours is not None
    shown = linear_to_srgb(mesh.colours[mesh.faces][:, :, 0])
    np.testing.assert_array_equal(shown, np.arange(12)[:, None].repeat(3, 1) * 20)


def test_a_model_in_a_zip_is_the_same(tmp_path: Path) -> None:
    plain = load_mesh(write_square_obj(tmp_path))
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        for name in ("square.obj", "square.mtl", "quarters.png"):
            archive.write(tmp_path / name, f"some/where/{name}")
        archive.writestr("__MACOSX/some/where/._square.obj", "x")
    zipped = load_mesh(tmp_path / "models.zip")
    assert zipped.content_hash == plain.content_hash
    assert load_mesh(tmp_path / "models.zip" / "some" / "where" / "square.obj").content_hash == plain.content_hash


def test_names_match_but_for_case(tmp_path: Path) -> None:
    path = write_square_obj(tmp_path)
    (tmp_path / "quarters.png").rename(tmp_path / "Quarters.PNG")
    (tmp_path / "square.mtl").rename(tmp_path / "SQUARE.MTL")
    assert load_mesh(path).notes == ()
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        for name in ("square.obj", "SQUARE.MTL", "Quarters.PNG"):
            archive.write(tmp_path / name, name)
    assert load_mesh(tmp_path / "models.zip").notes == ()


def test_the_hash_follows_what_can_be_seen(tmp_path: Path) -> None:
    mesh = load_mesh(write_square_obj(tmp_path))
    assert load_mesh(write_square_obj(tmp_path)).content_hash == mesh.content_hash
    (tmp_path / "square.mtl").write_text("newmtl paint\nd 0.5\nmap_Kd quarters.png\n")
    assert load_mesh(tmp_path / "square.obj").content_hash != mesh.content_hash
    (tmp_path / "square.mtl").write_text("newmtl paint\nmap_Kd quarters.png\n")
    assert load_mesh(tmp_path / "square.obj").content_hash == mesh.content_hash


def test_every_piece_of_the_sample_furniture_is_read(shared: Path) -> None:
    archive = shared / "data" / "assets" / "furniture-cc0.zip"
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as file:
        names = [name for name in file.namelist() if name.endswith(".obj")]
        small = [name for name in names if file.getinfo(name).file_size < 60_000]
    assert len(names) == 175
    for name in small[::6]:
        mesh = load_mesh(archive / name)
        assert np.abs(mesh.vertices).max() == pytest.approx(0.5)
        assert all(note.endswith("grey") for note in mesh.notes)


def test_a_cube_has_six_materials(tmp_path: Path) -> None:
    colours = {side: (0.1 * i, 0.0, 0.0) for i, side in enumerate(("+x", "-x", "+y", "-y", "+z", "-z"))}
    obj, mtl = cube_obj(colours)
    (tmp_path / "cube.obj").write_text(obj)
    (tmp_path / "cube.mtl").write_text(mtl)
    mesh = load_mesh(tmp_path / "cube.obj")
    assert [m.name for m in mesh.materials] == list(colours)
    assert np.bincount(mesh.material_of_face).tolist() == [2] * 6
    assert GREY not in [m.colour for m in mesh.materials]
