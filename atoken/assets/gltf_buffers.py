"""The bytes of a glTF: its JSON, its buffers, and the arrays that accessors cut from them."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any
from urllib.parse import unquote

import numpy as np

from atoken.assets.sources import AssetError, Source

__all__ = ["Buffers", "parsed", "uri_bytes"]

_MAGIC = b"glTF"
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def parsed(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON of a glTF or GLB, and the GLB's binary chunk.

    Raises:
        AssetError: cut off, no JSON, or another version than 2.
    """
    chunk = None
    if data[:4] == _MAGIC:
        data, chunk = _chunks(data)
    try:
        document = json.loads(data)
        version = str(document["asset"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AssetError("holds no glTF 2.0 document; export or fetch it again") from None
    if not version.startswith("2."):
        raise AssetError(f"is glTF {version}; convert it to 2.0")
    return document, chunk


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    found: dict[int, bytes] = {}
    if len(data) < 20 or struct.unpack_from("<I", data, 8)[0] > len(data):
        raise AssetError("is cut off; fetch it again")
    place = 12
    while place + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, place)
        if place + 8 + length > len(data):
            raise AssetError("is cut off; fetch it again")
        found.setdefault(kind, data[place + 8 : place + 8 + length])
        place += 8 + length
    if _JSON_CHUNK not in found:
        raise AssetError("holds no glTF 2.0 document; export or fetch it again")
    return found[_JSON_CHUNK], found.get(_BINARY_CHUNK)


def uri_bytes(uri: str, source: Source) -> bytes | None:
    """What a URI of a glTF stands for: data in it, or a file beside the model; None if that is missing.

    Raises:
        OutsideError: it leads out of the model's folder.
        AssetError: the data in it are no base64.
    """
    if not uri.startswith("data:"):
        return source.read(unquote(uri))
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise AssetError("data within the file are no base64; export the mesh again") from None


class Buffers:
    """Accessors of a document, read when asked for, each checked against the bytes that are there."""

    def __init__(self, document: dict[str, Any], chunk: bytes | None, source: Source) -> None:
        self._document, self._chunk, self._source = document, chunk, source
        self._buffers: dict[int, bytes] = {}

    def count(self, accessor: int) -> int:
        """How many elements an accessor says it has, which never exceeds what its bytes can hold."""
        entry = self._entry("accessors", accessor)
        count = int(entry["count"])
        length = int(self._entry("bufferViews", entry["bufferView"])["byteLength"]) if "bufferView" in entry else 0
        if not 0 <= count <= max(length, 0):
            raise AssetError(f"accessor {accessor} says {count} elements and holds {length} bytes; export it again")
        return count

    def accessor(self, number: int) -> np.ndarray:
        """Elements ``[count, components]``; integers of attributes that are normalised come as floats.

        Raises:
            AssetError: sparse, of an unknown type, or beyond the end of its buffer.
        """
        entry = self._entry("accessors", number)
        if "sparse" in entry:
            raise AssetError("uses sparse accessors, which are not read; export it without (gltf-transform)")
        try:
            dtype, components = np.dtype(_TYPES[entry["componentType"]]).newbyteorder("<"), _COMPONENTS[entry["type"]]
        except KeyError:
            raise AssetError(f"accessor {number} is of an unknown type; export the mesh again") from None
        count, size = self.count(number), dtype.itemsize * components
        data = self.view(entry["bufferView"])
        stride = int(self._entry("bufferViews", entry["bufferView"]).get("byteStride", size))
        offset = int(entry.get("byteOffset", 0))
        if count == 0:
            return np.zeros((0, components), np.float32)
        if offset < 0 or stride < size or offset + (count - 1) * stride + size > len(data):
            raise AssetError(f"accessor {number} reaches beyond its buffer; fetch or export the mesh again")
        values = np.ndarray((count, components), dtype, data, offset, (stride, dtype.itemsize))
        if entry.get("normalized") and dtype.kind in "iu":
            largest = 2 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1
            return np.asarray(np.maximum(values.astype(np.float32) / np.float32(largest), np.float32(-1)))
        return values

    def view(self, number: int) -> bytes:
        """The bytes of a buffer view.

        Raises:
            AssetError: compressed, or beyond the end of its buffer.
        """
        entry = self._entry("bufferViews", number)
        if "EXT_meshopt_compression" in entry.get("extensions", {}):
            raise AssetError("is compressed with meshopt, which is not read; export it without (gltf-transform)")
        data = self._buffer(entry["buffer"])
        start, length = int(entry.get("byteOffset", 0)), int(entry["byteLength"])
        if start < 0 or length < 0 or start + length > len(data):
            raise AssetError(f"buffer view {number} reaches beyond its buffer; fetch or export the mesh again")
        return data[start : start + length]

    def _buffer(self, number: int) -> bytes:
        if number not in self._buffers:
            entry = self._entry("buffers", number)
            if "uri" not in entry:
                data, name = self._chunk, "the binary part"
            else:
                data, name = uri_bytes(entry["uri"], self._source), entry["uri"][:80]
            if data is None:
                raise AssetError(f"{name} is missing; put it beside the model")
            self._buffers[number] = data
        return self._buffers[number]

    def _entry(self, kind: str, number: int) -> dict[str, Any]:
        entries = self._document.get(kind, [])
        if not isinstance(number, int) or not 0 <= number < len(entries):
            raise AssetError(f"names number {number} of its {len(entries)} {kind}; export the mesh again")
        entry: dict[str, Any] = entries[number]
        return entry
