"""The command `atoken`: images and videos to tokens and back, embeddings, checkpoints.

Only declarations: the work is in `atoken.commands`, imported when a command runs, since torch takes
seconds and ``--help`` must not.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from atoken.errors import ATokenError
from atoken.training.cli import train

if TYPE_CHECKING:
    from atoken.space import SpaceTiles

__all__ = ["app", "main"]

app = typer.Typer(
    help="Turn images and videos into AToken tokens and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Dtype(StrEnum):
    """Of weights and activations."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Fit(StrEnum):
    """What becomes of sides that are no multiple of the patch."""

    pad = "pad"
    crop = "crop"


class Latent(StrEnum):
    """What of the posterior is kept."""

    mean = "mean"
    sample = "sample"


Inputs = Annotated[list[Path], typer.Argument(metavar="IN...", help="Images, videos and folders of them.")]
Model = Annotated[str, typer.Option(help="A packaged model, a .pt or .safetensors file, or a folder with one.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Which model the file is, where it does not say: so-c, so-c-s1, so-d, base or nano."),
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
    tile_size: TileSize = None,
    tile_overlap: TileOverlap = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.float32,
    token_budget: Budget = 8192,
) -> None:
    """Write the tokens of images and videos to one file.

    Videos stream, so their length does not matter. Files that cannot be read are named and left out;
    the command fails if none is left.
    """
    from atoken import commands

    space = _space(tile_size, tile_overlap)
    if codes and latent is Latent.sample:
        raise typer.BadParameter("codes are made of the mean; leave out --latent sample", param_hint="--codes")
    loaded = commands.load_model(model, preset, device, dtype.value)
    kept: Literal["codes", "mean", "sample"] = "codes" if codes else latent.value
    commands.encode(inputs, output, loaded, fit=fit.value, kept=kept, seed=seed, token_budget=token_budget, space=space)


@app.command()
def decode(
    tokens: Annotated[Path, typer.Argument(metavar="TOKENS", help="A file that `atoken encode` wrote.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    model: Annotated[str | None, typer.Option(help="Where the model lies now, if not where it was.")] = None,
    preset: Preset = None,
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
    """Write images (.png) and videos (.mkv, FFV1) from tokens; both formats are lossless.

    Only the model that made the tokens can decode them; any other is refused.
    """
    from atoken import commands
    from atoken.token_stream import open_tokens

    space = _space(tile_size, tile_overlap)
    content = open_tokens(tokens)
    loaded = commands.load_model(*commands.maker(content.header, model, preset), device, dtype.value)
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
    device: Device = "auto",
    dtype: DtypeOption = Dtype.float32,
    token_budget: Budget = 8192,
) -> None:
    """Write one unit vector per image or video."""
    from atoken import commands

    if output.suffix not in (".parquet", ".npz"):
        raise typer.BadParameter("the name must end in .parquet or .npz", param_hint="--output")
    loaded = commands.load_model(model, preset, device, dtype.value)
    commands.embed(inputs, output, loaded, fit=fit.value, token_budget=token_budget)


@app.command()
def info(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A packaged model, a file, or a folder.")],
    preset: Preset = None,
) -> None:
    """Say what a checkpoint holds: variant, parameters, hashes, config."""
    from atoken import inspection

    for line in inspection.describe(checkpoint, preset):
        typer.echo(line)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="OFFICIAL.pt", help="The checkpoint to convert.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file, or a folder.")],
    preset: Preset = None,
    dtype: Annotated[Dtype | None, typer.Option(help="To store the weights in; as they are if not given.")] = None,
) -> None:
    """Write a checkpoint as .safetensors, with its config.json beside it."""
    from atoken import inspection

    typer.echo(f"wrote {inspection.convert(checkpoint, output, preset, dtype.value if dtype else None)}")


app.command()(train)


def _space(size: str | None, overlap: int | None) -> SpaceTiles | None:
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
