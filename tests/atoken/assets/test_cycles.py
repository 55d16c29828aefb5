"""Cycles in a Python of its own: what goes over and comes back without bpy, and pictures where there is one.

The slow tests run with ``-m slow`` where ``ATOKEN_BLENDER_PYTHON`` names a Python with bpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_blender
import numpy as np
import pytest
from models import Gltf, cube_obj, png, quarters, write_square_obj
from PIL import Image

from atoken import asset_commands
from atoken.assets.cameras import Camera, look_at, orbit
from atoken.assets.cycles import PYTHON, Blender, BlenderError, CyclesSettings, exported, installed, render_cycles
from atoken.assets.mesh import load_mesh
from atoken.assets.render import EMPTY, RenderSettings, render_views
from atoken.assets.sources import AssetError
from atoken.errors import InputError

COLOURS = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 0, 1)}
CAMERAS = [look_at((2, 0, 0)), look_at((1.2, -1.3, 0.8))]
TINY = CyclesSettings(height=8, width=12, samples=4, seed=7, device="cpu")


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    obj, mtl = cube_obj(COLOURS)
    (tmp_path / "cube.obj").write_text(obj)
    (tmp_path / "cube.mtl").write_text(mtl)
    return tmp_path / "cube.obj"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program in Blender's place that does `act` before it writes; gives what it was sent."""
    return lambda act="": fake_blender.put(tmp_path, monkeypatch, act)


def test_without_bpy_the_line_says_how_to_get_it(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(BlenderError, match=rf"need a Python with bpy: make .*pip install 'bpy.*set {PYTHON}"):
        render_cycles(cube, CAMERAS)
    monkeypatch.setenv(PYTHON, "/nowhere/python")
    with pytest.raises(BlenderError, match=rf"^{PYTHON}=/nowhere/python: no program that can be started; make"):
        render_cycles(cube, CAMERAS)


def test_a_python_that_has_no_bpy_is_named(cube: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Python itself with nothing installed: the real script ends at its first line.
    program = tmp_path / "bare"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(program))
    with pytest.raises(BlenderError, match=r"bare has no bpy: make an environment"):
        render_cycles(cube, CAMERAS)


def test_what_is_sent_and_what_comes_back(cube: Path, fake: Any) -> None:
    seen = fake("colours[1][0, 0] = [9, 9, 9, 0]; depths[1][0, 0] = -1")
    passed: list[int] = []
    notes: list[str] = []
    views = render_cycles(cube, CAMERAS, TINY, passed=passed.append, noted=notes.append)
    assert views.colours.shape == (2, 8, 12, 4)
    assert views.colours.dtype == np.uint8
    assert views.colours[:, 1, 1].tolist() == [[50] * 4, [51] * 4]
    # Where alpha is 0 so is the colour, as of the other renderer.
    assert views.colours[1, 0, 0].tolist() == [0, 0, 0, 0]
    assert (views.depth.dtype, views.depth[1, 0, 0], views.depth[0, 0, 0]) == (np.float32, EMPTY, 1.5)
    assert list(views.cameras) == CAMERAS
    assert sum(passed) == 2
    assert notes == ["texture a.png is not there: grey"]
    job = json.loads(seen.read_text())
    asked = {key: job[key] for key in ("task", "model", "height", "width", "samples", "seed", "device")}
    assert asked == {
        "task": "render", "model": str(cube), "height": 8, "width": 12, "samples": 4, "seed": 7, "device": "cpu",
    }  # fmt: skip
    # Nothing of the user's Blender is read, and nothing is left behind.
    assert Path(job["home"]).is_relative_to(job["folder"])
    assert not Path(job["folder"]).exists()
    # Blender's camera looks along its -z, y up: from (2, 0, 0) to the origin, its x is the world's y.
    first = job["cameras"][0]
    np.testing.assert_allclose(first["to_world"], [[0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], atol=1e-12)
    assert first["focal"] == pytest.approx(0.5 / np.tan(np.radians(20)))
    # The field of view is 40 degrees both ways, so pixels of 12 x 8 are taller than wide.
    assert first["pixel"] == [1.0, 1.5]


@pytest.mark.parametrize(
    ("act", "line"),
    [
        ("colours[1] = colours[1][:4]", r"picture of 12x4 RGBA, not 12x8 RGBA"),
        ("colours[0] = colours[0][..., :3]", r"picture of 12x8 RGB, not 12x8 RGBA"),
        ("colours = colours[:1]", r"no picture that can be read \(colour_0001\.png"),
        ("depths[0] = depths[0][:, :3]", r"a depth that is not float32 \[8, 12\]"),
        ("depths[0] = depths[0].astype(np.float64)", r"a depth that is not float32"),
        ("depths[0][0, 0] = np.nan", r"depths that are not finite or lie behind the camera"),
        ("depths[0][0, 0] = -3", r"depths that are not finite or lie behind the camera"),
        ("depths[0] = np.array([{}], object)", r"no depth that can be read"),
        ("print('boom'); sys.exit(3)", r"cube\.obj: Blender ended with code 3 and no reply\. Its last line: boom"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"cube\.obj: Blender was killed \(SIGKILL\); is there memory enough"),
        ("reply = '{'", r"reply cannot be read"),
        ("reply = '[]'", r"ended with code 0 and no reply"),
        ("del reply['notes']", r"ended with code 0 and no reply"),
    ],
)
def test_what_is_not_as_asked_is_one_line(act: str, line: str, cube: Path, fake: Any) -> None:
    fake(act)
    with pytest.raises(BlenderError, match=line) as caught:
        render_cycles(cube, CAMERAS, TINY)
    assert "\n" not in str(caught.value)


def test_what_draws_is_asked_once(fake: Any) -> None:
    seen = fake("reply['device'] = 'Quick GPU (OPTIX)'")
    assert installed() == Blender("fake", "Quick GPU (OPTIX)")
    assert str(installed()) == "Blender fake on Quick GPU (OPTIX)"
    job = json.loads(seen.read_text())
    assert (job["task"], job["device"]) == ("look", "auto")
    seen.unlink()
    assert installed().version == "fake"
    assert not seen.exists()


def test_what_blender_says_of_itself_is_told(fake: Any) -> None:
    fake("reply = {'error': 'bpy is 4.2, of Blender 5 is asked'}")
    with pytest.raises(BlenderError, match=r"^Blender: bpy is 4\.2, of Blender 5 is asked"):
        installed()
    fake("del reply['device']")
    with pytest.raises(BlenderError, match=r"^Blender: it does not say what it is"):
        installed()


def test_what_blender_says_of_the_model_is_told(cube: Path, fake: Any) -> None:
    fake("reply = {'error': 'shows no surface; export the mesh again'}")
    with pytest.raises(AssetError, match=r"cube\.obj: shows no surface"):
        render_cycles(cube, CAMERAS, TINY)


def test_one_that_hangs_is_stopped_with_its_children(cube: Path, fake: Any, tmp_path: Path) -> None:
    child = tmp_path / "child"
    fake(
        "import subprocess\n"
        f"Path({str(child)!r}).write_text(str(subprocess.Popen(['sleep', '60']).pid))\n"
        "np.save(folder / 'depth_0000.npy', depths[0]); time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(BlenderError, match=r"Blender gave nothing for 1\.5 s after 1 views and was stopped"):
        render_cycles(cube, CAMERAS, CyclesSettings(timeout=1.5))
    assert time.monotonic() - start < 30
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", child.read_text()], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert state in ("", "Z", "Z+", "Zs")  # gone, or waiting for init to bury it


def test_bad_settings_cameras_and_files_start_nothing(cube: Path, fake: Any, tmp_path: Path) -> None:
    seen = fake()
    for bad in ({"height": 0}, {"samples": 0}, {"seed": -1}, {"device": "tpu"}, {"timeout": 0.0}):
        with pytest.raises(InputError):
            CyclesSettings(**bad)  # type: ignore[arg-type]
    off = CAMERAS[0].intrinsics.copy()
    off[0, 2] = 0.6
    with pytest.raises(InputError, match="through the middle of their picture"):
        render_cycles(cube, [Camera(CAMERAS[0].world_to_camera, off)], TINY)
    with pytest.raises(InputError, match="at least one camera"):
        render_cycles(cube, [], TINY)
    with pytest.raises(AssetError, match=r"a\.fbx: no format that Blender is given"):
        render_cycles(tmp_path / "a.fbx", CAMERAS, TINY)
    with pytest.raises(AssetError, match=r"a\.glb: no such file"):
        render_cycles(tmp_path / "a.glb", CAMERAS, TINY)
    assert not seen.exists()


def test_a_blend_file_goes_by_glb(tmp_path: Path, fake: Any) -> None:
    model = Gltf()
    model.add(model.square())
    glb = model.write(tmp_path / "real.glb")
    (tmp_path / "chair.blend").write_bytes(b"BLENDER")
    seen = fake(f"(folder / 'model.glb').write_bytes(Path({str(glb)!r}).read_bytes())")
    mesh = load_mesh(tmp_path / "chair.blend")
    assert json.loads(seen.read_text())["task"] == "export"
    assert mesh.name == str(tmp_path / "chair.blend")
    assert mesh.notes == ("texture a.png is not there: grey",)
    np.testing.assert_array_equal(mesh.vertices, load_mesh(glb).vertices)
    fake()
    with pytest.raises(BlenderError, match=r"chair\.blend: Blender says that it is exported, and wrote no file"):
        load_mesh(tmp_path / "chair.blend")
    fake("(folder / 'model.glb').write_bytes(b'glTF')")
    with pytest.raises(AssetError, match=r"chair\.blend: ") as caught:
        load_mesh(tmp_path / "chair.blend")
    assert "model.glb" not in str(caught.value)


def test_the_command_draws_by_cycles(cube: Path, fake: Any, tmp_path: Path) -> None:
    seen = fake("colours = [np.full((*shape, 4), [200, 100, 0, 255], np.uint8) for _ in colours]")
    draw = {"views": 3, "size": 8, "background": "white"}
    asset_commands.render(cube, tmp_path / "out", **draw, renderer="cycles", samples=5)  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"view_{n:03}.png" for n in range(3)]
    assert np.asarray(Image.open(tmp_path / "out" / "view_002.png"))[3, 3].tolist() == [200, 100, 0]
    assert json.loads(seen.read_text())["samples"] == 5
    with pytest.raises(InputError, match="--samples are Cycles'"):
        asset_commands.render(cube, tmp_path / "out", **draw, samples=5)  # type: ignore[arg-type]
    # Blender is not given what our reader refuses.
    seen.unlink()
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(AssetError, match="2 points and no faces"):
        asset_commands.render(tmp_path / "points.obj", tmp_path / "out", **draw, renderer="cycles")  # type: ignore[arg-type]
    assert not seen.exists()


@pytest.fixture
def blender() -> str:
    stated = os.environ.get(PYTHON)
    if not stated:
        pytest.skip(f"needs a Python with bpy, named by {PYTHON}")
    return stated


SMALL = CyclesSettings(height=96, width=96, samples=8, device="cpu")


@pytest.mark.slow
def test_both_renderers_see_the_same(cube: Path, blender: str) -> None:
    cameras = [*CAMERAS, look_at((-1, 0.9, -1.5)), orbit(2.0, 0.4, fov=0.9)]
    lit = render_cycles(cube, cameras, SMALL)
    plain = render_views(load_mesh(cube), cameras, RenderSettings(height=96, width=96))
    for one, other, here, there in zip(lit.colours, plain.colours, lit.depth, plain.depth, strict=True):
        a, b = one[..., 3] > 127, other[..., 3] > 127
        assert (a & b).sum() / (a | b).sum() > 0.98
        both = (here != EMPTY) & (there != EMPTY)
        assert both.sum() > 0.98 * (there != EMPTY).sum()
        np.testing.assert_allclose(here[both], there[both], atol=1e-2)
        assert np.median(np.abs(here - there)[both]) < 1e-4
        # Light dims a colour and moves no channel that is 0 far up, nor one that is full below what is 0.
        inner = (other[..., 3] == 255) & (one[..., 3] == 255)
        full, none = (other[..., :3] == 255) & inner[..., None], (other[..., :3] == 0) & inner[..., None]
        assert np.mean(one[..., :3][full] > 40) > 0.97
        assert np.mean(one[..., :3][none] < 40) > 0.97
    # From +x the red side.
    red, green, blue, alpha = lit.colours[0, 48, 48].tolist()
    assert red > 100 > 20 > max(green, blue)
    assert alpha == 255
    again = render_cycles(cube, cameras[:1], SMALL)
    np.testing.assert_array_equal(again.colours[0], lit.colours[0])


@pytest.mark.slow
def test_a_texture_is_upright_in_a_picture_that_is_not_square(tmp_path: Path, blender: str) -> None:
    path = write_square_obj(tmp_path)
    lit = render_cycles(path, [look_at((0, -2, 0))], CyclesSettings(height=32, width=64, samples=8, device="cpu"))
    picture = lit.colours[0].astype(int)
    assert (picture[10, 21, 0] - picture[10, 21, 1:3] > 50).all()  # red
    assert (picture[10, 42, 1] - picture[10, 42, [0, 2]] > 50).all()  # green
    assert (picture[21, 21, 2] - picture[21, 21, :2] > 50).all()  # blue
    plain = render_views(load_mesh(path), [look_at((0, -2, 0))], RenderSettings(height=32, width=64))
    np.testing.assert_allclose(lit.depth[0, 10:22, 21:43], plain.depth[0, 10:22, 21:43], atol=1e-4)
    assert ((lit.depth != EMPTY) == (plain.depth != EMPTY)).mean() > 0.99


@pytest.mark.slow
def test_vertex_colours_and_missing_textures(tmp_path: Path, blender: str) -> None:
    header = "ply\nformat ascii 1.0\nelement vertex 4\n"
    header += "".join(f"property float {name}\n" for name in "xyz")
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x} 0 {z} 0 255 0" for x, z in ((0, 0), (1, 0), (1, 1), (0, 1))]
    (tmp_path / "green.ply").write_text(header + "\n".join([*rows, "4 0 1 2 3", ""]))
    camera = [look_at((0, -2, 0))]
    red, green, blue, _ = render_cycles(tmp_path / "green.ply", camera, SMALL).colours[0, 48, 48].tolist()
    assert green > 100 > 50 > max(red, blue)
    notes: list[str] = []
    path = write_square_obj(tmp_path, with_texture=False)
    pixel = render_cycles(path, camera, SMALL, noted=notes.append).colours[0, 48, 48, :3].astype(int)
    assert np.ptp(pixel) < 8
    assert [("quarters.png" in note, note.endswith("is not there: grey")) for note in notes] == [(True, True)]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["inside", "../outside", "embedded"])
def test_textures_of_gltf_stay_in_its_folder(where: str, tmp_path: Path, blender: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = Gltf()
    material = model.textured()
    if where != "embedded":
        (folder / f"{where}.png").write_bytes(png(quarters()))
        model.document["images"] = [{"uri": f"{where}.png"}]
    model.add(model.square(material))
    path = model.write(folder / f"square.{'glb' if where == 'embedded' else 'gltf'}")
    notes: list[str] = []
    lit = render_cycles(path, [look_at((0, -2, 0))], SMALL, noted=notes.append)
    corner = lit.colours[0, 31, 31, :3].astype(int)  # red, where it may be
    assert (np.ptp(corner) < 8) == (where == "../outside")
    assert [note.endswith("lies outside of the folder: grey") for note in notes] == [True] * (where == "../outside")


@pytest.mark.slow
def test_a_real_blend_file_is_read_and_its_scripts_are_not_run(tmp_path: Path, blender: str) -> None:
    (tmp_path / "quarters.png").write_bytes(png(quarters()))
    make = f"""
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add(size=2, location=(5, 5, 5))
cube = bpy.context.object
cube.scale = (1, 1, 0.5)
cube.modifiers.new("two", "ARRAY").count = 2
material = bpy.data.materials.new("blue"); material.use_nodes = True
material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (0, 0, 1, 1)
cube.data.materials.append(material)
bpy.ops.mesh.primitive_cube_add(size=50); bpy.context.object.hide_render = True
text = bpy.data.texts.new("evil.py"); text.write("open({str(tmp_path / "ran")!r}, 'w')"); text.use_module = True
bpy.ops.wm.save_as_mainfile(filepath={str(tmp_path / "bar.blend")!r})
"""
    subprocess.run([blender, "-c", make], check=True, capture_output=True)
    mesh = load_mesh(tmp_path / "bar.blend")
    # Two cubes side by side along x, half as high: 4 x 2 x 1.
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [1, 0.5, 0.25], atol=1e-6)
    assert {mesh.materials[number].colour for number in mesh.material_of_face} == {(0.0, 0.0, 1.0, 1.0)}
    camera = [look_at((0.4, -2, 0.5))]
    lit = render_cycles(tmp_path / "bar.blend", camera, SMALL)
    plain = render_views(mesh, camera, RenderSettings(height=96, width=96))
    a, b = lit.colours[..., 3] > 127, plain.colours[..., 3] > 127
    assert (a & b).sum() / (a | b).sum() > 0.98
    assert not (tmp_path / "ran").exists()
    (tmp_path / "torn.blend").write_bytes((tmp_path / "bar.blend").read_bytes()[:1000])
    with pytest.raises((AssetError, BlenderError), match=r"torn\.blend"), exported(tmp_path / "torn.blend"):
        pass
