"""A plan as text: what each task of a step is, what each stage needs, and what that rests on."""

from __future__ import annotations

import io
from collections.abc import Callable

from atoken.training.plan import PAPER_GPU_HOURS, Plan, StagePlan

__all__ = ["render"]

WIDTH = 118


def render(planned: Plan) -> str:
    """Two tables and some lines."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, width=WIDTH, highlight=False, soft_wrap=False)
    console.print(_tasks(planned))
    console.print(_stages(planned))
    for line in _notes(planned):
        console.print(line)
    return text.getvalue()


def _tasks(planned: Plan):  # type: ignore[no-untyped-def]
    from rich.table import Table

    table = Table(title=f"{planned.recipe.name}: tasks of a step, over all GPUs", title_justify="left")
    table.add_column("stage")
    table.add_column("task")
    for head in ("of steps", "samples", "tokens\neach", "largest", "tokens\na step", "FLOPs\na step"):
        table.add_column(head, justify="right")
    for head in ("packs\na GPU", "activations\na pack"):
        table.add_column(head, justify="right")
    for stage in planned.stages:
        for task in stage.tasks:
            table.add_row(
                f"{stage.number} {stage.stage.name}" if task is stage.tasks[0] else "",
                task.name,
                f"{100 * task.share:.1f} %",
                f"{task.samples:,}",
                f"{task.drawn.mean.tokens:,.0f}",
                f"{task.drawn.largest.tokens:,.0f}",
                _prefixed(task.tokens),
                _prefixed(task.flops.total + task.frozen),
                f"{task.packs:,}",
                _gib(task.activations),
            )
        table.add_section()
    return table


def _stages(planned: Plan):  # type: ignore[no-untyped-def]
    from rich.table import Table

    table = Table(title=f"stages, on {planned.gpus:,} {'GPU' if planned.gpus == 1 else 'GPUs'}", title_justify="left")
    table.add_column("")
    for stage in planned.stages:
        table.add_column(f"{stage.number} {stage.stage.name}", justify="right")
    rows: list[tuple[str, Callable[[StagePlan], str]]] = [
        ("parameters", lambda stage: f"{stage.parameters:,}"),
        ("memory of a GPU", lambda stage: _gib(stage.memory.total)),
        ("  weights", lambda stage: _gib(stage.memory.weights)),
        ("  gradients", lambda stage: _gib(stage.memory.gradients)),
        ("  moments of Adam", lambda stage: _gib(stage.memory.moments)),
        ("  moving average", lambda stage: _gib(stage.memory.average)),
        ("  weights at work", lambda stage: _gib(stage.memory.working)),
        ("  activations, worst pack", lambda stage: _gib(stage.memory.activations)),
        ("tokens a step", lambda stage: _prefixed(stage.tokens)),
        ("FLOPs a step", lambda stage: _prefixed(stage.flops)),
        ("steps", lambda stage: f"{stage.stage.steps:,}"),
        ("FLOPs", lambda stage: _prefixed(stage.flops * stage.stage.steps)),
        ("time", lambda stage: _time(stage.hours)),
        ("GPU-hours", lambda stage: _count(stage.hours * planned.gpus)),
    ]
    for name, cell in rows:
        table.add_row(name, *map(cell, planned.stages))
    return table


def _notes(planned: Plan) -> list[str]:
    recipe, assumed = planned.recipe, planned.assumed
    hours = planned.gpu_hours
    lines = [
        f"In all {_count(hours)} GPU-hours, {_time(hours / planned.gpus)}, where a GPU reaches "
        f"{100 * planned.mfu:.3g} % of its {planned.peak:g} TFLOP/s."
    ]
    if recipe.name == "so400m" and len(planned.stages) == len(recipe.stages):
        lines.append(
            f"The paper's four stages took {PAPER_GPU_HOURS:,} GPU-hours: as computed here that is "
            f"{100 * planned.mfu * hours / PAPER_GPU_HOURS:.3g} % of the peak."
        )
    return [
        *lines,
        "Assumed: images and clips as large and as long as the recipe can ask for, of aspect "
        f"{assumed.image_aspect:.3g} and {assumed.video_aspect:.3g}; clips of {assumed.clip_seconds:g} s where frames "
        f"are taken by the second; assets of {assumed.voxels:,} voxels, each of which sees {assumed.mates:g} in its "
        "window.",
        "Counted: matrix products of the model"
        f"{', blocks computed once more on the way back (recompute)' if recipe.recompute else ''}; a teacher as an "
        "encoder like ours over the same tokens, and VGG16 for LPIPS and Gram loss, where the recipe has them.",
        "Not counted: text tower, CLIP loss, rasteriser, norms, losses, communication, waiting for data; in memory "
        "frozen networks and the rasteriser. Activations are of operators run one by one: compiled, less is kept.",
    ]


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _prefixed(count: float) -> str:
    for factor, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:,.3g} {prefix}"
    return f"{count:,.3g}"


def _count(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.3g} days"
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"
