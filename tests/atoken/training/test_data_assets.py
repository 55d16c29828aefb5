"""Assets: prepared from meshes once, read as they were written, drawn with their pictures."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atoken.assets.cameras import Camera
from atoken.assets.mesh_to_asset import Recipe, voxelise
from atoken.assets.render import RenderSettings, render_views
from atoken.training.data import load_prepared, open_sources
from atoken.training.data.assets import MeshFolder, PreparedFolder
from atoken.training.data.mesh_listing import ListedMesh, list_meshes
from atoken.training.data.prepare import Preparation, _distinct, prepare
from atoken.training.data.prepared import store_prepared
from atoken.training.data.source import SampleError
from atoken.training.errors import TrainingError
from atoken.training.tasks import AssetTask
from atoken.training.validation import load_validation
from tests.atoken.assets.models import cube_obj, write_square_obj
from tests.atoken.training.samples import batches, items, made_asset, stage

COLOURS = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 0, 1)}
QUICK = Preparation(recipe=Recipe(views=6, size=64), pictures=5, picture_size=32)


def quick(*, recipe: Recipe) -> Preparation:
    """A preparation of that gathering that takes no time."""
    return replace(QUICK, recipe=replace(QUICK.recipe, gathering=recipe.gathering))


RECONSTRUCTION = stage(asset_recon=AssetTask(samples=6, share=1, renders=3, render_size=16))
CATALOGUE = """# a comment with name#9=no
id=library
name#1=Arm\\u00e9chair
category#1=Office
model#1=/models/chair/chair.obj
name#2=TV
category#2=Miscellaneous
model#2=/models/tv/tv.obj
name#10=Slippers
category#10=Bedroom
model#10=/models/slippers/other.obj
"""


def write_cube(folder: Path, name: str = "cube") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    obj, mtl = cube_obj(COLOURS)
    (folder / "cube.mtl").write_text(mtl)
    (folder / f"{name}.obj").write_text(obj)
    return folder / f"{name}.obj"


def write_library(path: Path) -> Path:
    obj, mtl = cube_obj(COLOURS)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE.encode("latin-1"))
        for place in ("chair/chair", "tv/tv", "slippers/other", "unlisted/unlisted"):
            archive.writestr(f"models/{place}.obj", obj)
            archive.writestr(f"models/{Path(place).parent}/cube.mtl", mtl)
    return path


# -- Listing ---------------------------------------------------------------------------------


def test_a_furniture_library_is_listed_in_its_catalogues_order(tmp_path: Path) -> None:
    path = write_library(tmp_path / "library.zip")
    found = list_meshes(path)
    assert [mesh.name for mesh in found] == ["chair", "tv", "slippers_other"]
    assert [mesh.captions for mesh in found] == [
        ("a 3D model of an armÃ©chair, office".encode("latin-1").decode("utf-8"),),
        ("a 3D model of a TV",),
        ("a 3D model of slippers, bedroom",),
    ]
    assert found[0].path == path / "models/chair/chair.obj"
    assert list_meshes(path / "models/tv") == [found[1]]
    with pytest.raises(TrainingError, match="no such file"):
        list_meshes(tmp_path / "nowhere.zip" / "models")


def test_a_catalogue_that_names_what_is_not_there(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
    with pytest.raises(TrainingError, match=r"model#1 is 'models/chair/chair.obj', which the zip does not hold"):
        list_meshes(tmp_path / "a.zip")


def test_folders_and_zips_with_captions(tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    write_cube(folder / "a")
    write_cube(folder / "b", "other")
    (folder / "captions.csv").write_text("file,caption\nb/other.obj,a cube\n")
    with zipfile.ZipFile(tmp_path / "meshes.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/a/._cube.obj", b"shadow")
    for place in (folder, tmp_path / "meshes.zip"):
        found = list_meshes(place)
        assert [(mesh.name, mesh.captions) for mesh in found] == [("a_cube", ()), ("b_other", ("a cube",))]
        assert found[1].path == place / "b/other.obj"


def test_places_without_meshes(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(TrainingError, match=r"a.zip: no zip that can be read"):
        list_meshes(tmp_path / "a.zip")
    with pytest.raises(TrainingError, match=r"holds no mesh"):
        list_meshes(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(TrainingError, match=r"a.txt: no mesh and no zip of meshes"):
        list_meshes(tmp_path / "a.txt")


# -- Preparing -------------------------------------------------------------------------------


def test_a_prepared_asset_is_what_the_library_makes_of_the_mesh(tmp_path: Path) -> None:
    from atoken.assets.mesh import load_mesh

    mesh = ListedMesh("square", write_square_obj(tmp_path), ("a square",))
    assert prepare(mesh, tmp_path / "out/square.npz", QUICK)
    found = load_prepared(tmp_path / "out/square.npz")
    asset = voxelise(mesh.path, QUICK.recipe)
    np.testing.assert_array_equal(found.coords, asset.coords.numpy())
    np.testing.assert_array_equal(found.features, (asset.features * 255).round().to(torch.uint8).numpy())
    np.testing.assert_array_equal(found.features.astype(np.float32) / np.float32(255), asset.features.numpy())
    views = render_views(load_mesh(mesh.path), found.cameras, RenderSettings(height=32, width=32))
    np.testing.assert_array_equal(found.pictures, views.colours)
    assert found.pictures.shape == (5, 32, 32, 4)
    assert found.captions == ("a square",)
    assert len(found.patches) < len(found.index)


def test_what_stands_is_not_made_again(tmp_path: Path) -> None:
    mesh, path = ListedMesh("cube", write_cube(tmp_path), ("one",)), tmp_path / "cube.npz"
    assert prepare(mesh, path, QUICK)
    before = path.read_bytes()
    assert not prepare(mesh, path, QUICK)
    assert path.read_bytes() == before
    # Another caption needs no view; other settings, another mesh and a damaged file do.
    assert not prepare(ListedMesh("cube", mesh.path, ("two",)), path, QUICK)
    assert load_prepared(path).captions == ("two",)
    assert prepare(mesh, path, Preparation(recipe=Recipe(views=5, size=64), pictures=5, picture_size=32))
    assert prepare(mesh, path, QUICK)
    assert path.read_bytes() == before
    path.write_bytes(before[:2000])
    assert prepare(mesh, path, QUICK)
    mesh.path.write_text(mesh.path.read_text().replace("v -0.5", "v -0.25"))
    assert prepare(mesh, path, QUICK)
    assert path.read_bytes() != before


def test_no_two_assets_have_the_same_cameras(tmp_path: Path) -> None:
    cameras = []
    for name, mesh in (("square", write_square_obj(tmp_path)), ("cube", write_cube(tmp_path / "c"))):
        prepare(ListedMesh(name, mesh), tmp_path / f"{name}.npz", QUICK)
        cameras.append(load_prepared(tmp_path / f"{name}.npz").cameras)
    assert not np.allclose(cameras[0][0].world_to_camera, cameras[1][0].world_to_camera)
    for camera in (*cameras[0], *cameras[1]):
        assert np.linalg.norm(camera.position) == pytest.approx(2.0)


def test_distinct_rows_also_of_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, 768), dtype=np.uint8)[[3, 0, 3, 1, 1, 4]]
    for _ in range(2):
        patches, index = _distinct(rows)
        assert len(patches) == 4
        np.testing.assert_array_equal(patches[index], rows)
        monkeypatch.setattr(np, "array_equal", lambda *_: False)


# -- Files -----------------------------------------------------------------------------------


def test_prepared_assets_come_back_exactly(tmp_path: Path) -> None:
    asset = made_asset(3)
    store_prepared(tmp_path / "a.npz", asset)
    again = load_prepared(tmp_path / "a.npz")
    for name in ("patches", "index", "coords", "pictures"):
        np.testing.assert_array_equal(getattr(again, name), getattr(asset, name))
        assert getattr(again, name).dtype == getattr(asset, name).dtype
    for camera, other in zip(again.cameras, asset.cameras, strict=True):
        np.testing.assert_array_equal(camera.world_to_camera, other.world_to_camera)
        np.testing.assert_array_equal(camera.intrinsics, other.intrinsics)
    assert (again.captions, again.key) == (asset.captions, asset.key)
    store_prepared(tmp_path / "b.npz", asset)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_files_that_are_no_prepared_assets(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(TrainingError, match=r"a.npz: no such file"):
        load_prepared(path)
    store_prepared(path, made_asset(0))
    data = path.read_bytes()
    damaged = [b"", b"no zip", data[:-30], data[:300] + bytes(50) + data[350:]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"a.npz: no prepared asset, or damaged .*; prepare it again"):
            load_prepared(path)
    np.savez(path, format=np.array(2), other=np.zeros(3))
    with pytest.raises(TrainingError, match=r"a.npz: no prepared asset"):
        load_prepared(path)
    np.savez(path, format=np.array(1))
    with pytest.raises(TrainingError, match=r"a.npz: is of format 1, this version reads 2; prepare it again"):
        load_prepared(path)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "plain.npy").replace(path)
    with pytest.raises(TrainingError, match=r"a.npz: no prepared asset"):
        load_prepared(path)
    asset = made_asset(0)
    for changes in (
        {"coords": asset.coords[1:]},
        {"index": asset.index + np.uint16(90)},
        {"coords": asset.coords | np.uint8(64)},
        {"cameras": asset.cameras[1:]},
        {"patches": asset.patches[:, 1:]},
    ):
        with pytest.raises(TrainingError, match="its arrays do not fit together"):
            type(asset)(**{name: getattr(asset, name) for name in asset.__slots__} | changes)


# -- Sources ---------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [True, False])
def test_a_folder_of_prepared_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    if not held:
        monkeypatch.setattr("atoken.training.data.assets.HELD_BYTES", 0)
    for seed in range(3):
        store_prepared(tmp_path / f"a{seed}.npz", made_asset(seed))
    (tmp_path / "a1.npz").write_bytes((tmp_path / "a1.npz").read_bytes()[:5000])
    source = open_sources({"assets": [str(tmp_path)]}, cache=None).assets[0]
    assert [source.caption(index, np.random.default_rng(0)) for index in range(3)] == ["asset 0", None, "asset 2"]
    np.testing.assert_array_equal(source.asset(2).features, made_asset(2).features)
    with pytest.raises(SampleError, match="no prepared asset, or damaged"):
        source.asset(1)
    assert source.sample_id(2) == f"{tmp_path}/a2.npz"
    (tmp_path / "captions.csv").write_text("file,caption\na1.npz,another\n")
    assert PreparedFolder(tmp_path, "nearest").caption(1, np.random.default_rng(0)) == "another"
    assert PreparedFolder(tmp_path, "nearest").fingerprint != source.fingerprint


def test_pictures_are_looked_at_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    store_prepared(tmp_path / "made/a.npz", made_asset(0))
    found = open_sources({"assets": [str(tmp_path / "made")]}, cache=None)
    fits = AssetTask(samples=1, share=1, renders=6, render_size=16)
    assert batches(found, stage(asset_recon=fits)).batch("asset_recon", 0).skipped == ()
    with pytest.raises(
        TrainingError, match=r"a\.npz: has 6 pictures, renders asks for 7; prepare it with --pictures 7"
    ):
        batches(found, stage(asset_recon=replace(fits, renders=7)))
    with pytest.raises(TrainingError, match=r"a\.npz: its pictures have 32 pixels .* again with --picture-size 64"):
        batches(found, stage(asset_recon=replace(fits, render_size=64)))
    # Meshes are prepared as `atoken prepare` does it where nothing is said.
    write_cube(tmp_path / "meshes")
    meshes = open_sources({"assets": [str(tmp_path / "meshes")]}, cache=tmp_path / "cache")
    batches(meshes, stage(asset_recon=replace(fits, renders=24, render_size=256)))
    with pytest.raises(TrainingError, match=r"meshes: has 24 pictures, renders asks for 25"):
        batches(meshes, stage(asset_recon=replace(fits, renders=25)))


def test_assets_prepared_in_another_way_than_the_recipe_has(tmp_path: Path) -> None:
    store_prepared(tmp_path / "a.npz", made_asset(0))
    wanted = (
        r"a.npz: its voxels have their colours by nearest, the recipe wants average; prepare it again with --gather"
    )
    with pytest.raises(TrainingError, match=wanted):
        open_sources({"assets": [str(tmp_path)]}, cache=None, gathering="average")
    with pytest.raises(TrainingError, match=wanted):
        load_validation({"assets": [str(tmp_path)]}, print, labelled_side=64, gathering="average")


def test_a_folder_of_which_nothing_can_be_read_says_why(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, format=np.array(1))
    with pytest.raises(TrainingError, match=r"a.npz: is of format 1, this version reads 2; prepare it again"):
        open_sources({"assets": [str(tmp_path)]}, cache=None)


def test_reconstructions_come_with_their_assets_pictures(tmp_path: Path) -> None:
    for seed in range(3):
        store_prepared(tmp_path / f"{seed}.npz", made_asset(seed, pictures=8))
    sources = open_sources({"assets": [str(tmp_path)]}, cache=None)
    seen = set()
    for step in range(5):
        for pack in batches(sources, RECONSTRUCTION, limit=200).batch("asset_recon", step).packs:
            assert pack.renders is not None
            assert pack.renders.pictures.shape == (len(pack.ids), 3, 16, 16, 4)
            for name, cameras in zip(pack.ids, pack.renders.cameras, strict=True):
                asset = load_prepared(Path(name))
                places = [_place(asset.cameras, camera) for camera in cameras]
                assert len(set(places)) == 3
                seen |= set(places)
            # Premultiplied: no colour exceeds alpha.
            assert (pack.renders.pictures[..., :3] <= pack.renders.pictures[..., 3:] + 1).all()
    assert seen == set(range(8))


def _place(cameras: tuple[Camera, ...], camera: Camera) -> int:
    return next(n for n, other in enumerate(cameras) if np.array_equal(other.world_to_camera, camera.world_to_camera))


def test_meshes_are_prepared_when_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoken.training.data.prepare.Preparation", quick)
    library, cache = write_library(tmp_path / "library.zip"), tmp_path / "cache"
    source = open_sources({"assets": [str(library)]}, cache=cache, gathering="visible").assets[0]
    assert isinstance(source, MeshFolder)
    assert not cache.exists()
    assert source.caption(1, np.random.default_rng(0)) == "a 3D model of a TV"
    asset = source.asset(1)
    assert asset.gathering == "visible"
    assert [path.suffix for path in cache.rglob("*.*")] == [".npz"]
    # What was kept with pictures of another size does not do for this one.
    larger = replace(quick(recipe=Recipe(gathering="visible")), picture_size=48)
    monkeypatch.setattr("atoken.training.data.prepare.Preparation", lambda **_: larger)
    assert source.asset(1).pictures.shape[1] == 48
    monkeypatch.setattr("atoken.training.data.prepare.prepare", None)
    np.testing.assert_array_equal(source.asset(1).features, asset.features)


def test_broken_meshes_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoken.training.data.prepare.Preparation", quick)
    folder = tmp_path / "meshes"
    write_cube(folder)
    (folder / "bad.obj").write_text("v 0 0 0\nf 1 2 3\n")
    sources = open_sources({"assets": [str(folder)]}, cache=tmp_path / "cache")
    batch = batches(sources, RECONSTRUCTION, limit=10**6).batch("asset_recon", 1)
    assert {item[0] for item in items(batch)} == {f"{folder}/cube.obj"}
    assert batch.skipped
    assert batch.skipped[0].startswith(f"{folder}/bad.obj: ")
    assert batch.skipped[0].count("bad.obj") == 1
