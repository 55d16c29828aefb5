"""Materials of a glTF: base colour (or the older diffuse colour), its texture, alpha."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from atoken.assets.gltf_buffers import Buffers, uri_bytes
from atoken.assets.mesh import GREY, AlphaMode, Material, Texture, Wrap
from atoken.assets.sources import OutsideError, Source
from atoken.assets.textures import TextureShelf, decode_picture

__all__ = ["Materials"]

_WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
_MODES: dict[str, AlphaMode] = {"OPAQUE": "opaque", "MASK": "mask", "BLEND": "blend"}
_GLOSS = "KHR_materials_pbrSpecularGlossiness"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lookup:
    """How a material looks its texture up: which coordinates, and how these are moved."""

    channel: int
    offset: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)


class Materials:
    """The materials of a document; the one that the standard prescribes where none is named comes last.

    Attributes:
        notes: a line for each texture that is missing or broken, and for what is left out.
    """

    def __init__(self, document: dict[str, Any], buffers: Buffers, source: Source) -> None:
        self._document, self._buffers, self._source = document, buffers, source
        self._shelf = TextureShelf(source)
        self._pictures: dict[int, np.ndarray | None] = {}
        made = [self._made(entry, number) for number, entry in enumerate(document.get("materials", []))]
        self._materials = [*(material for material, _ in made), Material()]
        self._lookups = [*(lookup for _, lookup in made), None]
        self.notes = self._shelf.notes
        if any(max(entry.get("emissiveFactor", [0])) > 0 for entry in document.get("materials", [])):
            self.notes.append("emission is left out: surfaces show their base colour")

    def all(self) -> tuple[Material, ...]:
        """In the document's order, then the standard's own."""
        return tuple(self._materials)

    def number(self, material: int | None) -> int:
        """Of a primitive's material, an index into `all`."""
        if material is None:
            return len(self._materials) - 1
        if not 0 <= material < len(self._materials) - 1:
            raise IndexError(f"material {material} of {len(self._materials) - 1}")
        return material

    def channel(self, number: int) -> int | None:
        """Which set of texture coordinates a material looks up, None if it has no texture."""
        lookup = self._lookups[number]
        return None if lookup is None else lookup.channel

    def placed(self, number: int, uv: np.ndarray) -> np.ndarray:
        """Texture coordinates ``[V, 2]`` moved as KHR_texture_transform says."""
        lookup = self._lookups[number]
        if lookup is None:
            return uv
        scaled = uv * np.array(lookup.scale)
        sine, cosine = math.sin(lookup.rotation), math.cos(lookup.rotation)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.asarray(scaled @ turn.T + np.array(lookup.offset))

    def _made(self, entry: dict[str, Any], number: int) -> tuple[Material, _Lookup | None]:
        gloss = entry.get("extensions", {}).get(_GLOSS)
        if gloss is not None:
            factor, info = gloss.get("diffuseFactor"), gloss.get("diffuseTexture")
        else:
            metal = entry.get("pbrMetallicRoughness", {})
            factor, info = metal.get("baseColorFactor"), metal.get("baseColorTexture")
        red, green, blue, alpha = (min(max(float(value), 0.0), 1.0) for value in factor or (1, 1, 1, 1))
        colour = (red, green, blue, alpha)
        texture, lookup = None, None
        if info is not None:
            texture = self._texture(info["index"])
            if texture is None:
                colour = (*GREY[:3], alpha)
            else:
                moved = info.get("extensions", {}).get("KHR_texture_transform", {})
                lookup = _Lookup(
                    channel=int(moved.get("texCoord", info.get("texCoord", 0))),
                    offset=_pair(moved.get("offset", (0, 0))),
                    rotation=float(moved.get("rotation", 0)),
                    scale=_pair(moved.get("scale", (1, 1))),
                )
        material = Material(
            name=str(entry.get("name", number)),
            colour=colour,
            texture=texture,
            alpha=_MODES[entry.get("alphaMode", "OPAQUE")],
            cutoff=float(entry.get("alphaCutoff", 0.5)),
        )
        return material, lookup

    def _texture(self, number: int) -> Texture | None:
        entry = self._document["textures"][number]
        extensions = entry.get("extensions", {})
        # A picture that cannot be read may have one beside it that can.
        image = extensions.get("EXT_texture_webp", {}).get("source", entry.get("source"))
        if image is None:
            image = extensions.get("KHR_texture_basisu", {}).get("source")
        if image is None:
            self._shelf.kept(f"{number}", "names no picture")
            return None
        if image not in self._pictures:
            self._pictures[image] = self._picture(image)
        pixels = self._pictures[image]
        if pixels is None:
            return None
        sampler = self._document["samplers"][entry["sampler"]] if "sampler" in entry else {}
        return Texture(pixels, (_WRAPS[sampler.get("wrapS", 10497)], _WRAPS[sampler.get("wrapT", 10497)]))

    def _picture(self, number: int) -> np.ndarray | None:
        entry = self._document["images"][number]
        uri = entry.get("uri", "")
        inline = not uri or uri.startswith("data:")
        name = str(entry.get("name") or f"number {number}") if inline else uri[:80]
        try:
            data = uri_bytes(uri, self._source) if uri else self._buffers.view(entry["bufferView"])
        except OutsideError:
            return self._shelf.kept(name, "lies outside the model's folder and was not opened")
        return self._shelf.kept(name, "is missing" if data is None else decode_picture(data))


def _pair(values: tuple[float, float]) -> tuple[float, float]:
    first, second = values
    return float(first), float(second)
