"""Pictures for surfaces: decoding them with bounds, and looking them up filtered.

Colours are linear inside the renderer and sRGB in every file; the two curves are here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from atoken.assets.mesh import Texture
from atoken.assets.sources import OutsideError, Source

__all__ = ["MAX_TEXTURE_PIXELS", "Atlas", "TextureShelf", "decode_picture", "linear_to_srgb", "srgb_to_linear"]

MAX_TEXTURE_PIXELS = 2**26
"""A texture of more pixels (8192 x 8192) is not decoded."""

MAX_MODEL_PIXELS = 2**29
"""Textures of one model beyond this many pixels (2 GiB) are left out."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF")
_WRAPS = {"repeat": 0, "clamp": 1, "mirror": 2}
_CODES = 2**16


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, of any shape, 0..1 to 0..1."""
    values = np.asarray(values, np.float64)
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def _encoded(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)


_DECODE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
_ENCODE = np.rint(255 * _encoded(np.arange(_CODES) / (_CODES - 1))).astype(np.uint8)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Linear 0..1 (clipped to it) to sRGB uint8, rounded. Every uint8 comes back from `srgb_to_linear` as it was."""
    codes = np.clip(values, 0, 1) * np.float32(_CODES - 1) + np.float32(0.5)
    return np.asarray(_ENCODE[codes.astype(np.uint16)])


def decode_picture(data: bytes) -> np.ndarray | str:
    """An image file's pixels as uint8 RGBA ``[H, W, 4]``, or why there are none, in words."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_TEXTURE_PIXELS:
                return f"has {picture.width}x{picture.height} pixels, more than {MAX_TEXTURE_PIXELS}"
            if picture.mode.startswith("I"):
                # 16 bits of grey: Pillow's own conversion clips them instead of scaling.
                grey = (np.asarray(picture, np.float64) / 257).round().clip(0, 255).astype(np.uint8)
                return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
            return np.array(picture.convert("RGBA"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        return f"cannot be read as a picture ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


class TextureShelf:
    """The pictures of one model, each read once; what cannot be had is noted.

    Attributes:
        notes: a line for each that is missing or broken.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pictures: dict[str, np.ndarray | None] = {}
        self._pixels = 0
        self.notes: list[str] = []

    def picture(self, reference: str) -> np.ndarray | None:
        """Pixels of the file called `reference`; None, with a note, where it is missing or broken.

        A reference that leads out of the model's folder is refused in the same way: exporters leave the paths
        of their authors' machines behind, and a chair whose cushion is grey is still a chair.

        Raises:
            AssetError: the file is too large or may not be read.
        """
        if reference not in self._pictures:
            try:
                data = self._source.read(reference)
                found = "is missing" if data is None else decode_picture(data)
            except OutsideError:
                found = "lies outside the model's folder and was not opened"
            self._pictures[reference] = self.kept(reference, found)
        return self._pictures[reference]

    def kept(self, name: str, found: np.ndarray | str) -> np.ndarray | None:
        """The pixels, or None and a note."""
        if not isinstance(found, str):
            self._pixels += found[..., 0].size
            if self._pixels > MAX_MODEL_PIXELS:
                found = f"is one too many, beyond {MAX_MODEL_PIXELS} pixels in all"
        if isinstance(found, str):
            self.notes.append(f"texture {name} {found}: grey")
            return None
        return found


class Atlas:
    """All textures of a mesh with their smaller levels, looked up together.

    Level k halves the sides k times, each pixel the mean of those below it, in linear light and weighted by
    alpha. A lookup between pixels is bilinear, in linear light.
    """

    def __init__(self, textures: Sequence[Texture]) -> None:
        texels: list[np.ndarray] = []
        rows: list[list[tuple[int, ...]]] = []
        start = 0
        for texture in textures:
            rows.append([])
            for level in _levels(texture.pixels):
                rows[-1].append((start, *level.shape[:2]))
                texels.append(level.reshape(-1, 4))
                start += len(texels[-1])
        deepest = max(map(len, rows))
        # The last level stands in for any beyond it.
        table = np.array([row + [row[-1]] * (deepest - len(row)) for row in rows], np.int64)
        self._start, self._height, self._width = table[..., 0], table[..., 1], table[..., 2]
        self._texels = np.concatenate(texels)
        self._deepest = deepest - 1
        self._wrap = np.array([[_WRAPS[side] for side in texture.wrap] for texture in textures], np.int8)

    def lookup(self, texture: np.ndarray, uv: np.ndarray, shrink: np.ndarray) -> np.ndarray:
        """Linear RGBA float32 ``[N, 4]``.

        Args:
            texture: ``[N]``, which one.
            uv: ``[N, 2]``, v downwards.
            shrink: ``[N]``, how many texels of level 0 a sample spans along a side; the level whose texels
                span about one is taken.
        """
        level = np.clip(np.rint(np.log2(np.maximum(shrink, 1))), 0, self._deepest).astype(np.int64)
        entry = texture * (self._deepest + 1) + level
        start, height, width = (np.take(table, entry) for table in (self._start, self._height, self._width))
        # Texel centres lie at halves.
        x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
        left, top = np.floor(x), np.floor(y)
        right_part, below_part = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        wrap_u, wrap_v = (np.take(self._wrap[:, side], texture) for side in (0, 1))
        columns = [_wrapped(left + i, width, wrap_u) for i in (0, 1)]
        rows = [start + _wrapped(top + i, height, wrap_v) * width for i in (0, 1)]
        upper, lower = (
            self._texel(row + columns[0]) * (1 - right_part) + self._texel(row + columns[1]) * right_part
            for row in rows
        )
        return np.asarray(upper * (1 - below_part) + lower * below_part)

    def _texel(self, index: np.ndarray) -> np.ndarray:
        # np.take: here four times as fast as the same by brackets.
        texels = np.take(self._texels, index, axis=0)
        linear = np.take(_DECODE, texels)
        linear[:, 3] = texels[:, 3] * np.float32(1 / 255)
        return np.asarray(linear)


def _wrapped(index: np.ndarray, size: np.ndarray, wrap: np.ndarray) -> np.ndarray:
    # Clamped before the cast: coordinates of any size stay within 64 bits, and repeat only beyond 2^50 wrongly.
    whole = np.clip(index, -(2.0**50), 2.0**50).astype(np.int64)
    repeated = whole % size
    if not wrap.any():
        return np.asarray(repeated)
    twice = whole % (2 * size)
    mirrored = np.where(twice < size, twice, 2 * size - 1 - twice)
    return np.choose(wrap, [repeated, np.clip(whole, 0, size - 1), mirrored])


def _levels(pixels: np.ndarray) -> list[np.ndarray]:
    levels = [pixels]
    linear: np.ndarray | None = None
    while max(levels[-1].shape[:2]) > 1:
        if linear is None:
            linear = _DECODE[pixels]
            linear[..., 3] = pixels[..., 3] / np.float32(255)
            linear[..., :3] *= linear[..., 3:]
        linear = _halved(_halved(linear, 0), 1)
        alpha = linear[..., 3:]
        colour = linear_to_srgb(linear[..., :3] / np.maximum(alpha, 1e-6))
        levels.append(np.dstack([colour, np.rint(255 * alpha).astype(np.uint8)]))
    return levels


def _halved(linear: np.ndarray, axis: int) -> np.ndarray:
    """Means of neighbours along an axis; of an odd number of pixels, each takes its share by area."""
    size = linear.shape[axis]
    if size == 1:
        return linear
    moved = np.moveaxis(linear, axis, 0)
    half = size // 2
    if size % 2 == 0:
        result = (moved[0::2] + moved[1::2]) / 2
    else:
        # Each new pixel covers 2 + 1/half old ones: the one between its borders whole, its ends in part.
        part = (np.arange(half, dtype=np.float32) / half).reshape(-1, *(1,) * (moved.ndim - 1))
        first, middle, last = moved[0:-2:2], moved[1:-1:2], moved[2::2]
        result = ((1 - part) * first + middle + (part + 1 / half) * last) / (2 + 1 / half)
    return np.moveaxis(result, 0, axis)
