"""`atoken train`: recipe + photographs -> model folder and figures."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["train"]

MODEL = "model"
FIGURES = "figures.json"


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a .yaml file.")] = "nano",
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Photographs to train on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="State, log and model; a run in it goes on.")],
    val: Annotated[Path | None, typer.Option(metavar="DIR", help="Photographs to measure on, not trained on.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this long; the same command goes on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Another number of steps than the recipe's.")] = None,
) -> None:
    """Train a tokenizer on photographs.

    Ctrl-C saves and leaves. OUT/model is the averaged model in float16, OUT/figures.json its PSNR.
    """
    from dataclasses import replace

    from atoken.training.recipe import load_recipe

    plan = load_recipe(recipe)
    if steps is not None:
        plan = replace(plan, steps=steps)
    # Torch takes seconds to import: a mistyped recipe is told before.
    from atoken.training.data import load_photos
    from atoken.training.evaluate import SIZE
    from atoken.training.trainer import Trainer

    photos = load_photos(data)
    validation = None if val is None else load_photos(val, smallest=SIZE)
    for reason in [*photos.skipped, *(validation.skipped if validation else [])]:
        typer.echo(f"skipped {reason}", err=True)
    trainer = Trainer(plan, photos, out, validation=validation)
    typer.echo(f"{len(photos.ids)} photographs, step {trainer.step} of {plan.steps}, in {out}")
    with _interrupts() as interrupted:
        seconds = float("inf") if minutes is None else 60.0 * minutes
        done = trainer.run(seconds=seconds, stop=lambda: bool(interrupted), report=_show)
    _export(trainer, out)
    if not done:
        typer.echo(f"stopped at step {trainer.step} of {plan.steps}; the same command goes on from there")


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects the first Ctrl-C for the end of the step; a second one ends the process as usual."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _show(line: dict[str, Any]) -> None:
    values = (f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items())
    typer.echo("  ".join(values))


def _export(trainer: Any, out: Path) -> None:
    """The averaged model in its full shape, and its figures as measured from the file."""
    import torch

    from atoken.files import replacing
    from atoken.tokenizer import AToken
    from atoken.training.evaluate import SIZE, mean_psnr, pca_psnr
    from atoken.training.start.pca import fit_basis, with_frames

    with_frames(trainer.ema, trainer.config).save_pretrained(out / MODEL, dtype=torch.float16)
    typer.echo(f"{out / MODEL}: written")
    if trainer.validation is None:
        return
    pixels = trainer.validation.pixels
    model = AToken.from_pretrained(out / MODEL)
    figures = {
        "images": len(pixels),
        "crop": SIZE,
        "step": trainer.step,
        "psnr_mean": mean_psnr(model, pixels),
        "psnr_sample": mean_psnr(model, pixels, sample_seed=0),
        "psnr_pca": pca_psnr(fit_basis(trainer.photos.pixels), pixels, trainer.config.latent_channels),
    }
    with replacing(out / FIGURES) as aside:
        aside.write_text(json.dumps(figures, indent=2) + "\n")
    _show(figures)
