"""Which tasks a step trains on: image-text in every step, and one other in turn by the tasks' shares (paper 3.4)."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

from atoken.training.recipe import Stage
from atoken.training.tasks import IMAGE_TEXT, TASKS

__all__ = ["shares", "task_of", "tasks_of"]


def tasks_of(stage: Stage, step: int) -> tuple[str, ...]:
    """The tasks of a step, image-text first where the stage has it; their gradients are added up.

    Args:
        step: 0 for the stage's first.
    """
    other = task_of(stage, step)
    return (IMAGE_TEXT, other) if IMAGE_TEXT in stage.tasks else (other,)


def task_of(stage: Stage, step: int) -> str:
    """The other task of a step: a function of stage and step alone, so that a resumed run goes on in turn.

    Turns are spread evenly: in the first n steps, for every n, each task has had more than n times its share less one,
    and less than that plus one. In any stretch of steps it is off by less than two, and by nothing in a whole cycle.
    """
    names, weights = _weights(stage)
    return names[_turns(weights).at(step)]


def shares(stage: Stage) -> dict[str, Fraction]:
    """Of the steps, for each task but image-text, in the order of `TASKS`; they sum to 1."""
    names, weights = _weights(stage)
    return {name: Fraction(weight, sum(weights)) for name, weight in zip(names, weights, strict=True)}


def _weights(stage: Stage) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = tuple(name for name in TASKS if name in stage.tasks and name != IMAGE_TEXT)
    # By way of their decimals: 22.2, 11.1 and 66.6 are 2, 1 and 6, as they were meant.
    values = [Fraction(str(stage.tasks[name].share)) for name in names]
    whole = [int(value * lcm(*(value.denominator for value in values))) for value in values]
    return names, tuple(weight // gcd(*whole) for weight in whole)


class _Turns:
    """The turns of one cycle, found as far as they are asked for.

    Turn j of a task with share p has a window of steps, floor(j / p) to ceil((j + 1) / p), and goes to the open window
    that closes first. That always succeeds (Baruah and others, "Proportionate progress", 1996, on one processor), and
    keeps every task within one turn of its share.
    """

    def __init__(self, weights: tuple[int, ...]) -> None:
        self._weights = weights
        self._cycle = sum(weights)
        self._had = [0] * len(weights)
        self._order = bytearray()

    def at(self, step: int) -> int:
        """Index of the task whose turn it is."""
        step %= self._cycle
        while len(self._order) <= step:
            self._order.append(self._next(len(self._order)))
        return self._order[step]

    def _next(self, step: int) -> int:
        _, chosen = min(
            (-(-(had + 1) * self._cycle // weight), index)
            for index, (had, weight) in enumerate(zip(self._had, self._weights, strict=True))
            if had * self._cycle // weight <= step
        )
        self._had[chosen] += 1
        return chosen


@lru_cache(maxsize=64)
def _turns(weights: tuple[int, ...]) -> _Turns:
    return _Turns(weights)
