"""The command `atoken-bench`. Heavy imports come inside the commands: `--help` and `list` answer at once."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from harness.cli_data import data, weights
from harness.cli_options import (
    Ckpt,
    Device,
    Dtype,
    Experiment,
    Limit,
    Only,
    Preset,
    Runs,
    Strict,
    Threads,
    TokenBudget,
    Weights,
    Workers,
    reported,
)
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
app.add_typer(audit, name="audit")
app.add_typer(data, name="data")
app.add_typer(weights, name="weights")


def main() -> None:
    """Entry point of the console script."""
    app()


@app.command("list")
@reported
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
@reported
def run(
    experiment: Experiment,
    *,
    ckpt: Ckpt = None,
    preset: Preset = None,
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
    only: Only = None,
    limit: Limit = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    token_budget: TokenBudget = 4096,
    threads: Threads = None,
    workers: Workers = None,
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
@reported
def merge(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's folder, as `run --shard` printed it.")],
    strict: Strict = False,
) -> None:
    """Write the record of a run that processes with --shard i/n have measured."""
    from harness.runner import merge_folder

    merge_folder(run_dir, strict=strict)


@app.command("check")
@reported
def check_(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="NAME, NAME:ARG or pkg.module:factory.")],
    *,
    ckpt: Ckpt = None,
    preset: Preset = None,
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
@reported
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
@reported
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
@reported
def sensitivity(
    experiment: Experiment,
    *,
    tokenizer: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="The one tokenizer: NAME, NAME:ARG or pkg.module:factory.")
    ] = None,
    ckpt: Ckpt = None,
    preset: Preset = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the tokenizer's factory; repeatable.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME[=PATH]", help="One dataset.")] = None,
    only: Only = None,
    limit: Limit = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    token_budget: TokenBudget = 4096,
    threads: Threads = None,
    workers: Workers = None,
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
@reported
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
@reported
def audit_paper() -> None:
    """Name the contradictions among the paper's tables.

    A line each; exit 0 with or without. Rules: the same system, dataset and metric agree in two tables; bold is best;
    totals are what their parts give; recall rises with k; one system has one name. What only reading can find stands
    behind, marked `read`.
    """
    from reports.paper_audit import audit as audit_tables

    audit_tables(typer.echo)


@audit.command("run")
@reported
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
