"""Small models, written by hand or by trimesh, for the tests of meshes."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = {"top left": RED, "top right": GREEN, "bottom left": BLUE, "bottom right": WHITE}


def quarters(side: int = 64) -> np.ndarray:
    """Red and green above blue and white, uint8 [side, side, 3]: no turn and no mirror leaves it as it is."""
    small = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return small.repeat(side // 2, 0).repeat(side // 2, 1)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# A square of side 1 that faces +z, y up: its texture is upright and not mirrored to one who looks at it from +z.
SQUARE = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32)
SQUARE_UV_UP = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]], np.uint16)


def write_square_obj(folder: Path, *, texture: str = "quarters.png", with_texture: bool = True) -> Path:
    """The textured square as OBJ, MTL and PNG."""
    if with_texture:
        (folder / texture).write_bytes(png(quarters()))
    (folder / "square.mtl").write_text(f"newmtl paint\nKd 0.64 0.64 0.64\nmap_Kd {texture}\n")
    lines = ["mtllib square.mtl", "usemtl paint"]
    lines += [f"v {x} {y} {z}" for x, y, z in SQUARE.tolist()]
    lines += [f"vt {u} {v}" for u, v in SQUARE_UV_UP.tolist()]
    path = folder / "square.obj"
    path.write_text("\n".join([*lines, "f 1/1 2/2 3/3 4/4"]) + "\n")
    return path


def cube_obj(colours: Mapping[str, tuple[float, float, float]]) -> tuple[str, str]:
    """OBJ and MTL of the unit cube with a material for each of ``+x -x +y -y +z -z`` (the file's own axes)."""
    obj, mtl = ["mtllib cube.mtl"], []
    for number, (name, colour) in enumerate(colours.items()):
        axis, sign = "xyz".index(name[1]), 1 if name[0] == "+" else -1
        mtl += [f"newmtl {name}", "Kd {} {} {}".format(*colour)]
        obj.append(f"usemtl {name}")
        for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
            point = [0.0, 0.0, 0.0]
            point[axis], point[(axis + 1) % 3], point[(axis + 2) % 3] = 0.5 * sign, a, b
            obj.append("v {} {} {}".format(*point))
        obj.append("f " + " ".join(str(4 * number + i) for i in range(1, 5)))
    return "\n".join(obj), "\n".join(mtl)


class Gltf:
    """A glTF put together piece by piece."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": [], "meshes": []}

    def view(self, data: bytes) -> int:
        self.document["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data + b"\0" * (-len(data) % 4)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, array: np.ndarray, **more: Any) -> int:
        kinds = {"b": 5120, "B": 5121, "h": 5122, "H": 5123, "I": 5125, "f": 5126}
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        entry = {
            "bufferView": self.view(array.tobytes()),
            "componentType": kinds[array.dtype.char],
            "count": len(array),
        }
        self.document["accessors"].append({**entry, "type": kind, **more})
        return len(self.document["accessors"]) - 1

    def square(self, material: int | None = None, **attributes: np.ndarray) -> dict[str, Any]:
        """A primitive with the square's corners; TEXCOORD_0 and the like by name."""
        named = {"POSITION": SQUARE, "TEXCOORD_0": SQUARE_UV_UP * [1, -1] + [0, 1], **attributes}
        accessors = {
            name: self.accessor(np.asarray(array, None if array.dtype.kind in "iu" else np.float32))
            for name, array in named.items()
        }
        primitive = {"attributes": accessors, "indices": self.accessor(SQUARE_FACES.reshape(-1))}
        return primitive if material is None else {**primitive, "material": material}

    def textured(self, **texture: Any) -> int:
        """The picture of quarters as texture 0 of material 0; returns the material."""
        self.document["images"] = [{"bufferView": self.view(png(quarters())), "mimeType": "image/png"}]
        self.document["textures"] = [{"source": 0, "sampler": 0}]
        self.document["samplers"] = [{"wrapS": 10497, "wrapT": 10497}]
        self.document["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **texture}}}]
        return 0

    def add(self, *primitives: dict[str, Any], **node: Any) -> None:
        self.document["meshes"].append({"primitives": list(primitives)})
        self.document.setdefault("nodes", []).append({"mesh": len(self.document["meshes"]) - 1, **node})

    def write(self, path: Path, *, buffer: str | None = None) -> Path:
        """As GLB, or as glTF with its buffer inline, or under the name `buffer` beside it."""
        document = {**self.document, "buffers": [{"byteLength": len(self.binary)}]}
        if path.suffix == ".gltf":
            uri = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
            document["buffers"][0]["uri"] = buffer or uri
            path.write_text(json.dumps(document))
            return path
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(self.binary), 0x004E4942) + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path
