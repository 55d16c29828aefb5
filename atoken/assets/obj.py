"""Wavefront OBJ and its MTL libraries.

What decides the look, where the two formats leave it open: ``map_Kd`` takes the place of ``Kd`` (as Blender reads
it; its exporter leaves the 0.8 or 0.64 of a material beside the texture), the alpha of its picture counts, and
``Kd`` and the colours of vertices are sRGB, as viewers show them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from atoken.assets.mesh import DEFAULT, GREY, MAX_FACES, Material, Mesh, Texture, Wrap
from atoken.assets.polygons import cut
from atoken.assets.sources import AssetError, AssetFile, OutsideError, Source
from atoken.assets.textures import TextureShelf, srgb_to_linear

__all__ = ["lines_of", "read", "texture_line"]

_TOO_MANY = f"has more than {MAX_FACES} triangles; simplify the mesh"

# How many words follow an option of a texture at most; the numbers of -o, -s and -t may be fewer.
_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2, "-o": 3, "-s": 3,
    "-t": 3, "-texres": 1, "-bm": 1, "-type": 1,
}  # fmt: skip


def read(file: AssetFile) -> Mesh:
    """Read an OBJ, as it lies in the file.

    Raises:
        AssetError: a line that cannot be read, a face without its vertices, or too many faces.
    """
    # Reading lines until the count is reached would take minutes.
    if file.data.count(b"\nf ") > MAX_FACES:
        raise AssetError(_TOO_MANY)
    shape = _Shape()
    for number, line in enumerate(lines_of(file.data), 1):
        word, _, rest = line.partition(" ")
        try:
            shape.add(word, rest)
        except (ValueError, IndexError, OverflowError):
            raise AssetError(f"line {number} cannot be read ({line[:60]!r}); export the mesh again") from None
    library = _Library(file.source)
    for name in shape.libraries:
        library.load(name)
    materials = [library.material(name, coloured=bool(shape.colours)) for name in shape.names]
    vertices, rings = np.array(shape.vertices, np.float64).reshape(-1, 3), np.array(shape.rings, np.int64)
    if rings.max(initial=-1) >= len(vertices):
        raise AssetError(f"a face names vertex {rings.max() + 1} of {len(vertices)}; export the mesh again")
    places, polygons = cut(rings, np.array(shape.sizes, np.int64), vertices)
    material_of_face = np.array(shape.materials, np.int32)[polygons]
    uv = _texture_coordinates(shape, library, materials, places, material_of_face)
    colours = None
    if shape.colours:
        rgb = np.ones((len(vertices), 3))
        for vertex, colour in shape.colours.items():
            rgb[vertex] = colour
        colours = np.ones((len(rgb), 4), np.float32)
        colours[:, :3] = srgb_to_linear(rgb)
    return Mesh(
        name=file.name,
        vertices=vertices,
        faces=rings[places].astype(np.int32),
        material_of_face=material_of_face,
        materials=tuple(materials) or (DEFAULT,),
        uv=uv,
        colours=colours,
        notes=tuple(library.notes + library.shelf.notes),
    )


def lines_of(data: bytes) -> Iterator[str]:
    """The lines of an OBJ or MTL, joined where a backslash ends them, without comments and spaces to spare."""
    text = data.decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ")
    for line in text.split("\n"):
        yield " ".join(line.partition("#")[0].split())


class _Shape:
    """What the lines of an OBJ add up to; indices count from 0."""

    def __init__(self) -> None:
        self.vertices, self.points = array("d"), array("d")
        self.colours: dict[int, tuple[float, ...]] = {}
        self.rings, self.corners = array("i"), array("i")
        self.sizes, self.materials = array("i"), array("i")
        self.triangles = 0
        self.libraries: list[str] = []
        self.names: list[str] = []
        self._material: int | None = None

    def add(self, word: str, rest: str) -> None:
        if word == "f":
            self._face(rest.split())
        elif word == "v":
            x, y, z, *more = map(float, rest.split())
            if len(more) >= 3:
                self.colours[len(self.vertices) // 3] = tuple(more[-3:])
            self.vertices.extend((x, y, z))
        elif word == "vt":
            u, v, *_ = (*map(float, rest.split()), 0.0)
            self.points.extend((u, v))
        elif word == "usemtl":
            self._use(rest)
        elif word == "mtllib":
            self.libraries.append(rest)

    def _use(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)
        self._material = self.names.index(name)

    def _face(self, corners: list[str]) -> None:
        vertices, points = [], []
        for corner in corners:
            vertex, _, more = corner.partition("/")
            vertices.append(_index(vertex, len(self.vertices) // 3))
            point = more.partition("/")[0]
            points.append(_index(point, len(self.points) // 2) if point else -1)
        if self._material is None:
            self._use("")
        self.triangles += max(len(corners) - 2, 0)
        if self.triangles > MAX_FACES:
            raise AssetError(_TOO_MANY)
        self.rings.extend(vertices)
        self.corners.extend(points)
        self.sizes.append(len(corners))
        self.materials.append(self._material or 0)


def _index(word: str, count: int) -> int:
    """From 1 on, or backwards from the newest."""
    index = int(word)
    if index == 0 or index < -count:
        raise ValueError
    return index - 1 if index > 0 else count + index


@dataclass(kw_only=True, slots=True)
class _Entry:
    """A material of an MTL file as its lines say it."""

    colour: tuple[float, float, float] = (0.8, 0.8, 0.8)
    alpha: float = 1.0
    texture: str | None = None
    clamp: bool = False
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0])
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    mask: str | None = None


class _Library:
    """The materials of all MTL files that an OBJ names."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shelf = TextureShelf(source)
        self.entries: dict[str, _Entry] = {}
        self.notes: list[str] = []

    def load(self, line: str) -> None:
        """A ``mtllib`` line: one name with spaces in it, or several names."""
        names = [line] if self._bytes(line) is not None else line.split()
        for name in names:
            data = self._bytes(name)
            if data is None:
                self.notes.append(f"material library {name} is missing or lies outside the model's folder: grey")
            else:
                self._parse(data, name)

    def _bytes(self, name: str) -> bytes | None:
        try:
            return self._source.read(name)
        except OutsideError:
            return None

    def _parse(self, data: bytes, name: str) -> None:
        entry = _Entry()
        for line in lines_of(data):
            word, _, rest = line.partition(" ")
            try:
                match word:
                    case "newmtl":
                        entry = self.entries[rest] = _Entry()
                    case "Kd":
                        red, green, blue = (*map(float, rest.split()),)[:3]
                        entry.colour = (red, green, blue)
                    case "d":
                        entry.alpha = float(rest.split()[-1])
                    case "Tr":
                        entry.alpha = 1 - float(rest)
                    case "map_Kd":
                        entry.texture, options = texture_line(rest)
                        entry.clamp = options.get("-clamp") == ["on"]
                        for key, pair in (("-o", entry.offset), ("-s", entry.scale)):
                            numbers = [float(value) for value in options.get(key, [])][:2]
                            pair[: len(numbers)] = numbers
                    case "map_d":
                        entry.mask, _ = texture_line(rest)
            except (ValueError, IndexError):
                self.notes.append(f"material library {name}: the line {line[:60]!r} cannot be read and is left out")

    def material(self, name: str, *, coloured: bool) -> Material:
        """The material that ``usemtl`` calls `name`; grey where no library has it.

        Args:
            coloured: the vertices have colours, which a face without a material shows.
        """
        entry = self.entries.get(name)
        if entry is None:
            if not name:
                return Material(name=name) if coloured else DEFAULT
            self.notes.append(f"material {name} is in no library: grey")
            return Material(name=name, colour=GREY)
        alpha = min(max(entry.alpha, 0.0), 1.0)
        red, green, blue = (float(value) for value in srgb_to_linear(np.clip(entry.colour, 0, 1)))
        pixels = None
        if entry.texture is not None:
            pixels = self.shelf.picture(entry.texture)
            red, green, blue = (1.0, 1.0, 1.0) if pixels is not None else GREY[:3]
        mask = self.shelf.picture(entry.mask) if entry.mask is not None else None
        if mask is not None:
            pixels = _masked(pixels, mask)
        see_through = alpha < 1 or (pixels is not None and int(pixels[..., 3].min()) < 255)
        side: Wrap = "clamp" if entry.clamp else "repeat"
        return Material(
            name=name,
            colour=(red, green, blue, alpha),
            texture=None if pixels is None else Texture(pixels, (side, side)),
            alpha="blend" if see_through else "opaque",
        )


def _masked(pixels: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
    """The picture with the mask's alpha (its grey where it has none); in the mask's size if it has no own."""
    from PIL import Image

    grey = mask[..., 3] if int(mask[..., 3].min()) < 255 else mask[..., :3].mean(-1).round().astype(np.uint8)
    if pixels is None:
        pixels = np.full((*grey.shape, 4), 255, np.uint8)
    size = (pixels.shape[1], pixels.shape[0])
    return np.dstack([pixels[..., :3], np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))])


def texture_line(rest: str) -> tuple[str, dict[str, list[str]]]:
    """The file's name, which may hold spaces, and the options before it, in what follows ``map_Kd`` and its like.

    Raises:
        ValueError: it names no file.
    """
    words, options = rest.split(" "), {}
    while words and words[0] in _OPTIONS:
        name = words.pop(0)
        values = options[name] = list[str]()
        while words and len(values) < _OPTIONS[name] and (not values or _is_number(words[0])):
            values.append(words.pop(0))
    if not any(words):
        raise ValueError
    return " ".join(words), options


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _texture_coordinates(
    shape: _Shape, library: _Library, materials: list[Material], places: np.ndarray, material_of_face: np.ndarray
) -> np.ndarray | None:
    if all(material.texture is None for material in materials):
        return None
    corners = np.array(shape.corners, np.int64)[places]
    if corners.max(initial=-1) >= len(shape.points) // 2:
        raise AssetError("a face names a texture coordinate that is not there; export the mesh again")
    # The last row is that of corners without any: index -1.
    points = np.append(np.array(shape.points, np.float64).reshape(-1, 2), [[0.0, 0.0]], axis=0)
    uv = points[corners]
    for number, name in enumerate(shape.names):
        entry = library.entries.get(name)
        if entry is not None and (entry.offset, entry.scale) != ([0.0, 0.0], [1.0, 1.0]):
            mine = material_of_face == number
            uv[mine] = uv[mine] * entry.scale + entry.offset
    # The format's v points up.
    return np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1).astype(np.float32)
