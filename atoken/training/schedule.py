"""The learning rate as a function of the step alone."""

import math

from atoken.training.recipe import Recipe

__all__ = ["learning_rate"]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, plateau, half-cosine cool-down.

    A plateau, because the steps before the cool-down do not depend on how many are to come: a run
    that turned out slow or fast can be resumed with another number of steps and is still the run
    that the new number gives from the start. With `cooldown` 1 it is the usual cosine.

    Args:
        step: 0 for the first.
    """
    rise = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    start = recipe.cooldown_start
    fall = max(0.0, (step + 1 - start) / (recipe.steps - start)) if step >= start else 0.0
    shape = 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0)))
    return rise * (recipe.final_lr + (recipe.lr - recipe.final_lr) * shape)
