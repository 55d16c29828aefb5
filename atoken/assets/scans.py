"""PLY and STL, read by trimesh once their headers have been looked at."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np

from atoken.assets.mesh import DEFAULT, GREY, MAX_FACES, Material, Mesh, Texture
from atoken.assets.polygons import cut
from atoken.assets.sources import AssetError, AssetFile
from atoken.assets.textures import TextureShelf, srgb_to_linear

__all__ = ["read"]

_STL_HEADER, _STL_FACE = 84, 50


def read(file: AssetFile) -> Mesh:
    """Read a PLY (colours of vertices or faces, sRGB; one texture) or an STL (no colours), as it lies in the file.

    Raises:
        AssetError: not well formed, too large, or Gaussians instead of a mesh.
    """
    from trimesh.exchange.ply import load_ply
    from trimesh.exchange.stl import load_stl

    shelf = _OneShelf(file)
    try:
        if file.suffix == ".stl":
            _check_stl(file.data)
            solids = load_stl(io.BytesIO(file.data))
            return _joined(file, list(solids.get("geometry", {"": solids}).values()))
        _check_ply(file.data)
        return _from_ply(file, load_ply(io.BytesIO(file.data), resolver=shelf), shelf)  # type: ignore[arg-type]
    except (AssetError, MemoryError):
        raise
    except Exception as error:  # whatever trimesh meets in a broken file
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AssetError(f"cannot be read ({detail}); fetch or export the mesh again") from None


class _OneShelf:
    """Trimesh's way to ask for the texture of a PLY: it is told that there is none, and we keep what it asked for."""

    def __init__(self, file: AssetFile) -> None:
        self.shelf = TextureShelf(file.source)
        self.pixels: np.ndarray | None = None

    def get(self, name: str) -> bytes:
        self.pixels = self.shelf.picture(name)
        return b""


def _check_stl(data: bytes) -> None:
    faces = struct.unpack_from("<I", data, _STL_HEADER - 4)[0] if len(data) >= _STL_HEADER else 0
    if len(data) != _STL_HEADER + _STL_FACE * faces:
        faces = data.lower().count(b"vertex") // 3
        if not faces:
            raise AssetError("is no STL, or cut off; fetch or export it again")
    _check_count(faces)


def _check_ply(data: bytes) -> None:
    header = re.match(rb"ply\r?\n(.*?)end_header", data[: 1 << 16], re.DOTALL)
    if header is None:
        raise AssetError("has no header of a PLY; fetch or export it again")
    counts = {name: int(count) for name, count in re.findall(rb"element\s+(\w+)\s+(\d+)", header[1])}
    if sum(counts.values()) > len(data):
        raise AssetError(f"says {sum(counts.values())} elements in {len(data)} bytes; it is cut off, fetch it again")
    if b"f_dc_0" in header[1] and not counts.get(b"face"):
        raise AssetError("holds Gaussians, not a mesh; render it as splats")
    _check_count(counts.get(b"face", 0))


def _check_count(faces: int) -> None:
    if faces > MAX_FACES:
        raise AssetError(f"has {faces} faces, more than {MAX_FACES}; simplify the mesh")


def _joined(file: AssetFile, solids: list[dict[str, Any]]) -> Mesh:
    starts = np.cumsum([0] + [len(solid["vertices"]) for solid in solids])
    faces = np.concatenate([solid["faces"] + start for solid, start in zip(solids, starts, strict=False)])
    vertices = np.concatenate([solid["vertices"] for solid in solids]).astype(np.float64)
    return Mesh(file.name, vertices, faces.astype(np.int32), np.zeros(len(faces), np.int32), (DEFAULT,))


def _from_ply(file: AssetFile, loaded: dict[str, Any], shelf: _OneShelf) -> Mesh:
    vertices = np.asarray(loaded.get("vertices", np.zeros((0, 3))), np.float64)
    given = loaded.get("faces")
    faces = (
        np.zeros((0, 3), np.int64) if given is None else np.asarray(given, np.int64).reshape(-1, np.shape(given)[-1])
    )
    of_faces, colours = _colours(loaded.get("face_colors")), _colours(loaded.get("vertex_colors"))
    if faces.max(initial=-1) >= len(vertices) or faces.min(initial=0) < 0:
        raise AssetError(f"a face names vertex {faces.max()} of {len(vertices)}; export the mesh again")
    if faces.shape[1] > 3:
        # Trimesh cuts polygons of mixed sizes itself, and leaves those of one size as they are.
        places, owners = cut(faces.reshape(-1), np.full(len(faces), faces.shape[1]), vertices)
        of_faces = None if of_faces is None or len(of_faces) != len(faces) else of_faces[owners]
        faces = faces.reshape(-1)[places]
    _check_count(len(faces))
    visual, uv, material = loaded.get("visual"), None, DEFAULT
    if visual is not None and shelf.pixels is not None and len(visual.uv) == len(vertices):
        texture = Texture(shelf.pixels)
        see_through = int(shelf.pixels[..., 3].min()) < 255
        material = Material(texture=texture, alpha="blend" if see_through else "opaque")
        uv = (np.asarray(visual.uv) * [1, -1] + [0, 1])[faces].astype(np.float32)
    elif shelf.shelf.notes:
        material = Material(colour=GREY)
    if colours is not None and len(colours) != len(vertices):
        # Trimesh splits vertices where texture coordinates differ, and leaves their colours behind.
        colours = None
    if colours is None and of_faces is not None and len(of_faces) == len(faces):
        colours, vertices = of_faces.repeat(3, axis=0), vertices[faces].reshape(-1, 3)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    if colours is not None and material is DEFAULT:
        material = Material()
    return Mesh(
        name=file.name,
        vertices=vertices,
        faces=faces.astype(np.int32),
        material_of_face=np.zeros(len(faces), np.int32),
        materials=(material,),
        uv=uv,
        colours=colours,
        notes=tuple(shelf.shelf.notes),
    )


def _colours(given: Any) -> np.ndarray | None:
    """Linear RGBA from bytes, or from floats of 0..1."""
    if given is None:
        return None
    values = np.asarray(given)
    if values.ndim != 2 or values.shape[1] not in (3, 4):
        return None
    scaled = values / np.iinfo(values.dtype).max if values.dtype.kind in "iu" else np.clip(values, 0, 1)
    colours = np.ones((len(values), 4), np.float32)
    colours[:, :3] = srgb_to_linear(scaled[:, :3])
    if values.shape[1] == 4:
        colours[:, 3] = scaled[:, 3]
    return colours
