"""Recipes are read strictly; the schedule depends on the step alone."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from atoken.training.errors import TrainingError
from atoken.training.recipe import Recipe, load_recipe
from atoken.training.schedule import learning_rate

NANO = load_recipe("nano")


def test_a_file_gives_the_recipe_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NANO.to_dict()))
    assert load_recipe(path) == NANO


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning": 1}, "unknown key 'learning'"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"steps": "many"}, "wrong kind"),
        ({"crop": 40}, "crop must be a positive multiple of 16, got 40"),
        ({"crop": 1024}, "crop must be at most one batch's tokens, got 1024"),
        ({"final_lr": 1.0}, "final_lr must be positive and at most lr"),
        ({"cooldown": 0.0}, "cooldown must be in"),
        ({"ema": 1.0}, "ema must be in"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NANO.to_dict() | change))
    with pytest.raises(TrainingError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "keys and values"), ("seed: 1", "missing key 'preset'")]
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        load_recipe(path)


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(TrainingError, match=r"huge: no such recipe; give one of .*nano"):
        load_recipe("huge")


def test_every_field_is_documented() -> None:
    for field in fields(Recipe):
        assert field.name in (Recipe.__doc__ or "")


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = replace(NANO, steps=100, warmup_steps=10, cooldown=0.5, lr=1.0, final_lr=0.1)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == [1.0] * 41
    assert all(a > b for a, b in pairwise(rates[50:]))
    assert rates[74] == pytest.approx(0.55)  # half way down
    assert rates[-1] == pytest.approx(0.1)


def test_more_steps_change_nothing_before_the_cooldown() -> None:
    short, long = (replace(NANO, steps=n, cooldown=0.5) for n in (100, 200))
    assert [learning_rate(short, s) for s in range(50)] == [learning_rate(long, s) for s in range(50)]
