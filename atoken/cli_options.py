"""Arguments and options that several commands of `atoken` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from atoken.space import SpaceTiles

__all__ = [
    "Budget",
    "Device",
    "Dtype",
    "DtypeOption",
    "Fit",
    "FitOption",
    "Gathering",
    "GatheringOption",
    "Gaussians",
    "Inputs",
    "Latent",
    "Model",
    "Occupancy",
    "OccupancyOption",
    "Preset",
    "Renderer",
    "TileOverlap",
    "TileSize",
    "ViewCache",
    "Views",
    "space_tiles",
]


class Dtype(StrEnum):
    """Of weights and activations."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Renderer(StrEnum):
    """Of meshes: Embree's rays, unlit, or Blender's Cycles, lit as TRELLIS's data."""

    embree = "embree"
    cycles = "cycles"


class Fit(StrEnum):
    """What becomes of sides that are no multiple of the patch."""

    pad = "pad"
    crop = "crop"


class Latent(StrEnum):
    """What of the posterior is kept."""

    mean = "mean"
    sample = "sample"


class Occupancy(StrEnum):
    """Which voxels an asset has."""

    depth = "depth"
    mesh = "mesh"


class Gathering(StrEnum):
    """Which views colour a voxel."""

    nearest = "nearest"
    average = "average"
    visible = "visible"


Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...", help="Images, videos, 3D assets (.glb .gltf .obj .ply .stl, or in a .zip), folders of them."
    ),
]
Model = Annotated[str, typer.Option(help="A packaged model, a .pt or .safetensors file, or a folder with one.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Model that the file holds, if it does not say: so-c, so-c-s1, so-d, base, nano or pico."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto is CUDA where there is one.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Of weights and activations.")]
FitOption = Annotated[
    Fit, typer.Option(help="pad: reflect up to whole patches and cut again when decoding; crop: centre crop.")
]
Budget = Annotated[
    int,
    typer.Option(
        min=1, help="Tokens of images computed at once (a larger one goes alone); moves the last float bits only."
    ),
]
Gaussians = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="A Gaussian decoder (3d_decode_gs.pt, .safetensors or folder), unless the model's folder has one, as "
        "those of the packaged models do.",
    ),
]
Views = Annotated[int, typer.Option(min=1, help="From how many sides an asset is looked at.")]
OccupancyOption = Annotated[
    Occupancy,
    typer.Option(help="Voxels of an asset. depth: those in which the views show a surface; mesh: all that it passes."),
]
GatheringOption = Annotated[
    Gathering | None,
    typer.Option(
        help="What colours a voxel: its nearest view, the nearest that sees it, or all that do. "
        "If not given, what the model was trained with (the release: nearest).",
    ),
]
ViewCache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A folder to keep rendered views in, and to take them from.")
]
TileSize = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS|HxW",
        help="Cut frames and images into tiles of this size and blend them: less memory, another result.",
    ),
]
TileOverlap = Annotated[
    int | None, typer.Option(min=0, help="By how many pixels such tiles overlap at least; 64 if not given.")
]


def space_tiles(size: str | None, overlap: int | None) -> SpaceTiles | None:
    """Spatial tiles as the options ask for them."""
    from atoken.space import SpaceTiles

    if size is None:
        if overlap is not None:
            raise typer.BadParameter("goes with --tile-size", param_hint="--tile-overlap")
        return None
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise typer.BadParameter(
            f"{size!r} is neither a side nor HxW in pixels, e.g. 512 or 480x640", param_hint="--tile-size"
        )
    return SpaceTiles(int(sides[0]), int(sides[-1]), 64 if overlap is None else overlap)
