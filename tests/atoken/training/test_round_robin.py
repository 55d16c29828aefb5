"""Turns are a function of the step alone, and near each task's share in every stretch of steps."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoken.training.recipe import Stage
from atoken.training.recipe_files import load_recipe
from atoken.training.round_robin import shares, task_of, tasks_of
from atoken.training.tasks import IMAGE_TEXT, TASKS, AssetTask, ImageTask, VideoTask

OTHERS = [name for name in TASKS if name != IMAGE_TEXT]


def stage_of(weights: dict[str, float], *, text: bool = False) -> Stage:
    """A stage with these shares."""
    tasks = {IMAGE_TEXT: ImageTask(samples=1, resolution=(64, 64))} if text else {}
    for name, share in weights.items():
        kind = TASKS[name]
        if kind is AssetTask:
            renders = {"renders": 1, "render_size": 16} if name == "asset_recon" else {}
            tasks[name] = AssetTask(samples=1, share=share, **renders)
        elif kind is VideoTask:
            tasks[name] = VideoTask(samples=1, share=share, resolution=(64, 64), frames=(4, 4), fps=1)
        else:
            tasks[name] = ImageTask(samples=1, share=share, resolution=(64, 64))
    return Stage(name="stage", steps=10, latents=8, frames=4, tasks=tasks)


stages = st.dictionaries(st.sampled_from(OTHERS), st.floats(0.01, 100).map(lambda x: round(x, 2)), min_size=1).map(
    stage_of
)


@given(stage=stages, start=st.integers(0, 600), length=st.integers(1, 200))
@settings(deadline=None)
def test_counts_are_near_their_shares(stage: Stage, start: int, length: int) -> None:
    expected = shares(stage)
    assert sum(expected.values()) == 1
    until_start = Counter(task_of(stage, step) for step in range(start))
    stretch = Counter(task_of(stage, step) for step in range(start, start + length))
    for name, share in expected.items():
        assert abs(until_start[name] - share * start) < 1
        assert abs(stretch[name] - share * length) < 2


@given(stage=stages, step=st.integers(0, 600))
@settings(deadline=None)
def test_turns_do_not_depend_on_what_was_asked_before(stage: Stage, step: int) -> None:
    first = task_of(stage, step)
    fresh = stage_of({name: 4 * task.share for name, task in reversed(stage.tasks.items())})
    assert task_of(fresh, step) == first  # nor on the order or the scale of shares


@pytest.mark.parametrize("stage", load_recipe("so400m").stages, ids=lambda stage: stage.name)
def test_the_papers_ninths(stage: Stage) -> None:
    turns = [task_of(stage, step) for step in range(90)]
    ninths = {name: share * 9 for name, share in shares(stage).items()}
    assert all(count.denominator == 1 for count in ninths.values())
    # A whole cycle anywhere has exactly the shares.
    for start in range(80):
        assert Counter(turns[start : start + 9]) == ninths


def test_percentages_with_one_digit_are_ninths() -> None:
    exact = stage_of({"image_recon": 2, "video_text": 1, "video_recon": 6})
    printed = stage_of({"image_recon": 22.2, "video_text": 11.1, "video_recon": 66.6})
    assert shares(exact) == shares(printed) == {
        "image_recon": Fraction(2, 9), "video_text": Fraction(1, 9), "video_recon": Fraction(6, 9),
    }  # fmt: skip


def test_every_step_has_image_text_and_one_other() -> None:
    stage = stage_of({"image_recon": 1, "asset_recon": 1}, text=True)
    assert [tasks_of(stage, step) for step in range(3)] == [
        (IMAGE_TEXT, "image_recon"),
        (IMAGE_TEXT, "asset_recon"),
        (IMAGE_TEXT, "image_recon"),
    ]
    assert tasks_of(stage_of({"image_recon": 1}), 7) == ("image_recon",)
