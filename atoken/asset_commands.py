"""What `atoken render` and `atoken info` do with 3D assets: meshes, and Gaussians in .ply files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageColor

from atoken.assets.cameras import turntable
from atoken.assets.gaussian_files import load_ply
from atoken.assets.mesh import load_mesh
from atoken.errors import InputError
from atoken.files import replacing
from atoken.work import progress

__all__ = ["describe", "holds_splats", "render"]

RendererName = Literal["embree", "cycles"]

_HEADER = 8192
"""Bytes within which the header of a splat names its colours."""


def holds_splats(path: Path) -> bool:
    """Whether a file is a .ply of Gaussians rather than one of a mesh, by the names of its fields."""
    if path.suffix.lower() != ".ply" or not path.is_file():
        return False
    with path.open("rb") as file:
        header, _, _ = file.read(_HEADER).partition(b"end_header")
    return b" f_dc_0" in header


def render(
    asset: Path,
    folder: Path,
    *,
    views: int,
    size: int,
    background: str,
    renderer: RendererName = "embree",
    samples: int | None = None,
) -> None:
    """Write pictures of an asset, evenly spaced around it, as ``view_000.png``, ...

    Args:
        asset: a mesh, or a .ply file of Gaussians.
        folder: to write to.
        views: how many pictures.
        size: pixels along their sides.
        background: a colour as PIL names it, or "none" for pictures with alpha.
        renderer: of meshes: unlit by Embree, or lit as TRELLIS's data by Blender's Cycles.
        samples: of Cycles, a pixel; 128 unless given.

    Raises:
        InputError: no such colour, an asset that cannot be read, or one that the renderer does not draw.
        BlenderError: Cycles is asked for and is not there, or fails.
        WriteError: the folder cannot be written.
    """
    ground = None if background == "none" else _colour(background)
    if renderer == "cycles" and holds_splats(asset):
        raise InputError(f"{asset}: holds Gaussians, which Cycles does not draw; leave --renderer out")
    if renderer != "cycles" and samples is not None:
        raise InputError("--samples are Cycles'; add --renderer cycles, or leave them out")
    width = len(str(max(views - 1, 100)))
    with progress("render", views) as bars:
        if renderer == "cycles":
            # It draws all of them before it gives one.
            pictures, done = _lit(asset, views, size, samples, bars.advance), 0
        else:
            pictures, done = _pictures(asset, views, size), 1
        for number, picture in enumerate(pictures):
            with replacing(folder / f"view_{number:0{width}}.png") as aside:
                _laid(picture, ground).save(aside, format="PNG")
            bars.advance(done)
    print(f"wrote {views} views of {asset} to {folder}", file=sys.stderr)


def describe(asset: Path) -> Iterator[str]:
    """Lines about an asset: what it is made of, and the box that it fills.

    Raises:
        InputError: it cannot be read; the line names it.
    """
    if holds_splats(asset):
        gaussians = load_ply(asset)
        points = gaussians.means.numpy()
        rows = {
            "kind": "Gaussians",
            "Gaussians": f"{len(gaussians):,}",
            "centres": _box(points) if len(points) else "none",
            "opacity, mean": f"{float(gaussians.opacities.mean()):.3f}" if len(points) else "none",
        }
    else:
        mesh = load_mesh(asset)
        textured = sum(material.texture is not None for material in mesh.materials)
        rows = {
            "kind": "mesh",
            "faces": f"{len(mesh.faces):,}",
            "vertices": f"{len(mesh.vertices):,}",
            "materials": f"{len(mesh.materials)} ({textured} with a texture)",
            "vertex colours": "no" if mesh.colours is None else "yes",
            "in the unit cube": _box(mesh.vertices),
        } | {f"note {number}": note for number, note in enumerate(mesh.notes, 1)}
    rows = {"file": f"{asset} ({asset.stat().st_size:,} bytes)" if asset.exists() else str(asset)} | rows
    longest = max(map(len, rows))
    return (f"{name:<{longest}}  {value}" for name, value in rows.items())


def _pictures(asset: Path, views: int, size: int) -> Iterator[np.ndarray]:
    """RGBA [size, size, 4] of each view, float32 about 0..1, premultiplied."""
    if not holds_splats(asset):
        from atoken.assets.render import Renderer, RenderSettings

        mesh = load_mesh(asset)
        for note in mesh.notes:
            print(f"{asset}: {note}", file=sys.stderr)
        renderer, settings = Renderer(mesh), RenderSettings(height=size, width=size)
        for camera in turntable(views):
            yield _premultiplied(renderer.view(camera, settings)[0])
        return
    import torch

    from atoken.assets import splat

    gaussians = load_ply(asset)
    if torch.cuda.is_available():
        gaussians = gaussians.to("cuda")
    for camera in turntable(views):
        yield splat.render(gaussians, camera, size, size).cpu().numpy()


def _lit(
    asset: Path, views: int, size: int, samples: int | None, passed: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """As `_pictures`, of a mesh by Cycles."""
    from atoken.assets.cycles import BLEND, CyclesSettings, render_cycles

    settings = CyclesSettings(height=size, width=size)
    if samples is not None:
        settings = replace(settings, samples=samples)
    if asset.suffix.lower() != BLEND:
        load_mesh(asset)  # refuses what leads out of the asset's folder, before Blender follows it

    def noted(line: str) -> None:
        print(f"{asset}: {line}", file=sys.stderr)

    drawn = render_cycles(asset, turntable(views), settings, passed=passed, noted=noted)
    return map(_premultiplied, drawn.colours)


def _premultiplied(colours: np.ndarray) -> np.ndarray:
    """Bytes with straight alpha as floats with premultiplied."""
    picture = colours.astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]
    return picture


def _laid(picture: np.ndarray, ground: np.ndarray | None) -> Image.Image:
    """A picture [H, W, 4] with premultiplied alpha over a plain ground, or with straight alpha where there is none."""
    colour, alpha = picture[..., :3], picture[..., 3:]
    if ground is None:
        picture = np.concatenate([colour / np.maximum(alpha, 1e-6), alpha], axis=-1)
    else:
        picture = colour + (1 - alpha) * ground
    return Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _colour(name: str) -> np.ndarray:
    try:
        return np.array(ImageColor.getrgb(name)[:3], np.float32) / 255
    except ValueError:
        raise InputError(f"--background {name!r} is no colour; write white, black, #rrggbb or none") from None


def _box(points: np.ndarray) -> str:
    low, high = points.min(0), points.max(0)
    return " x ".join(f"{a:.3f}..{b:.3f}" for a, b in zip(low, high, strict=True))
