"""Image files as 8-bit RGB, and which files are images, videos and assets (read by `atoken.video`, `atoken.assets`).

Every file becomes 8-bit RGB, by these rules:

- alpha, a palette's transparency and ICC profiles are dropped, not applied, and CMYK is converted
  without a profile: what PIL's ``convert("RGB")`` gives, and so what the published ImageNet and COCO
  pipelines fed to their models;
- 16 bits become 8 by their high byte, which is what libpng and PIL do with 16-bit colour; PIL
  alone would clip 16-bit grey at 255. An 8-bit picture that was widened by x256 or by x257
  comes back as it was;
- a picture is turned as its EXIF orientation says;
- of an animated image the first frame counts.

A damaged file raises `MediaError`: no grey rest in place of what a truncated image lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from atoken.assets.mesh import FOREIGN, FORMATS
from atoken.errors import InputError

__all__ = ["MediaError", "is_asset", "is_image", "is_video", "list_media", "read_image"]

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"}
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".y4m"))

WHOLE_ASSETS = frozenset((".glb", ".ply", ".stl"))
"""Of assets in one file; beside .gltf and .obj lie pictures that are their textures, not items of their own."""

# Named, so that a file cannot choose PIL's EPS reader: that one starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class MediaError(InputError):
    """A file that is no image or video, or is damaged; the line names the file and the reason."""


def is_image(path: Path | str) -> bool:
    """Whether the file's name ends like an image's."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Path | str) -> bool:
    """Whether the file's name ends like a video's."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def is_asset(path: Path | str) -> bool:
    """Whether the file's name ends like that of a 3D asset, read or not, or it is a zip or lies in one."""
    path = Path(path)
    inside = (part for part in (path, *path.parents) if part.suffix.lower() == ".zip")
    return path.suffix.lower() in (*FORMATS, ".blend", *FOREIGN) or any(part.is_file() for part in inside)


def list_media(paths: Iterable[Path | str], *, assets: bool = False) -> list[Path]:
    """Files as given; folders replaced by the images and videos under them, sorted by path.

    Hidden files (``.name``, as some systems strew about) are left out of folders.

    Args:
        assets: take .glb, .ply and .stl files of folders too, and let paths lead into a zip.

    Raises:
        MediaError: a path that does not exist, or a folder that holds nothing of the kind.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(
                (p for p in path.rglob("*") if _is_medium(p, assets) and p.is_file()),
                key=lambda p: p.relative_to(path).parts,
            )
            inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
            if not inside:
                more = ", and no .glb, .ply or .stl (name .gltf and .obj one by one)" if assets else ""
                raise MediaError(f"{path}: the folder holds no image and no video{more}")
            found += inside
        elif path.exists() or (assets and any(part.is_file() for part in path.parents)):
            found.append(path)
        else:
            raise MediaError(f"{path}: no such file or folder")
    return found


def _is_medium(path: Path, assets: bool) -> bool:
    return is_image(path) or is_video(path) or (assets and path.suffix.lower() in WHOLE_ASSETS)


def read_image(source: Path | str | bytes | BinaryIO, name: str | None = None) -> np.ndarray:
    """Decode one image.

    Args:
        source: a file's path, its bytes, or an open binary file.
        name: what errors call it; the path itself where that is known.

    Returns:
        uint8 RGB ``[H, W, 3]`` in 0..255, writable and contiguous.

    Raises:
        MediaError: missing, empty, no image, truncated, damaged, more than PIL's limit of
            179 million pixels, or of a kind with no defined white (float, 32-bit integers).
    """
    if isinstance(source, Path | str):
        name = name or str(source)
    name = name or "image"
    try:
        Image.init()
        formats = [f for f in _FORMATS if f in Image.OPEN]  # an older PIL has no AVIF
        with _opened(source) as file, Image.open(file, formats=formats) as image:
            pixels = _rgb(image)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise MediaError(f"{name}: {_unidentified(source)}") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise MediaError(f"{name}: more than {limit:,} pixels; scale it down or cut it") from None
    except Exception as error:  # the decoders raise anything, down to struct.error, on damaged files
        raise MediaError(f"{name}: {_reason(error)}") from None
    return pixels


def _opened(source: Path | str | bytes | BinaryIO) -> Any:
    """A context that gives an open file; a file that the caller opened stays open."""
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, Path | str):
        return Path(source).open("rb")
    return nullcontext(source)


def _rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an opened PIL image by the rules at the top of this file."""
    image.load()
    orientation = _orientation(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(_high_byte(image))
    elif image.mode == "F":
        raise MediaError("floating-point pixels have no defined white; save it with 8 or 16 bits")
    elif image.mode == "P":
        # The detour spares a warning about transparency; the colours are the palette's either way.
        image = image.convert("RGBA")
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return np.array(image)


def _high_byte(image: Image.Image) -> np.ndarray:
    """Grey of 16 bits as uint8 ``[H, W]``. PIL keeps some 16-bit files (PGM) in 32-bit integers."""
    wide = np.asarray(image)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise MediaError(f"grey values from {low} to {high} fit no 8 or 16 bits; save it with 8 or 16 bits")
    return (wide >> 8).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where the EXIF block is absent or damaged: the pixels are whole then."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _unidentified(source: Path | str | bytes | BinaryIO) -> str:
    if isinstance(source, bytes):
        size = len(source)
    elif isinstance(source, Path | str):
        size = Path(source).stat().st_size
    else:
        size = source.seek(0, 2)
    return "the file is empty" if size == 0 else "not an image, or its header is damaged"


def _reason(error: Exception) -> str:
    """One line of an exception's own words."""
    words = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return words.splitlines()[0]
