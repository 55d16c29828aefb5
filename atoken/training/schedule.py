"""The learning rate as a function of the step alone."""

import math

from atoken.training.recipe import Optimizer

__all__ = ["learning_rate"]

MOST_WARMUP = 10
"""Of a stage's steps, at most one in so many is warm-up: short runs of a recipe keep a plateau."""


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Linear warm-up, plateau, half cosine; with `cooldown` 1 the usual cosine, right after the warm-up (paper 3.5).

    A plateau, because the steps before the cool-down do not depend on how many are to come: a run
    that turned out slow or fast can be resumed with another number of steps and is still the run
    that the new number gives from the start.

    Args:
        step: 0 for the stage's first.
        steps: of the stage.

    Returns:
        The highest rate at the warm-up's last step, the final one at the stage's last step.
    """
    warmup = _warmup(optimizer, steps)
    if step < warmup:
        return optimizer.lr * (step + 1) / warmup
    start = _cooldown_start(optimizer, steps)
    fall = max(0, step + 1 - start) / max(1, steps - start)
    shape = 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0)))
    return optimizer.final_lr + (optimizer.lr - optimizer.final_lr) * shape


def _cooldown_start(optimizer: Optimizer, steps: int) -> int:
    """First step of the cool-down of a stage of that many steps."""
    return max(_warmup(optimizer, steps), steps - round(steps * optimizer.cooldown))


def _warmup(optimizer: Optimizer, steps: int) -> int:
    return min(optimizer.warmup_steps, steps // MOST_WARMUP)
