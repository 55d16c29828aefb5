"""`atoken train`: a recipe and data in, the models of all its stages out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from atoken.training.errors import TrainingError

__all__ = ["train"]

KINDS = ("images", "videos", "assets")


def train(
    *,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a .yaml file.")] = "nano",
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=PATH",
            help="images=, videos= or assets= and where they lie: a folder, .tar shards, a .parquet file; again for "
            "more of them. videos=moving:PATH makes clips of photographs.",
        ),
    ] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=PATH", help="The same, to measure on and never to train on; also labelled=."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Checkpoints, log and models; a run in it goes on.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="N|N-M", help="Only these stages; the one before must be done.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, as in optimizer.lr=1e-4."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this long; the same command goes on.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; CUDA where there is one if not given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read data; by default the CPUs less one.")] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="SigLIP2 weights, for recipes that start from or learn from them; a tokenizer, for those that go on "
            "from one (start: atoken).",
        ),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="PATH", help="SigLIP2's text tower, where the recipe names it.")
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="torchvision's VGG16 weights, for the LPIPS and Gram terms.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="NAME:FILE", help="An open_clip model and its weights, for the CLIP term.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For what is made of the data once; by default OUT/cache.")
    ] = None,
    tracker: Annotated[
        list[str] | None, typer.Option(help="tensorboard or wandb, beside the log that is always written.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print tokens, FLOPs, memory and hours, and train nothing.")
    ] = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="With --plan: number of GPUs; the paper's 256.")] = None,
    mfu: Annotated[float | None, typer.Option(help="With --plan: share of the peak that is reached.")] = None,
) -> None:
    """Train a tokenizer through the stages of a recipe.

    Ctrl-C saves and leaves, and the same command goes on; so it does after a kill. OUT/stage-N/model is the averaged
    model of each stage, OUT/log.jsonl the log, OUT/figures.json what was measured. On several GPUs:
    torchrun --nproc-per-node 8 -m atoken train ...
    """
    from atoken.training.recipe_files import load_recipe

    loaded = load_recipe(recipe, overrides=change or [])
    stages = _stages(stage, len(loaded.stages))
    if plan:
        from atoken.training.plan import show_plan

        show_plan(loaded, stages=stages, gpus=gpus, mfu=mfu)
        return
    given, held_out = _kinds(data or [], KINDS, "--data"), _kinds(val or [], (*KINDS, "labelled"), "--val")
    if out is None or not given:
        raise TrainingError("training needs --data KIND=PATH and --out DIR; --plan needs neither")
    # Torch takes seconds to import: a mistyped recipe is told before.
    from atoken.training.session import Inputs, run_session

    inputs = Inputs(
        data=given,
        val=held_out,
        out=out,
        cache=cache or out / "cache",
        workers=workers,
        pretrained=pretrained,
        text=text,
        vgg=vgg,
        clip=clip,
        trackers=tuple(tracker or ()),
    )
    with _interrupts() as interrupted:
        seconds = float("inf") if minutes is None else 60.0 * minutes
        run_session(
            loaded, stages, inputs, device=device, seconds=seconds, stop=lambda: bool(interrupted), say=typer.echo
        )


def _stages(text: str | None, count: int) -> range:
    if text is None:
        return range(count)
    first, _, last = text.partition("-")
    try:
        start, end = int(first), int(last or first)
    except ValueError:
        start = end = 0
    if not 1 <= start <= end <= count:
        raise TrainingError(f"--stage {text}: give a stage from 1 to {count}, or a range of them such as 1-{count}")
    return range(start - 1, end)


def _kinds(items: list[str], known: tuple[str, ...], option: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        kind, _, path = item.partition("=")
        if kind not in known or not path:
            raise TrainingError(f"{option} {item}: write KIND=PATH, with KIND {', '.join(known[:-1])} or {known[-1]}")
        found.setdefault(kind, []).append(path)
    return found


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects the first Ctrl-C (or a scheduler's SIGTERM) for the end of the step; a second one ends the process."""
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
