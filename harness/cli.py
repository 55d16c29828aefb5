"""The command `atoken-bench`. Heavy imports come inside the commands: `--help` and `list` answer at once."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from atoken.errors import ATokenError
from harness.errors import BenchError, NotBuiltYet

app = typer.Typer(
    name="atoken-bench",
    help="Run the AToken paper's experiments on any visual tokenizer, keep the evidence, print the paper's tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
audit = typer.Typer(
    help="Check this installation's numerics, the paper's tables, a run's record.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
data = typer.Typer(help="Check a dataset before a run.", no_args_is_help=True, rich_markup_mode=None)
weights = typer.Typer(help="The trunk weights of metrics.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(audit, name="audit")
app.add_typer(data, name="data")
app.add_typer(weights, name="weights")

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


def main() -> None:
    """Entry point of the console script."""
    app()


def _reported(command: Callable[..., None]) -> Callable[..., None]:
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


@app.command("list")
@_reported
def list_(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[experiments|tokenizers|embedders|datasets|metrics|protocols]", show_default=False),
    ] = None,
) -> None:
    """Show what there is to run, and which of the paper's experiments are planned."""
    from harness import listing

    if what is not None and what not in listing.KINDS:
        raise BenchError(f"list {what}: not one of {', '.join(listing.KINDS)}")
    listing.show(listing.tables(what))


@app.command()
@_reported
def run(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="See `list experiments`.")],
    *,
    ckpt: Annotated[str | None, typer.Option(metavar="PATH|NAME", help="Checkpoint of the tokenizer.")] = None,
    preset: Annotated[str | None, typer.Option(help="Architecture of a checkpoint that does not say it.")] = None,
    tokenizer: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="NAME, NAME:ARG, NAME@RATE or pkg.module:factory; repeatable."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="For the tokenizer's factory, or of an ablation, see `list`; repeatable."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="Dataset, see `list datasets`; repeatable. An ablation trains on images=, videos= and assets=.",
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME|all|FILE.yaml", help="How it is measured, see `list protocols`.")
    ] = None,
    only: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Only the samples with the ids in this file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N samples only.")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    token_budget: Annotated[int, typer.Option(min=1, help="Most tokens in one batch.")] = 4096,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of torch; equal figures need equal threads.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="i/n", help="This process's share, 0/n to n-1/n; then `merge`.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Samples in a shard, the unit that a resume keeps: 64 images, 1 clip.")
    ] = None,
    runs: Runs = Path("runs"),
    weights: Weights = None,
    strict: Strict = False,
) -> None:
    """Run an experiment. Started again, it goes on where it stopped.

    Several processes: torchrun --nproc-per-node 2 -m harness run EXPERIMENT ..., or one with --shard 0/2 and
    one with --shard 1/2, then `merge`. The figures are those of one process.
    """
    from harness import registry
    from harness.request import Request, share_of

    found = registry.experiment(experiment)
    if found.status != "built" or found.runner is None:
        cells = "; ".join(f"{fills.table}: {', '.join(fills.columns.values())}" for fills in found.fills)
        raise NotBuiltYet(f"{experiment} is planned and not built yet ({found.title}); it will fill {cells}")
    request = Request(
        tokenizers=tuple(tokenizer or ()),
        ckpt=ckpt,
        preset=preset,
        options=tuple(option or ()),
        data=tuple(data or ()),
        only=only,
        protocol=protocol,
        limit=limit,
        device=device,
        dtype=dtype,
        token_budget=token_budget,
        threads=threads,
        shard_size=shard_size,
        workers=workers,
        share=share_of(shard),
        runs=runs,
        weights=tuple(weights or ()),
        strict=strict,
    )
    # Torch's threads spin while they wait for each other; beside decoding processes that costs more than the
    # work itself. Read when torch is loaded, so it must be said before; it moves no figure.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    module, _, function = found.runner.partition(":")
    getattr(importlib.import_module(module), function)(found, request)


def _stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    # What torchrun sends when another process has died, and a scheduler at the end of its time.
    print("atoken-bench: stopped; finished shards are kept, the same command goes on from there", file=sys.stderr)
    raise SystemExit(128 + number)


@app.command()
@_reported
def merge(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's folder, as `run --shard` printed it.")],
    strict: Strict = False,
) -> None:
    """Write the record of a run that processes with --shard i/n have measured."""
    from harness.runner import merge_folder

    merge_folder(run_dir, strict=strict)


@app.command("check")
@_reported
def check_(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="NAME, NAME:ARG or pkg.module:factory.")],
    *,
    ckpt: Annotated[str | None, typer.Option(metavar="PATH|NAME", help="Checkpoint of the tokenizer.")] = None,
    preset: Annotated[str | None, typer.Option(help="Architecture of a checkpoint that does not say it.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the tokenizer's factory; repeatable.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights: flat colours need not come back.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Difference that another batch may make, of [-1, 1]; bfloat16 needs about 0.05.")
    ] = 1e-4,
    runs: Runs = Path("runs"),
) -> None:
    """Check a tokenizer's adapter: order, batch independence, sizes, seeds, card; exit 1 if it breaks the contract.

    The outcome is written below the folder of runs; the report makes Table 1 of it.
    """
    from harness.check import check

    code = check(
        spec,
        ckpt=ckpt,
        preset=preset,
        options=option or (),
        device=device,
        dtype=dtype,
        trained=not untrained,
        tolerance=tolerance,
        runs=runs,
        echo=typer.echo,
    )
    raise typer.Exit(code)


@app.command()
@_reported
def report(
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"),
    format_: Annotated[
        str, typer.Option("--format", metavar="html,md,latex,csv", help="What to write.")
    ] = "html,md,latex,csv",
) -> None:
    """Set the records' figures beside the paper's printed ones."""
    from reports.command import report as write_report

    write_report(runs, out, format_.split(","), typer.echo)


@app.command()
@_reported
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of a run that has its record.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the run to compare it with.")],
    format_: Annotated[str, typer.Option("--format", metavar="table|json", help="How to print it.")] = "table",
) -> None:
    """Compare two runs sample by sample: mean difference, interval, p-value, effect size, who wins how often.

    Refuses runs whose experiment, protocol or samples differ.
    """
    from reports.compare import show

    show(run_a, run_b, format_)


@app.command()
@_reported
def sensitivity(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="See `list experiments`.")],
    *,
    tokenizer: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="The one tokenizer: NAME, NAME:ARG or pkg.module:factory.")
    ] = None,
    ckpt: Annotated[str | None, typer.Option(metavar="PATH|NAME", help="Checkpoint of the tokenizer.")] = None,
    preset: Annotated[str | None, typer.Option(help="Architecture of a checkpoint that does not say it.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the tokenizer's factory; repeatable.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME[=PATH]", help="One dataset.")] = None,
    only: Only = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N samples only.")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    token_budget: Annotated[int, typer.Option(min=1, help="Most tokens in one batch.")] = 4096,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch, as `run` had them.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    runs: Runs = Path("runs"),
    weights: Weights = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("sensitivity"),
) -> None:
    """Measure one tokenizer under every protocol of an experiment: how far the protocol alone moves each figure.

    Protocols whose runs are finished are not measured again. Writes a page with plots, Markdown, CSV, JSON and SVG.
    """
    from harness import registry
    from harness.request import Request

    found = registry.experiment(experiment)
    request = Request(
        tokenizers=tuple(tokenizer or ()),
        ckpt=ckpt,
        preset=preset,
        options=tuple(option or ()),
        data=tuple(data or ()),
        only=only,
        limit=limit,
        device=device,
        dtype=dtype,
        token_budget=token_budget,
        threads=threads,
        workers=workers,
        runs=runs,
        weights=tuple(weights or ()),
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `run`
    signal.signal(signal.SIGTERM, _stop)
    from harness.console import Console
    from harness.sensitivity import measure, refuse
    from reports.sensitivity import build
    from reports.sensitivity_files import make, show

    refuse(found, request)
    make(out)
    show(build(found, measure(found, request, Console())), out, typer.echo)


@audit.command()
@_reported
def golden(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Golden cases; those that ship where left out.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Run the golden cases through this installation; exit 1 if one fails."""
    from harness.devices import resolve
    from harness.golden import audit_golden

    raise typer.Exit(audit_golden(folder, resolve(device), dtype, typer.echo))


@audit.command("paper")
@_reported
def audit_paper() -> None:
    """Name the contradictions among the paper's tables.

    A line each; exit 0 with or without. Rules: the same system, dataset and metric agree in two tables; bold is best;
    totals are what their parts give; recall rises with k; one system has one name. What only reading can find stands
    behind, marked `read`.
    """
    from reports.paper_audit import audit as audit_tables

    audit_tables(typer.echo)


@audit.command("run")
@_reported
def audit_run_(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run that has its record.")],
    weights: Weights = None,
    rerun: Annotated[int, typer.Option(min=0, metavar="K", help="Measure K random samples again.")] = 0,
) -> None:
    """Name what a record says and its evidence does not.

    Cells are recomputed from the shards; the per-sample table, the gallery and the hashes of protocol, data and weights
    are compared. Exit 1 if anything differs.
    """
    from harness.record_audit import audit_run

    raise typer.Exit(audit_run(run_dir, weights or (), typer.echo, rerun=rerun))


@data.command()
@_reported
def check(name: DataArgument, kind: Kind = None, only: Only = None) -> None:
    """Read every sample, of videos every frame; count them, and list what is missing or broken."""
    from harness.data.check import check as check_data

    raise typer.Exit(check_data(name, kind, only))


@data.command()
@_reported
def fingerprint(name: DataArgument, kind: Kind = None, only: Only = None) -> None:
    """Print the dataset's count and the hashes of its ids and bytes."""
    from harness.data.check import fingerprint as print_fingerprint

    raise typer.Exit(print_fingerprint(name, kind, only))


@weights.command("list")
@_reported
def weights_list() -> None:
    """Show which weights metrics measure with, and where a user gets them."""
    from harness import listing
    from harness.weights import list_rows

    listing.show([listing.table("Weights", list_rows())])


@weights.command("check")
@_reported
def weights_check(folders: Weights = None) -> None:
    """Look for the weights by name and hash; exit 1 if one is absent."""
    from harness import listing
    from harness.weights import WeightStore, check_rows

    rows = check_rows(WeightStore(folders or ()))
    listing.show([listing.table("Weights", rows)])
    raise typer.Exit(int(any(row["status"] == "absent" for row in rows)))
