"""Options that several commands of `atoken-bench` take, and how all of them end where the user can mend something."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from atoken.errors import ATokenError

Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N, or auto: CUDA where there is one.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16: what the tokenizer computes in.")]
Weights = Annotated[
    list[Path] | None, typer.Option("--weights", help="Folder with metrics' trunk weights; repeatable.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a cell is absent.")]
DataArgument = Annotated[str, typer.Argument(metavar="NAME[=PATH]", help="A dataset; see `list datasets`.")]
Kind = Annotated[
    str | None,
    typer.Option(
        metavar="image|video|asset",
        help="Which dataset of that name; where left out the only one, of `samples` and `folder` that of images.",
        show_default=False,
    ),
]
Only = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="Only the samples with the ids in this file.")
]
Ckpt = Annotated[str | None, typer.Option(metavar="PATH|NAME", help="Checkpoint of the tokenizer.")]
Preset = Annotated[str | None, typer.Option(help="Architecture of a checkpoint that does not say it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first N samples only.")]
TokenBudget = Annotated[int, typer.Option(min=1, help="Most tokens in one batch.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of torch; equal figures need equal threads.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")]
Experiment = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="See `list experiments`.")]


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """End the command with one line on stderr and an exit code where the user can mend what happened."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except ATokenError as error:
            print(f"atoken-bench: {error}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_code", 1)) from None
        except KeyboardInterrupt:
            print(
                "atoken-bench: interrupted; finished shards are kept, the same command goes on from there",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None

    return wrapper
