"""Views by Cycles that are kept, of files that Blender is given copies of."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import fake_blender
import numpy as np
import pytest
from models import Gltf, cube_obj, png, quarters

from atoken.assets.cameras import look_at
from atoken.assets.cycles import BlenderError, CyclesSettings
from atoken.assets.cycles_views import cycles_views
from atoken.assets.mesh import FORMATS, load_mesh
from atoken.assets.model_files import files_sha256, model_files, write_files
from atoken.assets.sources import AssetError
from harness.tokenizers.asset_contract import box

CAMERAS = [look_at((2, 0, 0)), look_at((1.2, -1.3, 0.8))]
TINY = CyclesSettings(height=8, width=8, samples=4, device="cpu")
MTL = """
newmtl +x
Kd 1 0 0
map_Kd -s 2 2 1 tex/colour map.png
map_Bump -bm 0.5 bump.png
newmtl +y
norm normal.png
map_Ks ../outside.png
map_Ns /etc/passwd
map_d
"""


@pytest.fixture
def chair(tmp_path: Path) -> Path:
    """An OBJ whose library names pictures that our reader has no use for."""
    folder = tmp_path / "chair"
    (folder / "tex").mkdir(parents=True)
    obj, _ = cube_obj({"+x": (1, 0, 0), "+y": (0, 1, 0)})
    (folder / "chair.obj").write_text(obj.replace("cube.mtl", "Chair.MTL"))
    (folder / "chair.mtl").write_text(MTL)
    for name in ("tex/colour map.png", "bump.png", "normal.png", "of another.png"):
        (folder / name).write_bytes(png(quarters()))
    (tmp_path / "outside.png").write_bytes(png(quarters()))
    return folder / "chair.obj"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Each picture shows how often it was drawn, and what lay in the model's folder is written down.
    listed = tmp_path / "listed.json"
    log = tmp_path / "drawn"
    act = (
        f"log = Path({str(log)!r}); times = len(log.read_text()) if log.exists() else 0\n"
        "if job['task'] == 'render':\n"
        "    log.write_text('x' * (times + 1)); root = Path(job['model']).parent\n"
        f"    Path({str(listed)!r}).write_text(json.dumps(sorted(str(p.relative_to(root)) for p in root.rglob('*'))))\n"
        "    colours = [np.full((*shape, 4), 100 + times, np.uint8) for _ in colours]"
    )
    fake_blender.put(tmp_path, monkeypatch, act)
    return listed


def drawn(views: Any) -> int:
    """Which drawing of the fake the views are."""
    return int(views.colours[0, 0, 0, 0]) - 100


def test_all_that_a_model_names_is_found_and_nothing_else(chair: Path) -> None:
    files = model_files(chair, FORMATS)
    names = ["chair.obj", "Chair.MTL", "tex/colour map.png", "bump.png", "normal.png"]
    assert list(map(str, files)) == names
    assert files[PurePosixPath("bump.png")] == png(quarters())


def test_a_library_in_a_folder_of_its_own(chair: Path) -> None:
    inner = chair.parent / "lib"
    inner.mkdir()
    (chair.parent / "chair.mtl").rename(inner / "chair.mtl")
    (chair.parent / "bump.png").rename(inner / "bump.png")
    chair.write_text(chair.read_text().replace("Chair.MTL", "lib\\chair.mtl"))
    # Blender looks for pictures beside the library, other readers beside the model.
    assert set(map(str, model_files(chair, FORMATS))) == {
        "chair.obj", "lib/chair.mtl", "tex/colour map.png", "lib/bump.png", "normal.png",
    }  # fmt: skip


def test_a_gltf_names_buffers_and_pictures_of_every_kind(tmp_path: Path) -> None:
    model = Gltf()
    model.add(model.square())
    model.document["images"] = [{"uri": "a%20b.png"}, {"uri": "data:,"}, {"bufferView": 0}, {"uri": "../c.png"}]
    (tmp_path / "a b.png").write_bytes(b"x")
    (tmp_path / "data.bin").write_bytes(bytes(model.binary))
    path = model.write(tmp_path / "square.gltf", buffer="data.bin")
    assert set(map(str, model_files(path, FORMATS))) == {"square.gltf", "a b.png", "data.bin"}


def test_blender_gets_copies_from_a_folder_and_from_a_zip(chair: Path, fake: Path, tmp_path: Path) -> None:
    wanted = ["Chair.MTL", "bump.png", "chair.obj", "normal.png", "tex", "tex/colour map.png"]
    cycles_views(load_mesh(chair), CAMERAS, TINY)
    assert json.loads(fake.read_text()) == wanted
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in chair.parent.rglob("*"):
            archive.write(path, f"furniture/{path.relative_to(chair.parent)}")
    fake.unlink()
    mesh = load_mesh(tmp_path / "set.zip")
    assert mesh.path == tmp_path / "set.zip" / "furniture" / "chair.obj"
    cycles_views(mesh, CAMERAS, TINY)
    assert json.loads(fake.read_text()) == wanted


def test_views_are_kept_by_all_that_moves_a_pixel(
    chair: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, mesh = tmp_path / "views", load_mesh(chair)
    first = cycles_views(mesh, CAMERAS, TINY, cache=cache)
    assert drawn(first) == 0
    again = cycles_views(load_mesh(chair), CAMERAS, TINY, cache=cache)
    np.testing.assert_array_equal(again.colours, first.colours)
    np.testing.assert_array_equal(again.depth, first.depth)
    others = [
        (CAMERAS[:1], TINY),
        (CAMERAS, CyclesSettings(height=8, width=8, samples=5, device="cpu")),
        (CAMERAS, CyclesSettings(height=8, width=8, samples=4, seed=1, device="cpu")),
        (CAMERAS, CyclesSettings(height=9, width=8, samples=4, device="cpu")),
    ]
    for number, (cameras, settings) in enumerate(others, 1):
        assert drawn(cycles_views(mesh, cameras, settings, cache=cache)) == number
    assert drawn(cycles_views(mesh, CAMERAS, CyclesSettings(**{
        "height": 8, "width": 8, "samples": 4, "device": "cpu", "timeout": 1.0,
    }), cache=cache)) == 0  # fmt: skip
    # A bump map is nothing to our renderer, and something to Blender.
    (chair.parent / "bump.png").write_bytes(png(quarters()[::-1]))
    assert load_mesh(chair).content_hash == mesh.content_hash
    assert drawn(cycles_views(mesh, CAMERAS, TINY, cache=cache)) == 5
    # Another Blender.
    act = "reply['blender'] = 'newer'; colours = [np.full((*shape, 4), 200, np.uint8) for _ in colours]"
    fake_blender.put(tmp_path, monkeypatch, act)
    assert drawn(cycles_views(mesh, CAMERAS, TINY, cache=cache)) == 100
    assert drawn(cycles_views(mesh, CAMERAS, TINY)) == 100


def test_a_blend_file_is_read_where_it_lies(fake: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blend"
    folder.mkdir()
    path = folder / "chair.blend"
    path.write_bytes(b"BLENDER")
    (folder / "wood.png").write_bytes(b"1")
    made = box()
    mesh = type(made)("chair", made.vertices, made.faces, made.material_of_face, made.materials, path=path)
    cache = tmp_path / "views"
    assert [drawn(cycles_views(mesh, CAMERAS, TINY, cache=cache)) for _ in range(2)] == [0, 0]
    assert json.loads(fake.read_text()) == ["chair.blend", "wood.png"]
    (folder / "wood.png").write_bytes(b"22")
    assert drawn(cycles_views(mesh, CAMERAS, TINY, cache=cache)) == 1


def test_a_mesh_without_a_file_is_refused(fake: Path) -> None:
    with pytest.raises(AssetError, match="box: was not read from a file, and Cycles draws files"):
        cycles_views(box(), CAMERAS, TINY)


def test_what_goes_wrong_is_said_of_the_model_and_not_of_its_copy(
    chair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = load_mesh(chair)
    for act, error in (("reply = {'error': 'too odd'}", AssetError), ("sys.exit(3)", BlenderError)):
        fake_blender.put(tmp_path, monkeypatch, act)
        with pytest.raises(error, match=rf"^{chair}: "):
            cycles_views(mesh, CAMERAS, TINY)


def test_names_are_part_of_the_hash(tmp_path: Path) -> None:
    one, other = {PurePosixPath("a"): b"1"}, {PurePosixPath("b"): b"1"}
    assert files_sha256(one) != files_sha256(other)
    assert write_files({PurePosixPath("x/a"): b"1"}, tmp_path).read_bytes() == b"1"
