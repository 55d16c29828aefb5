"""`atoken-bench data` and `atoken-bench weights`: what a run needs, looked at before it."""

from __future__ import annotations

import typer

from harness.cli_options import DataArgument, Kind, Only, Weights, reported

data = typer.Typer(help="Check a dataset before a run.", no_args_is_help=True, rich_markup_mode=None)
weights = typer.Typer(help="The trunk weights of metrics.", no_args_is_help=True, rich_markup_mode=None)


@data.command()
@reported
def check(name: DataArgument, kind: Kind = None, only: Only = None) -> None:
    """Read every sample, of videos every frame; count them, and list what is missing or broken."""
    from harness.data.check import check as check_data

    raise typer.Exit(check_data(name, kind, only))


@data.command()
@reported
def fingerprint(name: DataArgument, kind: Kind = None, only: Only = None) -> None:
    """Print the dataset's count and the hashes of its ids and bytes."""
    from harness.data.check import fingerprint as print_fingerprint

    raise typer.Exit(print_fingerprint(name, kind, only))


@weights.command("list")
@reported
def weights_list() -> None:
    """Show which weights metrics measure with, and where a user gets them."""
    from harness import listing
    from harness.weights import list_rows

    listing.show([listing.table("Weights", list_rows())])


@weights.command("check")
@reported
def weights_check(folders: Weights = None) -> None:
    """Look for the weights by name and hash; exit 1 if one is absent."""
    from harness import listing
    from harness.weights import WeightStore, check_rows

    rows = check_rows(WeightStore(folders or ()))
    listing.show([listing.table("Weights", rows)])
    raise typer.Exit(int(any(row["status"] == "absent" for row in rows)))
