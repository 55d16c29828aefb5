"""Meshes as they are rendered: triangles, materials and textures, in the unit cube with z up.

`load_mesh` reads GLB, glTF, OBJ (+ MTL), PLY and STL, also out of a zip; .blend files by way of Blender
(`atoken.assets.cycles`). OBJ and glTF are read by our own
readers, because trimesh rounds factors and vertex colours to 8 bits, drops the wrap modes of textures and
is silent about a file that is missing; PLY and STL are read by trimesh.

Memory, measured on a million faces: a mesh holds 40 to 100 bytes a face, reading it takes at most 380 for the moment
(OBJ; the others 90 to 300), a renderer holds 50 to 110 more. `MAX_FACES`, looked at before arrays are made, keeps that
below 4 GB.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from atoken.assets.sources import AssetError, AssetFile, open_asset

__all__ = [
    "DEFAULT",
    "FOREIGN",
    "FORMATS",
    "GREY",
    "MAX_FACES",
    "Axis",
    "Material",
    "Mesh",
    "Texture",
    "Wrap",
    "load_mesh",
    "normalised",
]

MAX_FACES = 10_000_000
"""A mesh of more triangles is refused before they are allocated."""

GREY = (0.21586, 0.21586, 0.21586, 1.0)
"""Linear colour of what a missing file would have coloured: 128 of 255 in sRGB."""

Axis = Literal["y", "z"]
Wrap = Literal["repeat", "clamp", "mirror"]
AlphaMode = Literal["opaque", "mask", "blend"]


@dataclass(frozen=True, eq=False, slots=True)
class Texture:
    """A picture on a surface.

    Attributes:
        pixels: uint8 sRGB with straight alpha, ``[H, W, 4]``, first row on top.
        wrap: what lies beyond its borders, along u and along v.
    """

    pixels: np.ndarray
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """An unlit surface, seen from both sides.

    Attributes:
        name: for messages.
        colour: linear RGBA, times the texture where there is one.
        texture: or None.
        alpha: ``opaque`` ignores alpha, ``mask`` shows what reaches `cutoff` whole and nothing else,
            ``blend`` lets what lies behind through.
        cutoff: least alpha that ``mask`` shows.
    """

    name: str = ""
    colour: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: Texture | None = None
    alpha: AlphaMode = "opaque"
    cutoff: float = 0.5


DEFAULT = Material(name="none given", colour=(0.8, 0.8, 0.8, 1.0))
"""Blender's, of a surface for which a file names no material."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with their materials.

    Attributes:
        name: the file's, for messages.
        vertices: float64 ``[V, 3]``, z up.
        faces: int32 ``[F, 3]``, indices into `vertices`.
        material_of_face: int32 ``[F]``, indices into `materials`.
        materials: at least one.
        uv: float32 ``[F, 3, 2]`` of each corner, u to the right and v downwards over the texture, both 0..1
            across it; None where nothing is textured.
        colours: float32 linear RGBA ``[V, 4]`` that the material's colour is multiplied with, or None.
        notes: what the file asked for and was left out, a line each.
        path: of the file that it was read from, which may lie in a zip (``archive.zip/folder/model.obj``); None of a
            mesh that was made.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    material_of_face: np.ndarray
    materials: tuple[Material, ...]
    uv: np.ndarray | None = None
    colours: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    path: Path | None = None

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything that can be seen: not the names, nor the notes."""
        digest = hashlib.sha256()
        for array in (self.vertices, self.faces, self.material_of_face, self.uv, self.colours):
            _add(digest, array)
        for material in self.materials:
            digest.update(repr((material.colour, material.alpha, material.cutoff)).encode())
            if material.texture is not None:
                digest.update(repr(material.texture.wrap).encode())
                _add(digest, material.texture.pixels)
        return digest.hexdigest()


def load_mesh(path: Path | str, *, up: Axis | None = None) -> Mesh:
    """Read a model into the unit cube: its bounding box centred at 0, longest side 1, z up.

    Args:
        path: a file of one of `FORMATS`, a zip that holds one, or ``archive.zip/folder/model.obj``; or a .blend file,
            which the Python with bpy that ``ATOKEN_BLENDER_PYTHON`` names exports to GLB first.
        up: which of the file's axes points up. Unless given: y for glTF (its standard) and OBJ (custom, and
            what Blender's importer and the sample furniture hold to), z for PLY, STL and .blend (as Blender). With
            y up, (x, y, z) becomes (x, -z, y), so that what faces +z there faces -y here.

    Raises:
        AssetError: not a mesh that can be rendered; the line says why and what to do.
        BlenderError: a .blend file, and Blender's Python is missing or fails.
    """
    path = Path(path)
    if path.suffix.lower() == ".blend":
        mesh, axis = _from_blend(path), up or "z"
    else:
        mesh, axis = _from_file(path, up)
    if axis == "y":
        mesh = replace(mesh, vertices=np.stack([mesh.vertices[:, 0], -mesh.vertices[:, 2], mesh.vertices[:, 1]], 1))
    return normalised(mesh)


def _from_file(path: Path, up: Axis | None) -> tuple[Mesh, Axis]:
    file = open_asset(path, FORMATS)
    try:
        mesh = _read(file)
    except AssetError as error:
        # The readers know what is wrong, and need not know in which file.
        line = str(error)
        raise AssetError(line if line.startswith(file.name) else f"{file.name}: {line}") from None
    except MemoryError:
        raise AssetError(f"{file.name}: this machine has too little memory for it; simplify the mesh") from None
    mesh = replace(mesh, path=Path(file.name))
    return mesh, up or ("z" if file.suffix in (".ply", ".stl") else "y")


def _from_blend(path: Path) -> Mesh:
    """What Blender exports of its own file, turned back to z up."""
    from atoken.assets.cycles import exported

    with exported(path) as (glb, notes):
        try:
            mesh = load_mesh(glb)
        except AssetError as error:
            raise AssetError(str(error).replace(str(glb), str(path))) from None
    return replace(mesh, name=str(path), notes=(*notes, *mesh.notes), path=path)


def _read(file: AssetFile) -> Mesh:
    from atoken.assets import gltf, obj, scans

    readers = {".glb": gltf.read, ".gltf": gltf.read, ".obj": obj.read, ".ply": scans.read, ".stl": scans.read}
    return readers[file.suffix](file)


FORMATS = (".glb", ".gltf", ".obj", ".ply", ".stl")
"""Suffixes that `load_mesh` reads."""

FOREIGN = (".fbx", ".dae", ".usd", ".usda", ".usdc", ".usdz", ".3ds", ".max", ".off", ".x3d", ".wrl", ".step")
"""Suffixes of 3D models that it does not: such a file is told what it is, and not passed over or taken for another."""


def normalised(mesh: Mesh) -> Mesh:
    """The mesh in the cube [-0.5, 0.5]^3: only vertices that a face uses, bounding box centred, longest side 1.

    Raises:
        AssetError: no faces, a face without its vertices, numbers that are not finite, or no extent.
    """
    if not len(mesh.vertices):
        raise AssetError(f"{mesh.name}: holds no geometry; export the mesh again")
    if not len(mesh.faces):
        raise AssetError(
            f"{mesh.name}: holds {len(mesh.vertices)} points and no faces; make a surface of the point cloud first"
        )
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise AssetError(
            f"{mesh.name}: a face names vertex {mesh.faces.max()} of {len(mesh.vertices)}; export the mesh again"
        )
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    if not used.all():
        number = np.cumsum(used, dtype=np.int64) - 1
        colours = None if mesh.colours is None else mesh.colours[used]
        faces = number[mesh.faces].astype(np.int32)
        mesh = replace(mesh, vertices=mesh.vertices[used], faces=faces, colours=colours)
    bad = int((~np.isfinite(mesh.vertices)).any(1).sum())
    if bad:
        raise AssetError(
            f"{mesh.name}: {bad} of {len(mesh.vertices)} vertices are not finite (NaN or infinite); remove their faces"
        )
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    # Halves, so that the difference of two huge numbers cannot overflow.
    half = float((high / 2 - low / 2).max())
    if half < float(np.finfo(np.float32).tiny):
        raise AssetError(f"{mesh.name}: all its vertices lie in one point; nothing of it could be seen")
    vertices = (mesh.vertices / 2 - (low / 4 + high / 4)) / half
    # Rounding must not carry a corner out of the cube.
    mesh = replace(mesh, vertices=np.clip(vertices, -0.5, 0.5))
    uv = mesh.uv
    if uv is not None and not np.isfinite(uv).all():
        notes = (*mesh.notes, "texture coordinates that are not finite are taken as 0")
        mesh = replace(mesh, uv=np.nan_to_num(uv, nan=0.0, posinf=0.0, neginf=0.0), notes=notes)
    return mesh


def _add(digest: hashlib._Hash, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(b"none")
        return
    digest.update(repr((array.dtype.str, array.shape)).encode())
    digest.update(np.ascontiguousarray(array).data)
