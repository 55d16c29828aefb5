"""Whether a checkpoint is of the run that wants to go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoken.training.errors import TrainingError
from atoken.training.recipe import Recipe, Stage
from atoken.training.schedule import learning_rate

__all__ = ["refuse_another_run"]

TELLING = {
    "name", "stages", "log_every", "validate_every", "checkpoint_every", "patience",
    "compile", "recompute", "cuda_graphs",
}  # fmt: skip
"""Keys of a recipe that change no result of a stage; the stage's own part is compared apart."""


def refuse_another_run(notes: dict[str, Any], recipe: Recipe, stage: Stage, data: str, folder: Path) -> None:
    """Make sure that the steps a checkpoint has taken are those that this recipe and data would have given.

    Args:
        notes: of the checkpoint.
        data: fingerprint of the data.
        folder: of the checkpoints, for the message.

    Raises:
        TrainingError: another recipe or other data; names the keys.
    """
    differing = _differences(_deciding(notes["recipe"], stage), _deciding(recipe.to_dict(), stage))
    # Another number of steps is the same run as long as it has not changed the learning rate of a step.
    if differing == ["stage.steps"] and _same_rates(notes, recipe, stage):
        differing = []
    if differing:
        raise TrainingError(
            f"{folder}: holds a run at step {notes['step']} with another {', '.join(differing)}; "
            "give the recipe that it began with, or another folder"
        )
    if notes["data"] != data:
        raise TrainingError(f"{folder}: holds a run on other data; give the same, or another folder")


def _same_rates(notes: dict[str, Any], recipe: Recipe, stage: Stage) -> bool:
    theirs = notes["recipe"]["stages"][stage.name]["steps"]
    return all(
        learning_rate(recipe.optimizer, step, stage.steps) == learning_rate(recipe.optimizer, step, theirs)
        for step in range(notes["step"])
    )


def _deciding(recipe: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """What of a recipe, as the stage has it, decides this stage's results."""
    kept = {key: value for key, value in recipe.items() if key not in TELLING}
    own = {key: value for key, value in recipe["stages"].get(stage.name, {}).items() if key != "changes"}
    return kept | {"stage": own}


def _differences(theirs: dict[str, Any], ours: dict[str, Any], where: str = "") -> list[str]:
    """Dotted keys in which two recipes differ."""
    found = []
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{where}{key}.")
        elif a != b:
            found.append(f"{where}{key}")
    return found
