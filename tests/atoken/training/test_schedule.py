"""The learning rate is a function of the step alone."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoken.training.recipe import Optimizer
from atoken.training.schedule import learning_rate

SETTINGS = Optimizer(lr=1.0, final_lr=0.1, warmup_steps=10, cooldown=0.5)


def rates(settings: Optimizer, steps: int) -> list[float]:
    return [learning_rate(settings, step, steps) for step in range(steps)]


def test_it_rises_stays_and_falls() -> None:
    found = rates(SETTINGS, 100)
    assert found[0] == pytest.approx(0.1)
    assert found[9:50] == [1.0] * 41
    assert all(a > b for a, b in pairwise(found[50:]))
    assert found[74] == pytest.approx(0.55)  # half way down
    assert found[-1] == pytest.approx(0.1)


def test_more_steps_change_nothing_before_the_cooldown() -> None:
    assert rates(SETTINGS, 100)[:50] == rates(SETTINGS, 200)[:50]


def test_a_cooldown_of_1_is_torchs_cosine_after_the_warmup() -> None:
    paper = Optimizer()
    found = rates(paper, 20_000)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=paper.lr)
    # torch counts the steps taken, we those begun: its first rate is that of our warm-up's last step.
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=18_000, eta_min=paper.final_lr)
    optimizer.step()
    for step in range(1999, 20_000):
        if step % 1000 == 999:
            assert found[step] == pytest.approx(cosine.get_last_lr()[0], rel=1e-9)
        cosine.step()
    assert found[:2000] == [pytest.approx(3e-4 * (step + 1) / 2000) for step in range(2000)]
    assert found[-1] == pytest.approx(3e-5)


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 100),
    cooldown=st.floats(0.01, 1.0),
    final=st.floats(0.01, 1.0),
)
def test_it_is_positive_ends_low_and_turns_once(steps: int, warmup: int, cooldown: float, final: float) -> None:
    settings = replace(SETTINGS, warmup_steps=warmup, cooldown=cooldown, final_lr=final)
    found = rates(settings, steps)
    assert all(0 < rate <= 1.0 for rate in found)
    top = found.index(max(found))
    assert top + 1 <= max(1, steps // 10)
    assert all(a <= b for a, b in pairwise(found[: top + 1]))
    assert all(a >= b for a, b in pairwise(found[top:]))
    if round(steps * cooldown) >= 1 and steps >= 2:
        assert math.isclose(found[-1], final, rel_tol=1e-9)
