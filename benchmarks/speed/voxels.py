"""How fast an asset becomes tokens: views, voxels and features of one mesh, seconds.

    python -m benchmarks.speed.voxels [--views 150] [--side 512]

The mesh is made here: a bumpy, textured sphere of 81,920 faces. Each line gives seconds of processor time (a busy
machine does not count) and of the wall clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar, get_args

import numpy as np

from atoken.assets.asset import Asset
from atoken.assets.cameras import hammersley_views
from atoken.assets.mesh import Material, Mesh, Texture, normalised
from atoken.assets.render import Renderer, RenderSettings, render_views
from atoken.assets.voxel_features import patches_of_views, voxel_features
from atoken.assets.voxels import occupied_by_mesh, occupied_by_points, unprojected
from atoken.config import Gathering
from atoken.patches import pack_pixels

T = TypeVar("T")


def main() -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--views", type=int, default=150)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    mesh = bumpy_sphere()
    cameras = hammersley_views(arguments.views, (0.3, 0.6), mostly_above=True)
    settings = RenderSettings(height=arguments.side, width=arguments.side)
    print(f"{len(mesh.faces)} faces, {arguments.views} views of {arguments.side}x{arguments.side}: processor, wall")
    _timed("search tree", lambda: Renderer(mesh))
    views = _timed("render", lambda: render_views(mesh, cameras, settings))
    points = _timed("points from depth", lambda: unprojected(views.depth, cameras))
    _timed("voxels of 500,000 points", lambda: occupied_by_points(points))
    coords = _timed(f"voxels of all {len(points)} points", lambda: occupied_by_points(points, most=None))
    _timed("voxels of the mesh", lambda: occupied_by_mesh(mesh))
    patches = _timed("patches", lambda: patches_of_views(views.on(0.0)))
    for gathering in get_args(Gathering):
        features = _timed(
            f"features of {len(coords)} voxels, {gathering}",
            partial(voxel_features, coords, patches, cameras, depth=views.depth, gathering=gathering),
        )
    _timed("input tokens", lambda: pack_pixels([Asset(features, coords)], patch=(4, 16, 16)))


def bumpy_sphere(divisions: int = 6) -> Mesh:
    """A textured mesh of 20 * 4^divisions faces, the same each time."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=divisions)
    x, y, z = ball.vertices.T
    vertices = ball.vertices * (1 + 0.1 * np.sin(9 * x) * np.sin(8 * y) * np.sin(7 * z))[:, None]
    uv = np.stack([np.arctan2(y, x) / (2 * np.pi) + 0.5, (1 - z) / 2], axis=1)[ball.faces]
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 4), np.uint8)
    noise[..., 3] = 255
    faces = np.asarray(ball.faces, np.int32)
    material = Material(texture=Texture(noise))
    of_face = np.zeros(len(faces), np.int32)
    return normalised(Mesh("sphere", vertices, faces, of_face, (material,), uv=uv.astype(np.float32)))


def _timed(name: str, step: Callable[[], T]) -> T:
    processor, wall = time.process_time(), time.perf_counter()
    result = step()
    print(f"{name:45} {time.process_time() - processor:8.2f} {time.perf_counter() - wall:8.2f}", flush=True)
    return result


if __name__ == "__main__":
    main()
