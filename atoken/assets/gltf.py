"""glTF 2.0 and GLB: scene graph, primitives, base colours.

Only what an unlit picture shows is read. What else a file asks for (emission, skins, morphs, animation) is noted.
Everything is checked before it is believed: sizes against the bytes that are there, the number of triangles,
instances counted, before any array is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from atoken.assets.gltf_buffers import Buffers, parsed
from atoken.assets.gltf_materials import Materials
from atoken.assets.mesh import MAX_FACES, Mesh
from atoken.assets.sources import AssetError, AssetFile

__all__ = ["read"]

_READ = ("KHR_texture_transform", "KHR_mesh_quantization", "EXT_texture_webp", "KHR_texture_basisu", "KHR_materials_",
         "KHR_lights_punctual", "KHR_animation_pointer", "KHR_xmp")  # fmt: skip
_DEEPEST = 1000
_MOST_NODES = 200_000
_FLOAT = 5126


def read(file: AssetFile) -> Mesh:
    """Read the default scene (or the first, or all nodes that are nobody's child) of a glTF or GLB, y up.

    Raises:
        AssetError: not well formed, compressed, or too large.
    """
    document, chunk = parsed(file.data)
    try:
        return _mesh(file, document, chunk)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        detail = f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}".strip()
        raise AssetError(f"does not follow the glTF standard ({detail}); export the mesh again") from None


def _mesh(file: AssetFile, document: dict[str, Any], chunk: bytes | None) -> Mesh:
    for extension in document.get("extensionsRequired", []):
        if not extension.startswith(_READ):
            raise AssetError(f"needs {extension}, which is not read; export it without (gltf-transform, Blender)")
    buffers = Buffers(document, chunk, file.source)
    materials = Materials(document, buffers, file.source)
    notes = _left_out(document)
    drawn, skipped = _drawn(document, buffers)
    if skipped:
        notes.append(f"{skipped} primitives of points or lines are left out")
    if sum(faces for *_, faces in drawn) > MAX_FACES:
        raise AssetError(f"has more than {MAX_FACES} triangles; simplify the mesh")
    parts = [_part(primitive, matrix, buffers, materials) for primitive, matrix, _ in drawn]
    total = sum(len(part["vertices"]) for part in parts)
    if total > np.iinfo(np.int32).max:
        raise AssetError(f"has {total} vertices in its instances; simplify the mesh")
    if not parts:
        empty = np.zeros((0, 3))
        return Mesh(file.name, empty, empty.astype(np.int32), np.zeros(0, np.int32), materials.all())
    starts = np.cumsum([0] + [len(part["vertices"]) for part in parts])
    coloured = any(part["colours"] is not None for part in parts)
    textured = any(part["uv"] is not None for part in parts)
    return Mesh(
        name=file.name,
        vertices=np.concatenate([part["vertices"] for part in parts]),
        faces=np.concatenate([part["faces"] + start for part, start in zip(parts, starts, strict=False)]).astype(
            np.int32
        ),
        material_of_face=np.concatenate([np.full(len(part["faces"]), part["material"], np.int32) for part in parts]),
        materials=materials.all(),
        uv=np.concatenate([_or(part["uv"], 0, (len(part["faces"]), 3, 2)) for part in parts]) if textured else None,
        colours=np.concatenate([_or(part["colours"], 1, (len(part["vertices"]), 4)) for part in parts])
        if coloured
        else None,
        notes=tuple(dict.fromkeys(notes + materials.notes)),
    )


def _or(array: np.ndarray | None, value: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, value, np.float32) if array is None else array


def _left_out(document: dict[str, Any]) -> list[str]:
    notes = [f"{what} are left out: the mesh is as it rests" for what in ("skins", "animations") if document.get(what)]
    if any(primitive.get("targets") for mesh in document.get("meshes", []) for primitive in mesh["primitives"]):
        notes.append("morph targets are left out: the mesh is as it rests")
    return notes


Drawn = tuple[dict[str, Any], np.ndarray, int]


def _drawn(document: dict[str, Any], buffers: Buffers) -> tuple[list[Drawn], int]:
    """Every instance of a primitive of triangles: (primitive, matrix to the world [4, 4], number of triangles)."""
    drawn, skipped, faces = [], 0, 0
    meshes, nodes = document.get("meshes", []), document.get("nodes", [])
    for number, matrix in _instances(document):
        node = nodes[number]
        if "mesh" not in node:
            continue
        # The standard: a skinned mesh is placed by its skin alone.
        placed = np.eye(4) if "skin" in node else matrix
        for primitive in meshes[node["mesh"]]["primitives"]:
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                raise AssetError("is compressed with Draco, which is not read; export it without (gltf-transform)")
            mode = primitive.get("mode", 4)
            source = primitive.get("indices", primitive["attributes"].get("POSITION"))
            if mode < 4 or source is None:
                skipped += 1
                continue
            count = buffers.count(source)
            triangles = count // 3 if mode == 4 else max(count - 2, 0)
            faces += triangles
            if faces > MAX_FACES:
                raise AssetError(f"has more than {MAX_FACES} triangles, instances counted; simplify the mesh")
            drawn.append((primitive, placed, triangles))
    return drawn, skipped


def _instances(document: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    """Nodes of the scene with their matrices; a node that is reached along two ways comes twice."""
    nodes = document.get("nodes", [])
    scenes = document.get("scenes", [])
    if scenes:
        roots = scenes[document.get("scene", 0)].get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [number for number in range(len(nodes)) if number not in children]
    stack = [(number, np.eye(4), 0) for number in reversed(roots)]
    visited = 0
    while stack:
        number, above, depth = stack.pop()
        visited += 1
        if depth > _DEEPEST or visited > _MOST_NODES or number < 0:
            raise AssetError("its nodes go round in a circle or are beyond number; export the mesh again")
        matrix = above @ _matrix(nodes[number])
        yield number, matrix
        stack += [(child, matrix, depth + 1) for child in reversed(nodes[number].get("children", []))]


def _matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    length = x * x + y * y + z * z + w * w
    if length > 0:
        s = 2 / length
        matrix[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    matrix[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _part(primitive: dict[str, Any], matrix: np.ndarray, buffers: Buffers, materials: Materials) -> dict[str, Any]:
    """One primitive in the world: vertices, faces, corners' texture coordinates, vertices' colours, its material."""
    attributes = primitive["attributes"]
    local = buffers.accessor(attributes["POSITION"])
    if local.shape[1:] != (3,):
        raise AssetError("positions have not three numbers each; export the mesh again")
    vertices = local.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    if "indices" in primitive:
        order = buffers.accessor(primitive["indices"]).reshape(-1).astype(np.int64)
        if order.max(initial=0) >= len(vertices) or order.min(initial=0) < 0:
            raise AssetError(f"a face names vertex {order.max()} of {len(vertices)}; export the mesh again")
    else:
        order = np.arange(len(vertices))
    faces = _triangles(order, primitive.get("mode", 4))
    number = materials.number(primitive.get("material"))
    uv = None
    channel = materials.channel(number)
    if channel is not None and f"TEXCOORD_{channel}" not in attributes:
        materials.notes.append("a textured surface has no texture coordinates: the corner of its texture is shown")
        uv = np.zeros((len(faces), 3, 2), np.float32)
    elif channel is not None:
        uv = materials.placed(number, buffers.accessor(attributes[f"TEXCOORD_{channel}"]))[faces].astype(np.float32)
    colours = None
    if "COLOR_0" in attributes:
        given = buffers.accessor(attributes["COLOR_0"])
        colours = np.ones((len(vertices), 4), np.float32)
        colours[:, : given.shape[1]] = given
    return {"vertices": vertices, "faces": faces, "uv": uv, "colours": colours, "material": number}


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    steps = np.arange(max(len(order) - 2, 0))
    if mode == 5:
        return np.stack([order[steps], order[steps + 1 + steps % 2], order[steps + 2 - steps % 2]], axis=1)
    if mode == 6:
        return np.stack([np.broadcast_to(order[:1], steps.shape), order[steps + 1], order[steps + 2]], axis=1)
    raise AssetError(f"primitives of mode {mode} are none of the standard's; export the mesh again")
