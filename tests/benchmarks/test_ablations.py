"""The ablations of the paper: registered, whole, and each of one difference."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest

from atoken.config import preset
from atoken.training.recipe import Recipe
from atoken.training.recipe_files import load_recipe
from benchmarks import ablation_gan_vs_gram, ablation_gram, ablation_scaling, ablation_stages
from benchmarks.planned import EXPERIMENTS as PLANNED
from harness import listing, protocol, registry
from harness.ablation import Ablation
from harness.ablation_measure import trained_on

ALL = tuple(module.ABLATION for module in (ablation_gram, ablation_gan_vs_gram, ablation_scaling, ablation_stages))
EACH = pytest.mark.parametrize("ablation", ALL, ids=lambda ablation: ablation.name)


def recipes(ablation: Ablation) -> list[Recipe]:
    return [load_recipe(ablation.recipe, overrides=variant.changes) for variant in ablation.variants]


def test_the_command_finds_them_and_none_is_planned_any_more() -> None:
    found = registry.experiments()
    for ablation in ALL:
        assert found[ablation.name] is ablation
        assert ablation.status == "built"
    assert not {ablation.name for ablation in ALL} & {experiment.name for experiment in PLANNED}


def test_the_list_says_what_each_redoes() -> None:
    rows = {ablation.name: listing.experiment_row(ablation) for ablation in ALL}
    assert rows["ablation-scaling"]["fills"] == "Figure 7; trains 2, options steps, recipe"
    assert rows["ablation-gan-vs-gram"]["fills"] == "Figure 4; trains 4, options steps, recipe, vgg"
    assert rows["ablation-stages"]["fills"].endswith("options steps, recipe, run")


@EACH
def test_an_ablation_is_whole(ablation: Ablation) -> None:
    assert ablation.asks.endswith("?")
    assert ablation.needs
    names = [variant.name for variant in ablation.variants]
    assert len(set(names)) == len(names)
    assert len({variant.title for variant in ablation.variants}) == len(names)
    for measure in ablation.measures:
        experiment = registry.experiment(measure.experiment)
        assert "samples" in experiment.datasets
        assert measure.protocol in protocol.names(experiment.name)
    assert ablation.runner is not None
    module, _, function = ablation.runner.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


@EACH
def test_recipes_load_and_need_no_weights_but_a_trunk(ablation: Ablation) -> None:
    for variant, recipe in zip(ablation.variants, recipes(ablation), strict=True):
        assert recipe.text == "none"
        assert recipe.start == "pca"
        assert recipe.precision == "float32"
        assert not recipe.losses.clip
        assert variant.vgg == bool(recipe.losses.lpips or recipe.losses.gram)
        # Minutes on two cores, not hours.
        assert all(stage.steps <= 200 for stage in recipe.stages)
        # Every measurement has a stage that has learned what it measures.
        learned = trained_on(recipe, len(recipe.stages) - 1)
        assert {registry.experiment(measure.experiment).modality for measure in ablation.measures} == set(learned)


def differences(one: dict[str, Any], other: dict[str, Any], where: str = "") -> set[str]:
    found = set()
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{where}{key}.")
        elif a != b:
            found.add(f"{where}{key}")
    return found


@pytest.mark.parametrize(
    ("ablation", "allowed"),
    [
        (ALL[0], {"losses.lpips", "losses.gram", "losses.gram_form"}),
        (ALL[1], {"losses.lpips", "losses.gram", "losses.adversarial"}),
        (ALL[2], {"model"}),
    ],
    ids=["gram", "gan", "scaling"],
)
def test_variants_differ_in_nothing_else(ablation: Ablation, allowed: set[str]) -> None:
    first, *others = (recipe.to_dict() for recipe in recipes(ablation))
    assert set().union(*(differences(first, other) for other in others)) == allowed


def test_the_variants_are_the_papers_and_the_candidates() -> None:
    gram = {variant.name: recipe.losses for variant, recipe in zip(ALL[0].variants, recipes(ALL[0]), strict=True)}
    assert [gram[f"gram-g{n}"].gram_form for n in (1, 2, 3)] == ["G1", "G2", "G3"]
    assert [gram[f"gram-g{n}"].gram for n in (1, 2, 3)] == [1e3, 1e3, 0.062]
    assert {(losses.l1, losses.lpips) for name, losses in gram.items() if name != "l1"} == {(1.0, 10.0)}
    gan = {variant.name: recipe.losses for variant, recipe in zip(ALL[1].variants, recipes(ALL[1]), strict=True)}
    assert {name: losses.adversarial for name, losses in gan.items() if losses.adversarial} == {
        "l1-gan": 0.5,
        "l1-lpips-gan": 0.5,
    }
    assert [stage.discrete for stage in recipes(ALL[3])[0].stages] == [False, False, False, True]
    assert [len(recipe.stages) for recipe in recipes(ALL[2])] == [3, 3]


def test_the_small_size_is_smaller() -> None:
    small, large = (preset(recipe.model) for recipe in recipes(ALL[2]))
    for one, other in ((small.encoder, large.encoder), (small.decoder, large.decoder)):
        assert one.width * one.blocks < 0.5 * other.width * other.blocks


def test_printed_figures_belong_to_ablations() -> None:
    text = (resources.files("reports") / "training_printed.csv").read_text(encoding="utf-8")
    assert {row["experiment"] for row in csv.DictReader(text.splitlines())} <= {ablation.name for ablation in ALL}


def test_listing_them_imports_nothing_heavy() -> None:
    code = (
        "import sys, benchmarks.ablation_gram, benchmarks.ablation_gan_vs_gram, benchmarks.ablation_scaling,"
        "benchmarks.ablation_stages; print(*{'torch', 'numpy', 'pandas', 'PIL', 'av', 'yaml'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
