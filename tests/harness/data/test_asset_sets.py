"""Datasets of 3D assets: what ships, Toys4k's layouts and TRELLIS's list of it, any folder or zip."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.data import asset_samples
from harness.data.asset_samples import ARCHIVE, MODELS
from harness.data.base import SampleError
from harness.data.catalog import open_assets
from harness.data.check import inspect
from harness.errors import BenchError

CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 2) for z in (0, 1))
FACES = "f 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\n"
OBJ = CUBE + FACES


def put(folder: Path, *names: str, text: str = OBJ) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def packed(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


# What ships.


def test_the_samples_are_there_and_small() -> None:
    dataset = open_assets("samples")
    assert len(dataset) == dataset.expected == 24
    assert len({sample.id.partition("/")[0] for sample in dataset.samples}) >= 6
    assert ARCHIVE.stat().st_size < 8_000_000
    assert [sample.id for sample in dataset.samples] == sorted(model.id for model in MODELS)
    assert all(model.number % 5 == 0 for model in MODELS)  # none that training may see
    with zipfile.ZipFile(ARCHIVE) as archive:
        assert "Creative Commons Zero" in archive.read("LICENSE.txt").decode()


def test_every_sample_can_be_read() -> None:
    dataset = open_assets("samples")
    report = inspect(dataset)
    assert report.broken == ()
    assert report.whole
    assert report.lines()[0] == "CC0 furniture (samples): 24 readable models of 24 expected"
    assert re.fullmatch(r"faces: [\d,]+ to [\d,]+ a model, [\d,]+ in all", report.lines()[1])
    mesh = dataset.open(0).mesh
    assert np.abs(mesh.vertices).max() == 0.5


def test_samples_are_the_librarys_files(shared: Path) -> None:
    with zipfile.ZipFile(shared / "data/assets/furniture-cc0.zip") as whole, zipfile.ZipFile(ARCHIVE) as ours:
        catalogue = whole.read("PluginFurnitureCatalog.properties").decode("latin-1")
        for model in MODELS:
            (path,) = re.findall(rf"^model#{model.number}=/(.*)$", catalogue, re.MULTILINE)
            assert re.search(rf"^creator#{model.number}={re.escape(model.author)}\s*$", catalogue, re.MULTILINE)
            folder = path.rpartition("/")[0]
            theirs = {name.rpartition("/")[2]: whole.read(name) for name in whole.namelist() if folder + "/" in name}
            mine = {name.rpartition("/")[2]: ours.read(name) for name in ours.namelist() if model.id + "/" in name}
            theirs.pop("", None)  # the folder's own entry
            assert mine == theirs


def test_other_files_in_place_of_the_samples_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "furniture.zip"
    with zipfile.ZipFile(ARCHIVE) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data + b"#" if name == "kitchen/bread/bread.mtl" else data)
    monkeypatch.setattr(asset_samples, "ARCHIVE", other)
    with pytest.raises(BenchError, match=r"kitchen/bread in .* is not the one that figures are compared on"):
        open_assets("samples")


# Any folder, any zip.


def test_a_folder_gives_all_models_below_it(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "a/chair.obj", "b.OBJ", "a/b/stool.stl", ".hidden/x.obj", "a/readme.txt")
    dataset = open_assets("folder", folder)
    assert [sample.id for sample in dataset.samples] == ["a/b/stool.stl", "a/chair.obj", "b.OBJ"]
    assert dataset.title == "mine"
    model = dataset.open(1)
    assert len(model.mesh.faces) == 4
    assert model.sha256 == dataset.open(2).sha256  # the same content
    with pytest.raises(SampleError, match=r"stool\.stl"):
        dataset.open(0)


def test_what_only_blender_reads_is_named(tmp_path: Path) -> None:
    dataset = open_assets("folder", put(tmp_path, "a.obj", "b.blend", "c.fbx"))
    assert dataset.notes == ("not read: 1 .blend files", "not read: 1 .fbx files")
    with pytest.raises(SampleError, match=r"b\.blend: a \.blend file, which Blender alone reads"):
        dataset.open(1)
    with pytest.raises(SampleError, match=r"c.fbx: no format of a mesh that is read \(.fbx\); convert it"):
        dataset.open(2)
    report = inspect(dataset)
    assert [name for name, _ in report.broken] == ["b.blend", "c.fbx"]
    assert not report.whole


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    archive = packed(tmp_path / "set.zip", **{"x/a.obj": "mtllib a.mtl\n" + OBJ, "x/a.mtl": "", "y/b.obj": OBJ})
    dataset = open_assets("folder", archive)
    assert [sample.id for sample in dataset.samples] == ["x/a.obj", "y/b.obj"]
    assert len(dataset.open(0).mesh.faces) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.zip"]


@pytest.mark.parametrize("name", ["../escape.obj", "/etc/escape.obj", "a/../../escape.obj", "a\\..\\..\\escape.obj"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path / "set.zip", **{"a.obj": OBJ, name: OBJ})
    with pytest.raises(BenchError, match="would lie outside the archive; not read"):
        open_assets("folder", archive)


def test_a_texture_outside_the_models_folder_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "secret.mtl", text="newmtl red\nKd 1 0 0\n")
    folder = put(tmp_path / "set", "a.obj", text="mtllib ../secret.mtl\nusemtl red\n" + OBJ)
    mesh = open_assets("folder", folder).open(0).mesh
    assert not any(material.colour[:3] == (1, 0, 0) for material in mesh.materials)
    assert any("outside" in note for note in mesh.notes)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        open_assets("folder", tmp_path / "none")
    with pytest.raises(BenchError, match=r"holds no models \(files named .glb, .gltf, .obj, .ply, .stl\)"):
        open_assets("folder", put(tmp_path, "a.txt"))
    with pytest.raises(BenchError, match="no asset dataset 'davis'; there are: samples, toys4k, folder"):
        open_assets("davis")


def test_a_stamp_changes_with_a_texture_beside_the_model(tmp_path: Path) -> None:
    put(tmp_path, "a/a.obj", "b/b.obj", "b/c.obj")
    put(tmp_path, "a/a.mtl", "b/b.mtl", text="newmtl m")
    before = open_assets("folder", tmp_path)
    stamps = [before.stamp(index) for index in range(3)]
    put(tmp_path, "a/a.mtl", "b/b.mtl", text="newmtl other")
    after = open_assets("folder", tmp_path)
    assert [after.stamp(index) == stamps[index] for index in range(3)] == [False, True, True]


# Toys4k.


def toys(root: Path) -> Path:
    put(root, "toys4k_obj_files/airplane/airplane_000/mesh.obj", "toys4k_obj_files/airplane/airplane_001/mesh.obj")
    return put(root, "toys4k_obj_files/ball/ball_007/mesh.obj")


def test_toys4k_is_read_by_category_and_name(tmp_path: Path) -> None:
    root = toys(tmp_path)
    for location in (root, root / "toys4k_obj_files"):
        dataset = open_assets("toys4k", location)
        assert [sample.id for sample in dataset.samples] == [
            "airplane/airplane_000",
            "airplane/airplane_001",
            "ball/ball_007",
        ]
        assert dataset.notes == ("2 of 105 categories, 3 of 4,000 models",)
        assert len(dataset.open(2).mesh.faces) == 4


def test_toys4k_in_its_zip(tmp_path: Path) -> None:
    names = ("toys4k_obj_files/cup/cup_000/mesh.obj", "toys4k_obj_files/cup/cup_001/mesh.obj")
    dataset = open_assets("toys4k", packed(tmp_path / "toys4k_obj_files.zip", **dict.fromkeys(names, OBJ)))
    assert [sample.id for sample in dataset.samples] == ["cup/cup_000", "cup/cup_001"]
    assert dataset.open(1).mesh.vertices.max() == 0.5


def test_toys4k_takes_the_mesh_before_the_blend(tmp_path: Path) -> None:
    root = toys(tmp_path)
    put(root, "toys4k_blend_files/airplane/airplane_000/airplane_000.blend", "blend/car/car_000/car_000.blend")
    dataset = open_assets("toys4k", root)
    assert dataset.notes[1].startswith("1 models are there as .blend alone")
    places = {sample.id: place for place, sample in enumerate(dataset.samples)}
    assert dataset.open(places["airplane/airplane_000"]).mesh is not None
    with pytest.raises(SampleError, match=r"a \.blend file, which Blender alone reads"):
        dataset.open(places["car/car_000"])


def test_trellis_csv_is_a_list_of_toys4k(tmp_path: Path) -> None:
    csv = tmp_path / "Toys4k.csv"
    csv.write_text(
        "sha256,file_identifier,aesthetic_score,captions\n"
        'aa,airplane/airplane_001/airplane_001.blend,5.1,"[""a plane, grey""]"\n'
        "bb,ball/ball_007/ball_007.blend,4.9,\n"
        "cc,cup/cup_003/cup_003.blend,4.8,\n"
    )
    dataset = open_assets("toys4k", toys(tmp_path / "toys"), only=csv)
    assert [sample.id for sample in dataset.samples] == ["airplane/airplane_001", "ball/ball_007"]
    assert dataset.title == "3 of Toys4k by Toys4k.csv"
    assert dataset.notes[-1] == "1 of the 3 listed are missing: cup/cup_003"
    assert len(dataset.open(1).mesh.faces) == 4
    report = inspect(dataset)
    assert report.missing == ("cup/cup_003",)
    assert not report.whole
    names = tmp_path / "some.txt"
    names.write_text("ball/ball_007\n")
    assert len(open_assets("toys4k", tmp_path / "toys", only=names)) == 1


def test_lists_that_are_none_are_refused(tmp_path: Path) -> None:
    root, csv = toys(tmp_path / "toys"), tmp_path / "list.csv"
    for text, message in [
        ("sha256,name\na,b\n", "has no column file_identifier in every line"),
        ("sha256,file_identifier\na\n", "has no column file_identifier in every line"),
        ("sha256,file_identifier\n", "lists no ids"),
        ("file_identifier\nball\n", "ball is not in Toys4k"),
    ]:
        csv.write_text(text)
        with pytest.raises(BenchError, match=message):
            open_assets("toys4k", root, only=csv)


def test_a_folder_that_is_no_toys4k_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no models at category/name/FILE"):
        open_assets("toys4k", put(tmp_path, "a.obj", "b/c.obj"))
