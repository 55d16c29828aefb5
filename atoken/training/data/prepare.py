"""From a mesh to a `Prepared` asset: voxels by the release's way, and pictures to compare with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from atoken.assets.cameras import hammersley_views
from atoken.assets.mesh import load_mesh
from atoken.assets.mesh_to_asset import Recipe, voxelise
from atoken.assets.render import RENDERER, RenderSettings, render_views
from atoken.errors import InputError
from atoken.training.data.mesh_listing import ListedMesh
from atoken.training.data.prepared import Prepared, load_prepared, store_prepared
from atoken.training.errors import TrainingError

__all__ = ["Preparation", "prepare"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """How assets are prepared.

    Attributes:
        recipe: how a mesh becomes voxels.
        pictures: views that reconstructions are compared with, spread over the whole sphere; where the set begins
            is drawn from the mesh's content, so that no two assets have the same cameras (as TRELLIS's data).
        picture_size: pixels along their sides.
    """

    recipe: Recipe = field(default_factory=Recipe)
    pictures: int = 24
    picture_size: int = 256

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise InputError(f"an asset is compared by at least one picture, not {self.pictures}")

    def key(self, content: str) -> str:
        """A hash of all that a prepared asset depends on, beside its captions."""
        return hashlib.sha256(json.dumps([1, RENDERER, content, asdict(self)]).encode()).hexdigest()


def prepare(mesh: ListedMesh, path: Path, preparation: Preparation) -> bool:
    """Make the file of one mesh, unless it stands; that of another content, or with other settings, is replaced.

    Returns:
        Whether anything was rendered.

    Raises:
        AssetError: a mesh that cannot be read or rendered; the line names it.
        WriteError: the file cannot be written.
    """
    loaded = load_mesh(mesh.path)
    key = preparation.key(loaded.content_hash)
    try:
        standing = load_prepared(path)
    except TrainingError:
        standing = None
    if standing is not None and standing.key == key:
        if standing.captions != mesh.captions:
            store_prepared(path, replace(standing, captions=mesh.captions))
        return False
    asset = voxelise(loaded, preparation.recipe)
    # Colours are bytes over 255, or means of such ("average"), which are rounded here.
    rows = np.rint(asset.features.numpy() * 255).astype(np.uint8)
    patches, index = _distinct(rows)
    offset = np.random.default_rng(int(key[:16], 16)).random(2)
    cameras = hammersley_views(preparation.pictures, offset.tolist())
    size = preparation.picture_size
    views = render_views(loaded, cameras, RenderSettings(height=size, width=size))
    prepared = Prepared(
        patches=patches,
        index=index.astype(np.uint16 if len(patches) <= 2**16 else np.uint32),
        coords=asset.coords.numpy().astype(np.uint8),
        pictures=views.colours,
        cameras=tuple(cameras),
        captions=mesh.captions,
        gathering=preparation.recipe.gathering,
        key=key,
    )
    store_prepared(path, prepared)
    return True


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of [L, 768] bytes, and of each row which it is."""
    # Sorting hashes takes a hundredth of the time of sorting rows.
    factors = np.random.default_rng(0).integers(2**64, size=rows.shape[1] // 8, dtype=np.uint64) | np.uint64(1)
    hashes = (np.ascontiguousarray(rows).view(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    _, first, index = np.unique(hashes, return_index=True, return_inverse=True)
    patches = rows[first]
    if not np.array_equal(patches[index], rows):  # two rows of one hash
        patches, index = np.unique(rows, axis=0, return_inverse=True)
    return patches, index.reshape(-1)
