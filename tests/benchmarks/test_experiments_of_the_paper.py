"""Every figure of the paper's tables belongs to an experiment, and every experiment to the paper."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import (
    asset_classify,
    asset_recon,
    image_classify,
    image_recon,
    image_retrieval,
    representation,
    video_recon,
    video_retrieval,
)
from benchmarks.planned import EXPERIMENTS
from harness import protocol, registry
from harness.data import catalog
from harness.experiment import Experiment
from reports import paper

MEASURED = (image_recon, video_recon, asset_recon, image_classify, image_retrieval, video_retrieval, asset_classify)
BUILT = (*(module.EXPERIMENT for module in MEASURED), representation.EXPERIMENT)
ALL = (*BUILT, *EXPERIMENTS)
FIGURES = [f"table{number:02d}" for number in range(3, 14)]  # 1 and 2 describe, they measure nothing


def covered(experiments: tuple[Experiment, ...]) -> dict[str, dict[int, set[str]]]:
    """Table -> column -> names of the experiments that fill it. Raises for a column that does not exist."""
    columns: dict[str, dict[int, set[str]]] = {}
    for experiment in experiments:
        for fills in experiment.fills:
            table = paper.load(fills.table)
            for group in fills.group.values():
                for last in fills.columns.values():
                    place = table.column(group, last)
                    columns.setdefault(fills.table, {}).setdefault(place, set()).add(experiment.name)
    return columns


@pytest.mark.parametrize("name", FIGURES)
def test_every_column_with_figures_is_filled_by_one_experiment(name: str) -> None:
    table = paper.load(name)
    places = {place for place, column in enumerate(table.columns) if column.metric}
    found = covered(ALL)[name]
    assert set(found) == places
    assert all(len(names) == 1 for names in found.values())


def test_every_table_is_named_once() -> None:
    assert sorted(covered(ALL)) == FIGURES


@pytest.mark.parametrize("experiment", ALL, ids=lambda experiment: experiment.name)
def test_an_experiment_says_what_it_is(experiment: Experiment) -> None:
    assert experiment.title
    assert experiment.needs
    assert experiment.datasets
    assert {dataset for fills in experiment.fills for dataset in fills.group} <= set(experiment.datasets)
    if experiment.status == "planned":
        assert experiment.runner is None
        assert not experiment.protocols
        assert experiment.fills or "Figure" in experiment.title


def test_the_command_finds_them_all() -> None:
    assert {experiment.name for experiment in ALL} <= set(registry.experiments())
    assert len({experiment.name for experiment in ALL}) == len(ALL)


@pytest.mark.parametrize("experiment", BUILT, ids=lambda experiment: experiment.name)
def test_what_is_built_is_whole(experiment: Experiment) -> None:
    assert set(experiment.protocols) == set(protocol.names(experiment.name))
    assert set(experiment.defaults) <= set(experiment.datasets)
    assert set(experiment.defaults.values()) <= set(experiment.protocols)
    assert set(experiment.datasets) <= set(catalog.names(experiment.modality))
    cells = {cell for fills in experiment.fills for cell in fills.columns}
    for name in experiment.protocols:
        loaded = protocol.load(experiment.name, name)
        assert cells <= {metric.name for metric in loaded.metrics}
        # What reconstructs says which frames are measured, what embeds which are looked at.
        rules = loaded.embed.frames if loaded.embed is not None else loaded.clip
        assert (rules is not None) == (experiment.modality == "video")
        assert (loaded.asset is not None) == (experiment.modality == "asset")
    for spec in experiment.tokenizers:
        assert registry.TokenizerSpec.parse(spec).name in registry.tokenizers()
    assert experiment.runner is not None
    module, _, function = experiment.runner.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys, benchmarks.asset_recon, benchmarks.image_recon, benchmarks.video_recon, benchmarks.planned;"
        "print(*{'torch', 'numpy', 'pandas', 'PIL', 'av'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
