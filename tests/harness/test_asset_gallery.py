"""The pictures and the Gaussians of an asset: what is written, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atoken.assets.gaussian_files import load_ply
from atoken.assets.gaussians import Gaussians
from harness import asset_gallery
from harness.asset_gallery import GROUND, PITCH, TURN, turntable, write_asset
from harness.errors import BenchError

Pair = tuple[np.ndarray, np.ndarray]


def disc(place: int, shift: float) -> np.ndarray:
    """A premultiplied view: a half-clear disc of one colour that wanders to the right."""
    y, x = np.mgrid[0:40, 0:40]
    inside = (y - 20) ** 2 + (x - 10 - place) ** 2 < 64
    colour = np.array([0.2 + shift, 0.4, 0.1, 0.5])
    return (inside[..., None] * colour).astype(np.float32)


def views(n: int = 6) -> list[Pair]:
    """The reconstruction is a little redder, most so in view 2."""
    return [(disc(place, 0), disc(place, 0.25 if place == 2 else 0.05)) for place in range(n)]


def splat(n: int) -> Gaussians:
    rng = torch.Generator().manual_seed(0)
    return Gaussians.of(
        means=torch.rand(n, 3, generator=rng) - 0.5,
        features_dc=torch.randn(n, 3, generator=rng),
        scales=torch.rand(n, 3, generator=rng) * 0.01 + 1e-4,
        rotations=torch.randn(n, 4, generator=rng),
        opacities=torch.rand(n, generator=rng) * 0.98 + 0.01,
    )


def write(folder: Path, made: list[Pair], **more: Any) -> dict[str, Any]:
    return write_asset(folder / "gallery", "000003", made, tokens=12, **more)


def test_the_turntable_goes_once_round_from_the_front() -> None:
    places = np.stack([camera.position for camera in turntable()])
    assert len(places) == TURN
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 2)
    np.testing.assert_allclose(np.degrees(np.arcsin(places[:, 2] / 2)), PITCH)
    assert places[0, 1] < -1.8  # the front of a model in axes with z up looks along -y
    turns = np.unwrap(np.arctan2(places[:, 1], places[:, 0]))
    np.testing.assert_allclose(np.degrees(np.diff(turns)), 360 / TURN)


def test_views_lie_on_the_ground_that_the_entry_states(tmp_path: Path) -> None:
    made = views()
    entry = write(tmp_path, made, voxels=7)
    poster = np.asarray(Image.open(tmp_path / entry["poster"]))
    assert poster.shape == (entry["height"], 3 * entry["width"], 3)
    assert tuple(entry["ground"]) == GROUND
    assert entry["scale"] == 12
    # Poster: of view 2, with Pillow laying straight colours over the ground.
    wanted = []
    for view in made[2]:
        straight = np.where(view[..., 3:] > 0, view[..., :3] / np.maximum(view[..., 3:], 1e-9), 0)
        rgba = np.concatenate([straight, view[..., 3:]], axis=2)
        above = Image.fromarray(np.rint(255 * np.clip(rgba, 0, 1)).astype(np.uint8), "RGBA")
        below = Image.new("RGBA", above.size, (*GROUND, 255))
        wanted.append(np.asarray(Image.alpha_composite(below, above).convert("RGB")))
    shown = poster[6::12, 6::12].astype(int)
    assert abs(shown[:, :40] - wanted[0]).max() <= 1
    assert abs(shown[:, 40:80] - wanted[1]).max() <= 1
    assert (shown[:, 80:][made[2][0][..., 3] == 0] == 0).all()  # no error beside the disc


def test_the_entry(tmp_path: Path) -> None:
    entry = write(tmp_path, views())
    assert (entry["views"], entry["poster_view"], entry["tokens"]) == (6, 2, 12)
    assert (entry["voxels"], entry["splat"], entry["gaussians"], entry["splat_gaussians"]) == (None,) * 4
    share = (disc(0, 0)[..., 3] > 0).mean()
    expected = np.round(0.05 * 255) * np.sqrt(share / 3)
    assert entry["rms"] == pytest.approx([expected if i != 2 else 64 * np.sqrt(share / 3) for i in range(6)], rel=0.05)
    assert int(np.argmax(entry["rms"])) == entry["poster_view"]
    assert not entry["lossless"]
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"000003.webm", "000003.png"}


def test_what_comes_back_exactly_says_so(tmp_path: Path) -> None:
    entry = write(tmp_path, [(a, a) for a, _ in views()])
    assert entry["lossless"]
    assert entry["rms"] == [0.0] * 6


def test_colours_that_pass_their_alpha_are_clamped(tmp_path: Path) -> None:
    entry = write(tmp_path, [(disc(0, 0), disc(0, 9.0)), (disc(0, 0), disc(0, 99.0))])
    assert entry["rms"][0] == entry["rms"][1]


def test_gaussians_come_back_from_the_file(tmp_path: Path) -> None:
    made = splat(50)
    entry = write(tmp_path, views(), splat=made, voxels=5)
    assert (entry["splat"], entry["gaussians"], entry["splat_gaussians"]) == ("gallery/000003.ply", 50, 50)
    read = load_ply(tmp_path / entry["splat"])
    for name in ("means", "features_dc", "log_scales", "quaternions", "opacity_logits"):
        assert torch.equal(getattr(read, name), getattr(made, name))


def test_many_gaussians_are_thinned_to_those_that_cover_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_gallery, "MOST_GAUSSIANS", 20)
    made = splat(50)
    entry = write(tmp_path, views(), splat=made)
    assert (entry["gaussians"], entry["splat_gaussians"]) == (50, 20)
    sides = np.sort(made.scales.numpy(), axis=1)
    cover = made.opacities.numpy() * sides[:, 1] * sides[:, 2]
    kept = np.sort(np.argsort(-cover)[:20])
    assert torch.equal(load_ply(tmp_path / entry["splat"]).means, made.means[torch.from_numpy(kept)])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "gallery").write_text("in the way")
    with pytest.raises(BenchError, match="gallery"):
        write(tmp_path, views())


def test_views_that_break_off_leave_nothing_open(tmp_path: Path) -> None:
    # An encoder that is left open crashes the process when it is collected.
    program = f"""
import gc, pathlib
from test_asset_gallery import views, write
def broken():
    yield views()[0]
    raise RuntimeError("gone")
try:
    write(pathlib.Path({str(tmp_path)!r}), broken())
except RuntimeError as error:
    print(error)
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "gone\n"
    assert list((tmp_path / "gallery").iterdir()) == []
