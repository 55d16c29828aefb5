"""From a mesh to what the tokenizer takes: views from all around, the voxels that they show, their colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from atoken.assets.asset import Asset
from atoken.assets.cameras import hammersley_views
from atoken.assets.mesh import Mesh, load_mesh
from atoken.assets.render import RenderSettings, Views, render_views
from atoken.assets.sources import AssetError
from atoken.assets.voxel_features import patches_of_views, voxel_features
from atoken.assets.voxels import occupied_by_mesh, occupied_by_points, unprojected
from atoken.config import Gathering
from atoken.errors import InputError

__all__ = ["Occupancy", "Recipe", "voxelise"]

Occupancy = Literal["depth", "mesh"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a mesh becomes voxels with colours.

    Attributes:
        views: cameras on TRELLIS's sphere (Hammersley, without its random offset, mostly above); its data have
            150. The paper tells no number.
        size: pixels along the side of a view.
        occupancy: "depth" takes the voxels in which the views show a surface, as the release; "mesh" all that
            the surface passes through, as TRELLIS.
        gathering: which views colour a voxel, see `atoken.assets.voxel_features`; "nearest" is the release's.
    """

    views: int = 150
    size: int = 512
    occupancy: Occupancy = "depth"
    gathering: Gathering = "nearest"

    def __post_init__(self) -> None:
        if self.views < 1:
            raise InputError(f"an asset is looked at from at least one view, not {self.views}")
        for name, known in (("occupancy", Occupancy), ("gathering", Gathering)):
            if getattr(self, name) not in get_args(known):
                raise InputError(f"{name} is {' or '.join(get_args(known))}, not {getattr(self, name)!r}")


def voxelise(
    mesh: Mesh | Path | str,
    recipe: Recipe | None = None,
    *,
    views: Views | None = None,
    cache: Path | None = None,
    passed: Callable[[int], None] | None = None,
) -> Asset:
    """Voxels and colours of a mesh, by views on black as the release has them.

    Args:
        mesh: as `load_mesh` gave it, or a file that it reads.
        recipe: the release's way with 150 views unless given.
        views: pictures of the mesh that are there already, by another renderer for example; they take the place of
            the recipe's.
        cache: a folder in which rendered views are kept, see `render_views`.
        passed: hears how many more views are drawn, as they are.

    Raises:
        AssetError: no mesh that can be rendered, or one of which no view shows anything.
        WriteError: the cache cannot be written.
    """
    recipe = recipe or Recipe()
    if not isinstance(mesh, Mesh):
        mesh = load_mesh(mesh)
    if views is None:
        settings = RenderSettings(height=recipe.size, width=recipe.size)
        sphere = hammersley_views(recipe.views, mostly_above=True)
        views = render_views(mesh, sphere, settings, cache=cache, passed=passed)
    cameras = views.cameras
    if recipe.occupancy == "mesh":
        coords = occupied_by_mesh(mesh)
    else:
        coords = occupied_by_points(unprojected(views.depth, cameras))
    if not len(coords):
        raise AssetError(f"{mesh.name}: no view shows anything of it; is all of it transparent?")
    features = voxel_features(
        coords, patches_of_views(views.on(0.0)), cameras, depth=views.depth, gathering=recipe.gathering
    )
    return Asset(features, coords, mesh.name)
