"""The command `atoken` on 3D assets: encode, decode to .ply, render, info, convert."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atoken import work
from atoken.assets import splat
from atoken.assets.asset import Asset
from atoken.assets.cameras import turntable
from atoken.assets.gaussian_files import load_ply, save_ply
from atoken.assets.mesh import load_mesh
from atoken.assets.mesh_to_asset import Recipe
from atoken.assets.render import RENDERER, RenderSettings, render_views
from atoken.media import read_image
from atoken.token_files import load_tokens
from atoken.tokenizer import AToken
from tests.atoken.assets.models import cube_obj, write_square_obj
from tests.atoken.test_assets import gaussian_decoder, same
from tests.atoken.test_cli import Run, ckpt, run

__all__ = ["ckpt", "run"]  # fixtures

COLOURS = {"+x": (1, 0, 0), "-x": (0, 1, 0), "+y": (0, 0, 1), "-y": (1, 1, 0), "+z": (0, 1, 1), "-z": (1, 1, 1)}


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """A cube drawn out to a bar: a whole cube has 20,000 voxels."""
    folder = tmp_path / "models"
    folder.mkdir()
    obj, mtl = cube_obj(COLOURS)
    lines = [line.split() for line in obj.splitlines()]
    thin = [[*line[:2], *(str(float(x) / 15) for x in line[2:])] if line[0] == "v" else line for line in lines]
    (folder / "cube.obj").write_text("\n".join(map(" ".join, thin)))
    (folder / "cube.mtl").write_text(mtl)
    return folder / "cube.obj"


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    gaussian_decoder().save_pretrained(tmp_path / "gs")
    return tmp_path / "gs"


@pytest.fixture
def picture(tmp_path: Path, noise: Callable[..., Any]) -> Path:
    Image.fromarray(noise(20, 33)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_encode_and_decode_are_what_the_library_does(
    run: Run, ckpt: Path, cube: Path, picture: Path, decoder: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "t.safetensors"
    code, _, err = run("encode", cube, picture, "-o", tokens, "--model", ckpt, "--views", 3, "--device", "cpu")
    assert code == 0, err
    content = load_tokens(tokens)
    assert content.names == ("cube.obj", "a.png")
    assert content.settings["assets"] == {
        "renderer": RENDERER, "views": 3, "size": 512, "occupancy": "depth", "gathering": "nearest"
    }  # fmt: skip
    model = AToken.from_pretrained(ckpt, gaussians=decoder)
    asset = Asset.from_mesh(cube, Recipe(views=3))
    wanted = model.encode([asset, read_image(picture)])
    assert torch.equal(content.packed.coords, wanted.mean.coords)
    torch.testing.assert_close(content.packed.features, wanted.mean.features, rtol=0, atol=2e-5)

    code, _, err = run("decode", tokens, "-o", tmp_path / "out", "--gaussians", decoder, "--device", "cpu")
    assert (code, err) == (0, f"wrote 2 files to {tmp_path / 'out'}\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cube.ply", "a.png"}
    gaussians, pixels = model.decode(content.tokens)
    same(load_ply(tmp_path / "out" / "cube.ply"), gaussians)
    assert np.array_equal(read_image(tmp_path / "out" / "a.png"), pixels)


def test_without_a_gaussian_decoder_all_else_is_written(
    run: Run, ckpt: Path, cube: Path, picture: Path, tmp_path: Path
) -> None:
    tokens, out = tmp_path / "t.safetensors", tmp_path / "out"
    run("encode", cube, picture, "-o", tokens, "--model", ckpt, "--views", 1)
    code, _, err = run("decode", tokens, "-o", out)
    assert code == 1
    assert err.splitlines() == [
        f"wrote 1 files to {out}",
        f"error: cube.obj: left out, {ckpt} has no Gaussian decoder to make .ply files of assets; "
        "give one with --gaussians",
    ]
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_one_asset_may_become_one_named_file(
    run: Run, ckpt: Path, cube: Path, picture: Path, decoder: Path, tmp_path: Path
) -> None:
    one, two, target = tmp_path / "1.safetensors", tmp_path / "2.safetensors", tmp_path / "chair.ply"
    run("encode", cube, "-o", one, "--model", ckpt, "--views", 1)
    run("encode", cube, picture, "-o", two, "--model", ckpt, "--views", 1)
    code, _, err = run("decode", one, "-o", target, "--gaussians", decoder)
    assert (code, err) == (0, f"wrote {target}\n")
    assert len(load_ply(target)) == sum(load_tokens(one).packed.lengths) * 4
    code, _, err = run("decode", two, "-o", tmp_path / "b.ply", "--gaussians", decoder)
    assert code == 1
    assert "one .ply file is made of one asset; give a folder" in err


def test_options_of_voxels_reach_them(run: Run, ckpt: Path, cube: Path, tmp_path: Path) -> None:
    counts = {}
    for occupancy in ("depth", "mesh"):
        out = tmp_path / f"{occupancy}.safetensors"
        run(
            "encode", cube, "-o", out, "--model", ckpt, "--views", 2, "--occupancy", occupancy, "--gathering", "average"
        )
        counts[occupancy] = sum(load_tokens(out).packed.lengths)
        assert load_tokens(out).settings["assets"]["gathering"] == "average"
    # Two views cannot show all of the surface: a bar of 64 x 6 x 6 voxels without its inside.
    assert counts["depth"] < counts["mesh"] == 64 * 6 * 6 - 62 * 4 * 4


def test_views_are_kept_and_taken(
    run: Run, ckpt: Path, cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "views"
    encode = ("encode", cube, "--model", ckpt, "--views", 2, "--view-cache", cache, "-o")
    run(*encode, tmp_path / "1")
    assert len(list(cache.iterdir())) == 1

    def draws_nothing(*arguments: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("atoken.assets.render.Renderer.view", draws_nothing)
    assert run(*encode, tmp_path / "2")[0] == 0
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_bad_models_are_named_and_left_out(run: Run, ckpt: Path, cube: Path, tmp_path: Path) -> None:
    broken, cloud = tmp_path / "broken.glb", tmp_path / "cloud.obj"
    broken.write_bytes(b"glTF")
    cloud.write_text("v 0 0 0\nv 1 1 1\n")
    code, _, err = run("encode", broken, cube, cloud, "-o", tmp_path / "t", "--model", ckpt, "--views", 1)
    lines = err.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{broken}: ")
    assert lines[1].startswith(f"{cloud}: ")
    assert "no faces" in lines[1]
    assert lines[2] == "2 of 3 files left out, see above"
    assert load_tokens(tmp_path / "t").names == ("cube.obj",)


def test_other_formats_and_a_missing_blender_are_told_and_the_rest_goes_on(
    run: Run, ckpt: Path, cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATOKEN_BLENDER_PYTHON", raising=False)
    files = [tmp_path / "film.fbx", tmp_path / "scene.blend"]
    for file in files:
        file.write_bytes(b"Kaydara FBX Binary")
    code, _, err = run("encode", *files, cube, "-o", tmp_path / "t", "--model", ckpt, "--views", 1)
    lines = err.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{files[0]}: no format of a mesh that is read; convert it to one of .glb .gltf")
    assert lines[1].startswith(f"{files[1]}: Cycles and .blend files need a Python with bpy")
    assert lines[2] == "2 of 3 files left out, see above"
    code, _, err = run("info", files[0])
    assert code == 1
    assert "no format of a mesh that is read" in err


def test_what_a_model_lacks_is_said(run: Run, ckpt: Path, tmp_path: Path) -> None:
    path = write_square_obj(tmp_path, with_texture=False)
    code, _, err = run("encode", path, "-o", tmp_path / "t", "--model", ckpt, "--views", 4)
    assert code == 0, err
    assert err.startswith(f"{path}: ")
    assert "quarters.png" in err.splitlines()[0]


def test_folders_give_models_in_one_file_and_zips_open(
    run: Run, ckpt: Path, cube: Path, picture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    square = "solid s\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
    (folder / "sub" / "s.stl").write_text(f"{square}endsolid s\n")
    (folder / "a.png").write_bytes(picture.read_bytes())
    (folder / "cube.obj").write_bytes(cube.read_bytes())
    run("encode", folder, "-o", tmp_path / "t", "--model", ckpt, "--views", 2)
    assert load_tokens(tmp_path / "t").names == ("a.png", "sub/s.stl")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for path in cube.parent.iterdir():
            archive.write(path, f"in/{path.name}")
    for given, name in ((tmp_path / "m.zip", "m.zip"), (tmp_path / "m.zip" / "in" / "cube.obj", "cube.obj")):
        assert run("encode", given, "-o", tmp_path / "z", "--model", ckpt, "--views", 1)[0] == 0
        assert load_tokens(tmp_path / "z").names == (name,)
    (tmp_path / "empty").mkdir()
    code, _, err = run("encode", tmp_path / "empty", "-o", tmp_path / "z", "--model", ckpt)
    assert code == 1
    assert "no image and no video, and no .glb, .ply or .stl (name .gltf and .obj one by one)" in err


def test_embed_takes_assets(run: Run, ckpt: Path, cube: Path, picture: Path, tmp_path: Path, tiny: AToken) -> None:
    assert run("embed", cube, picture, "-o", tmp_path / "e.npz", "--model", ckpt, "--views", 2)[0] == 0
    stored = np.load(tmp_path / "e.npz")
    wanted = tiny.embed([Asset.from_mesh(cube, Recipe(views=2)), read_image(picture)])
    np.testing.assert_allclose(stored["embeddings"], wanted.numpy(), rtol=0, atol=2e-5)


def test_spatial_tiles_leave_assets_as_they_are(
    run: Run, ckpt: Path, cube: Path, picture: Path, decoder: Path, tmp_path: Path
) -> None:
    for name, options in (("plain", ()), ("tiled", ("--tile-size", 16, "--tile-overlap", 0))):
        run("encode", cube, picture, "-o", tmp_path / name, "--model", ckpt, "--views", 1, *options)
        run("decode", tmp_path / name, "-o", tmp_path / f"{name}-out", "--gaussians", decoder, *options)
    plain, tiled = (load_tokens(tmp_path / name).tokens.split() for name in ("plain", "tiled"))
    torch.testing.assert_close(plain[0].mean.features, tiled[0].mean.features, rtol=0, atol=2e-5)
    assert (plain[1].mean.features - tiled[1].mean.features).abs().max() > 1e-3
    same(*(load_ply(tmp_path / f"{name}-out" / "cube.ply") for name in ("plain", "tiled")))


def test_the_bar_counts_views(
    run: Run, ckpt: Path, cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    part = work.Bars.part

    def watched(self: work.Bars, name: str, total: int | None) -> Any:
        seen.append((name, total or 0))
        return part(self, name, total)

    monkeypatch.setattr(work.Bars, "part", watched)
    run("encode", cube, "-o", tmp_path / "t", "--model", ckpt, "--views", 2)
    assert seen == [("cube.obj (views)", 2)]


# -- Pictures, and what a file holds ---------------------------------------------------------


def test_meshes_are_drawn_from_around(run: Run, cube: Path, tmp_path: Path) -> None:
    out = tmp_path / "views"
    code, _, err = run("render", cube, "-o", out, "--views", 4, "--size", 48)
    assert (code, err) == (0, f"wrote 4 views of {cube} to {out}\n")
    names = [path.name for path in sorted(out.iterdir())]
    assert names == [f"view_{number:03}.png" for number in range(4)]
    wanted = render_views(load_mesh(cube), turntable(4), RenderSettings(height=48, width=48)).on(1.0)
    for name, pixels in zip(names, wanted, strict=True):
        assert np.abs(read_image(out / name).astype(int) - pixels).max() <= 1
    run("render", cube, "-o", out, "--views", 1, "--size", 32, "--background", "none")
    with Image.open(out / "view_000.png") as image:
        assert image.mode == "RGBA"
        assert image.getpixel((0, 0)) == (0, 0, 0, 0)
        assert image.getpixel((16, 16))[3] == 255


def test_gaussians_are_drawn_as_splats(run: Run, tmp_path: Path) -> None:
    from atoken.assets.gaussians import Gaussians

    torch.manual_seed(0)
    count = 40
    path = tmp_path / "s.ply"
    save_ply(
        Gaussians.of(
            means=torch.rand(count, 3) - 0.5, features_dc=torch.randn(count, 3), scales=torch.full((count, 3), 0.05),
            rotations=torch.randn(count, 4), opacities=torch.rand(count) * 0.9 + 0.05,
        ),
        path,
    )  # fmt: skip
    out = tmp_path / "views"
    assert run("render", path, "-o", out, "--views", 2, "--size", 40, "--background", "#ff0000")[0] == 0
    for number, camera in enumerate(turntable(2)):
        drawn = splat.over(splat.render(load_ply(path), camera, 40, 40), [1.0, 0.0, 0.0]).clamp(0, 1)
        got = read_image(out / f"view_{number:03}.png").astype(int)
        assert np.abs(got - (drawn * 255).round().int().numpy()).max() <= 1
        assert tuple(got[0, 0]) == (255, 0, 0)
    code, text, _ = run("info", path)
    assert code == 0
    assert "kind           Gaussians" in text
    assert f"Gaussians      {count}" in text


def test_info_tells_of_a_mesh(run: Run, cube: Path) -> None:
    code, text, _ = run("info", cube)
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    assert code == 0
    assert {key.strip(): value.strip() for key, value in lines.items()} == {
        "file": f"{cube} ({cube.stat().st_size:,} bytes)",
        "kind": "mesh",
        "faces": "12",
        "vertices": "24",
        "materials": "6 (0 with a texture)",
        "vertex colours": "no",
        "in the unit cube": "-0.500..0.500 x -0.033..0.033 x -0.033..0.033",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.glb",), "gone.glb: no such file"),
        (("bad.ply",), "bad.ply: "),
        (("short.ply",), "short.ply: its header announces"),
        (("cube.obj", "--background", "nope"), "--background 'nope' is no colour"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(
    run: Run, cube: Path, tmp_path: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cube.parent)
    Path("bad.ply").write_bytes(b"ply\nnonsense")
    fields = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"]
    fields += [f"rot_{number}" for number in range(4)]
    head = ["ply", "format binary_little_endian 1.0", "element vertex 9", *(f"property float {f}" for f in fields)]
    Path("short.ply").write_text("\n".join([*head, "end_header", ""]))
    code, _, err = run("render", *arguments, "-o", tmp_path / "out")
    assert code == 1
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_convert_takes_both(run: Run, ckpt: Path, decoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    assert run("convert", ckpt, out, "--gaussians", decoder)[0] == 0
    names = {"config.json", "model.safetensors", "gaussians.json", "gaussians.safetensors"}
    assert {path.name for path in out.iterdir()} == names
    model = AToken.from_pretrained(out)
    assert model.gaussian_decoder is not None
    assert "Gaussian decoder          in the same folder" in run("info", out)[1]
    assert "Gaussian decoder" not in run("info", ckpt)[1]
    # A file of its own holds the tokenizer alone, also where the folder has a Gaussian decoder.
    assert run("convert", out, tmp_path / "alone" / "model.safetensors")[0] == 0
    assert AToken.from_pretrained(tmp_path / "alone" / "model.safetensors").gaussian_decoder is None
    code, _, err = run("convert", ckpt, tmp_path / "x.safetensors", "--gaussians", decoder)
    assert code == 1
    assert "give a folder" in err
