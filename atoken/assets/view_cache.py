"""Rendered views in a folder, by content."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atoken.assets.cameras import Camera
from atoken.assets.render import Views
from atoken.files import replacing

__all__ = ["load_views", "store_views", "views_path"]


def views_path(folder: Path, drawn: Sequence[object], cameras: Sequence[Camera]) -> Path:
    """Where views are kept: the name is a hash of all that moves a pixel, and of nothing else.

    Args:
        drawn: renderer and version, content of the model, settings: plain data.
        cameras: from where.
    """
    digest = hashlib.sha256(json.dumps(drawn).encode())
    for camera in cameras:
        digest.update(camera.world_to_camera.tobytes() + camera.intrinsics.tobytes())
    return folder / f"{digest.hexdigest()[:40]}.npz"


def load_views(path: Path, cameras: Sequence[Camera], height: int, width: int) -> Views | None:
    """Views from the cache; None where there are none or the file is damaged (its checksums tell)."""
    shape = (len(cameras), height, width)
    try:
        with np.load(path, allow_pickle=False) as file:
            colours, depth = file["colours"], file["depth"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if (colours.shape, colours.dtype, depth.shape, depth.dtype) != ((*shape, 4), np.uint8, shape, np.float32):
        return None
    return Views(colours, depth, tuple(cameras))


def store_views(path: Path, views: Views) -> None:
    """Put views into the cache, whole or not at all.

    Raises:
        WriteError: the folder cannot be written.
    """
    # Level 1: the rest of the time buys a few percent.
    with (
        replacing(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, array in (("colours", views.colours), ("depth", views.depth)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
