"""The command `atoken`: images, videos and 3D assets to tokens and back, embeddings, pictures of assets, checkpoints.

Only declarations: the work is in `atoken.commands`, imported when a command runs, since torch takes
seconds and ``--help`` must not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from atoken.cli_options import (
    Budget,
    Device,
    Dtype,
    DtypeOption,
    Fit,
    FitOption,
    GatheringOption,
    Gaussians,
    Inputs,
    Latent,
    Model,
    Occupancy,
    OccupancyOption,
    Preset,
    Renderer,
    TileOverlap,
    TileSize,
    ViewCache,
    Views,
    space_tiles,
)
from atoken.errors import ATokenError
from atoken.prepare_command import prepare
from atoken.training.cli import train

__all__ = ["app", "main"]

app = typer.Typer(
    help="Turn images, videos and 3D assets into AToken tokens and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def encode(
    inputs: Inputs,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    model: Model = "atoken-nano",
    preset: Preset = None,
    fit: FitOption = Fit.pad,
    latent: Annotated[
        Latent, typer.Option(help="mean: keep mean and log variance; sample: keep a sample instead.")
    ] = Latent.mean,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample; the n-th file draws with seed + n.")] = 0,
    codes: Annotated[bool, typer.Option("--codes", help="Keep integer codes (quantized models).")] = False,
    search: Annotated[
        int, typer.Option(min=0, help="With --codes: steps that look for closer codes; 10 cost about 30 decodings.")
    ] = 0,
    tile_size: TileSize = None,
    tile_overlap: TileOverlap = None,
    views: Views = 150,
    occupancy: OccupancyOption = Occupancy.depth,
    gathering: GatheringOption = None,
    view_cache: ViewCache = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.float32,
    token_budget: Budget = 8192,
) -> None:
    """Write the tokens of images, videos and 3D assets to one file.

    Videos stream, so their length does not matter. Assets are rendered from all around first. Files
    that cannot be read are named and left out; the command fails if none is left.
    """
    from atoken import commands
    from atoken.assets.mesh_to_asset import Recipe

    space = space_tiles(tile_size, tile_overlap)
    if codes and latent is Latent.sample:
        raise typer.BadParameter("codes are made of the mean; leave out --latent sample", param_hint="--codes")
    if search and not codes:
        raise typer.BadParameter("looks for codes; add --codes", param_hint="--search")
    loaded = commands.load_model(model, preset, device, dtype.value)
    kept: Literal["codes", "mean", "sample"] = "codes" if codes else latent.value
    commands.encode(
        inputs,
        output,
        loaded,
        fit=fit.value,
        kept=kept,
        seed=seed,
        search=search,
        token_budget=token_budget,
        space=space,
        recipe=Recipe(
            views=views,
            occupancy=occupancy.value,
            gathering=loaded.network.config.gathering if gathering is None else gathering.value,
        ),
        view_cache=view_cache,
    )


@app.command()
def decode(
    tokens: Annotated[Path, typer.Argument(metavar="TOKENS", help="A file that `atoken encode` wrote.")],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The folder to write to; of one asset, a .ply file."),
    ],
    model: Annotated[str | None, typer.Option(help="Where the model lies now, if not where it was.")] = None,
    preset: Preset = None,
    gaussians: Gaussians = None,
    stride_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a video decoded at once; 16 if not given.")
    ] = None,
    cache_frames: Annotated[
        int, typer.Option(min=0, help="Frames before them that they see (their keys and values are kept).")
    ] = 0,
    tile_size: TileSize = None,
    tile_overlap: TileOverlap = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.float32,
    token_budget: Budget = 8192,
) -> None:
    """Write images (.png), videos (.mkv, FFV1) and assets (.ply of Gaussians) from tokens, all lossless.

    Only the model that made the tokens can decode them; any other is refused. Assets also need a
    Gaussian decoder; without one all else is written and the command fails.
    """
    from atoken import commands
    from atoken.token_stream import open_tokens

    space = space_tiles(tile_size, tile_overlap)
    content = open_tokens(tokens)
    loaded = commands.load_model(*commands.maker(content.header, model, preset), device, dtype.value, gaussians)
    commands.decode(
        content,
        output,
        loaded,
        token_budget=token_budget,
        stride_frames=stride_frames,
        cache_frames=cache_frames,
        space=space,
    )


@app.command()
def embed(
    inputs: Inputs,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet or .npz file to write.")],
    model: Model = "atoken-nano",
    preset: Preset = None,
    fit: FitOption = Fit.pad,
    views: Views = 150,
    view_cache: ViewCache = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.float32,
    token_budget: Budget = 8192,
) -> None:
    """Write one unit vector per image, video or 3D asset."""
    from atoken import commands
    from atoken.assets.mesh_to_asset import Recipe

    if output.suffix not in (".parquet", ".npz"):
        raise typer.BadParameter("the name must end in .parquet or .npz", param_hint="--output")
    loaded = commands.load_model(model, preset, device, dtype.value)
    recipe = Recipe(views=views, gathering=loaded.network.config.gathering)
    commands.embed(
        inputs, output, loaded, fit=fit.value, token_budget=token_budget, recipe=recipe, view_cache=view_cache
    )


@app.command()
def render(
    asset: Annotated[Path, typer.Argument(metavar="ASSET", help="A mesh, or a .ply file of Gaussians.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write view_000.png, ... to.")],
    views: Annotated[int, typer.Option(min=1, max=1000, help="Pictures, evenly spaced around the asset.")] = 8,
    size: Annotated[int, typer.Option(min=1, max=8192, help="Pixels along their sides.")] = 512,
    background: Annotated[str, typer.Option(help="A colour's name, #rrggbb, or none to keep alpha.")] = "white",
    renderer: Annotated[
        Renderer, typer.Option(help="Of meshes; cycles needs a Python with bpy, named by $ATOKEN_BLENDER_PYTHON.")
    ] = Renderer.embree,
    samples: Annotated[int | None, typer.Option(min=1, max=65536, help="Of Cycles, a pixel; else 128.")] = None,
) -> None:
    """Draw an asset from around, 30 degrees above it: Gaussians as splats, meshes unlit, or lit by Cycles."""
    from atoken import asset_commands

    asset_commands.render(
        asset, output, views=views, size=size, background=background, renderer=renderer.value, samples=samples
    )


@app.command()
def info(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CKPT|ASSET", help="A packaged model, file or folder; a mesh or splat."),
    ],
    preset: Preset = None,
) -> None:
    """Say what a checkpoint holds (variant, parameters, hashes, config), or what a mesh or splat file does."""
    from atoken import asset_commands, inspection
    from atoken.media import is_asset

    lines = asset_commands.describe(Path(checkpoint)) if is_asset(checkpoint) else None
    for line in lines or inspection.describe(checkpoint, preset):
        typer.echo(line)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="OFFICIAL.pt", help="The checkpoint to convert.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file, or a folder.")],
    preset: Preset = None,
    gaussians: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A Gaussian decoder (3d_decode_gs.pt) for the folder too."),
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="To store the weights in; as they are if not given.")] = None,
) -> None:
    """Write a checkpoint as .safetensors, with its config.json beside it."""
    from atoken import inspection

    typer.echo(f"wrote {inspection.convert(checkpoint, output, preset, dtype.value if dtype else None, gaussians)}")


app.command()(prepare)
app.command()(train)


def main() -> None:
    """Entry point: an error that the user can mend is one line on stderr and exit code 1."""
    try:
        app()
    except ATokenError as error:
        _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:  # before or after the command itself, e.g. while torch is imported
        sys.exit(130)


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
