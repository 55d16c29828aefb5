"""Whatever is wrong with a model: one line that names the file and the mend, and nothing outside is opened."""

from __future__ import annotations

import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from models import Gltf, png, quarters, write_square_obj

from atoken.assets import mesh as mesh_module
from atoken.assets import polygons, sources, textures
from atoken.assets.cycles import BlenderError
from atoken.assets.mesh import GREY, load_mesh
from atoken.assets.sources import AssetError


def _refused(path: Path, *words: str) -> str:
    with pytest.raises(AssetError) as caught:
        load_mesh(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    for word in words:
        assert word in line
    return line


@contextmanager
def _opened() -> Iterator[list[str]]:
    """The paths of all files that are opened meanwhile, by an audit hook of the interpreter."""
    seen: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open":
            seen.append(str(arguments[0]))

    sys.addaudithook(hear)
    yield seen
    listening = False


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("none.obj", "", "empty"),
        ("nothing.obj", "# only words\n", "no geometry"),
        ("cloud.obj", TRIANGLE, "no faces"),
        ("nan.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("infinite.obj", "v inf 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("point.obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "one point"),
        ("beyond.obj", TRIANGLE + "f 1 2 4\n", "vertex 4"),
        ("zero.obj", TRIANGLE + "f 0 1 2\n", "line 4"),
        ("back.obj", TRIANGLE + "f -4 1 2\n", "line 4"),
        ("huge.obj", TRIANGLE + f"f 1 2 {10**30}\n", "line 4"),
        ("words.obj", "v one two three\n", "line 1"),
        ("uv.obj", TRIANGLE + "mtllib m.mtl\nusemtl a\nf 1/9 2/9 3/9\n", "texture coordinate"),
        ("bytes.glb", b"glTF\x02\0\0\0\xff\xff\xff\xff" + b"\0" * 20, "cut off"),
        ("text.gltf", "no json", "glTF"),
        ("old.gltf", '{"asset": {"version": "1.0"}}', "convert it to 2.0"),
        ("empty.gltf", '{"asset": {"version": "2.0"}}', "no geometry"),
        ("list.gltf", "[]", "glTF"),
        ("short.stl", b"\0" * 90, "STL"),
        ("many.stl", b"\0" * 80 + struct.pack("<I", 3) + b"\0" * 50, "STL"),
        ("noheader.ply", "ply", "header"),
        ("cut.ply", "ply\nformat binary_little_endian 1.0\nelement vertex 900\nend_header\n", "cut off"),
        ("model.fbx", "x", "convert it"),
    ],
)  # fmt: skip
def test_a_broken_model_is_refused_in_one_line(name: str, text: str | bytes, word: str, tmp_path: Path) -> None:
    _write(tmp_path / "m.mtl", "newmtl a\nmap_Kd q.png\n")
    _write(tmp_path / "q.png", png(quarters()))
    _refused(_write(tmp_path / name, text), word)


def test_a_blend_file_without_blender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATOKEN_BLENDER_PYTHON", raising=False)
    with pytest.raises(BlenderError, match=r"model.blend: Cycles and .blend files need a Python with bpy: make an env"):
        load_mesh(_write(tmp_path / "model.blend", "x"))


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    _refused(tmp_path / "chair.glb", "no such file")
    _refused(tmp_path / "models.zip" / "chair.glb", "no such file")


def test_points_and_gaussians_in_a_ply(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    _refused(_write(tmp_path / "cloud.ply", head + "end_header\n0 0 0\n1 1 1\n"), "no faces", "surface")
    splats = head + "property float f_dc_0\nend_header\n0 0 0 0\n1 1 1 0\n"
    _refused(_write(tmp_path / "splats.ply", splats), "Gaussians")


def test_any_cut_of_a_file_is_refused_or_read(tmp_path: Path) -> None:
    """No byte that is missing or wrong makes anything but an `AssetError` or a mesh."""
    trimesh = pytest.importorskip("trimesh")
    model = Gltf()
    model.add(model.square(model.textured()))
    glb = model.write(tmp_path / "m.glb").read_bytes()
    box = trimesh.creation.box()
    generator = np.random.default_rng(0)
    for suffix, whole in ((".glb", glb), (".ply", box.export(file_type="ply")), (".stl", box.export(file_type="stl"))):
        for trial in range(40):
            broken = bytearray(whole[: len(whole) - (trial % 2) * int(generator.integers(1, len(whole)))])
            for place in generator.integers(0, max(len(broken), 1), 3 * (1 - trial % 2)):
                broken[place] = generator.integers(256)
            path = _write(tmp_path / f"broken{suffix}", bytes(broken))
            with suppress(AssetError):
                load_mesh(path)


def test_what_is_missing_is_named_and_grey(tmp_path: Path) -> None:
    path = write_square_obj(tmp_path, texture="wood.png", with_texture=False)
    mesh = load_mesh(path)
    assert mesh.notes == ("texture wood.png is missing: grey",)
    assert [(m.colour, m.texture) for m in mesh.materials] == [(GREY, None)]
    _write(tmp_path / "wood.png", b"no picture")
    (note,) = load_mesh(path).notes
    assert note.startswith("texture wood.png cannot be read as a picture")
    (tmp_path / "square.mtl").unlink()
    mesh = load_mesh(path)
    assert mesh.notes == (
        "material library square.mtl is missing or lies outside the model's folder: grey",
        "material paint is in no library: grey",
    )
    assert mesh.materials[0].colour == GREY
    model = Gltf()
    model.add(model.square(model.textured()))
    model.document["images"] = [{"uri": "my%20wood.png"}]
    mesh = load_mesh(model.write(tmp_path / "m.gltf"))
    assert mesh.notes == ("texture my%20wood.png is missing: grey",)
    _write(tmp_path / "my wood.png", png(quarters()))
    assert load_mesh(tmp_path / "m.gltf").notes == ()
    _refused(model.write(tmp_path / "b.gltf", buffer="m.bin"), "m.bin is missing")


def test_textures_beyond_the_limits_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_square_obj(tmp_path)
    for limit, words in (
        ("MAX_TEXTURE_PIXELS", "has 64x64 pixels, more than 100"),
        ("MAX_MODEL_PIXELS", "one too many"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(textures, limit, 100)
            mesh = load_mesh(path)
        assert words in mesh.notes[0]
        assert mesh.materials[0].colour == GREY


ESCAPES = [
    "../canary.png",
    "a/../../canary.png",
    "..\\canary.png",
    "{canary}",
    "file://{canary}",
    "link.png",
    "LINK.png",
    "%2e%2e/canary.png",
    "C:/canary.png",
    "\\\\server\\canary.png",
    "http://example.org/canary.png",
    "//example.org/canary.png",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_file_outside_of_the_models_folder_is_opened(escape: str, tmp_path: Path) -> None:
    canary = _write(tmp_path / "canary.png", png(quarters()))
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "link.png").symlink_to(canary)
    reference = escape.format(canary=canary)
    obj = write_square_obj(folder, texture=reference, with_texture=False)
    library = _write(folder / "library.obj", f"mtllib {reference}\n{TRIANGLE}usemtl a\nf 1 2 3\n")
    model = Gltf()
    model.add(model.square(model.textured()))
    model.document["images"] = [{"uri": reference}]
    picture = model.write(folder / "picture.gltf")
    buffer = model.write(folder / "buffer.gltf", buffer=reference)
    head = f"ply\nformat ascii 1.0\ncomment TextureFile {reference}\nelement vertex 3\n"
    head += "".join(f"property float {name}\n" for name in "xyzst")
    rows = "end_header\n0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n"
    ply = _write(folder / "t.ply", head + "element face 1\nproperty list uchar int vertex_indices\n" + rows)
    load_mesh(ply)  # imports of trimesh open files of its own
    with _opened() as files:
        for path in (obj, library, picture, ply):
            (note, *_) = load_mesh(path).notes
            # Encoded dots are a name to OBJ and PLY, and a way out to glTF: there is no such file, or it is refused.
            assert "outside" in note or (escape.startswith("%") and "missing" in note)
        line = _refused(buffer)
        assert "outside its folder" in line or "nothing is fetched" in line or "link out" in line
    assert files
    assert all(Path(name).resolve().is_relative_to(folder.resolve()) for name in files)
    assert str(canary) not in files


@pytest.mark.parametrize("name", ["../evil.obj", "/etc/evil.obj", "C:\\evil.obj", "a/../../evil.png"])
def test_a_zip_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "models.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.obj", TRIANGLE + "f 1 2 3\n")
        archive.writestr(name, "x")
    _refused(path, "leads out of the archive")
    assert not (tmp_path.parent / "evil.obj").exists()


def test_zips_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "models.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.obj", TRIANGLE)
        archive.writestr("b/c.glb", "x")
    _refused(path, "holds 2 models", "a.obj, b/c.glb", "name one")
    _refused(path / "missing.obj", "missing.obj", "a.obj, b/c.glb")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    _refused(path, "holds no model")
    data = path.read_bytes()
    _refused(_write(path, data[: len(data) // 2]), "no zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.obj", TRIANGLE * 9)
    _refused(_write(path, path.read_bytes().replace(b"v 0 1 0", b"v 9 9 9", 1)), "cannot be read")


def test_ten_million_faces_are_refused_before_they_are_held(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    ten = 10_000_001
    model = Gltf()
    primitive = model.square()
    # One huge accessor over a file full of holes; many instances of a small mesh.
    model.document["accessors"][primitive["indices"]]["count"] = 3 * ten
    model.document["bufferViews"][model.document["accessors"][primitive["indices"]]["bufferView"]]["byteLength"] = (
        6 * ten
    )
    model.add(primitive)
    instanced = Gltf()
    instanced.add(instanced.square())
    instanced.document["nodes"] = [
        {"children": [1] * 300},
        {"children": [2] * 300},
        {"children": [3] * 300},
        {"mesh": 0},
    ]
    stl = tmp_path / "m.stl"
    with stl.open("wb") as file:
        file.write(b"\0" * 80 + struct.pack("<I", ten))
        file.truncate(84 + 50 * ten)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _refused(model.write(tmp_path / "m.glb"), "more than 10000000 triangles")
    _refused(instanced.write(tmp_path / "i.glb"), "beyond number")
    head = f"ply\nformat ascii 1.0\nelement vertex 3\nelement face {ten}\nend_header\n"
    _refused(_write(tmp_path / "m.ply", head + "0" * (ten + 9)), "more than 10000000")
    _refused(stl, "more than 10000000")
    # The bytes of the file itself, once or twice; not the arrays of a mesh, which would be gigabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000


def test_limits_on_files_and_obj_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atoken.assets import obj as reader

    monkeypatch.setattr(reader, "MAX_FACES", 3)
    _refused(_write(tmp_path / "q.obj", TRIANGLE + "v 1 1 0\nf 1 2 3 4\nf 1 2 3 4\n"), "more than")
    path = _write(tmp_path / "m.obj", TRIANGLE + "f 1 2 3\n" * 4)
    with monkeypatch.context() as patch:
        # Before ten million lines are read one by one, which takes minutes.
        patch.setattr(reader, "lines_of", lambda _: pytest.fail("read line by line"))
        _refused(path, "more than")
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 10)
    _refused(path, "larger than")
    assert mesh_module.MAX_FACES == 10_000_000


def test_a_polygon_of_very_many_corners_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_CORNERS", 4)
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0.5 1.5 0\nv 0 1 0\n"
    assert len(load_mesh(_write(tmp_path / "four.obj", corners + "f 1 2 3 5\n")).faces) == 2
    _refused(_write(tmp_path / "five.obj", corners + "f 1 2 3 4 5\n"), "has a face of 5 corners", "into triangles")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("corners", [3, 4, 5])
def test_numbers_at_the_end_of_their_range_make_no_other_noise(corners: int, tmp_path: Path) -> None:
    places = ["0 0 0", "1 0 0", "1 1 0", "0.5 1.5 0", "0 1 0"][:corners]
    face = f"f {' '.join(map(str, range(1, corners + 1)))}\n"

    def model(first: str) -> Path:
        return _write(tmp_path / "m.obj", "".join(f"v {place}\n" for place in (first, *places[1:])) + face)

    for bad in ("nan 0 0", "inf 0 0", "0 -inf 0"):
        _refused(model(bad), "not finite")
    assert np.ptp(load_mesh(model("-1e308 0 0")).vertices) == pytest.approx(1)


def test_nodes_that_go_round_are_refused(tmp_path: Path) -> None:
    model = Gltf()
    model.add(model.square())
    model.document["nodes"] = [{"children": [1]}, {"children": [0], "mesh": 0}]
    model.document["scenes"] = [{"nodes": [0]}]
    _refused(model.write(tmp_path / "m.glb"), "circle")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d["accessors"][0].update(count=10**12), "says 1000000000000"),
        (lambda d: d["accessors"][0].update(count=5), "beyond its buffer"),
        (lambda d: d["accessors"][0].update(count=-1), "says -1"),
        (lambda d: d["accessors"][0].update(byteOffset=-4), "beyond its buffer"),
        (lambda d: d["accessors"][0].update(sparse={}), "sparse"),
        (lambda d: d["accessors"][0].update(type="MAT4"), "unknown type"),
        (lambda d: d["accessors"][0].update(type="VEC2"), "three numbers"),
        (lambda d: d["accessors"][0].update(bufferView=99), "number 99"),
        (lambda d: d["accessors"][0].update(count=2), "vertex 3 of 2"),
        (lambda d: d["bufferViews"][0].update(byteLength=10**9), "beyond its buffer"),
        (lambda d: d["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}), "meshopt"),
        (lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]), "KHR_draco"),
        (lambda d: d["meshes"][0]["primitives"][0].update(extensions={"KHR_draco_mesh_compression": {}}), "Draco"),
        (lambda d: d["meshes"][0]["primitives"][0].update(material=7), "standard"),
        (lambda d: d["meshes"][0]["primitives"][0].update(mode=9), "mode 9"),
        (lambda d: d["meshes"][0]["primitives"][0].pop("attributes"), "standard"),
        (lambda d: d.update(nodes=[{"mesh": "a"}]), "standard"),
        (lambda d: d.update(nodes=7), "standard"),
    ],
)
def test_gltf_that_says_what_is_not_so(change: Callable[[dict], object], word: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    model = Gltf()
    primitive = model.square()
    model.document["accessors"][primitive["indices"]]["componentType"] = 5123
    model.add(primitive)
    change(model.document)
    _refused(model.write(tmp_path / "m.glb"), word)
