"""Pictures of a mesh by Cycles, kept in a folder by content: what `render_views` is for the other renderer."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from atoken.assets.cameras import Camera
from atoken.assets.cycles import BLEND, FORMATS, CyclesSettings, installed, render_cycles
from atoken.assets.mesh import Mesh
from atoken.assets.model_files import files_sha256, model_files, write_files
from atoken.assets.render import Views
from atoken.assets.sources import AssetError

__all__ = ["CYCLES", "cycles_views"]

CYCLES = "cycles-1"
"""Changes whenever a pixel could that Blender's version says nothing of: lights, bounces, the way to the cube."""

_PICTURES = {".bmp", ".exr", ".hdr", ".jpeg", ".jpg", ".png", ".tga", ".tif", ".tiff", ".webp"}


def cycles_views(
    mesh: Mesh,
    cameras: Sequence[Camera],
    settings: CyclesSettings | None = None,
    *,
    cache: Path | None = None,
    passed: Callable[[int], None] | None = None,
    noted: Callable[[str], None] | None = None,
) -> Views:
    """Render the file that a mesh was read from, by `render_cycles`.

    Blender is given copies of the model's files in a folder of their own: they may lie in a zip, and nothing beside
    them can be reached. A .blend file is read where it lies, since only Blender knows what it asks for.

    Args:
        mesh: as `load_mesh` read it.
        cameras, settings, passed, noted: as of `render_cycles`; nothing is noted of views that were kept.
        cache: a folder. Views of the same files, cameras and settings by the same Blender on the same device are
            taken from it, and put there.

    Raises:
        AssetError: a mesh that was made and not read, or as of `render_cycles`.
        BlenderError, InputError: as of `render_cycles`.
        WriteError: the cache cannot be written.
    """
    from atoken.assets.view_cache import load_views, store_views, views_path

    settings = settings or CyclesSettings()
    if mesh.path is None:
        raise AssetError(f"{mesh.name}: was not read from a file, and Cycles draws files; take the other renderer")
    blend = mesh.path.suffix.lower() == BLEND
    files = {} if blend else model_files(mesh.path, FORMATS)
    path = None
    if cache is not None:
        blender = installed(settings.device)
        content = _blend_state(mesh.path) if blend else files_sha256(files)
        pixels = [settings.height, settings.width, settings.samples, settings.seed]
        path = views_path(cache, [CYCLES, blender.version, blender.device, content, pixels], cameras)
        found = load_views(path, cameras, settings.height, settings.width)
        if found is not None:
            return found
    if blend:
        views = render_cycles(mesh.path, cameras, settings, passed=passed, noted=noted)
    else:
        with tempfile.TemporaryDirectory(prefix="atoken-model-") as folder:
            copy = write_files(files, Path(folder))
            try:
                views = render_cycles(copy, cameras, settings, passed=passed, noted=noted)
            except AssetError as error:
                raise type(error)(str(error).replace(str(copy), str(mesh.path))) from None
    if path is not None:
        store_views(path, views)
    return views


def _blend_state(path: Path) -> str:
    """A .blend file's content, and which pictures lie below its folder with their sizes and times."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for other in sorted(path.parent.rglob("*")):
        if other.suffix.lower() in _PICTURES and other.is_file():
            state = other.stat()
            digest.update(f"{other.relative_to(path.parent)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
