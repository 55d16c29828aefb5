"""`atoken prepare`: meshes -> a folder of assets that `atoken train` reads without rendering anything."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoken.cli_options import Gathering, Occupancy, OccupancyOption, Views

if TYPE_CHECKING:
    from atoken.training.data.mesh_listing import ListedMesh
    from atoken.training.data.prepare import Preparation

__all__ = ["prepare"]

Task = tuple["ListedMesh", Path]

TRAINING, HELD_OUT = "train", "val"


def prepare(
    meshes: Annotated[
        list[Path],
        typer.Argument(metavar="MESHES...", help="Folders and zips of meshes (a furniture library too), or meshes."),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    views: Views = 150,
    size: Annotated[int, typer.Option(min=16, help="Pixels along the sides of these views.")] = 512,
    occupancy: OccupancyOption = Occupancy.depth,
    gathering: Annotated[
        Gathering, typer.Option(help="Which views colour a voxel; as the recipe has it that will train on them.")
    ] = Gathering.nearest,
    pictures: Annotated[int, typer.Option(min=1, help="Views that a reconstruction is compared with.")] = 24,
    picture_size: Annotated[int, typer.Option(min=16, help="Pixels along their sides.")] = 256,
    hold_out: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Write every N-th mesh to OUTPUT/val, the others to OUTPUT/train."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that work at the same time.")] = 1,
) -> None:
    """Make meshes ready for training: voxels with their colours, pictures to compare with, captions.

    A mesh becomes OUTPUT/NAME.npz. What stands already is not made again, so the same command goes on after Ctrl-C.
    Captions come from captions.csv (columns file, caption) beside the meshes, or from a furniture library's catalogue.
    """
    # Late: torch and the renderer take seconds, which --help need not wait for.
    from atoken.assets.mesh_to_asset import Recipe
    from atoken.training.data.prepare import Preparation

    tasks = _tasks(meshes, output, hold_out)
    recipe = Recipe(views=views, size=size, occupancy=occupancy.value, gathering=gathering.value)
    preparation = Preparation(recipe=recipe, pictures=pictures, picture_size=picture_size)
    made, broken = _work(tasks, preparation, jobs)
    stood = len(tasks) - made - len(broken)
    print(f"{made} assets prepared, {stood} stood already, in {output}", file=sys.stderr)
    if broken:
        from atoken.training.errors import TrainingError

        left = f"{len(broken)} of {len(tasks)} meshes left out, see above"
        if len(broken) == len(tasks):
            raise TrainingError(f"none of {len(tasks)} meshes could be used")
        print(left, file=sys.stderr)


def _tasks(meshes: Sequence[Path], output: Path, hold_out: int | None) -> list[Task]:
    """Each mesh with its file, counted from 1 within each argument, as a catalogue does."""
    from atoken.training.data.mesh_listing import list_meshes
    from atoken.training.errors import TrainingError

    tasks: dict[Path, Task] = {}
    for place in meshes:
        for number, mesh in enumerate(list_meshes(place), 1):
            folder = output
            if hold_out is not None:
                folder = output / (TRAINING if number % hold_out else HELD_OUT)
            path = folder / f"{mesh.name}.npz"
            other = tasks.setdefault(path, (mesh, path))[0]
            if other is not mesh:
                raise TrainingError(f"{mesh.path} and {other.path} would both be {path}; prepare them to two folders")
    return list(tasks.values())


def _work(tasks: Sequence[Task], preparation: Preparation, jobs: int) -> tuple[int, list[str]]:
    """How many were made, and the lines about those that are broken."""
    from atoken.work import progress

    made, broken = 0, []
    with progress("prepare", len(tasks)) as bars:
        for outcome in _outcomes(tasks, preparation, jobs):
            if isinstance(outcome, str):
                broken.append(outcome)
                bars.console.print(outcome, soft_wrap=True)
            else:
                made += outcome
            bars.advance()
    return made, broken


def _outcomes(tasks: Sequence[Task], preparation: Preparation, jobs: int) -> Iterator[bool | str]:
    if jobs == 1:
        yield from (_one(task, preparation) for task in tasks)
        return
    with _pool(jobs) as pool:
        futures = [pool.submit(_one, task, preparation) for task in tasks]
        for future in as_completed(futures):
            yield future.result()


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes; on an error or Ctrl-C what was begun is ended, and nothing more begun."""
    # spawn: a fork of a process with torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ctrl-C is the parent's to hear; one core each."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _one(task: Task, preparation: Preparation) -> bool | str:
    """Whether it was made; a line where the mesh is broken."""
    from atoken.errors import InputError
    from atoken.training.data.prepare import prepare as prepare_mesh

    mesh, path = task
    try:
        return prepare_mesh(mesh, path, preparation)
    except InputError as error:
        return str(error)
