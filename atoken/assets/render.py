"""Pictures and depth of a mesh, by casting rays with Embree: unlit base colour on a transparent ground.

A pixel is the mean, in linear light and weighted by alpha, of a grid of samples over its square (a box filter, as
TRELLIS sets in Cycles). Depth is the camera's z at the pixel's centre, neither averaged nor rounded: of the first
surface there whose alpha is at least 0.5, as Cycles has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from atoken.assets.cameras import Camera
from atoken.assets.mesh import Mesh
from atoken.assets.textures import Atlas, linear_to_srgb
from atoken.errors import InputError

__all__ = ["EMPTY", "RENDERER", "RenderSettings", "Renderer", "Views", "render_views"]

RENDERER = "embree-unlit-1"
"""Changes whenever a pixel could: cached views of another renderer are not taken."""

EMPTY = -1.0
"""Depth where there is nothing."""

_LAYERS = 16
"""Surfaces that a ray passes at most where they let light through."""

_CLEAR = 1 / 512
"""Light that is left below this changes no byte."""

_STEP = 1e-5
"""How far behind a surface a ray goes on, relative to its depth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderSettings:
    """What a picture depends on besides mesh and camera.

    Attributes:
        height: pixels.
        width: pixels.
        samples: rays along each side of a pixel; odd, so that one of them goes through its centre.
    """

    height: int = 512
    width: int = 512
    samples: int = 3

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or max(self.height, self.width) > 8192:
            raise InputError(f"a view has 1 to 8192 pixels a side, not {self.width}x{self.height}")
        if self.samples not in range(1, 17, 2):
            raise InputError(f"samples along a pixel are an odd number up to 15, not {self.samples}")


@dataclass(frozen=True, eq=False, slots=True)
class Views:
    """Pictures of one asset.

    Attributes:
        colours: uint8 sRGB with straight alpha ``[V, H, W, 4]``; 0 where alpha is 0.
        depth: float32 ``[V, H, W]``, the camera's z at each pixel's centre, `EMPTY` where nothing is.
        cameras: V of them.
    """

    colours: np.ndarray
    depth: np.ndarray
    cameras: tuple[Camera, ...]

    def on(self, ground: float) -> np.ndarray:
        """The colours on a grey ground, 0 black to 1 white, blended in sRGB as viewers do: uint8 ``[V, H, W, 3]``."""
        laid = np.empty((*self.colours.shape[:3], 3), np.uint8)
        # View by view: floats of all of them would be gigabytes.
        for picture, result in zip(self.colours, laid, strict=True):
            alpha = picture[..., 3:].astype(np.float32) / 255
            result[...] = np.rint(picture[..., :3] * alpha + 255 * ground * (1 - alpha))
        return laid


def render_views(
    mesh: Mesh,
    cameras: Sequence[Camera],
    settings: RenderSettings | None = None,
    *,
    cache: Path | None = None,
    passed: Callable[[int], None] | None = None,
) -> Views:
    """Render a mesh from several cameras.

    Args:
        mesh: as `load_mesh` gives it.
        cameras: at least one.
        settings: 512 x 512 with 3 x 3 samples unless given.
        cache: a folder. Views of the same content, cameras and settings are taken from it, and put there.
        passed: hears how many more views are drawn, as they are.

    Raises:
        WriteError: the cache cannot be written.
    """
    from atoken.assets.view_cache import load_views, store_views, views_path

    settings = settings or RenderSettings()
    drawn = [RENDERER, mesh.content_hash, asdict(settings)]
    path = None if cache is None else views_path(cache, drawn, cameras)
    if path is not None:
        found = load_views(path, cameras, settings.height, settings.width)
        if found is not None:
            return found
    renderer = Renderer(mesh)
    shape = (len(cameras), settings.height, settings.width)
    views = Views(np.empty((*shape, 4), np.uint8), np.empty(shape, np.float32), tuple(cameras))
    for number, camera in enumerate(cameras):
        views.colours[number], views.depth[number] = renderer.view(camera, settings)
        if passed is not None:
            passed(1)
    if path is not None:
        store_views(path, views)
    return views


class Renderer:
    """A mesh made ready for rays."""

    def __init__(self, mesh: Mesh) -> None:
        from embreex.mesh_construction import TriangleMesh  # type: ignore[import-untyped]
        from embreex.rtcore_scene import EmbreeScene  # type: ignore[import-untyped]

        self._mesh = mesh
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, mesh.vertices.astype(np.float32), np.ascontiguousarray(mesh.faces, np.int32))
        materials = mesh.materials
        self._colour = np.array([material.colour for material in materials], np.float32)
        # Materials often share a picture; its levels are made once.
        distinct = {(id(m.texture.pixels), m.texture.wrap): m.texture for m in materials if m.texture is not None}
        place = {key: number for number, key in enumerate(distinct)}
        self._texture = np.array(
            [-1 if m.texture is None else place[id(m.texture.pixels), m.texture.wrap] for m in materials]
        )
        self._atlas = Atlas(list(distinct.values())) if distinct and mesh.uv is not None else None
        # Alpha below `cut` shows nothing, from `full` on it hides everything; between them it blends.
        self._cut = np.array([m.cutoff if m.alpha == "mask" else 0.0 for m in materials], np.float32)
        self._full = np.array([{"mask": m.cutoff, "opaque": -1.0}.get(m.alpha, 2.0) for m in materials], np.float32)
        self._density = self._texels_by_length()

    def view(self, camera: Camera, settings: RenderSettings) -> tuple[np.ndarray, np.ndarray]:
        """One picture: uint8 sRGB with straight alpha ``[H, W, 4]``, and depth float32 ``[H, W]``, `EMPTY` for none."""
        height, width, samples = settings.height, settings.width, settings.samples
        colours = np.zeros((height, width, 4), np.uint8)
        depth = np.full((height, width), EMPTY, np.float32)
        rows, columns = self._window(camera, height, width)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if 0 in shape:
            return colours, depth
        total = np.zeros((shape[0] * shape[1], 4), np.float32)
        # How wide a sample is at depth 1.
        spread = 1 / (camera.intrinsics[1, 1] * height * samples)
        for i in range(samples):
            for j in range(samples):
                v = (np.arange(rows.start, rows.stop) + (i + 0.5) / samples) / height
                u = (np.arange(columns.start, columns.stop) + (j + 0.5) / samples) / width
                light, z = self._cast(camera, u, v, spread)
                total += light
                if i == j == samples // 2:
                    depth[rows, columns] = z.reshape(shape)
        alpha = total[:, 3:] / samples**2
        straight = total[:, :3] / np.maximum(total[:, 3:], 1e-6)
        picture = np.concatenate([linear_to_srgb(straight), np.rint(255 * alpha).astype(np.uint8)], axis=1)
        picture[picture[:, 3] == 0] = 0
        colours[rows, columns] = picture.reshape(*shape, 4)
        return colours, depth

    def _window(self, camera: Camera, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns that the mesh's bounding box can touch."""
        low, high = self._mesh.vertices.min(0), self._mesh.vertices.max(0)
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
        uv, z = camera.project(corners)
        if z.min() <= 1e-6:
            return slice(0, height), slice(0, width)
        (left, top), (right, bottom) = np.floor(uv.min(0) * [width, height]), np.ceil(uv.max(0) * [width, height])
        rows = np.clip([top - 1, bottom + 1], 0, height).astype(int)
        columns = np.clip([left - 1, right + 1], 0, width).astype(int)
        return slice(rows[0], rows[1]), slice(columns[0], columns[1])

    def _cast(self, camera: Camera, u: np.ndarray, v: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
        """Light of one ray for each (v, u), linear RGBA times alpha ``[N, 4]``, and depth ``[N]``."""
        count = len(u) * len(v)
        # Rays go to z = 1 in the camera's axes, so that the distance along them, in their lengths, is the depth.
        across, down, ahead = (camera.world_to_camera[:3, :3].T @ np.linalg.inv(camera.intrinsics)).T
        in_row = (u[:, None] * across + ahead).astype(np.float32)
        directions = (in_row[None] + (v[:, None, None] * down).astype(np.float32)).reshape(-1, 3)
        light = np.zeros((count, 4), np.float32)
        depth = np.full(count, EMPTY, np.float32)
        left = np.ones(count, np.float32)
        start = np.zeros(count, np.float32)
        rays = np.arange(count)
        here = camera.position.astype(np.float32)
        for layer in range(_LAYERS):
            along = np.take(directions, rays, axis=0) if layer else directions
            hit = self._scene.run(here + np.take(start, rays)[:, None] * along, along, output=True)
            found = np.flatnonzero(hit["primID"] >= 0)
            if not len(found):
                break
            rays = np.take(rays, found)
            face, b, c, ahead = (np.take(hit[name], found) for name in ("primID", "u", "v", "tfar"))
            z = np.take(start, rays) + ahead
            rgba = self._shade(face, b, c, z * np.float32(spread))
            alpha = rgba[:, 3]
            part = left[rays] * alpha
            light[rays, :3] += part[:, None] * rgba[:, :3]
            light[rays, 3] += part
            left[rays] -= part
            solid = (alpha >= 0.5) & (depth[rays] < 0)
            depth[rays[solid]] = z[solid]
            start[rays] = z * np.float32(1 + _STEP)
            rays = rays[left[rays] > _CLEAR]
            if not len(rays):
                break
        return light, depth

    def _shade(self, face: np.ndarray, b: np.ndarray, c: np.ndarray, span: np.ndarray) -> np.ndarray:
        """Linear RGBA ``[N, 4]``, alpha as it counts.

        Args:
            face: ``[N]``.
            b: ``[N]``, weight of each face's second corner.
            c: ``[N]``, of its third.
            span: ``[N]``, how wide a sample is there, in the world.
        """
        # np.take: several times as fast as the same by brackets.
        material = np.take(self._mesh.material_of_face, face)
        rgba = np.take(self._colour, material, axis=0)
        weights = np.stack([1 - b - c, b, c], axis=1)
        if self._mesh.colours is not None:
            rgba = rgba * np.einsum(
                "nk,nkc->nc", weights, np.take(self._mesh.colours, np.take(self._mesh.faces, face, axis=0), axis=0)
            )
        if self._atlas is not None and self._mesh.uv is not None:
            texture = np.take(self._texture, material)
            textured = np.flatnonzero(texture >= 0)
            there = np.take(face, textured)
            uv = np.einsum("nk,nkc->nc", np.take(weights, textured, axis=0), np.take(self._mesh.uv, there, axis=0))
            shrink = np.take(self._density, there) * np.take(span, textured)
            rgba[textured] *= self._atlas.lookup(np.take(texture, textured), uv, shrink)
        alpha = rgba[:, 3]
        full, cut = np.take(self._full, material), np.take(self._cut, material)
        rgba[:, 3] = np.where(alpha >= full, 1, np.where(alpha < cut, 0, alpha))
        return np.asarray(rgba)

    def _texels_by_length(self) -> np.ndarray:
        """Of each face, how many texels of its texture lie along a unit of length, float32 ``[F]``."""
        if self._atlas is None or self._mesh.uv is None:
            return np.zeros(0, np.float32)
        sizes = np.array([1 if m.texture is None else m.texture.pixels[..., 0].size for m in self._mesh.materials])
        a, b, c = (self._mesh.vertices[self._mesh.faces[:, i]] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        p, q = (self._mesh.uv[:, i].astype(np.float64) - self._mesh.uv[:, 0] for i in (1, 2))
        area_uv = np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])
        texels = area_uv * sizes[self._mesh.material_of_face]
        return np.asarray(np.sqrt(texels / np.maximum(area, 1e-20)).astype(np.float32))
